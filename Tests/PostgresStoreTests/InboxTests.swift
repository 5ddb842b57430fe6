import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct InboxTests {
  /// Head and a branch whose writes of rows 1 to `count` did not know of each other; the branch's arrived last.
  private func conflicts(_ count: Int, v: String = "'branch'") throws -> Pair {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(9,2))", tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t SELECT g, 'x', 1.50 FROM generate_series(1, \(count)) g")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'head', n = NULL")
    try pair.branch.application.script("UPDATE t SET v = \(v)")
    try pair.branch.hub.script("INSERT INTO hub.peer (office, state) VALUES ('head', 'active')")
    try pair.settle()
    return pair
  }

  private func store(_ office: Office) async throws -> PostgresStore {
    let store = PostgresStore(url: office.database.url, coder: Drawer.coder)
    _ = try await store.office()
    return store
  }

  @Test("a decision is reversed and reversed again: a new version each, no new conflict, values to the byte")
  func decisionsAreReversed() throws {
    let pair = try conflicts(1)
    let decided = try pair.head.copy("t")
    for (keep, row) in [(ConflictResolution.Kept.head, "1\thead\t\\N"), (.branch, decided[0]), (.head, "1\thead\t\\N")]
    {
      let outcome = try pair.head.hub.transaction { try ConflictResolution.resolve($0, 1, keep: keep, force: false) }
      #expect(outcome == .written)
      try pair.settle()
      #expect(try pair.head.copy("t") == [row] && pair.branch.copy("t") == [row])
    }
    let again = try pair.head.hub.transaction { try ConflictResolution.resolve($0, 1, keep: .head, force: false) }
    #expect(again == .unchanged)
    #expect(try pair.head.count("hub.conflict") == 1)
    #expect(try pair.head.feed().blocks.isEmpty, "what is not written is not sent")
  }

  @Test("a trigger that swallows the write is reported, and nothing is noted")
  func aSwallowedWriteIsReported() throws {
    let pair = try conflicts(1)
    try pair.head.application.script(
      """
      CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
      CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()
      """)
    #expect(throws: PostgresError.self) {
      try pair.head.hub.transaction { try ConflictResolution.resolve($0, 1, keep: .head, force: false) }
    }
    #expect(try pair.head.copy("hub.conflict", columns: "kept") == ["\\N"])
  }

  @Test("the log goes to the branch in windows, chained, and a review goes again")
  func theLogGoesToTheBranch() async throws {
    let pair = try conflicts(Limits.conflictEntriesMax + 20)
    let (head, branch) = (try await store(pair.head), try await store(pair.branch))
    #expect(try await head.conflicts(for: "branch", after: 0) == nil, "entries have no number yet")
    #expect(try await head.numberConflicts() == ["branch"])
    #expect(try await head.numberConflicts().isEmpty)
    let first = try #require(try await head.conflicts(for: "branch", after: 0))
    let rest = try #require(try await head.conflicts(for: "branch", after: first.last))
    #expect(first.more && first.entries.count == Limits.conflictEntriesMax && !rest.more && rest.entries.count == 20)
    for entries in [first, first, rest] { try await branch.save(entries) }
    let columns = "id, at, table_name, key, type, policy, reason, winner, loser, resolved, head_copy, kept"
    #expect(try pair.branch.copy("hub.conflict", columns: columns) == pair.head.copy("hub.conflict", columns: columns))
    #expect(try await branch.peers().first?.conflictsAt == rest.last)
    try pair.head.hub.transaction { _ = try ConflictResolution.resolve($0, 7, keep: .head, force: false) }
    #expect(try await head.numberConflicts() == ["branch"])
    let review = try #require(try await head.conflicts(for: "branch", after: rest.last))
    #expect(review.entries.count == 1 && review.after == rest.last && review.last > rest.last)
    try await branch.save(review)
    #expect(try pair.branch.text("SELECT kept FROM hub.conflict WHERE id = 7") == "head")
    #expect(try await head.conflicts(for: "other", after: 0) == nil)
    await head.close()
    await branch.close()
  }

  @Test("a branch that has more of the log than head gets all of it again")
  func aHeadThatWentBack() async throws {
    let pair = try conflicts(3)
    let head = try await store(pair.head)
    _ = try await head.numberConflicts()
    #expect(try await head.conflicts(for: "branch", after: 5000) == nil)
    #expect(try await head.numberConflicts() == ["branch"])
    #expect(try await head.conflicts(for: "branch", after: 5000)?.entries.count == 3)
    await head.close()
  }

  @Test("a large row is whole at head, shortened on its way, and can be restored")
  func largeRows() async throws {
    let pair = try conflicts(1, v: "repeat('é', 3000000)")
    let head = try await store(pair.head)
    _ = try await head.numberConflicts()
    let entry = try #require(try await head.conflicts(for: "branch", after: 0)?.entries.first)
    #expect(entry.utf8.count < 4000 && entry.contains("ééé"))
    try pair.head.hub.transaction { _ = try ConflictResolution.resolve($0, 1, keep: .head, force: false) }
    try pair.head.hub.transaction { _ = try ConflictResolution.resolve($0, 1, keep: .branch, force: false) }
    #expect(try pair.head.text("SELECT length(v) FROM t") == "3000000")
    await head.close()
  }

  @Test("a delete of head's that waits in quarantine, or was discarded, shows; a row or one's own delete does not")
  func deletesThatWait() async throws {
    let pair = try conflicts(0)
    let branch = try await store(pair.branch)
    #expect(try await !branch.deletesWait(from: "head"))
    try pair.branch.hub.script(
      """
      INSERT INTO hub.quarantine (peer, table_name, key, sqlstate, error, "row", state) VALUES
        ('head', 'public.t', '{"id": 1}', '23514', 'e', '{"id": 1, "v": "a", "n": null}', 'x'),
        ('branch', 'public.t', '{"id": 2}', '54000', 'e', '{}', '')
      """)
    #expect(try await !branch.deletesWait(from: "head"))
    try pair.branch.hub.script(
      """
      INSERT INTO hub.quarantine (peer, table_name, key, sqlstate, error, "row", state) VALUES
        ('head', 'public.t', '{"id": 3}', '23503', 'e', '{"id": 3, "v": null, "n": null}', 'x')
      """)
    #expect(try await branch.deletesWait(from: "head"))
    try pair.branch.hub.script("DELETE FROM hub.quarantine")
    #expect(try await !branch.deletesWait(from: "head"))
    try pair.branch.hub.script("INSERT INTO hub.restate (rows) VALUES ('x')")
    #expect(try await branch.deletesWait(from: "head"))
    await branch.close()
  }

  @Test("what makes a retry worth it: any change of a tracked table's columns, constraints or indexes")
  func causes() async throws {
    let pair = try conflicts(1)
    let head = try await store(pair.head)
    #expect(try await head.quarantineCause() == nil)
    try pair.head.hub.script(
      """
      INSERT INTO hub.quarantine (peer, table_name, key, sqlstate, error, "row", state)
      VALUES ('branch', 'public.t', '{"id": "9"}', '23514', 'no', '{}', '\\x00')
      """)
    try pair.head.application.script(
      "ALTER TABLE t ADD CONSTRAINT few UNIQUE (v), ADD CHECK (id > 0), ALTER v SET NOT NULL")
    var seen = try await head.quarantineCause()
    for change in [
      "INSERT INTO t VALUES (77, 'a row', 1)", "ALTER TABLE t DROP CONSTRAINT few",
      "ALTER TABLE t DROP CONSTRAINT t_id_check",
      "ALTER TABLE t ALTER v DROP NOT NULL", "ALTER TABLE t ADD w text", "ALTER TABLE t ALTER n TYPE numeric(20,2)",
    ] {
      try pair.head.application.script(change)
      let now = try await head.quarantineCause()
      #expect((now == seen) == change.hasPrefix("INSERT"), "\(change)")
      seen = now
    }
    await head.close()
  }
}
