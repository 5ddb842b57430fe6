package import HubEngine
package import Logging
import Synchronization

/// Opens sessions with one RabbitMQ broker. Holds settings only; every session has its own two connections.
///
/// A broker of several nodes has several addresses. Each session is of one of them: of the one that worked last, else of
/// the next that does.
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

  /// Which address worked last.
  private final class Choice: Sendable {
    let index = Mutex(0)
  }

  private let settings: Settings
  private let addresses: [BrokerAddress]
  private let choice = Choice()
  private let logger: Logger

  /// The broker's addresses without the password, for status and logs.
  package var description: String { addresses.map(\.description).joined(separator: ", ") }

  /// - Parameters:
  ///   - url: one or more, see `BrokerAddress.list`.
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
    var addresses = try BrokerAddress.list(url)
    if let authorityFile { for index in addresses.indices { addresses[index].authorityFile = authorityFile } }
    self.addresses = addresses
    settings = Settings(
      address: addresses[0], connectionName: connectionName, prefetch: max(1, prefetch),
      confirmWindow: confirmWindow,
      confirmBytesMax: confirmBytesMax, queueType: queueType, queueBytesMax: queueBytesMax,
      heartbeat: heartbeat, backlogMax: backlogMax)
    self.logger = logger
  }

  package func open(_ role: TransportRole) async throws(TransportError) -> any TransportSession {
    if case .branch(let office, _) = role, !Topology.isValid(office: office) {
      throw TransportError(.notAllowed, "an office's name has 1 to 32 characters of a–z, 0–9 and -")
    }
    return try await atOneNode { address throws(TransportError) in try await open(role, at: address) }
  }

  /// For `hub doctor`; nil: only the broker, no queue. Throws what the broker refuses: an unknown queue, one that was declared otherwise.
  package func look(at role: TransportRole?) async throws(TransportError) -> BrokerFacts {
    try await atOneNode { address throws(TransportError) in
      var settings = settings
      settings.address = address
      return try await BrokerCheckup().look(role, settings)
    }
  }

  /// The node that worked last, else the next that does.
  private func atOneNode<Value>(
    _ attempt: (BrokerAddress) async throws(TransportError) -> Value
  ) async throws(TransportError) -> Value {
    let first = choice.index.withLock { $0 }
    var failures: [TransportError] = []
    for step in addresses.indices {
      let index = (first + step) % addresses.count
      do {
        let value = try await attempt(addresses[index])
        choice.index.withLock { $0 = index }
        return value
      } catch {
        // What one node refuses otherwise, the others refuse, too.
        guard error.kind == .unreachable || error.kind == .refused, !Task.isCancelled else { throw error }
        failures.append(error)
      }
    }
    throw TransportError(
      failures.first?.kind ?? .unreachable, failures.map(\.message).joined(separator: "; "))
  }

  private func open(_ role: TransportRole, at address: BrokerAddress) async throws(TransportError) -> RabbitSession {
    var (settings, logger) = (settings, logger)
    settings.address = address
    logger[metadataKey: "rabbit.host"] = "\(address.host)"
    return try await RabbitSession.open(role, settings, logger)
  }
}
