import HubEngine
import PostgresStore

/// Work for the daemon, left in its database; the command waits for the outcome.
enum Requests {
  static func daemonRuns(_ session: Session) throws -> Bool { try PostgresStore.daemonRuns(session) }

  static func leave(_ session: Session, _ kind: String, _ argument: String) throws -> Int64 {
    try session.query(
      "INSERT INTO hub.request (kind, argument) VALUES (\(kind), \(argument)) RETURNING id"
    ).int64(0, 0)
  }

  /// The outcome's JSON; nil when the time is over. Throws what the daemon found wrong.
  static func wait(_ options: DatabaseOptions, _ id: Int64, seconds: Int) async throws -> String? {
    let session = try options.session()
    let deadline = ContinuousClock.now + .seconds(Int64(seconds))
    do {
      while deadline > .now {
        let rows = try session.query("SELECT state, outcome, outcome ->> 'error' FROM hub.request WHERE id = \(id)")
        if rows.count == 0 { return nil }
        if rows.text(0, 0) != "waiting" {
          if let error = rows.string(0, 2) { throw HubError(.broker, error) }
          return rows.text(0, 1)
        }
        try await Task.sleep(for: .milliseconds(20))
      }
      try session.query("UPDATE hub.request SET state = 'interrupted' WHERE id = \(id) AND state = 'waiting'")
    } catch let error as PostgresError {
      throw error.asHubError
    }
    return nil
  }
}
