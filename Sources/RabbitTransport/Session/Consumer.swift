import HubEngine
import Logging

/// The consuming connection: takes deliveries from the office's queue and settles them. Head's declarations run here
/// too, on a channel of their own: unlike the publishing connection this one is never blocked by an alarm.
actor Consumer: Link {
  private enum Channel {
    static let deliveries: UInt16 = 1
    static let topology: UInt16 = 2
  }

  nonisolated let executor: ConnectionExecutor
  nonisolated let fate: SessionFate
  nonisolated let inbox: Inbox
  var connection: AMQPConnection?

  private let logger: Logger
  /// A newcomer's: whether its queue was found.
  private var isListening = false
  /// Delivered and not settled, at most `prefetch`.
  private var unsettled: [DeliveryTag: Delivery] = [:]

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
  var isDeaf: Bool { false }

  init(fate: SessionFate, logger: Logger) {
    executor = ConnectionExecutor(name: "hub-consume")
    self.fate = fate
    self.logger = logger
    inbox = Inbox(fate: fate)
  }

  func open(_ address: BrokerAddress, name: String, heartbeat: Duration) throws(TransportError) {
    if let error = fate.error { throw error }
    do {
      let opened = try AMQPConnection(address, name: name, heartbeat: heartbeat) { fate.add($0) }
      connection = opened
    } catch {
      throw fate.end(error.transportError)
    }
  }

  /// - Parameter backlogMax: a longer queue is emptied first: its reader asks for what it missed, and gets each row
  ///   once, as it is now.
  func consume(
    _ queue: String, exclusively: Bool, prefetch: UInt16, backlogMax: Int?
  ) throws(TransportError) {
    try attempt { (c) throws(AMQPFault) in
      try c.openChannel(Channel.deliveries)
      if let backlogMax { try self.shorten(queue, to: backlogMax, c, Channel.deliveries) }
      try c.consume(queue: queue, exclusively: exclusively, prefetch: prefetch, channel: Channel.deliveries)
    }
  }

  /// Consumes a queue that another office declares; false: it is not there yet.
  func listen(to queue: String, prefetch: UInt16) throws(TransportError) -> Bool {
    if isListening { return true }
    let sought = Topology.Queue(name: queue, type: .classic, bytesMax: 0, source: nil)
    do {
      try onTopologyChannel { (c, channel) throws(AMQPFault) in
        try c.declareQueue(sought, passive: true, channel: channel)
      }
    } catch {
      guard error.kind == .queueMissing else { throw error }
      return false
    }
    try consume(queue, exclusively: false, prefetch: prefetch, backlogMax: nil)
    isListening = true
    return true
  }

  // MARK: Deliveries

  var isReceiving: Bool { connection.map { !$0.incoming.isEmpty } ?? false }

  func acknowledge(_ tag: DeliveryTag) throws(TransportError) {
    if let error = fate.error { throw error }
    // The broker answers an unknown tag by closing the channel.
    guard unsettled.removeValue(forKey: tag) != nil else { throw Self.notOutstanding(tag) }
    try attempt { (c) throws(AMQPFault) in try c.acknowledge(tag.rawValue, channel: Channel.deliveries) }
    try drainMemory()
  }

  func outstanding(_ tag: DeliveryTag) throws(TransportError) -> Delivery {
    if let error = fate.error { throw error }
    guard let delivery = unsettled[tag] else { throw Self.notOutstanding(tag) }
    return delivery
  }

  private static func notOutstanding(_ tag: DeliveryTag) -> TransportError {
    TransportError(.notAllowed, "delivery \(tag.rawValue) was settled before, or belongs to another session")
  }

  func handle(_ event: AMQPEvent) {
    switch event {
    case .delivered(let delivery):
      unsettled[delivery.tag] = delivery
      inbox.put(delivery)
    case .consumerCancelled:
      fate.end(TransportError(.queueMissing, "the office's queue was deleted at the broker"))
    case .channelClosed(_, var fault):
      fault.doing = "consume the office's queue"
      fate.end(fault.transportError)
    case .connectionClosed(let fault): fate.end(fault.transportError)
    case .confirmed, .notConfirmed, .returned, .blocked, .unblocked: break
    }
  }

  // MARK: Topology

  /// Declares and binds; what exists already stays as it is.
  func declare(exchanges: [String], queues: [Topology.Queue]) throws(TransportError) {
    try onTopologyChannel { (c, channel) throws(AMQPFault) in
      for exchange in exchanges { try c.declareExchange(exchange, channel: channel) }
      for queue in queues {
        try self.declare(queue, c, channel)
        if let source = queue.source { try c.bind(queue: queue.name, to: source, channel: channel) }
      }
    }
  }

  func shorten(_ queue: String, to backlogMax: Int) throws(TransportError) {
    try onTopologyChannel { (c, channel) throws(AMQPFault) in try self.shorten(queue, to: backlogMax, c, channel) }
  }

  private func shorten(
    _ queue: String, to backlogMax: Int, _ connection: AMQPConnection, _ channel: UInt16
  ) throws(AMQPFault) {
    let waiting = try connection.look(at: queue, channel: channel).messages
    guard waiting > backlogMax else { return }
    try connection.purge(queue, channel: channel)
    logger.info(
      "a long queue is emptied: a catch-up is shorter",
      metadata: ["rabbit.queue": "\(queue)", "rabbit.messages": "\(waiting)"])
  }

  func delete(queue: String) throws(TransportError) {
    try onTopologyChannel { (c, channel) throws(AMQPFault) in try c.deleteQueue(queue, channel: channel) }
  }

  /// A queue with other settings (an older limit, another type) works, so it is kept and reported: refusing would
  /// keep an office from its work because somebody changed a number.
  private func declare(
    _ queue: Topology.Queue, _ connection: AMQPConnection, _ channel: UInt16
  ) throws(AMQPFault) {
    do {
      try connection.declareQueue(queue, passive: false, channel: channel)
    } catch {
      guard error.scope == .channel, error.code == 406 else { throw error }
      try connection.openChannel(channel)
      try connection.declareQueue(queue, passive: true, channel: channel)
      logger.warning(
        "a queue exists with other settings and is kept: delete it to have it declared anew",
        metadata: ["rabbit.queue": "\(queue.name)", "rabbit.reason": "\(error.text)"])
    }
  }

  /// The broker ends the channel of a refused request; only that request fails then, not the session.
  private func onTopologyChannel(
    _ calls: (AMQPConnection, UInt16) throws(AMQPFault) -> Void
  ) throws(TransportError) {
    var refusal: AMQPFault?
    try attempt { (c) throws(AMQPFault) in
      try c.openChannel(Channel.topology)
      do throws(AMQPFault) {
        try calls(c, Channel.topology)
        try c.closeChannel(Channel.topology)
      } catch {
        guard error.scope == .channel else { throw error }
        refusal = error
      }
    }
    try drainMemory()
    if let refusal { throw refusal.transportError }
  }
}
