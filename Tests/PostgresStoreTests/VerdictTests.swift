import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

/// What head and people decide about rows that a database does not take as they are.
@Suite struct VerdictTests {
  private func store(_ office: Office) async throws -> PostgresStore {
    let store = PostgresStore(url: office.database.url, coder: Drawer.coder)
    _ = try await store.office()
    try await store.reload()
    return store
  }

  private func discard(_ office: Office) throws -> QuarantineRelease.Discarded {
    let id = Int64(try office.text("SELECT id FROM hub.quarantine")) ?? 0
    return try office.hub.transaction {
      try QuarantineRelease($0, id, coder: Drawer.coder).discard(coder: Drawer.coder)
    }
  }

  /// A parent came back as its image showed it; what had been added to it and arrived after the delete was in the sums
  /// and not in the row.
  @Test("a parent that comes back shows what was added after it was deleted")
  func aRevivedCounter() throws {
    let pair = try Pair(
      """
      CREATE TABLE p (id int PRIMARY KEY, qty numeric(9,2) NOT NULL);
      CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p)
      """, tracking: [("public", "c")])
    for office in [pair.head, pair.branch] {
      try office.track([("public", "p")]) {
        $0.counters = ["qty"]
        $0.onDelete = "delete"
      }
    }
    try pair.head.application.script("INSERT INTO p VALUES (1, 100)")
    try pair.settle()
    try pair.branch.application.script("UPDATE p SET qty = qty + 5")
    try pair.settle()
    try pair.head.application.script("DELETE FROM p")
    try pair.branch.application.script("UPDATE p SET qty = qty + 7.5")
    #expect(try pair.up().conflicts == 1)
    #expect(try pair.head.count("p") == 0, "the delete wins over the increment")
    try pair.branch.application.script("INSERT INTO c VALUES (1, 1)")
    try pair.settle()
    for office in [pair.head, pair.branch] { #expect(try office.copy("p") == ["1\t112.50"]) }
    try pair.branch.application.script("UPDATE p SET qty = qty + 1")
    try pair.settle()
    for office in [pair.head, pair.branch] { #expect(try office.copy("p") == ["1\t113.50"]) }
  }

  /// The columns of head's row kept their own versions, older than the refused ones that the row's vector then had.
  @Test("a discarded column does not come back with the next write of its office, and other columns are no conflict")
  func aDiscardedColumn() throws {
    let pair = try Pair(
      "CREATE TABLE t (id int PRIMARY KEY, a int, b int, qty int NOT NULL DEFAULT 0)", tracking: [("public", "t")]
    ) {
      $0.merge = "columns"
      $0.counters = ["qty"]
    }
    try pair.head.application.script("ALTER TABLE t ADD CHECK (a < 100); INSERT INTO t VALUES (1, 1, 1, 10)")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET a = 2")
    try pair.settle()
    try pair.branch.application.script("UPDATE t SET a = 666, qty = qty + 500")
    #expect(try pair.up().quarantined == 1)
    #expect(try discard(pair.head) == .restated)
    // Before head's answer comes.
    try pair.branch.application.script("UPDATE t SET b = 7, qty = qty + 3")
    try pair.settle()
    for office in [pair.head, pair.branch] { #expect(try office.copy("t") == ["1\t2\t7\t13"]) }
    #expect(try pair.head.count("hub.quarantine") == 0 && pair.head.count("hub.conflict") == 0)
    #expect(try pair.settle() == 1)
  }

  @Test("a branch's request for a row stays until head has answered it")
  func requestsStay() async throws {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v int)", tracking: [("public", "t")])
    try pair.branch.application.script("ALTER TABLE t ADD CHECK (v < 10)")
    try pair.head.application.script("INSERT INTO t VALUES (1, 20)")
    try pair.settle()
    #expect(try discard(pair.branch) == .asked)
    let (head, branch) = (try await store(pair.head), try await store(pair.branch))
    for _ in 0..<2 { #expect(try await branch.restates() == [1]) }
    let blocks = try #require(try await branch.restate(1))
    try pair.branch.application.script("ALTER TABLE t DROP CONSTRAINT t_v_check")
    try await head.restate(blocks)
    try pair.settle()
    #expect(try pair.branch.copy("t") == ["1\t20"])
    try await branch.finishRestate(1)
    #expect(try await branch.restates().isEmpty)
    #expect(try await branch.restate(1) == nil)
    await head.close()
    await branch.close()
  }

  @Test("a row that is held at its branch says so until head has decided")
  func aHeldRow() throws {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v text)", tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    try pair.settle()
    try pair.branch.hub.script("INSERT INTO hub.peer (office, state) VALUES ('head', 'active')")
    try pair.head.application.script("UPDATE t SET v = 'head' WHERE id = 1")
    try pair.branch.application.script("UPDATE t SET v = 'branch'")
    func state(_ key: String) throws -> RowTrace {
      try pair.branch.hub.transaction { try RowTrace.read($0, table: "t", key: key) }
    }
    #expect(try state("1").state == .unsent)
    #expect(try pair.down().held == 1)
    #expect(try state("1").state == .held && state("1").answer.contains("until head has decided"))
    #expect(try state("1").json.description.contains("\"held_since\":\"20"))
    #expect(try state("2").state == .unsent)
    // Still so after another edit here.
    try pair.branch.application.script("UPDATE t SET v = 'again' WHERE id = 1")
    #expect(try state("1").state == .held)
    try pair.settle()
    #expect(try state("1").state != .held && state("1").heldSince == nil)
    #expect(try pair.branch.count("hub.held") == 0)
  }

  @Test("another policy is tried on the columns in conflict as the merge would decide it")
  func columnsAreTried() throws {
    let pair = try Pair(
      """
      CREATE TABLE t (id int PRIMARY KEY, a text, b text);
      CREATE FUNCTION f(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql AS
        $$ SELECT CASE WHEN local ->> 'a' = 'H' THEN incoming ELSE local || '{"a": "own"}' END $$
      """, tracking: [("public", "t")]
    ) {
      $0.merge = "columns"
      $0.onConflict = "head"
    }
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 'x'), (2, 'x', 'x'), (3, 'x', 'x')")
    try pair.settle()
    // The branch's a is later than head's, head's row is later than the branch's.
    try pair.head.application.script("UPDATE t SET a = 'H' WHERE id = 1; SELECT pg_sleep(0.01)")
    try pair.branch.application.script("UPDATE t SET a = 'B' WHERE id = 1; SELECT pg_sleep(0.01)")
    try pair.head.application.script("UPDATE t SET b = 'H' WHERE id = 1")
    try pair.settle()
    func differing(_ policy: ConflictPolicy) throws -> [Int64] {
      try pair.head.hub.transaction { try ConflictEntry.list($0) }.compactMap {
        ConflictTrial($0, policy, onDelete: nil)
      }.filter(\.isDifferent).map(\.entry.id)
    }
    #expect(try differing(.latest) == [1] && differing(.branch) == [1] && differing(.head).isEmpty)
    // A function that chose a side: another policy that chooses the same one is no difference.
    for office in [pair.head, pair.branch] {
      try office.hub.script("UPDATE hub.tracked SET on_conflict = 'function:f'")
      try office.reload()
    }
    try pair.head.application.script("UPDATE t SET a = 'H' WHERE id = 2; UPDATE t SET a = 'other' WHERE id = 3")
    try pair.branch.application.script("UPDATE t SET a = 'B' WHERE id > 1")
    try pair.settle()
    #expect(try differing(.branch) == [1, 3] && differing(.head) == [2, 3])
  }

  @Test("old entries of the log go, and those above the number kept; branches are told the oldest that is left")
  func theLogIsPruned() async throws {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v text)", tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 6) g")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'head'")
    try pair.branch.application.script("UPDATE t SET v = 'branch'")
    try pair.settle()
    let (head, branch) = (try await store(pair.head), try await store(pair.branch))
    #expect(try await head.pruneConflicts() == 0, "nothing is old")
    _ = try await head.numberConflicts()
    if let entries = try await head.conflicts(for: "branch", after: 0) { try await branch.save(entries) }
    #expect(try pair.branch.count("hub.conflict") == 6)
    try pair.head.hub.script("UPDATE hub.conflict SET at = at - interval '401 days' WHERE id <= 2")
    let oldest = try await head.pruneConflicts()
    #expect(oldest == 3)
    try await branch.dropConflicts(before: oldest)
    try pair.head.hub.transaction { try ConflictRetention(days: 0, entries: 3).save($0) }
    #expect(try await head.pruneConflicts() == 4)
    try await branch.dropConflicts(before: 4)
    for office in [pair.head, pair.branch] {
      #expect(try office.copy("hub.conflict", columns: "id") == ["4", "5", "6"])
    }
    #expect(try pair.head.count("hub.conflict_notice") == 3)
    try pair.head.hub.script("UPDATE hub.conflict SET at = at - interval '1 year'")
    try pair.head.hub.transaction { try ConflictRetention(days: 30, entries: 0).save($0) }
    #expect(try await head.pruneConflicts() == 7, "all that there were")
    await head.close()
    await branch.close()
  }
}
