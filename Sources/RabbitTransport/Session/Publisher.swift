import HubEngine
import Logging
import Synchronization

/// The publishing connection: sends within a window of unconfirmed messages, in the order of the calls, and stands
/// still while the broker blocks publishers or takes no data. Standing still suspends the caller, never the thread:
/// a frame is sent only when the socket has room for it, so heartbeats and confirms go on.
actor Publisher: Link {
  struct Outgoing: Sendable {
    var body: [UInt8]
    var exchange: String
    var key: String
    var properties: OutgoingProperties
  }

  private enum Channel {
    static let live: UInt16 = 1
    /// Dead letters: an account that may not write them must not lose its session over it.
    static let dead: UInt16 = 2
  }

  nonisolated let executor: ConnectionExecutor
  nonisolated let fate: SessionFate
  nonisolated let blocked = Atomic<Bool>(false)
  var connection: AMQPConnection?

  private nonisolated let changed = Signal()
  private let user: String
  private let logger: Logger
  private var window: ConfirmWindow
  private var deadWindow = ConfirmWindow(messagesMax: 16, bytesMax: 16 << 20)
  /// Why dead letters cannot be written in this session: the broker closed their channel.
  private var deadRefusal: String?
  /// Why the latest one reached no queue.
  private var deadReturn: String?
  /// Calls in their order; the first may send.
  private var turns: [UInt64] = []
  private var lastTurn: UInt64 = 0

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
  var isDeaf: Bool { blocked.load(ordering: .relaxed) }

  init(user: String, window: ConfirmWindow, fate: SessionFate, logger: Logger) {
    executor = ConnectionExecutor(name: "hub-publish")
    self.user = user
    self.window = window
    self.fate = fate
    self.logger = logger
    fate.tell(changed)
  }

  func open(_ address: BrokerAddress, name: String, heartbeat: Duration) throws(TransportError) {
    if let error = fate.error { throw error }
    do {
      let opened = try AMQPConnection(address, name: name, heartbeat: heartbeat) { fate.add($0) }
      for channel in [Channel.live, Channel.dead] {
        try opened.openChannel(channel)
        try opened.selectConfirms(channel)
      }
      connection = opened
    } catch {
      throw fate.end(error.transportError)
    }
  }

  // MARK: Sending

  func publish(_ body: [UInt8], to destination: Destination, messageID: String) async throws(TransportError) {
    let route = Topology.route(to: destination)
    let message = Outgoing(
      body: body, exchange: route.exchange, key: route.key,
      properties: OutgoingProperties(messageID: messageID, userID: user))
    let turn = takeTurn()
    defer { leave(turn) }
    try await wait { !$0.isDeaf && $0.turns.first == turn && $0.window.hasRoom(for: body.count) }
    try await socketRoom(halfway: false)
    window.published(size: body.count)
    try await send(message, on: Channel.live)
    try drainMemory()
  }

  var unconfirmedBytes: Int { window.bytes }

  func confirmed() async throws(TransportError) {
    let last = window.lastPublished
    try await wait { $0.window.isSettled(through: last) }
  }

  /// Copies a rejected delivery to `hub.dead`, with the reason in its headers, and waits for the confirm. Returns
  /// also when that queue is missing or closed to this account: then the log alone keeps the message's id, since a
  /// message that nobody can read must not come back for ever.
  func bury(_ delivery: Delivery, from queue: String) async throws(TransportError) {
    let message = Outgoing(
      body: delivery.body, exchange: "", key: Topology.deadQueue,
      properties: deadProperties(delivery, from: queue))
    let turn = takeTurn()
    var number: UInt64 = 0
    do {
      defer { leave(turn) }
      try await wait { !$0.isDeaf && $0.turns.first == turn }
      try await socketRoom(halfway: false)
      if deadRefusal == nil {
        number = deadWindow.published(size: delivery.body.count)
        try await send(message, on: Channel.dead)
        try drainMemory()
      }
    }
    try await wait { $0.deadRefusal != nil || $0.deadWindow.isSettled(through: number) }
    if let reason = deadRefusal ?? deadReturn {
      deadReturn = nil
      logger.error(
        "a rejected message could not be kept as dead letter and is dropped",
        metadata: [
          "hub.queue": "\(queue)", "hub.message": "\(delivery.messageID ?? "?")",
          "hub.reason": "\(reason)",
        ])
    }
  }

  /// The socket has room for a frame.
  private func send(_ message: Outgoing, on channel: UInt16) async throws(TransportError) {
    let route = (exchange: message.exchange, key: message.key)
    let mandatory = channel == Channel.dead
    let part = try attempt { $0.frameBodyMax }
    if message.body.count <= part {
      return try attempt { (c) throws(AMQPFault) in
        try c.publish(message.body, to: route, mandatory: mandatory, message.properties, channel: channel)
      }
    }
    try attempt { (c) throws(AMQPFault) in
      try c.beginPublish(
        size: message.body.count, to: route, mandatory: mandatory, message.properties, channel: channel)
    }
    var rest = message.body[...]
    while !rest.isEmpty {
      try await socketRoom(halfway: true)
      // A body on a channel that is closed by now would end the whole connection.
      if mandatory, deadRefusal != nil { return }
      try attempt { (c) throws(AMQPFault) in try c.sendBody(rest.prefix(part), channel: channel) }
      rest = rest.dropFirst(part)
    }
  }

  /// Suspends until the socket has room for a frame. Half a message cannot be taken back: cancelled there, the
  /// session ends.
  private func socketRoom(halfway: Bool) async throws(TransportError) {
    while let socket = connection?.socket {
      try drain()
      if socket.takesOutput { return }
      if Task.isCancelled {
        let cancelled = TransportError(.closed, "publishing was cancelled")
        throw halfway ? fate.end(cancelled) : cancelled
      }
      _ = await executor.writable(socket.descriptor, within: .seconds(1))
    }
    throw fate.error ?? TransportError(.closed, "not connected")
  }

  /// Suspends until the condition holds, having read what the broker sent.
  private func wait(until condition: (isolated Publisher) -> Bool) async throws(TransportError) {
    while true {
      let seen = changed.generation
      try drain()
      if condition(self) { return }
      if Task.isCancelled { throw TransportError(.closed, "publishing was cancelled") }
      await changed.wait(after: seen)
    }
  }

  private func takeTurn() -> UInt64 {
    lastTurn += 1
    turns.append(lastTurn)
    return lastTurn
  }

  private func leave(_ turn: UInt64) {
    turns.removeAll { $0 == turn }
    if !turns.isEmpty { changed.fire() }
  }

  // MARK: Events

  func handle(_ event: AMQPEvent) {
    switch event {
    case .confirmed(let channel, let number, let multiple):
      let known =
        channel == Channel.dead
        ? deadWindow.confirmed(number, multiple: multiple) : window.confirmed(number, multiple: multiple)
      if !known { fate.end(TransportError(.unreachable, "the broker confirmed a message that was not sent")) }
      CrashPoint.confirmed.passed()
    case .notConfirmed(_, let number):
      fate.end(
        TransportError(.unreachable, "the broker did not take message \(number): it is sent again later"))
    case .returned(_, let code, let text): deadReturn = "\(text) (\(code))"
    case .blocked(let reason):
      blocked.store(true, ordering: .relaxed)
      logger.warning("the broker blocks publishers", metadata: ["rabbit.reason": "\(reason)"])
    case .unblocked:
      blocked.store(false, ordering: .relaxed)
      logger.info("the broker takes messages again")
    case .channelClosed(Channel.dead, let fault): deadRefusal = fault.transportError.message
    case .channelClosed(_, var fault):
      fault.doing = "publish"
      fate.end(fault.transportError)
    case .connectionClosed(let fault): fate.end(fault.transportError)
    case .delivered, .consumerCancelled: break
    }
    changed.fire()
  }

  private func deadProperties(_ delivery: Delivery, from queue: String) -> OutgoingProperties {
    var properties = OutgoingProperties(
      messageID: delivery.messageID, userID: user, contentType: delivery.contentType,
      contentEncoding: delivery.contentEncoding)
    properties.headers = [
      .init(name: "x-hub-reason", value: .text("rejected")), .init(name: "x-hub-queue", value: .text(queue)),
    ]
    // Of the sender only its claim is left: the broker insists on the name of the account that publishes the copy.
    if let user = delivery.userID {
      properties.headers.append(.init(name: "x-hub-user-id", value: .text(user)))
    }
    if let app = delivery.appID { properties.headers.append(.init(name: "x-hub-app-id", value: .text(app))) }
    return properties
  }
}
