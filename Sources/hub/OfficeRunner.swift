import Glibc
import HubEngine
import Logging
import PostgresStore
import RabbitTransport

/// Assembles an office's service from options and what its database says.
struct OfficeRunner {
  let store: PostgresStore
  let service: OfficeService
  let identity: OfficeIdentity

  init(
    database: DatabaseOptions, broker: BrokerOptions, daemon: DaemonOptions,
    service options: ServiceOptions = ServiceOptions(),
    logger: Logger? = nil
  ) async throws {
    let logger = try logger ?? daemon.logger()
    let session = try database.session()
    let identity: OfficeIdentity
    let stored: String?
    let queueType: String
    do {
      identity = try PostgresStore.readOffice(session)
      stored = try HeadSetup.setting(session, "broker")
      queueType = try HeadSetup.setting(session, "queue_type") ?? "classic"
    } catch let error as PostgresError {
      throw error.asHubError
    }
    store = PostgresStore(url: try database.url(), coder: rowCoder)
    let transport = try makeTransport(
      broker, stored: stored, name: "hub \(identity.name)", queueType: queueType, logger: logger)
    var options = options
    options.stateDirectory = daemon.stateDirectory()
    self.identity = identity
    service = OfficeService(
      store: store, transport: transport, options: options, identity: identity, hubVersion: Hub.version,
      logger: logger)
  }

  /// Takes the office's lock; false: another hub holds it.
  func lock() async throws -> Bool { try await store.lockOffice() }
}

func makeTransport(
  _ broker: BrokerOptions, stored: String?, name: String, queueType: String, logger: Logger
) throws -> RabbitTransport {
  do {
    return try RabbitTransport(
      url: try broker.url(stored: stored), connectionName: name,
      queueType: queueType == "quorum" ? .quorum : .classic,
      authorityFile: broker.brokerCA ?? environment("HUB_BROKER_CA"), logger: logger)
  } catch let error as TransportError {
    throw error.asHubError
  }
}

extension TransportError {
  var asHubError: HubError {
    let hint =
      switch kind {
      case .unreachable: "check --broker (or HUB_BROKER_URL) and that RabbitMQ runs"
      case .refused: "check user, password and virtual host in the broker's URL"
      case .queueMissing: "start hub run at head: it declares the queues"
      case .queueInUse: "another hub of this office is connected; stop it first"
      case .notAllowed: "give the user configure, write and read permissions"
      case .badURL: "write it as amqp://user:password@host:5672/vhost"
      case .closed: "try again"
      }
    return HubError(kind == .badURL ? .usage : .broker, message, hint: hint, isTransient: kind == .unreachable)
  }
}
