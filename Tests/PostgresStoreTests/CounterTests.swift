import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct CounterTests {
  private static let stock = """
    CREATE TABLE stock (sku text PRIMARY KEY, place text, qty int NOT NULL, worth numeric NOT NULL DEFAULT 0, j json);
    """

  private func pair(_ change: (inout TrackingOptions) -> Void = { _ in }) throws -> Pair {
    let pair = try Pair(Self.stock, tracking: [("public", "stock")]) {
      $0.counters = ["worth", "qty"]
      change(&$0)
    }
    try pair.head.application.script(
      "INSERT INTO stock (sku, place, qty, worth) VALUES ('tea', 'A', 100, 10.50), ('mug', 'B', 7, 0)")
    try pair.settle()
    return pair
  }

  private func rows(_ office: Office) throws -> [String] { try office.copy("stock", columns: "sku, place, qty, worth") }

  private func expectEqual(_ pair: Pair, _ rows: [String], _ comment: Comment? = nil) throws {
    try pair.settle()
    #expect(try self.rows(pair.head) == rows, comment)
    #expect(try pair.branch.copy("stock") == pair.head.copy("stock"), comment)
    for what in ["contributions", "vector"] {
      #expect(
        try pair.head.text(
          "SELECT string_agg(k1 || (SELECT sum(e) FROM unnest(\(what)) e), ' ' ORDER BY k1) FROM hub.v1")
          == pair.branch.text(
            "SELECT string_agg(k1 || (SELECT sum(e) FROM unnest(\(what)) e), ' ' ORDER BY k1) FROM hub.v1"), comment)
    }
    #expect(try pair.head.count("hub.quarantine") == 0)
  }

  @Test("COUNT: head discards a refused row, and what was counted before counts once")
  func aDiscardedRowKeepsItsAmounts() throws {
    // Believed: head's new version of a discarded row needs its vector only. Wrong: without the contributions a branch's
    // next sum, which is of all that it ever added, was added to amounts that had them already (92 instead of 95).
    let pair = try pair()
    try pair.head.application.script("ALTER TABLE stock ADD CHECK (place <> 'X')")
    try pair.branch.application.script("UPDATE stock SET qty = qty - 3 WHERE sku = 'tea'")
    try pair.settle()
    try pair.branch.application.script("UPDATE stock SET place = 'X' WHERE sku = 'tea'")
    #expect(try pair.up().quarantined == 1)
    try pair.branch.application.script("UPDATE stock SET qty = qty - 2 WHERE sku = 'tea'")
    try pair.head.hub.transaction { session in
      let id = try session.query("SELECT id FROM hub.quarantine").int64(0, 0)
      #expect(try QuarantineRelease(session, id, coder: Drawer.coder).discard(coder: Drawer.coder) == .restated)
    }
    try expectEqual(pair, ["mug\tB\t7\t0", "tea\tA\t95\t10.50"])
  }

  @Test("COUNT: concurrent increments add up, whatever arrives twice, late or in which order")
  func concurrentIncrementsAddUp() throws {
    let pair = try pair()
    let early = try pair.branch.feed(since: .beginning, echoes: true).blocks
    try pair.head.application.script("UPDATE stock SET qty = qty + 5, worth = worth + 0.25 WHERE sku = 'tea'")
    try pair.branch.application.script(
      "UPDATE stock SET qty = qty - 3 WHERE sku = 'tea'; UPDATE stock SET qty = qty - 1, worth = worth - 1")
    let late = try pair.branch.feed().blocks
    try pair.down()
    #expect(try pair.head.count("hub.conflict") == 0)
    try expectEqual(pair, ["mug\tB\t6\t-1", "tea\tA\t101\t9.75"])
    for _ in 0..<2 {
      for blocks in [early, late] {
        try pair.head.apply(blocks)
        try pair.branch.apply(try pair.head.feed(since: .beginning).blocks)
      }
    }
    try expectEqual(pair, ["mug\tB\t6\t-1", "tea\tA\t101\t9.75"])
    #expect(try pair.head.count("hub.conflict") == 0)
    // Many increments of one office are one entry.
    for _ in 0..<5 { try pair.branch.application.script("UPDATE stock SET qty = qty - 1 WHERE sku = 'tea'") }
    try expectEqual(pair, ["mug\tB\t6\t-1", "tea\tA\t96\t9.75"])
    #expect(try pair.head.text("SELECT max(array_length(contributions, 1)) FROM hub.v1") == "16")
  }

  @Test("COUNT: an assignment counts as the difference that it makes, and meets no edit of another column in conflict")
  func assignmentsAreDifferences() throws {
    let pair = try pair()
    try pair.head.application.script("UPDATE stock SET qty = 90 WHERE sku = 'tea'")
    try pair.branch.application.script("UPDATE stock SET place = 'C', qty = qty - 3 WHERE sku = 'tea'")
    try expectEqual(pair, ["mug\tB\t7\t0", "tea\tC\t87\t10.50"])
    #expect(try pair.head.count("hub.conflict") == 0)
    // Conflicts of the other columns keep both amounts.
    try pair.head.application.script("UPDATE stock SET qty = qty + 10, place = 'head' WHERE sku = 'tea'")
    try pair.branch.application.script("UPDATE stock SET qty = qty + 1, place = 'branch' WHERE sku = 'tea'")
    try expectEqual(pair, ["mug\tB\t7\t0", "tea\tbranch\t98\t10.50"])
    #expect(
      try pair.head.copy(
        "hub.conflict", columns: "winner -> 'row' ->> 'qty', loser -> 'row' ->> 'qty', loser -> 'row' ->> 'place'")
        == ["88\t97\thead"])
  }

  @Test("COUNT: one statement that writes a row several times, moves keys, or changes nothing")
  func oneStatement() throws {
    let pair = try pair()
    try pair.head.application.script(
      """
      CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF NEW.qty > 1000 THEN UPDATE stock SET qty = qty - 1000, worth = worth + 1 WHERE sku = NEW.sku; END IF;
        RETURN NULL;
      END $$;
      CREATE TRIGGER again AFTER UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION again();
      """)
    try pair.head.application.script("UPDATE stock SET qty = qty + 1002")
    try pair.branch.application.script("UPDATE stock SET qty = qty + 1")
    try expectEqual(pair, ["mug\tB\t10\t1", "tea\tA\t103\t11.50"])
    // What changed nothing is no write.
    let count = try pair.head.feed().blocks.count
    try pair.head.application.script("UPDATE stock SET qty = qty, place = place")
    #expect(try pair.head.feed().blocks.count == count)
    // Keys move in a circle: the rows are others now, no amount is added.
    try pair.head.application.script(
      "UPDATE stock SET sku = 'x' WHERE sku = 'tea'; UPDATE stock SET sku = 'tea' WHERE sku = 'mug'")
    try expectEqual(pair, ["tea\tB\t10\t1", "x\tA\t103\t11.50"])
    try pair.branch.application.script("UPDATE stock SET qty = qty - 1")
    try pair.head.application.script("UPDATE stock SET qty = qty - 1")
    try expectEqual(pair, ["tea\tB\t8\t1.00", "x\tA\t101\t11.50"])
  }

  @Test("COUNT: insert over a tombstone, insert and insert, delete and increment")
  func insertsAndDeletes() throws {
    let pair = try pair()
    // Deleted and inserted again, while an increment that it never saw is on its way: that counts.
    try pair.branch.application.script("UPDATE stock SET qty = qty - 30 WHERE sku = 'tea'")
    try pair.settle()
    try pair.head.application.script(
      "DELETE FROM stock WHERE sku = 'tea'; INSERT INTO stock VALUES ('tea', 'new', 50, 1)")
    try pair.branch.application.script("UPDATE stock SET qty = qty + 4 WHERE sku = 'tea'")
    try expectEqual(pair, ["mug\tB\t7\t0", "tea\tnew\t54\t1.00"])
    #expect(try pair.head.count("hub.conflict") == 0)
    // Two inserts of one key: the amount of the one that lost is dropped, the increments after it count.
    try pair.head.application.script(
      "INSERT INTO stock VALUES ('pot', 'h', 10, 0); UPDATE stock SET qty = qty + 1 WHERE sku = 'pot'")
    try pair.branch.application.script(
      "INSERT INTO stock VALUES ('pot', 'b', 70, 0); UPDATE stock SET qty = qty + 2 WHERE sku = 'pot'")
    try expectEqual(pair, ["mug\tB\t7\t0", "pot\tb\t73\t0", "tea\tnew\t54\t1.00"])
    #expect(try pair.head.copy("hub.conflict", columns: "type, loser -> 'row' ->> 'qty'") == ["insert_exists\t11"])
    // A delete that had not seen an increment does not win.
    try pair.head.application.script("DELETE FROM stock WHERE sku = 'mug'")
    try pair.branch.application.script("UPDATE stock SET qty = qty + 1 WHERE sku = 'mug'")
    try expectEqual(pair, ["mug\tB\t8\t0", "pot\tb\t73\t0", "tea\tnew\t54\t1.00"])
  }

  @Test("COUNT: random increments, edits, deletes and inserts at both offices: what is there is what was added")
  func randomWritesAddUp() throws {
    let pair = try pair()
    var wanted = 100
    for _ in 0..<30 {
      for office in [pair.head, pair.branch] where Bool.random() {
        let amount = Int.random(in: -9...9)
        wanted += amount
        let place = Bool.random() ? ", place = md5(random()::text)" : ""
        try office.application.script("UPDATE stock SET qty = qty + \(amount)\(place) WHERE sku = 'tea'")
      }
      switch Int.random(in: 0..<4) {
      case 0: try pair.up()
      case 1: try pair.down()
      case 2: try pair.settle()
      default: break
      }
    }
    try pair.settle()
    #expect(try pair.head.text("SELECT qty FROM stock WHERE sku = 'tea'") == String(wanted))
    #expect(try pair.head.copy("stock") == pair.branch.copy("stock"))
  }

  @Test("COUNT: a session that updated everything updates single rows by their key afterwards")
  func plansAreByKey() throws {
    let pair = try pair()
    let application = pair.head.application
    try application.script("INSERT INTO stock SELECT g, 'x', 0 FROM generate_series(1, 20000) g")
    try application.script("UPDATE stock SET qty = qty + 1")
    let read = "SELECT pg_stat_get_xact_tuples_returned('hub.v1'::regclass)"
    try application.script("BEGIN")
    let before = try application.script(read).int(0, 0)
    for sku in 1...5 { try application.script("UPDATE stock SET qty = qty + 1 WHERE sku = '\(sku)'") }
    #expect(try application.script(read).int(0, 0) - before < 1000)
    try application.script("COMMIT")
  }

  @Test("COUNT: tables without counters have no such columns and compare nothing")
  func othersPayNothing() throws {
    let pair = try Pair(Self.stock, tracking: [("public", "stock")])
    let columns = try pair.head.text(
      "SELECT count(*) FROM pg_attribute WHERE attrelid = 'hub.v1'::regclass AND attnum > 0")
    #expect(columns == "8")
    #expect(
      try pair.head.text(
        "SELECT prosrc LIKE '%lag(%' OR proconfig::text LIKE '%enable%' FROM pg_proc WHERE proname = 'capture_1'")
        == "f")
  }

  @Test(arguments: [
    ("sku", HubError.Code.refused), ("place", .refused), ("f", .refused), ("empty", .refused), ("none", .usage),
    ("g", .refused), ("dom", nil), ("small", nil),
  ])
  func aCounterIsANumberThatIsThere(_ column: String, _ code: HubError.Code?) throws {
    let head = try Office("head", cluster: 1)
    try head.application.script(
      """
      CREATE DOMAIN amount AS numeric(8,2);
      CREATE TABLE stock (sku int PRIMARY KEY, place text NOT NULL, f float8 NOT NULL, empty int, small smallint NOT NULL,
        g int NOT NULL GENERATED ALWAYS AS (1) STORED, dom amount NOT NULL)
      """)
    var error: HubError?
    do { try head.track([("public", "stock")]) { $0.counters = [column] } } catch let thrown as HubError {
      error = thrown
    }
    #expect(error?.code == code)
  }
}
