import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct ApplyTests {
  private static let plain = "CREATE TABLE t (id int PRIMARY KEY, v text, u int UNIQUE, CHECK (u <> 13))"
  private static let names = [("public", "t")]

  private func pair(
    _ schema: String = plain, _ names: [(String, String)] = names,
    _ change: (inout TrackingOptions) -> Void = { _ in }
  ) throws -> Pair {
    try Pair(schema, tracking: names, change)
  }

  // MARK: merging

  @Test func insertsUpdatesAndDeletesGoBothWaysAndComeToRest() throws {
    let pair = try pair()
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'branch', 1)")
    try pair.head.application.script("INSERT INTO t VALUES (2, 'head', 2)")
    try pair.settle()
    #expect(try pair.head.copy("t") == ["1\tbranch\t1", "2\thead\t2"])
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
    try pair.branch.application.script(
      "UPDATE t SET v = 'from branch' WHERE id = 2; DELETE FROM t WHERE id = 1")
    try pair.settle()
    #expect(try pair.head.copy("t") == ["2\tfrom branch\t2"])
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
    #expect(try pair.settle() == 1)
  }

  @Test("CAP-06: what is acknowledged is durable although the database commits asynchronously")
  func acknowledgedIsDurable() throws {
    let office = try Office("head", cluster: 1)
    try office.hub.script("CREATE TABLE public.w (i int); SET synchronous_commit = off")
    let behind = "SELECT pg_current_wal_flush_lsn() < $lsn$"
    var seenBehind = false
    for i in 1...50 {
      try office.hub.script("INSERT INTO public.w VALUES (\(i))")
      let written = try office.hub.script("SELECT pg_current_wal_insert_lsn()").text(0, 0)
      let check = behind.replacing("$lsn$", with: "'\(written)'")
      seenBehind = try seenBehind || office.hub.script(check).bool(0, 0)
      try ApplyTransaction.flush(office.hub)
      #expect(try !office.hub.script(check).bool(0, 0))
    }
    #expect(seenBehind, "without the flush nothing was waited for")
  }

  @Test("APP-05: what came from head is not in the branch's feed")
  func noEchoes() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t SELECT g, 'x', -g FROM generate_series(1, 300) g")
    #expect(try pair.down().written == 300)
    #expect(try pair.branch.feed().blocks.isEmpty)
    #expect(try pair.branch.feed(echoes: true).blocks.reduce(0) { $0 + $1.count } == 300)
    try pair.branch.application.script("UPDATE t SET v = 'y' WHERE id = 7")
    #expect(try pair.branch.feed().blocks.flatMap(\.keys) == [["7"]])
    // Head's feed has the branch's row: that is the relay and the answer.
    try pair.up()
    #expect(try pair.head.feed().blocks.flatMap(\.keys) == [["7"]])
    try pair.down()
    #expect(try pair.branch.feed().blocks.isEmpty)
  }

  @Test("APP-01: a state that comes twice, late or out of order changes nothing")
  func lateStatesAreHarmless() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (1, 'old', 1)")
    let old = try pair.head.feed().blocks
    try pair.head.application.script("UPDATE t SET v = 'new' WHERE id = 1")
    let new = try pair.head.feed().blocks
    try pair.head.application.script("DELETE FROM t")
    let gone = try pair.head.feed().blocks
    #expect(try pair.branch.apply(new).written == 1)
    #expect(try pair.branch.apply(old).skipped == 1)
    #expect(try pair.branch.copy("t") == ["1\tnew\t1"])
    try pair.branch.apply(gone)
    for block in [old, new, gone] { #expect(try pair.branch.apply(block).written == 0) }
    #expect(try pair.branch.count("t") == 0)
  }

  @Test("APP-04: two inserts of one key are settled as whole rows, by head, and logged with both")
  func insertsOfOneKey() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (1, 'head', 1)")
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'branch', 2)")
    // Down first: the branch holds its own.
    #expect(try pair.down().held == 1)
    #expect(try pair.branch.copy("t") == ["1\tbranch\t2"])
    #expect(try pair.up().conflicts == 1)
    #expect(try pair.head.copy("t") == ["1\tbranch\t2"])
    try pair.settle()
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
    let log = try pair.head.hub.script(
      "SELECT type, policy, key, winner -> 'row' ->> 'v', loser -> 'row' ->> 'v', winner ->> 'office' FROM hub.conflict"
    )
    #expect(
      (0..<6).map { log.text(0, $0) } == [
        "insert_exists", "latest", "{\"id\": \"1\"}", "branch", "head", "branch",
      ])
    #expect(try pair.branch.count("hub.conflict") == 0)
  }

  @Test func anUpdateWinsOverAConcurrentDeleteEitherWay() throws {
    for deleter in ["head", "branch"] {
      let pair = try pair()
      try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1)")
      try pair.settle()
      let (gone, kept) = deleter == "head" ? (pair.head, pair.branch) : (pair.branch, pair.head)
      try kept.application.script("UPDATE t SET v = 'kept'")
      try gone.application.script("DELETE FROM t")
      try pair.settle()
      #expect(try pair.head.copy("t") == ["1\tkept\t1"])
      #expect(try pair.branch.copy("t") == pair.head.copy("t"))
      #expect(
        try pair.head.text("SELECT type FROM hub.conflict")
          == (deleter == "head" ? "update_deleted" : "delete_origin_differs"))
    }
  }

  @Test func aDeleteWinsWhereTheTableSaysSo() throws {
    let pair = try pair { $0.onDelete = "delete" }
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1)")
    try pair.settle()
    try pair.branch.application.script("UPDATE t SET v = 'lost'")
    try pair.head.application.script("DELETE FROM t")
    try pair.settle()
    #expect(try pair.head.count("t") + pair.branch.count("t") == 0)
    #expect(try pair.head.text("SELECT loser -> 'row' ->> 'v' FROM hub.conflict") == "lost")
  }

  @Test(arguments: [("head", "1\thead\t1"), ("branch", "1\tbranch\t1"), ("latest", "1\tbranch\t1")])
  func aConcurrentUpdateIsSettledByThePolicy(policy: String, outcome: String) throws {
    let pair = try pair { $0.onConflict = policy }
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1)")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'head'")
    try pair.branch.application.script("UPDATE t SET v = 'branch'")
    try pair.settle()
    #expect(try pair.head.copy("t") == [outcome])
    #expect(try pair.branch.copy("t") == [outcome])
    #expect(try pair.head.count("hub.conflict") == 1)
  }

  @Test("a clock that runs ahead does not win for ever: head stamps its rows again")
  func aClockThatRunsAhead() throws {
    let pair = try pair()
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'x', 1)")
    try pair.branch.hub.script("UPDATE hub.v1 SET stamp = stamp + 3600::bigint * 1000000")
    #expect(try pair.up().restamped == 1)
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'now'")
    try pair.settle()
    #expect(try pair.branch.copy("t") == ["1\tnow\t1"])
    #expect(try pair.head.count("hub.conflict") == 0)
  }

  // MARK: rows that cannot be applied

  @Test("APP-06: unique values that were swapped inside a batch are no error, also far apart")
  func swappedUniqueValues() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t SELECT g, 'x', 1000 + g FROM generate_series(1, 900) g")
    try pair.settle()
    // First and last row: in two blocks of the feed.
    try pair.head.application.script(
      """
      BEGIN; UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1001 WHERE id = 900;
      UPDATE t SET u = 1900 WHERE id = 1; UPDATE t SET v = 'y'; COMMIT
      """)
    #expect(try pair.down().quarantined == 0)
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
    // A unique value that moves from a deleted row to a new one: deletes come last in a feed.
    try pair.head.application.script(
      "BEGIN; DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5000, 'z', 1005); COMMIT")
    #expect(try pair.down().quarantined == 0)
    // A chain through every row.
    try pair.head.application.script(
      """
      BEGIN; UPDATE t SET u = -id - 9000; UPDATE t SET u = 2000 + (id + 1) % 6000; COMMIT
      """)
    try pair.head.application.script(
      "BEGIN; UPDATE t SET u = -id - 9000; UPDATE t SET u = 2000 + (id + 2) % 6000; COMMIT")
    #expect(try pair.down(partBytes: 20_000).quarantined == 0)
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
  }

  @Test("APP-06: a row that comes twice, as that of a cut batch may, and waits both times for a unique value")
  func theSameRowWaitsTwice() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (7, 'head', 96), (5000, 'first', 97)")
    try pair.settle()
    // Head changes the row, too: both that wait are decided, the later one upon what came of the earlier one.
    try pair.head.application.script("UPDATE t SET v = 'head again' WHERE id = 7")
    try pair.branch.application.script("UPDATE t SET u = 98 WHERE id = 5000; UPDATE t SET u = 97 WHERE id = 7")
    let first = try pair.branch.feed().blocks.flatMap { $0.rows() }
    try pair.branch.application.script("UPDATE t SET v = 'later' WHERE id = 7")
    let second = try pair.branch.feed().blocks.flatMap { $0.rows() }
    func row(_ id: String, of rows: [RowBlock]) throws -> RowBlock {
      try #require(rows.first { $0.columns[0].value(0).map { String(decoding: $0, as: UTF8.self) } == id })
    }
    let counts = try pair.head.apply([row("7", of: first), row("7", of: second), row("5000", of: first)])
    #expect(counts.quarantined == 0, "\(counts)")
    #expect(try pair.head.copy("t") == ["7\tlater\t97", "5000\tfirst\t98"])
    // Each decision that is logged was made upon the one before it.
    #expect(
      try pair.head.copy("hub.conflict", order: "id", columns: "winner #>> '{row,v}', loser #>> '{row,v}'")
        == ["head\thead again", "later\thead"])
  }

  @Test("APP-06: one row of a thousand that breaks a unique constraint is quarantined alone")
  func oneUniqueConflict() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (5000, 'first', 97)")
    try pair.branch.application.script("INSERT INTO t SELECT g, 'x', 20 + g FROM generate_series(1, 1000) g")
    let counts = try pair.up()
    #expect(counts.quarantined == 1 && counts.written == 999, "\(counts)")
    let row = try pair.head.hub.script("SELECT key, sqlstate, peer, \"row\" ->> 'u' FROM hub.quarantine")
    #expect((0..<4).map { row.text(0, $0) } == ["{\"id\": \"77\"}", "23505", "branch", "97"])
    #expect(try pair.head.count("t") == 1000)
  }

  @Test("APP-06: a row that breaks a CHECK is quarantined alone, and twice is once")
  func oneCheckViolation() throws {
    let pair = try pair()
    try pair.branch.application.script("ALTER TABLE t DROP CONSTRAINT t_u_check")
    try pair.branch.application.script("INSERT INTO t SELECT g, 'x', g FROM generate_series(1, 100) g")
    let blocks = try pair.branch.feed().blocks
    for _ in 1...2 { #expect(try pair.head.apply(blocks).quarantined == 1) }
    #expect(try pair.head.copy("hub.quarantine", columns: "sqlstate, attempts") == ["23514\t2"])
    #expect(try pair.head.count("t") == 99)
  }

  @Test("APP-06: many rows that cannot be applied do not pile up subtransactions")
  func manyRefusals() throws {
    let pair = try pair()
    try pair.branch.application.script("ALTER TABLE t DROP CONSTRAINT t_u_check, DROP CONSTRAINT t_u_key")
    try pair.branch.application.script("INSERT INTO t SELECT g, 'x', 13 FROM generate_series(1, 3000) g")
    let clock = ContinuousClock()
    var counts = AppliedCounts()
    let took = try clock.measure { counts = try pair.up() }
    #expect(counts.quarantined == 3000)
    #expect(took < .seconds(60))
  }

  @Test("APP-06: a trigger's own error state concerns its row, not the stream")
  func aMadeUpErrorState() throws {
    let pair = try pair()
    try pair.head.application.script(
      """
      CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.v = 'bad' THEN RAISE 'no' USING ERRCODE = 'Z1234'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no(); ALTER TABLE t ENABLE ALWAYS TRIGGER no
      """)
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'good', 1), (2, 'bad', 2)")
    #expect(try pair.up().quarantined == 1)
    #expect(try pair.head.text("SELECT sqlstate FROM hub.quarantine") == "Z1234")
  }

  @Test("APP-06: a long key can be quarantined")
  func aLongKey() throws {
    let pair = try pair("CREATE TABLE t (id bytea PRIMARY KEY, u int CHECK (u <> 13))")
    try pair.branch.application.script("ALTER TABLE t DROP CONSTRAINT t_u_check")
    try pair.branch.application.script(
      "INSERT INTO t SELECT string_agg(decode(md5(g::text), 'hex'), ''), 13 FROM generate_series(1, 160) g")
    #expect(try pair.up().quarantined == 1)
    #expect(try pair.up().quarantined == 0)
  }

  @Test("APP-03: a DEFERRABLE unique constraint holds although the replica role silences it")
  func deferrableUnique() throws {
    let pair = try pair(
      """
      CREATE TABLE t (id int PRIMARY KEY, v text, u int, w int, UNIQUE (u) DEFERRABLE INITIALLY DEFERRED,
        UNIQUE NULLS NOT DISTINCT (v, w) DEFERRABLE)
      """)
    try pair.head.application.script("INSERT INTO t VALUES (1, 'head', 5, 1)")
    try pair.branch.application.script("INSERT INTO t VALUES (2, 'branch', 5, 1), (3, 'fine', 6, NULL)")
    let counts = try pair.up()
    #expect(counts.quarantined == 1 && counts.written == 1)
    #expect(try pair.head.text("SELECT sqlstate FROM hub.quarantine") == "23505")
    try pair.head.application.script("INSERT INTO t VALUES (8, NULL, 8, NULL)")
    try pair.branch.application.script("INSERT INTO t VALUES (9, NULL, 9, NULL)")
    #expect(try pair.up().quarantined == 1)
    // A swap is what such a constraint is for.
    try pair.head.application.script(
      "INSERT INTO t VALUES (10, 'a', 10, 3), (11, 'b', 11, 3); UPDATE t SET u = 21 - u WHERE id IN (10, 11)")
    try pair.down()
    #expect(try pair.branch.text("SELECT u FROM t WHERE id = 10") == "11")
  }

  @Test("APP-07: a column that only the sender has quarantines rows that fill it")
  func aColumnIsMissing() throws {
    let pair = try pair()
    try pair.branch.application.script("ALTER TABLE t ADD extra text")
    try pair.branch.reload()
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'x', 1, NULL)")
    #expect(try pair.up().quarantined == 0)
    try pair.branch.application.script("INSERT INTO t VALUES (2, 'x', 2, 'filled')")
    #expect(try pair.up().quarantined == 1)
    #expect(try pair.head.text("SELECT sqlstate FROM hub.quarantine") == "42703")
  }

  @Test("APP-07: a column that only the receiver has keeps its value, also when unique values are swapped")
  func aColumnOfTheReceiversOwn() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2)")
    try pair.settle()
    try pair.branch.application.script(
      "ALTER TABLE t ADD own text DEFAULT 'kept'; ALTER TABLE t ALTER own SET DEFAULT 'fresh'")
    try pair.branch.reload()
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'z'")
    try pair.down()
    #expect(try pair.branch.copy("t") == ["1\tz\t1\tkept", "2\tz\t2\tkept"])
    try pair.head.application.script(
      "BEGIN; UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1; COMMIT"
    )
    try pair.down()
    #expect(try pair.branch.copy("t", columns: "own") == ["kept", "kept"])
  }

  @Test("APP-08: a text that a cast would cut is refused, not cut")
  func nothingIsCut() throws {
    let wide = "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, d text, e text)"
    let narrow = """
      CREATE DOMAIN code AS varchar(3);
      CREATE TABLE t (id int PRIMARY KEY, a varchar(3), b bit(4), c code, d varchar(3)[], e char(2))
      """
    let (head, branch) = (try Office("head", cluster: 1), try Office("branch", cluster: 2))
    try head.application.script(narrow)
    try branch.application.script(wide)
    try head.track([("public", "t")])
    try branch.track([("public", "t")])
    try branch.application.script(
      """
      INSERT INTO t VALUES (1, 'abcd', '1010', 'abc', '{abc}', 'ab'), (2, 'abc', '10101', 'abc', '{abc}', 'ab'),
        (3, 'abc', '1010', 'abcd', '{abc}', 'ab'), (4, 'abc', '1010', 'abc', '{abcd}', 'ab'),
        (5, 'abc', '1010', 'abc', '{abc}', 'abc'), (6, 'abc', '1010', 'abc', '{abc}', 'ab')
      """)
    let counts = try head.apply(try branch.feed().blocks)
    #expect(counts.quarantined == 5 && counts.written == 1)
    #expect(try head.copy("t") == ["6\tabc\t1010\tabc\t{abc}\tab"])
    #expect(try head.copy("hub.quarantine", columns: "DISTINCT sqlstate") == ["22001", "22026"])
  }

  @Test(
    "APP-03: a trigger ENABLE ALWAYS that swallows a row is found and the row refused when tried often enough"
  )
  func aTriggerThatSwallows() throws {
    let pair = try pair()
    try pair.head.application.script(
      """
      CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.v = 'swallow' THEN RETURN NULL; END IF; RETURN NEW; END $$;
      CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION swallow();
      ALTER TABLE t ENABLE ALWAYS TRIGGER swallow
      """)
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'fine', 1), (2, 'swallow', 2)")
    let blocks = try pair.branch.feed().blocks
    #expect(throws: Raced.self) { try pair.head.apply(blocks) }
    let counts = try pair.head.apply(blocks, refusesMissing: true)
    #expect(counts.written == 1 && counts.quarantined == 1)
    #expect(try pair.head.text("SELECT sqlstate FROM hub.quarantine") == "HB001")
  }

  private static let stamping = """
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 'stamped'; RETURN NEW; END $$;
    CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
    """

  @Test(
    "APP-03: a trigger that stamps rows does not make offices differ; one that fires on replicas does, and is reported")
  func aTriggerThatStamps() throws {
    let pair = try pair()
    try pair.head.application.script(Self.stamping)
    func checkup() throws -> DatabaseCheckup? {
      try DatabaseCheckup.run(pair.head.hub).first { $0.check == "triggers of public.t" }
    }
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'branch', 1)")
    try pair.settle()
    #expect(try pair.head.copy("t") == ["1\tbranch\t1"])
    try pair.head.application.script("UPDATE t SET u = 2")
    try pair.settle()
    #expect(try pair.branch.copy("t") == ["1\tstamped\t2"])
    #expect(try checkup() == nil)
    for kind in ["ALWAYS", "REPLICA"] {
      try pair.head.application.script("ALTER TABLE t ENABLE \(kind) TRIGGER stamp")
      try pair.head.reload()
      try pair.head.hub.script("DELETE FROM hub.altered_row")
      #expect(try checkup()?.isGood == true)
      try pair.branch.application.script("UPDATE t SET v = 'stamped', u = u + 1")
      try pair.settle()
      #expect(try checkup()?.isGood == true)
      try pair.branch.application.script(
        "UPDATE t SET v = 'other'; INSERT INTO t SELECT g, 'new', 2 * g FROM generate_series(11, 12) g ON CONFLICT DO NOTHING"
      )
      try pair.up()
      let found = try checkup()
      #expect(found?.isGood == false && found?.text.contains("column v") == true, "\(found?.text ?? "")")
      #expect(try pair.head.text("SELECT rows FROM hub.altered_row") == "3")
    }
    // Ordinary again: only applications are stamped.
    try pair.head.application.script("ALTER TABLE t ENABLE TRIGGER stamp")
    try pair.head.reload()
    #expect(try checkup() == nil)
  }

  @Test("APP-03: user triggers stay silent on the replica")
  func userTriggersAreSilent() throws {
    let pair = try pair()
    try pair.head.application.script(
      """
      CREATE TABLE audit (what text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END $$;
      CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()
      """)
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'a', 1)")
    try pair.up()
    try pair.head.application.script("UPDATE t SET v = 'b'")
    #expect(try pair.head.copy("audit") == ["UPDATE"])
  }

  @Test("APP-04: a direction is checked at apply; a catalogue does not have the table")
  func directionsAtApply() throws {
    for (direction, sender) in [("down", "branch"), ("up", "head")] {
      let pair = try pair { $0.direction = direction }
      let (from, to) = sender == "branch" ? (pair.branch, pair.head) : (pair.head, pair.branch)
      var block = RowBlock(table: "public.t", columnNames: ["id", "v", "u"], keyCount: 1)
      (block.actors, block.counters, block.stamps, block.alive) = ([1], [1], [1], [true])
      for (column, text) in ["1", "forged", "1"].enumerated() {
        block.columns[column].append(Array(text.utf8))
      }
      #expect(try to.apply([block]).quarantined == 1)
      #expect(try to.text("SELECT sqlstate FROM hub.quarantine") == "25006")
      #expect(try from.apply([block]).written == 1)
      block.table = "public.elsewhere"
      #expect(try from.apply([block]).quarantined == 1)
    }
  }

  // MARK: beside applications

  @Test("APP-02: hub gives way to a lock within its time-out, and the application goes on")
  func hubGivesWay() throws {
    let pair = try pair()
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1)")
    try pair.settle()
    try pair.head.application.script("BEGIN; UPDATE t SET v = 'local' WHERE id = 1")
    try pair.branch.application.script("UPDATE t SET v = 'branch' WHERE id = 1")
    let blocks = try pair.branch.feed().blocks
    let error = #expect(throws: PostgresError.self) { try pair.head.apply(blocks) }
    #expect(error?.sqlstate == "55P03" && error?.isTransient == true)
    try pair.head.application.script("COMMIT")
    #expect(try pair.head.apply(blocks).conflicts == 1)
  }

  @Test("APP-02: an application that has waited long for hub is not the one that a deadlock ends")
  func hubGivesWayAlsoLate() async throws {
    // Believed: a lock_timeout below deadlock_timeout is enough. Wrong: an application that began to wait for hub before
    // hub waited for it was the first to look, and its statement failed ("deadlock detected").
    let pair = try pair(
      "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)",
      [("public", "a"), ("public", "b")])
    try pair.head.application.script(
      """
      INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1, 'x');
      CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.v = 'branch' THEN PERFORM pg_sleep(0.8); END IF; RETURN NEW; END $$;
      CREATE TRIGGER slow BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION slow();
      ALTER TABLE a ENABLE ALWAYS TRIGGER slow
      """)
    try pair.settle()
    try pair.branch.application.script("BEGIN; UPDATE a SET v = 'branch'; UPDATE b SET v = 'branch'; COMMIT")
    let blocks = try pair.branch.feed().blocks
    #expect(blocks.map(\.table) == ["public.a", "public.b"])
    // On a thread of its own, and at its post before hub begins.
    let application = PostgresConnection(url: pair.head.database.url, name: "hub-test")
    let (ready, post) = AsyncStream.makeStream(of: Void.self)
    let waiting = Task {
      try await application.perform { session in
        try session.script("BEGIN; UPDATE public.b SET v = 'local' WHERE id = 1")
        post.finish()
        let isUpdating: SQL = """
          SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'public.a'::regclass AND mode = 'RowExclusiveLock')
          """
        for _ in 0..<300 where try !session.query(isUpdating).bool(0, 0) { try session.script("SELECT pg_sleep(0.01)") }
        try session.script("UPDATE public.a SET v = 'local' WHERE id = 1; COMMIT")
      }
    }
    for await _ in ready {}
    let error = #expect(throws: PostgresError.self) { try pair.head.apply(blocks) }
    #expect(error?.isTransient == true)
    try await waiting.value
    #expect(try pair.head.apply(blocks).conflicts == 2)
  }

  @Test("APP-02: an insert that is not committed yet makes hub wait, then race, then see it")
  func anInsertRace() throws {
    let pair = try pair()
    try pair.head.application.script("BEGIN; INSERT INTO t VALUES (1, 'local', 1)")
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'branch', 1)")
    let blocks = try pair.branch.feed().blocks
    let error = #expect(throws: PostgresError.self) { try pair.head.apply(blocks) }
    #expect(error?.sqlstate == "55P03")
    try pair.head.application.script("COMMIT")
    #expect(try pair.head.apply(blocks).conflicts == 1)
  }

  @Test("APP-02: hub finds a row that an application inserted between its look and its write")
  func anInsertBetweenLookAndWrite() throws {
    let pair = try pair()
    try pair.branch.application.script("INSERT INTO t VALUES (1, 'branch', 1)")
    let block = try #require(try pair.branch.feed().blocks.first)
    let table = try #require(pair.head.tables.first)
    #expect(throws: Raced.self) {
      try pair.head.hub.transaction { session in
        try ApplyTransaction.begin(session)
        let applier = try TableApplier(session: session, table: table, block: block, refusesMissing: false)
        let plan = try RowPlanner(applier: applier, isHead: true, now: Stamp(rawValue: .max / 2)).plan()
        try pair.head.application.script("INSERT INTO t VALUES (1, 'local', 9)")
        try applier.writeRows(plan.writes, replacing: false)
      }
    }
    #expect(try pair.head.copy("t") == ["1\tlocal\t9"])
  }

  @Test("APP-02: an application that refers to a row does not keep hub from updating it")
  func aChildInATransactionDoesNotBlockItsParent() throws {
    let pair = try pair(
      "CREATE TABLE p (id int PRIMARY KEY, v text); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p)",
      [("public", "p"), ("public", "c")])
    try pair.head.application.script("INSERT INTO p VALUES (1, 'x')")
    try pair.settle()
    try pair.branch.application.script("UPDATE p SET v = 'y'")
    try pair.head.application.script("BEGIN; INSERT INTO c VALUES (1, 1)")
    #expect(try pair.up().written == 1)
    try pair.head.application.script("COMMIT")
  }

  @Test("APP-06: a table that was altered under prepared statements is read again, not quarantined")
  func alteredUnderPreparedStatements() throws {
    let pair = try pair()
    for i in 1...3 {
      try pair.head.application.script("INSERT INTO t VALUES (\(i), 'head', \(i))")
      try pair.branch.application.script("INSERT INTO t VALUES (\(i), 'branch', \(i))")
      try pair.up()
    }
    try pair.head.application.script("ALTER TABLE t ALTER v TYPE varchar(40)")
    try pair.head.application.script("INSERT INTO t VALUES (9, 'head', 9)")
    try pair.branch.application.script("INSERT INTO t VALUES (9, 'branch', 9)")
    #expect(try pair.up().quarantined == 0)
    #expect(try pair.head.text("SELECT v FROM t WHERE id = 9") == "branch")
  }
}
