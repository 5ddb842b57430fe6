/// How much of the conflict log is kept: entries up to an age and up to a number, at head as it is set, at the branches
/// what head keeps. 0: without a bound.
package struct ConflictRetention: Sendable, Equatable {
  package var days: Int
  package var entries: Int

  /// A year, and what a disk hardly notices.
  package static let usual = ConflictRetention(days: 400, entries: 1_000_000)

  package init(days: Int, entries: Int) {
    self.days = days
    self.entries = entries
  }

  package static func read(_ session: Session) throws -> ConflictRetention {
    func number(_ name: String, _ usual: Int) throws -> Int {
      try HeadSetup.setting(session, name).flatMap { Int($0) } ?? usual
    }
    return ConflictRetention(
      days: try number("conflict_days", usual.days), entries: try number("conflict_entries", usual.entries))
  }

  package func save(_ session: Session) throws {
    try HeadSetup.set(session, "conflict_days", String(days))
    try HeadSetup.set(session, "conflict_entries", String(entries))
  }

  /// Head: drops what is too much, oldest first and without a gap, so that one id says what is left. Returns that id; 0:
  /// nothing was ever dropped.
  package func prune(_ session: Session) throws -> Int64 {
    try session.transaction { session in
      try session.hot(
        """
        DELETE FROM hub.conflict WHERE id <= greatest(
          (SELECT max(id) FROM hub.conflict
            WHERE \(days)::int > 0 AND at < now() - make_interval(days => \(days)::int)),
          (SELECT id FROM hub.conflict WHERE \(entries)::int > 0 ORDER BY id DESC OFFSET \(entries)::int LIMIT 1))
        """)
      return try session.hot(
        """
        SELECT CASE WHEN min(id) > 1 THEN min(id) WHEN count(*) = 0 AND (SELECT is_called FROM hub.conflict_id_seq)
          THEN (SELECT last_value + 1 FROM hub.conflict_id_seq) ELSE 0 END FROM hub.conflict
        """
      ).int64(0, 0)
    }
  }
}
