import HubEngine
import SyncCore

/// A tracked table that somebody dropped, renamed or made anew behind hub's back, or that is there again.
struct StrayTable: Sendable {
  enum State: Sendable {
    /// Not there, or without its primary key.
    case missing
    /// There again.
    case back
    /// There, but nothing tells hub of what is written to it.
    case bare
  }

  var id: Int
  var name: String
  var state: State

  /// Those among the tracked tables that are not as hub left them; `tables` are those that are there.
  static func find(_ session: Session, _ tables: [TableInfo]) throws -> [StrayTable] {
    let rows = try session.query(
      """
      SELECT t.id, t.schema_name, t.relation_name, t.is_missing, to_regclass('hub.v' || t.id) IS NOT NULL,
        EXISTS (SELECT FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace s ON s.oid = c.relnamespace
          WHERE s.nspname = t.schema_name AND c.relname = t.relation_name AND starts_with(g.tgname, 'hub_capture_')),
        o.role
      FROM hub.tracked t, hub.office o ORDER BY t.id
      """)
    return (0..<rows.count).compactMap { i in
      let id = rows.int(i, 0)
      let table = tables.first { $0.id == id }
      let isMarked = rows.bool(i, 3)
      func stray(_ state: State) -> StrayTable {
        StrayTable(id: id, name: TableInfo.catalogueName(rows.text(i, 1), rows.text(i, 2)), state: state)
      }
      guard let table else { return isMarked ? nil : stray(.missing) }
      if isMarked { return stray(.back) }
      let wantsTriggers = Capture.isCaptured(table, role: rows.text(i, 6)) || table.options.foreignWrites == "refuse"
      return wantsTriggers && rows.bool(i, 4) && !rows.bool(i, 5) ? stray(.bare) : nil
    }
  }

  private static let rowsAtOnce = 20_000

  /// In transactions of its own. Returns what to tell a person.
  func settle(_ session: Session) throws -> String {
    switch state {
    case .missing:
      try session.script("UPDATE hub.tracked SET is_missing = true WHERE id = \(id)")
      return "table \(name) is tracked, and not there with the primary key that it had: what comes waits in quarantine"
    case .back:
      try sendAll(session)
      return "table \(name) is there again: all of it is sent"
    case .bare:
      try session.transaction { try restore($0) }
      return "table \(name) was made anew, and is captured again: hub verify --repair at head heals what differs"
    }
  }

  /// Batches and catch-ups went by without the table, from whatever position: all of it counts as written now. A few rows at
  /// a time, so that no application waits for long; cut short, it is done again.
  private func sendAll(_ session: Session) throws {
    let now = try session.query("SELECT pg_current_xact_id()::text").text(0, 0)
    var count = 0
    repeat {
      count = try session.query(
        """
        WITH touched AS (UPDATE \(unsafe: "hub.v\(id)") SET xid = pg_current_xact_id()
          WHERE ctid = ANY (ARRAY(SELECT ctid FROM \(unsafe: "hub.v\(id)")
            WHERE xid < \(now)::xid8 LIMIT \(Self.rowsAtOnce))) RETURNING 1)
        SELECT count(*) FROM touched
        """
      ).int(0, 0)
    } while count > 0
    try session.transaction { session in
      // Branches that joined meanwhile do not have its definition.
      try session.script(
        """
        UPDATE hub.tracked SET is_missing = false WHERE id = \(id);
        UPDATE hub.office SET catalogue_version = catalogue_version + 1 WHERE role = 'head'
        """)
    }
  }

  private func restore(_ session: Session) throws {
    try session.script("SET LOCAL lock_timeout = '5s'")
    let tables = try TableInfo.loadAll(session)
    let office = try PostgresStore.readOffice(session)
    guard let table = tables.first(where: { $0.id == id }) else { return }
    try Capture.restore(session, table, role: office.role.rawValue)
    if office.role == .head { try LastImages.install(session, tables) }
    guard table.options.keys == "stride", table.options.direction != "down" else { return }
    let stride = office.role == .head ? HeadSetup.strideDefault : try PostgresStore.stride(session)
    try KeyStride.apply(session, table, residue: office.residue, stride: stride)
  }
}
