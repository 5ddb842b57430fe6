import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct FeedTests {
  private func office(_ schema: String, _ names: [(String, String)] = [("public", "t")]) throws -> Office {
    let office = try Office("head", cluster: 1)
    try office.application.script(schema)
    try office.track(names)
    return office
  }

  /// All windows of a catch-up, each a transaction of its own that goes on from the last one's cursor.
  private func windows(_ office: Office, rowsMax: Int, partBytes: Int = 1 << 20) throws -> [[String]] {
    var keys: [[String]] = []
    var cursor: [UInt8] = []
    while true {
      let isLast = try office.hub.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
        let after = cursor.isEmpty ? nil : WindowCursor(cursor)
        let scan = FeedScan(
          session: session, tables: office.tables, since: .beginning, echoes: true, isKeyed: true,
          after: after,
          partBytes: partBytes)
        let part = try scan.next(rowsMax: rowsMax)
        #expect(part.rows <= rowsMax)
        for block in part.blocks { keys += block.keys.map { [block.table] + $0 } }
        if !part.cursor.isEmpty { cursor = part.cursor }
        session.rollBack()
        try session.script("BEGIN")
        return part.isLast
      }
      if isLast { return keys }
    }
  }

  @Test(
    "CAP-05: windows over composite and text keys give every row once, in order, quotes and unicode included",
    arguments: [1, 7, 1000])
  func windowsGiveEveryRowOnce(rowsMax: Int) throws {
    let office = try office(
      """
      CREATE EXTENSION citext; CREATE TYPE pt AS (x int, y text); CREATE TYPE mood AS ENUM ('z', 'a');
      CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      CREATE TABLE a (x int, y text, PRIMARY KEY (y, x)); CREATE TABLE b (k citext, m mood, PRIMARY KEY (k, m));
      CREATE TABLE c (k pt PRIMARY KEY); CREATE TABLE d (k text COLLATE nocase PRIMARY KEY); CREATE TABLE e (k numeric, f float8, ch char(3), PRIMARY KEY (k, f, ch));
      INSERT INTO a SELECT g % 5, (ARRAY['', '''', '"', E'\\\\', 'é', '😀', E'\\n', ' ', 'NULL', 'A', 'a', E'\\u0001'])[g / 5 + 1] FROM generate_series(0, 59) g;
      INSERT INTO b SELECT (ARRAY['B', 'a', 'É', '\\N', ''''])[g % 5 + 1], (ARRAY['z', 'a'])[g / 5 + 1]::mood FROM generate_series(0, 9) g;
      INSERT INTO c VALUES ((1, 'a')), ((1, NULL)), ((NULL, 'b,"')), ((NULL, NULL)), ((2, ''));
      INSERT INTO d VALUES ('B'), ('a'), ('é'), ('e'); INSERT INTO e VALUES (1.0, 'NaN', 'a'), ('NaN', 0.1, 'b'), (-1e30, '-Infinity', ''), (1.0, 0.3, 'a')
      """, ["a", "b", "c", "d", "e"].map { ("public", $0) })
    try office.application.script("DELETE FROM a WHERE x = 3")
    let keys = try windows(office, rowsMax: rowsMax)
    #expect(keys.count == 60 + 10 + 5 + 4 + 4)
    #expect(Set(keys).count == keys.count)
  }

  @Test("CAP-05: a keyed scan cut anywhere by its bytes goes on where it stopped")
  func partsOfAWindow() throws {
    let office = try office(
      "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', g % 400) FROM generate_series(1, 3000) g"
    )
    #expect(try windows(office, rowsMax: 3000, partBytes: 5000).count == 3000)
  }

  @Test func bytesThatAreNoCursorAreNone() {
    for bytes: [UInt8] in [[], [0], [0, 0, 0, 9, 1], [0, 0, 0, 1, 65], [255, 255, 255, 255, 1]] {
      #expect(WindowCursor(bytes) == nil)
    }
    let cursor = WindowCursor(table: "public.t", key: ["", "é'\"\\"])
    #expect(WindowCursor(cursor.bytes) == cursor)
  }

  @Test func aPositionThatIsNoneIsTheBeginning() {
    #expect(
      FeedPosition(text: "10:20:12,15").isNew("v")
        == "(v.xid >= '20'::xid8 OR v.xid IN ('12'::xid8, '15'::xid8))")
    #expect(FeedPosition(text: "10:20:").isNew("v") == "v.xid >= '20'::xid8")
    for text in ["", "x", "1:2", "1:'; DROP TABLE t; --:3", "1:-2:"] {
      #expect(FeedPosition(text: text).isNew("v") == "true")
    }
  }

  @Test("CAP-05: children follow their parents, deletes come last and children first")
  func orderOfTables() throws {
    let office = try office(
      """
      CREATE TABLE z (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY REFERENCES z); CREATE TABLE m (id int PRIMARY KEY REFERENCES a);
      INSERT INTO z VALUES (1), (2); INSERT INTO a VALUES (1), (2); INSERT INTO m VALUES (1), (2)
      """, [("public", "a"), ("public", "m"), ("public", "z")])
    try office.application.script(
      "DELETE FROM m WHERE id = 1; DELETE FROM a WHERE id = 1; DELETE FROM z WHERE id = 1")
    let blocks = try office.feed().blocks
    #expect(
      blocks.map { "\($0.table) \($0.alive[0])" } == [
        "public.z true", "public.a true", "public.m true", "public.m false", "public.a false",
        "public.z false",
      ])
  }

  @Test("CAP-10: two hundred thousand rows come in parts of bounded size, and arrive")
  func manyRows() throws {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v text, w numeric)", tracking: [("public", "t")])
    try pair.head.application.script(
      "INSERT INTO t SELECT g, md5(g::text), g / 7.0 FROM generate_series(1, 200000) g")
    var largest = 0
    var rows = 0
    try pair.head.hub.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
      let scan = FeedScan(
        session: session, tables: pair.head.tables, since: .beginning, echoes: false, partBytes: 1 << 20)
      while true {
        let part = try scan.next()
        rows += part.rows
        largest = max(largest, part.blocks.reduce(0) { $0 + $1.columns.reduce(0) { $0 + $1.blob.count } })
        if part.isLast { return }
      }
    }
    #expect(rows == 200_000)
    #expect(largest < 3 << 20)
    let applied = try ContinuousClock().measure { _ = try pair.down(partBytes: 1 << 20) }
    #expect(try pair.branch.count("t") == 200_000)
    #expect(applied < .seconds(120))
  }

  @Test("CAP-10: wide rows among narrow ones do not make a part larger than one of them")
  func wideRows() throws {
    let pair = try Pair("CREATE TABLE t (id int PRIMARY KEY, v bytea)", tracking: [("public", "t")])
    try pair.head.application.script(
      """
      INSERT INTO t SELECT g, '' FROM generate_series(1, 5000) g;
      INSERT INTO t SELECT 5000 + g, decode(repeat(md5(g::text), 327680 / 2), 'hex') FROM generate_series(1, 20) g;
      INSERT INTO t SELECT 6000 + g, '' FROM generate_series(1, 5000) g
      """)
    for isKeyed in [false, true] {
      var sizes: [Int] = []
      var rows = 0
      try pair.head.hub.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
        let scan = FeedScan(
          session: session, tables: pair.head.tables, since: .beginning, echoes: false, isKeyed: isKeyed,
          partBytes: 1 << 20)
        while true {
          let part = try scan.next()
          rows += part.rows
          sizes.append(part.blocks.reduce(0) { $0 + $1.columns.reduce(0) { $0 + $1.blob.count } })
          if part.isLast { return }
        }
      }
      #expect(rows == 10_020)
      #expect((sizes.max() ?? 0) < 7 << 20, "\(sizes)")
    }
    try pair.down()
    let digest = "SELECT md5(string_agg(md5(v), '' ORDER BY id)) FROM t"
    #expect(try pair.branch.text(digest) == pair.head.text(digest))
  }

  @Test(
    "CAP-05: a scan that is given up half-way leaves the connection usable, and no statement steals its rows")
  func aScanGivenUp() throws {
    let office = try office(
      "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 300) g"
    )
    try office.hub.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    let scan = FeedScan(
      session: office.hub, tables: office.tables, since: .beginning, echoes: false, partBytes: 10_000)
    #expect(try scan.next().rows == 10)
    #expect(throws: PostgresError.self) { try office.hub.script("SELECT 1") }
    try office.hub.forgetPrepared()
    #expect(try scan.next().rows == 10)
    office.hub.rollBack()
    #expect(!office.hub.isInTransaction)
    #expect(try office.hub.script("SELECT 1").int(0, 0) == 1)
  }
}
