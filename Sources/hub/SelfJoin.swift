import HubEngine
import Logging
import PostgresStore
import SyncCore
import SyncWire

/// A branch that joins by itself when `hub run` starts it, as containers and StatefulSets need it. The environment
/// holds the invitation: `HUB_JOIN_TOKEN`, what `hub invite` printed; or `HUB_JOIN_SECRET`, the secret that head was
/// given by `hub invite PREFIX --reusable --secret-file`, with `HUB_OFFICE_NAME` and `HUB_BROKER_URL`.
enum SelfJoin {
  /// Returns when the database is a member; waits for head, the broker and the database as long as it takes. Whether
  /// there is an invitation.
  static func run(
    _ options: DatabaseOptions, _ broker: BrokerOptions, _ daemon: DaemonOptions, _ logger: Logger
  ) async throws -> Bool {
    guard let (token, name) = try invitation(broker) else { return false }
    let join = BranchJoin(
      token: token, name: name, options: options, broker: broker, daemon: daemon,
      existing: try setting("HUB_JOIN_EXISTING") ?? "refuse", logger: logger)
    var told = ""
    while try await !isMember(options, logger, &told) {
      do {
        try await join.run()
        return true
      } catch let error as HubError {
        guard error.isTransient || error.code == .timedOut || error.code == .conflict else { throw error }
        logger.notice("not a member yet: trying again", metadata: ["hub.error": "\(error)"])
        try await Task.sleep(for: .seconds(1))
      }
    }
    return true
  }

  /// nil: this office was not invited; it is one already, or somebody makes it one by `hub join`.
  private static func invitation(_ broker: BrokerOptions) throws -> (JoinToken, name: String)? {
    let name = try setting("HUB_OFFICE_NAME")
    if let text = try setting("HUB_JOIN_TOKEN") {
      let token = try BranchJoin.read(text)
      return (token, name ?? token.office)
    }
    guard let secret = try setting("HUB_JOIN_SECRET") else { return nil }
    guard let name else {
      throw HubError(.usage, "HUB_JOIN_SECRET is set, but not the branch's name", hint: "set HUB_OFFICE_NAME")
    }
    let token = JoinToken(
      broker: try broker.url(stored: nil), authority: nil, office: name,
      secret: try checkSecret(secret, of: "HUB_JOIN_SECRET"), head: try setting("HUB_HEAD_NAME") ?? "head",
      expiresAt: .max)
    return (token, name)
  }

  /// Another hub that makes it one right now is waited for.
  private static func isMember(_ options: DatabaseOptions, _ logger: Logger, _ told: inout String) async throws -> Bool
  {
    while true {
      do {
        try upgradeSchema(options) { logger.notice("\($0)") }
        let found = try options.transaction { session -> (isMember: Bool, isServed: Bool) in
          guard try Migrations.version(session) != nil else { return (false, false) }
          let office = try PostgresStore.readOffice(session)
          return (office.role == .head || office.isJoined, try Requests.daemonRuns(session))
        }
        if found.isMember || !found.isServed { return found.isMember }
      } catch let error as HubError {
        guard error.isTransient else { throw error }
        if told != error.message { logger.notice("database", metadata: ["hub.error": "\(error)"]) }
        told = error.message
      }
      try await Task.sleep(for: .seconds(1))
    }
  }
}
