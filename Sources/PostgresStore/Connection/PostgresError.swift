package import HubEngine

/// What PostgreSQL, or the way to it, said.
package struct PostgresError: Error, Sendable, CustomStringConvertible {
  /// Five characters; nil when the connection itself failed.
  package var sqlstate: String?
  package var message: String
  package var detail: String?
  package var hint: String?
  package var constraint: String?
  package var isConnectionLost = false

  /// Not one session of the server's but turns in several: what a session sets would leak to others.
  static let pooled = PostgresError(sqlstate: "HB002", message: "a connection pooler stands before the database")

  /// It may be promoted any time, or another take its name.
  static let standby = PostgresError(sqlstate: "HB003", message: "this server is a standby")

  package init(sqlstate: String?, message: String) {
    self.sqlstate = sqlstate
    self.message = message
  }

  package var description: String { detail.map { "\(message) (\($0))" } ?? message }

  /// Errors that pass by themselves: serialization, deadlock, lock not available, shutdown, connection.
  /// Source: PostgreSQL manual, appendix A.
  package var isTransient: Bool {
    guard let sqlstate else { return true }
    return isConnectionLost || sqlstate.hasPrefix("08") || sqlstate.hasPrefix("53")
      || ["40001", "40P01", "55P03", "57P01", "57P02", "57P03", "25P03", Self.standby.sqlstate].contains(sqlstate)
  }

  /// The statement met a row that it cannot take: constraint, type, missing column or table; also any state that a
  /// user's trigger made up. Not what concerns the session or the server.
  package var isAboutRows: Bool {
    guard let sqlstate, !isConnectionLost, !isTransient else { return false }
    let others = [
      "00", "01", "02", "03", "08", "0B", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "40", "53",
      "55", "57", "58", "72", "F0",
    ]
    return !others.contains { sqlstate.hasPrefix($0) }
  }

  package var asHubError: HubError {
    if sqlstate == nil || isConnectionLost {
      return HubError(
        .database, "cannot reach the database: \(message)",
        hint: "check --database (or HUB_DATABASE_URL) and that the server runs", sqlstate: sqlstate,
        isTransient: true)
    }
    if sqlstate == Self.pooled.sqlstate {
      return HubError(
        .refused, message, hint: "give hub the address of the PostgreSQL server itself; applications may use the pooler"
      )
    }
    if sqlstate == Self.standby.sqlstate {
      return HubError(
        .database, message,
        hint: "give the primary's URL, or all servers in one: postgresql://…@one,two/…?target_session_attrs=read-write",
        isTransient: true)
    }
    let mend = hint ?? (sqlstate == "42501" ? "run hub doctor to see which privilege is missing" : nil)
    return HubError(
      .database, "the database refused: \(description)", hint: mend, sqlstate: sqlstate,
      isTransient: isTransient)
  }
}
