import HubEngine
import Logging
import Synchronization

/// Two connections and the tasks that serve them. After any error all of it is dead and every call throws that
/// error.
final class RabbitSession: TransportSession {
  let fate: SessionFate
  let publisher: Publisher
  let consumer: Consumer
  private let queue: String
  private let isNewcomer: Bool
  private let settings: RabbitTransport.Settings
  /// Each ends when the session has ended; `close` waits for both.
  private let pumps: [Task<Void, Never>]

  /// Connects, declares (head) and consumes. On failure nothing stays open. Cancellation ends it at once, except
  /// while it looks for the host (at most `AMQPConnection.Limits.connect`, and the resolver's own time).
  static func open(
    _ role: TransportRole, _ settings: RabbitTransport.Settings, _ logger: Logger
  ) async throws(TransportError) -> RabbitSession {
    if case .head(let offices) = role {
      for office in offices { try checkName(office) }
    }
    let fate = SessionFate()
    let opened = await withTaskCancellationHandler {
      await connect(role, settings, fate, logger)
    } onCancel: {
      fate.end(TransportError(.closed, "opening the session was cancelled"))
    }
    return try opened.get()
  }

  private static func connect(
    _ role: TransportRole, _ settings: RabbitTransport.Settings, _ fate: SessionFate, _ logger: Logger
  ) async -> Result<RabbitSession, TransportError> {
    let window = ConfirmWindow(messagesMax: settings.confirmWindow, bytesMax: settings.confirmBytesMax)
    let publisher = Publisher(user: settings.address.user, window: window, fate: fate, logger: logger)
    let consumer = Consumer(fate: fate, logger: logger)
    do throws(TransportError) {
      try await consumer.open(
        settings.address, name: "\(settings.connectionName) consume", heartbeat: settings.heartbeat)
      try await publisher.open(
        settings.address, name: "\(settings.connectionName) publish", heartbeat: settings.heartbeat)
      if case .head(let offices) = role {
        try await consumer.declare(
          exchanges: [Topology.toHead, Topology.toBranches],
          queues: Topology.headQueues(
            offices: offices, type: settings.queueType, bytesMax: settings.queueBytesMax))
      }
      let queue = Topology.queue(of: role)
      var backlogMax: Int?
      if case .branch(_, let empties) = role { backlogMax = empties ? 0 : settings.backlogMax }
      if case .newcomer = role {
        return .success(RabbitSession(fate, publisher, consumer, queue, isNewcomer: true, settings))
      }
      try await consumer.consume(
        queue, exclusively: settings.queueType == .classic, prefetch: settings.prefetch, backlogMax: backlogMax)
      return .success(RabbitSession(fate, publisher, consumer, queue, isNewcomer: false, settings))
    } catch {
      let reason = fate.end(error, politely: true)
      // With the session ended, the pumps only take leave and let the connections go.
      await consumer.pump()
      await publisher.pump()
      return .failure(reason)
    }
  }

  private init(
    _ fate: SessionFate, _ publisher: Publisher, _ consumer: Consumer, _ queue: String, isNewcomer: Bool,
    _ settings: RabbitTransport.Settings
  ) {
    self.fate = fate
    self.publisher = publisher
    self.consumer = consumer
    self.queue = queue
    self.isNewcomer = isNewcomer
    self.settings = settings
    pumps = [Task { await consumer.pump() }, Task { await publisher.pump() }]
  }

  deinit { fate.end(TransportError(.closed, "the session was dropped")) }

  func next() async throws(TransportError) -> Delivery {
    // Head declares a newcomer's queue when it has read the request.
    while isNewcomer, try await !consumer.listen(to: queue, prefetch: settings.prefetch) {
      if Task.isCancelled { throw TransportError(.closed, "waiting for head was cancelled") }
      try? await Task.sleep(for: .milliseconds(100))
    }
    return try await consumer.inbox.next()
  }

  func publish(_ body: [UInt8], to destination: Destination, messageID: String) async throws(TransportError) {
    if case .office(let name) = destination { try Self.checkName(name) }
    try await publisher.publish(body, to: destination, messageID: messageID)
  }

  func confirmed() async throws(TransportError) { try await publisher.confirmed() }

  func acknowledge(_ tag: DeliveryTag) async throws(TransportError) { try await consumer.acknowledge(tag) }

  func reject(_ tag: DeliveryTag) async throws(TransportError) {
    let delivery = try await consumer.outstanding(tag)
    try await publisher.bury(delivery, from: queue)
    try await consumer.acknowledge(tag)
  }

  func declareOffice(_ name: String) async throws(TransportError) {
    try Self.checkName(name)
    let queue = Topology.Queue(
      name: Topology.officeQueue(name), type: settings.queueType, bytesMax: settings.queueBytesMax,
      source: Topology.toBranches)
    try await consumer.declare(exchanges: [], queues: [queue])
  }

  func declareNewcomer(_ nonce: Int64) async throws(TransportError) {
    let queue = Topology.Queue(
      name: Topology.newcomerQueue(nonce), type: .classic, bytesMax: 1 << 20, source: nil,
      expires: Topology.newcomerExpires)
    try await consumer.declare(exchanges: [], queues: [queue])
  }

  func shortenQueue(of office: String) async throws(TransportError) {
    try Self.checkName(office)
    try await consumer.shorten(Topology.officeQueue(office), to: settings.backlogMax)
  }

  func deleteOffice(_ name: String) async throws(TransportError) {
    try Self.checkName(name)
    try await consumer.delete(queue: Topology.officeQueue(name))
  }

  var isBlocked: Bool {
    get async { publisher.blocked.load(ordering: .relaxed) }
  }

  var isReceiving: Bool {
    get async { await consumer.isReceiving }
  }

  var unconfirmedBytes: Int {
    get async { await publisher.unconfirmedBytes }
  }

  func close() async {
    fate.end(TransportError(.closed, "the session was closed"), politely: true)
    for socket in fate.sockets {
      consumer.executor.interrupt(socket.descriptor)
      publisher.executor.interrupt(socket.descriptor)
    }
    // A broker that does not answer the farewell gets no more time than this.
    let limit = Task { [fate] in
      if (try? await Task.sleep(for: .seconds(2))) != nil { fate.shutDownSockets() }
    }
    for pump in pumps { await pump.value }
    limit.cancel()
  }

  private static func checkName(_ office: String) throws(TransportError) {
    guard Topology.isValid(office: office) else {
      throw TransportError(.notAllowed, "an office's name has 1 to 32 characters of a–z, 0–9 and -")
    }
  }
}
