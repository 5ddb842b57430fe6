import HubEngine
import SyncCore

/// One transaction of applying: as one, then carefully, then without the rows that break foreign keys.
struct ApplyTransaction {
  let session: Session
  let tables: [String: TableInfo]
  let isHead: Bool
  let peer: String
  let coder: RowCoder
  /// Rows against their table's direction are taken.
  var returns = false
  var refusesMissing = false

  /// Applies what `blocks` hands over, one block after the other, then runs `finish` in the same transaction.
  /// `blocks` may be called several times: an attempt that was refused is rolled back and made again.
  func run(
    _ blocks: (_ apply: (RowBlock) throws -> Void) throws -> Void, finish: (Session) throws -> Void
  ) throws -> AppliedCounts {
    var isCareful = false
    var excluded: [RowName: Refusal] = [:]
    while true {
      do {
        return try session.transaction { session in
          try Self.begin(session)
          let applier = try BatchApplier(
            session: session, tables: tables, isHead: isHead, peer: peer, isCareful: isCareful,
            returns: returns, refusesMissing: refusesMissing, excluded: excluded)
          try blocks(applier.apply)
          try applier.finish()
          try quarantine(applier.refused)
          try finish(session)
          CrashPoint.rowsApplied.passed()
          var counts = applier.counts
          counts.quarantined = applier.refused.count
          return counts
        }
      } catch let refused as BatchApplier.NeedsCare {
        // A plan made before a table was altered.
        if refused.cause.sqlstate == "0A000" { try session.forgetPrepared() }
        isCareful = true
      } catch let orphans as BatchApplier.Orphans {
        isCareful = true
        excluded.merge(orphans.rows) { old, _ in old }
      }
    }
  }

  /// hub's own writes: user triggers stay silent, capture skips them, and hub is the one that gives way to a lock.
  /// Readers see the rows before they are on disk; `flush` comes before anybody is told that they are here.
  static func begin(_ session: Session) throws {
    try session.script(
      """
      SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = off
      """)
    try LockPatience.begin(session)
    try passCapture(session)
  }

  /// Whatever was committed before is on disk afterwards, whatever the database's own setting says: committing a record
  /// writes the log up to it (PostgreSQL's manual, Asynchronous Commit). The record is an empty logical message.
  static func flush(_ session: Session) throws {
    try session.script(
      "SET LOCAL synchronous_commit = on; SELECT pg_catalog.pg_logical_emit_message(true, 'hub', '')")
  }

  /// Until the transaction ends, capture takes its writes for hub's.
  static func passCapture(_ session: Session) throws {
    try session.hot("SELECT set_config('hub.applying', applying, true) FROM hub.office")
  }

  /// Of a row that came twice the copy that has seen the other, else the first one: what a branch gives back of head's is
  /// not worth its own write.
  private static func last(of refused: [RefusedRow]) -> [RefusedRow] {
    var kept: [RowName: Int] = [:]
    for (index, row) in refused.enumerated() {
      let name = RowName.all(table: row.block.table, keys: row.block.columns[..<row.block.keyCount])[0]
      if let other = kept[name], !row.block.vector(0).dominates(refused[other].block.vector(0)) { continue }
      kept[name] = index
    }
    return kept.values.sorted().map { refused[$0] }
  }

  private func quarantine(_ refused: [RefusedRow]) throws {
    for row in Self.last(of: refused) {
      let block = row.block
      let names = block.columnNames
      let all = block.columns.map { $0.value(0) }
      let key = JSONValue.row(Array(names.prefix(block.keyCount)), Array(all.prefix(block.keyCount)))
        .description
      let values = JSONValue.row(names, all, bytes: 65_536).description
      try session.hot(
        """
        INSERT INTO hub.quarantine (peer, table_name, key, sqlstate, error, "row", state)
        VALUES (\(peer), \(block.table), \(key)::jsonb, \(row.refusal.sqlstate), \(row.refusal.error), \(values)::jsonb,
          \(binary: try coder.encode(block)))
        ON CONFLICT (peer, table_name, jsonb_hash_extended(key, 0), jsonb_hash_extended(key, 1)) DO UPDATE SET sqlstate = EXCLUDED.sqlstate, error = EXCLUDED.error,
          "row" = EXCLUDED."row", state = EXCLUDED.state, tried_at = now(),
          attempts = hub.quarantine.attempts + 1
        """)
    }
  }
}
