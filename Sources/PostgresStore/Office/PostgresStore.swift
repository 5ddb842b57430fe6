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
    /// When a mark was last made.
    var markedAt: ContinuousClock.Instant?
    /// The last scan that ended without rows, or the last batch.
    var scanned: FeedPosition?
    /// Of the open scan: its snapshot, where the batch under way leads, and when its first part was read.
    var openSnapshot: String?
    var openPosition: FeedPosition?
    var openReadAt: String?
    var cutReadAt: String?
  }

  let state = Mutex(State())

  let fence = Fence()

  package init(url: String, coder: RowCoder, partBytes: Int = 1 << 19, batchRowsMax: Int = 100_000) {
    control = PostgresConnection(url: url, name: "hub control", onConnect: fence.enter)
    feed = PostgresConnection(url: url, name: "hub feed", onConnect: fence.enter)
    window = PostgresConnection(url: url, name: "hub catch-up", onConnect: fence.enter)
    writer = PostgresConnection(url: url, name: "hub apply", onConnect: fence.enter)
    verifier = PostgresConnection(url: url, name: "hub verify", onConnect: fence.enter)
    self.coder = coder
    self.partBytes = partBytes
    self.batchRowsMax = batchRowsMax
  }

  package func startOver() async {
    await close()
    fence.forgetServer()
  }

  package func close() async {
    for connection in [control, feed, window, writer, verifier] { await connection.disconnect() }
  }

  /// The tracked tables that this office sends; `againstDirection`: also those that come to it.
  func sentTables(againstDirection: Bool = false) -> [TableInfo] {
    state.withLock { state in
      let role = state.office?.role ?? .head
      return state.tables.filter {
        againstDirection || $0.options.direction == "both" || ($0.options.direction == "down") == (role == .head)
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

  /// A database that was put back without its `hub` schema looks like one that never was an office.
  private static let missingHint =
    "run hub init at head, or hub join TOKEN at a branch; a branch that lost its hub schema: hub remove NAME and "
    + "hub invite NAME at head, then hub join TOKEN --existing merge here"

  /// The office's row; a clear error when there is none.
  package static func readOffice(_ session: Session) throws -> OfficeIdentity {
    guard let version = try Migrations.version(session) else {
      throw HubError(
        .notReady, "this database is not an office yet", hint: missingHint)
    }
    guard version == Migrations.latest else {
      throw HubError(
        .notReady, "the hub schema has version \(version), this hub knows \(Migrations.latest)",
        hint: version < Migrations.latest ? Migrations.upgradeHint : "run the newer hub that made it")
    }
    let rows = try session.query(
      "SELECT name, role, head, actor, residue, session, catalogue_version, joined, paused, recovers, purging, purged FROM hub.office"
    )
    guard rows.count == 1, let role = OfficeIdentity.Role(rawValue: rows.text(0, 1)) else {
      throw HubError(
        .notReady, "this database is not an office yet", hint: missingHint)
    }
    var office = OfficeIdentity(
      name: rows.text(0, 0), role: role, head: rows.text(0, 2), incarnation: rows.int64(0, 3),
      residue: rows.int(0, 4), session: rows.integer(0, 5).map { SessionID(rawValue: $0) },
      catalogueVersion: rows.int64(0, 6), isJoined: rows.bool(0, 7), isPaused: rows.bool(0, 8))
    office.recovers = rows.bool(0, 9)
    office.purging = rows.int64(0, 10)
    office.purged = rows.int64(0, 11)
    return office
  }

  /// The key of the advisory lock that makes a hub the only one of its office.
  static let lockKey: Int64 = 0x6875_6200_6c6f_636b

  package func setPaused(_ paused: Bool) async throws(HubError) {
    try await control.perform { try $0.query("UPDATE hub.office SET paused = \(paused)") }
  }

  @discardableResult
  package func reload() async throws(HubError) -> [String] {
    var notices: [String] = []
    var loaded = try await load()
    // What is settled shows in the next look; what cannot be settled now is left to a later one, but a table that is not
    // there is marked before anything is read without it.
    var rounds = 0
    while !loaded.strays.isEmpty, rounds < 2 || loaded.strays.contains(where: { $0.state == .missing }) {
      for stray in loaded.strays { notices.append(try await settle(stray)) }
      loaded = try await load()
      rounds += 1
    }
    state.withLock {
      $0.tables = loaded.tables
      $0.signature = loaded.signature
    }
    for connection in [feed, window, writer] { try await connection.perform { try $0.forgetPrepared() } }
    return notices
  }

  private func load() async throws(HubError) -> LoadedTables {
    try await control.run { session in
      try session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
        let tables = try TableInfo.loadAll(session)
        return LoadedTables(
          tables: tables, signature: try Self.signature(session), strays: try StrayTable.find(session, tables))
      }
    }
  }

  private struct LoadedTables: Sendable {
    var tables: [TableInfo]
    var signature: String
    var strays: [StrayTable]
  }

  private func settle(_ stray: StrayTable) async throws(HubError) -> String {
    try await writer.run { session in
      do {
        return try stray.settle(session)
      } catch {
        guard session.isUsable, stray.state != .missing else { throw error }
        return "table \(stray.name) cannot be taken up again: \(error)"
      }
    }
  }

  /// Changes when a tracked table is altered: an ALTER that adds or rewrites touches its pg_class row, one that lets a
  /// trigger fire on replicas, or takes the primary key away, does not.
  static func signature(_ session: Session) throws -> String {
    try session.hot(
      """
      SELECT coalesce(string_agg(c.oid::text || ':' || c.xmin::text || coalesce((
          SELECT string_agg(':' || tgname, '' ORDER BY tgname) FROM pg_trigger
          WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R') AND NOT starts_with(tgname, 'hub_capture_')), '')
        || coalesce((SELECT ':' || indexrelid FROM pg_index WHERE indrelid = c.oid AND indisprimary), ''),
        ',' ORDER BY c.oid), '')
      FROM hub.tracked t JOIN pg_namespace s ON s.nspname = t.schema_name
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.relation_name
      """
    ).text(0, 0)
  }
}
