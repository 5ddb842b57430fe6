package import HubEngine
package import Logging

/// Opens sessions with one RabbitMQ broker. Holds settings only; every session has its own two connections.
package struct RabbitTransport: MessageTransport {
  struct Settings: Sendable {
    var address: BrokerAddress
    var connectionName: String
    var prefetch: UInt16
    var confirmWindow: Int
    var confirmBytesMax: Int
    var queueType: Topology.QueueType
    var queueBytesMax: Int64
    var heartbeat: Duration
    var backlogMax: Int
  }

  private let settings: Settings
  private let logger: Logger

  /// The broker's address without the password, for status and logs.
  package var description: String { settings.address.description }

  /// - Parameters:
  ///   - url: see `BrokerAddress`.
  ///   - connectionName: what the broker's own pages show.
  ///   - prefetch: deliveries that may be unacknowledged; each is held in memory until it is settled.
  ///   - confirmWindow, confirmBytesMax: how much may be published and not yet confirmed.
  ///   - queueType, queueBytesMax: for queues that head declares.
  ///   - backlogMax: a branch that finds more messages than these in its queue drops them and catches up instead.
  ///   - authorityFile: PEM of the authorities that may sign the broker's certificate; the URL's `cacertfile` and
  ///     then the system's if nil.
  package init(
    url: String, connectionName: String, prefetch: UInt16 = 16, confirmWindow: Int = 64,
    confirmBytesMax: Int = 16 << 20, queueType: Topology.QueueType = .classic, queueBytesMax: Int64 = 1 << 30,
    heartbeat: Duration = .seconds(15), backlogMax: Int = 64, authorityFile: String? = nil, logger: Logger
  ) throws(TransportError) {
    var address = try BrokerAddress(url: url)
    if let authorityFile { address.authorityFile = authorityFile }
    settings = Settings(
      address: address, connectionName: connectionName, prefetch: max(1, prefetch),
      confirmWindow: confirmWindow,
      confirmBytesMax: confirmBytesMax, queueType: queueType, queueBytesMax: queueBytesMax,
      heartbeat: heartbeat, backlogMax: backlogMax)
    var logger = logger
    logger[metadataKey: "rabbit.host"] = "\(address.host)"
    self.logger = logger
  }

  package func open(_ role: TransportRole) async throws(TransportError) -> any TransportSession {
    if case .branch(let office) = role, !Topology.isValid(office: office) {
      throw TransportError(.notAllowed, "an office's name has 1 to 32 characters of a–z, 0–9 and -")
    }
    return try await RabbitSession.open(role, settings, logger)
  }
}
