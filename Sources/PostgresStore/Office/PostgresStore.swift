package import HubEngine
import SyncCore
import Synchronization

/// An office's database: four connections, each on its own thread, so that serving a catch-up, reading the feed,
/// applying and the small things do not wait for each other.
package final class PostgresStore: ChangeStore {
  let control: PostgresConnection
  let feed: PostgresConnection
  let window: PostgresConnection
  let writer: PostgresConnection
  /// Connects when tables are compared.
  let verifier: PostgresConnection
  let coder: RowCoder
  let partBytes: Int
  let batchRowsMax: Int

  struct State {
    var office: OfficeIdentity?
    var tables: [TableInfo] = []
    /// What the tracked tables looked like when `tables` was read.
    var signature = ""
    /// The last scan that ended without rows, or the last batch.
    var scanned: FeedPosition?
    /// Of the open scan.
    var openSnapshot: String?
  }

  let state = Mutex(State())

  package init(url: String, coder: RowCoder, partBytes: Int = 1 << 20, batchRowsMax: Int = 100_000) {
    control = PostgresConnection(url: url, name: "hub control")
    feed = PostgresConnection(url: url, name: "hub feed")
    window = PostgresConnection(url: url, name: "hub catch-up")
    writer = PostgresConnection(url: url, name: "hub apply")
    verifier = PostgresConnection(url: url, name: "hub verify")
    self.coder = coder
    self.partBytes = partBytes
    self.batchRowsMax = batchRowsMax
  }

  package func close() async {
    for connection in [control, feed, window, writer, verifier] { await connection.disconnect() }
  }

  /// The tracked tables that this office sends.
  func sentTables() -> [TableInfo] {
    state.withLock { state in
      let role = state.office?.role ?? .head
      return state.tables.filter {
        $0.options.direction == "both" || ($0.options.direction == "down") == (role == .head)
      }
    }
  }

  var tablesByName: [String: TableInfo] {
    state.withLock { state in Dictionary(uniqueKeysWithValues: state.tables.map { ($0.name, $0) }) }
  }

  var isHead: Bool { state.withLock { $0.office?.role == .head } }
}

// MARK: identity

extension PostgresStore {
  package func office() async throws(HubError) -> OfficeIdentity {
    let office = try await control.run { try Self.readOffice($0) }
    state.withLock { $0.office = office }
    return office
  }

  /// The office's row; a clear error when there is none.
  package static func readOffice(_ session: Session) throws -> OfficeIdentity {
    guard let version = try Migrations.version(session) else {
      throw HubError(
        .notReady, "this database is not an office yet", hint: "run hub init at head, or hub join TOKEN at a branch")
    }
    guard version == Migrations.latest else {
      throw HubError(
        .notReady, "the hub schema has version \(version), this hub knows \(Migrations.latest)",
        hint: version < Migrations.latest ? "run hub doctor --upgrade" : "run the newer hub that made it")
    }
    let rows = try session.query(
      "SELECT name, role, head, actor, residue, session, catalogue_version, joined, paused FROM hub.office")
    guard rows.count == 1, let role = OfficeIdentity.Role(rawValue: rows.text(0, 1)) else {
      throw HubError(
        .notReady, "this database is not an office yet", hint: "run hub init at head, or hub join TOKEN at a branch")
    }
    return OfficeIdentity(
      name: rows.text(0, 0), role: role, head: rows.text(0, 2), incarnation: rows.int64(0, 3),
      residue: rows.int(0, 4), session: rows.integer(0, 5).map { SessionID(rawValue: $0) },
      catalogueVersion: rows.int64(0, 6), isJoined: rows.bool(0, 7), isPaused: rows.bool(0, 8))
  }

  /// The key of the advisory lock that makes a hub the only one of its office.
  static let lockKey: Int64 = 0x6875_6200_6c6f_636b

  package func lockOffice() async throws(HubError) -> Bool {
    try await control.run { session in
      try session.query("SELECT pg_try_advisory_lock(\(Self.lockKey))").bool(0, 0)
    }
  }

  package func databaseIdentity() async throws(HubError) -> String {
    try await control.run { session in
      try session.query(
        """
        SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || oid FROM pg_database
        WHERE datname = current_database()
        """
      ).text(0, 0)
    }
  }

  package func renewIncarnation(isProven: Bool) async throws(HubError) -> Int64 {
    let actor = try await control.run { session in
      try session.transaction { session in
        try session.query(
          """
          UPDATE hub.office o SET actor = CASE WHEN \(isProven) THEN o.actor ELSE hub.current_actor() END,
            server_started = pg_postmaster_start_time(), table_identity = o.tableoid
          WHERE o.server_started <> pg_postmaster_start_time() OR o.table_identity <> o.tableoid
          """)
        return try session.query("SELECT actor FROM hub.office").int64(0, 0)
      }
    }
    state.withLock { $0.office?.incarnation = actor }
    return actor
  }

  package func setPaused(_ paused: Bool) async throws(HubError) {
    try await control.perform { try $0.query("UPDATE hub.office SET paused = \(paused)") }
  }

  package func reload() async throws(HubError) {
    let (tables, signature) = try await control.run { session in
      (try TableInfo.loadAll(session), try Self.signature(session))
    }
    state.withLock {
      $0.tables = tables
      $0.signature = signature
    }
    for connection in [feed, window, writer] { try await connection.perform { try $0.forgetPrepared() } }
  }

  /// Changes when a tracked table is altered: an ALTER that adds or rewrites touches its pg_class row, one that lets a
  /// trigger fire on replicas does not.
  static func signature(_ session: Session) throws -> String {
    try session.hot(
      """
      SELECT coalesce(string_agg(c.oid::text || ':' || c.xmin::text || coalesce((
          SELECT string_agg(':' || tgname, '' ORDER BY tgname) FROM pg_trigger
          WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R') AND NOT starts_with(tgname, 'hub_capture_')), ''),
        ',' ORDER BY c.oid), '')
      FROM hub.tracked t JOIN pg_namespace s ON s.nspname = t.schema_name
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.relation_name
      """
    ).text(0, 0)
  }
}
