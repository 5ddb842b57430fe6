package import HubEngine
import SyncCore
import Synchronization

/// Tombstones that nobody can contradict any more (``Horizon``).
extension PostgresStore {
  /// A mark, and a note of the horizon, that many seconds apart at least.
  private static let markEvery: Duration = .seconds(10)
  /// Notes of the horizon kept for the time that tombstones are kept.
  private static let notesMax: Int64 = 500
  /// Tombstones that go in one transaction.
  private static let purgedAtOnce = 10_000

  package func purge(reached: Int64, keeping: Duration) async throws(HubError) -> (purging: Int64, purged: Int64) {
    let tables = state.withLock { $0.tables }
    return try await control.run { session in
      let milliseconds = keeping.components.seconds * 1000
      try session.query(
        """
        INSERT INTO hub.horizon (number, position) SELECT number, position FROM hub.batch
        WHERE number = \(reached) AND number > (SELECT greatest(o.purging, max(h.number)) FROM hub.office o
            LEFT JOIN hub.horizon h ON true GROUP BY o.purging)
          AND NOT EXISTS (SELECT FROM hub.horizon
            WHERE reached_at > now() - \(milliseconds / Self.notesMax) * interval '1 millisecond')
        """)
      let due = try session.query(
        """
        SELECT o.purging, o.purged, h.number, h.position FROM hub.office o LEFT JOIN LATERAL (SELECT number, position FROM hub.horizon
          WHERE number > o.purged AND (reached_at <= now() - \(milliseconds) * interval '1 millisecond' OR number = o.purging)
          ORDER BY number DESC LIMIT 1) AS h ON true
        """)
      let purged = due.int64(0, 1)
      guard let number = due.integer(0, 2) else { return (due.int64(0, 0), purged) }
      // Durable before the first one goes: a database that was put back to before this is told.
      try session.query("UPDATE hub.office SET purging = greatest(purging, \(number))")
      let isDone = try Self.letGo(session, tables, behind: FeedPosition(text: due.string(0, 3)), atHead: true)
      guard isDone else { return (number, purged) }
      try session.query("UPDATE hub.office SET purged = \(number)")
      try session.query("DELETE FROM hub.horizon WHERE number <= \(number)")
      return (number, number)
    }
  }

  package func purge(behind purged: Int64) async throws(HubError) {
    guard purged > 0 else { return }
    let tables = state.withLock { $0.tables }
    try await control.perform { session in
      let mark = try session.query(
        "SELECT applied, position FROM hub.mark WHERE applied <= \(purged) ORDER BY applied DESC LIMIT 1")
      guard mark.count > 0,
        try Self.letGo(session, tables, behind: FeedPosition(text: mark.string(0, 1)), atHead: false)
      else { return }
      try session.query("DELETE FROM hub.mark WHERE applied <= \(mark.int64(0, 0))")
    }
  }

  /// Removes some tombstones of every table; returns whether that was all.
  ///
  /// What was added to counters is needed by rows that are inserted anew, so such a tombstone stays. A branch lets go of
  /// what came from head, and of what never goes there and back. While rows of a table are in quarantine, an older
  /// state of one may come out of it.
  private static func letGo(
    _ session: Session, _ tables: [TableInfo], behind position: FeedPosition, atHead: Bool
  ) throws -> Bool {
    var isAll = true
    for table in tables {
      let names = (1...table.keyCount).map { "k\($0)" }
      let isSame = { (left: String, right: String) in
        table.keyJoin({ index, _ in "\(left).k\(index + 1)" }, { index, _ in "\(right).k\(index + 1)" })
      }
      var condition = "NOT v.alive AND NOT (\(position.isNew("v")))"
      if !atHead && table.options.direction != "up" { condition += " AND v.echo" }
      if !table.counters.isEmpty { condition += " AND v.contributions IS NULL" }
      let images =
        atHead && LastImages.areKept(table)
        ? ", images AS (DELETE FROM \(LastImages.name(table)) i USING gone WHERE \(isSame("i", "gone")))" : ""
      let count = try session.script(
        """
        WITH chosen AS (SELECT \(names.map { "v." + $0 }.joined(separator: ", ")) FROM \(table.versions) v
            WHERE \(condition)
              AND NOT EXISTS (SELECT FROM hub.quarantine WHERE table_name = \(quotedLiteral(table.name)))
            LIMIT \(purgedAtOnce) FOR UPDATE SKIP LOCKED),
          gone AS (DELETE FROM \(table.versions) v USING chosen WHERE \(isSame("v", "chosen")) AND NOT v.alive
            RETURNING \(names.map { "v." + $0 }.joined(separator: ", ")))\(images)
        SELECT count(*) FROM gone
        """
      ).int(0, 0)
      if count == purgedAtOnce { isAll = false }
    }
    return isAll
  }

  // MARK: branch

  /// A deleted row has its key alone; a row without other values than NULL is taken for one.
  package func deletesWait(from head: String) async throws(HubError) -> Bool {
    try await control.run { session in
      try session.hot(
        """
        SELECT EXISTS (SELECT FROM hub.restate) OR EXISTS (
          SELECT FROM hub.quarantine q WHERE peer = \(head) AND state <> '' AND NOT EXISTS (
            SELECT FROM jsonb_each(q."row") e WHERE e.value <> 'null' AND NOT q.key ? e.key))
        """
      ).bool(0, 0)
    }
  }

  var isMarkDue: Bool { state.withLock { $0.markedAt.map { $0 + Self.markEvery < .now } ?? true } }

  /// The batch that is being recorded tells head for the first time that so much is applied here. Head has by then what
  /// the batch before it led to. Returns whether it is so.
  static func mark(_ session: Session, applied: Int64, after previous: BatchReference) throws -> Bool {
    let told = try session.query("SELECT coalesce((SELECT applied FROM hub.batch ORDER BY number DESC LIMIT 1), 0)")
    guard Horizon.isMark(applied: applied, told: told.int64(0, 0)) else { return false }
    try session.query(
      """
      INSERT INTO hub.mark (applied, position)
      SELECT \(applied), position FROM hub.batch WHERE number = \(previous.number) AND id = \(previous.id)
      ON CONFLICT DO NOTHING
      """)
    return true
  }

  /// Head does not know where this office stood: what was told of that history says nothing.
  static func forgetMarks(_ session: Session, beyond at: BatchReference) throws {
    let back = try session.query("SELECT EXISTS (SELECT FROM hub.peer WHERE at_number > \(at.number))").bool(0, 0)
    guard back else { return }
    try session.script("DELETE FROM hub.mark; UPDATE hub.batch SET applied = 0 WHERE applied > 0")
  }
}
