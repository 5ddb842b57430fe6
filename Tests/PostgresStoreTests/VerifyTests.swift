import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

/// Head's and a branch's tables are compared by questions that both databases answer.
@Suite struct VerifyTests {
  private static let schema = "CREATE TABLE t (id int PRIMARY KEY, a text, b numeric)"

  private func scope(_ office: Office, versions: Bool = true, actors: [Int64]? = nil) -> VerifyScope {
    VerifyScope(
      table: "public.t", columns: office.tables[0].columnNames.sorted(), comparesVersions: versions, actors: actors)
  }

  private func answer(_ office: Office, _ question: VerifyQuestion) throws -> VerifyAnswer {
    try office.reload()
    return try office.hub.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
      try TableComparison(session: session, office: office.isHead ? "branch" : nil).answer(question)
    }
  }

  private func looks(_ office: Office, _ keys: [String]) throws -> [RowLook] {
    guard case .rows(let looks) = try answer(office, .rows(scope(office), keys.map { RowKey([Array($0.utf8)]) })) else {
      throw HubError(.damaged, "another answer")
    }
    return looks
  }

  private func digests(_ office: Office, _ set: BucketSet, versions: Bool = true) throws -> [BucketDigest] {
    guard case .digests(let found) = try answer(office, .digests(scope(office, versions: versions), set)) else {
      throw HubError(.damaged, "another answer")
    }
    return found
  }

  /// All that the machine finds between two real databases.
  private func compare(_ pair: Pair, passing: (Pair) throws -> Void = { try $0.settle() }) throws -> Verification {
    var verification = Verification(
      pair.head.tables.map {
        CatalogueTable(schemaName: $0.schemaName, relationName: $0.relationName, options: $0.options)
      })
    var action = verification.begin()
    for _ in 0..<1_000 {
      switch action {
      case .ask(let question):
        action = verification.answered(head: try answer(pair.head, question), branch: try answer(pair.branch, question))
      case .pass:
        try passing(pair)
        action = verification.passed()
      case .finish: return verification
      case .again, .fail: throw HubError(.damaged, "\(action)")
      }
    }
    throw HubError(.damaged, "no end")
  }

  private func found(_ verification: Verification) -> [String: Difference.Kind] {
    Dictionary(
      uniqueKeysWithValues: verification.differences.map {
        (String(decoding: Array($0.key.values.joined(separator: [44])), as: UTF8.self), $0.kind)
      })
  }

  private func unnoticed(_ office: Office, _ sql: String, _ table: String = "t") throws {
    try office.application.script(
      "ALTER TABLE \(table) DISABLE TRIGGER ALL; \(sql); ALTER TABLE \(table) ENABLE TRIGGER ALL")
    // That forgets which of them fire always.
    let names = try office.application.query(
      "SELECT tgname FROM pg_trigger WHERE tgrelid = \(table)::text::regclass AND starts_with(tgname, 'hub_capture_')")
    for i in 0..<names.count {
      try office.application.script("ALTER TABLE \(table) ENABLE ALWAYS TRIGGER \(names.text(i, 0))")
    }
  }

  @Test("CAP-04, CAP-10: equal values of every type have equal digests, in whatever order the columns are")
  func everyType() throws {
    let pair = try Pair(TypesTests.schema)
    try pair.branch.application.script(
      "ALTER TABLE t DROP COLUMN n, DROP COLUMN tx; ALTER TABLE t ADD COLUMN tx text, ADD COLUMN n numeric")
    for office in [pair.head, pair.branch] { try office.track([("public", "t")]) }
    var id = 0
    for (column, values) in TypesTests.values {
      for value in values {
        id += 1
        let other = column == "n2" ? "vc" : "n2"
        try pair.head.application.script(
          "INSERT INTO t (id, \(other), \(column)) VALUES (\(id), \(other == "vc" ? "'x'" : "1.5"), \(value))")
      }
    }
    try pair.settle()
    let verification = try compare(pair)
    #expect(verification.differences.isEmpty && verification.rows == id && verification.notes.isEmpty)
    #expect(try digests(pair.head, .root(step: 6)) == digests(pair.branch, .root(step: 6)))
  }

  @Test("CAP-04: what was changed without triggers is named exactly, at both offices, and nothing else")
  func drift() throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t SELECT g, 'row ' || g, g FROM generate_series(1, 3000) g")
    try pair.settle()
    try pair.branch.application.script("UPDATE t SET a = 'b' WHERE id % 3 = 0")
    try pair.settle()
    #expect(try compare(pair).differences.isEmpty)
    try unnoticed(
      pair.branch,
      "UPDATE t SET a = 'drift' WHERE id = 10; DELETE FROM t WHERE id = 11; INSERT INTO t VALUES (-1, 'n', 0)")
    try unnoticed(
      pair.head, "UPDATE t SET b = 1.50 WHERE id = 12; DELETE FROM t WHERE id = 13; INSERT INTO t VALUES (-2, 'n', 0)")
    // What both have is no difference, nor is what is on its way.
    for office in [pair.head, pair.branch] { try unnoticed(office, "UPDATE t SET a = 'both' WHERE id = 20") }
    try pair.head.application.script("UPDATE t SET a = 'on its way' WHERE id BETWEEN 100 AND 140")
    try pair.branch.application.script(
      "DELETE FROM t WHERE id BETWEEN 200 AND 240; INSERT INTO t VALUES (9000, 'x', 1)")
    let kinds = try found(compare(pair))
    #expect(
      kinds == [
        "10": .differs, "11": .missingAtBranch, "-1": .missingAtHead, "12": .differs, "13": .missingAtHead,
        "-2": .missingAtBranch,
      ])
  }

  @Test(
    "CAP-10: values that many comparisons take for equal are told apart",
    arguments: [
      ("a", "NULL", "''"), ("b", "1.0", "1.00"), ("b", "NULL", "0"), ("a", "'a,b'", "'a\",b'"), ("a", "' '", "''"),
      ("a", "'é'", "E'e\\u0301'"),
    ])
  func near(_ column: String, _ one: String, _ other: String) throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t (id, \(column)) VALUES (1, \(one))")
    try pair.settle()
    #expect(try compare(pair).differences.isEmpty)
    try unnoticed(pair.branch, "UPDATE t SET \(column) = \(other)")
    #expect(try found(compare(pair)) == ["1": .differs])
  }

  @Test("CAP-10: keys of several columns, of texts with quotes and of numeric are found again")
  func oddKeys() throws {
    let pair = try Pair(
      "CREATE TABLE t (n numeric, s text, d date, v text, PRIMARY KEY (n, s, d))", tracking: [("public", "t")])
    try pair.head.application.script(
      """
      INSERT INTO t SELECT g * 1.10, E'it''s, "\\\\" ' || g, DATE '2000-01-01' + g, 'v' FROM generate_series(1, 900) g
      """)
    try pair.settle()
    try unnoticed(pair.branch, "UPDATE t SET v = 'x' WHERE n = 11; DELETE FROM t WHERE n = 22")
    let verification = try compare(pair)
    #expect(Set(verification.differences.map(\.kind)) == [.differs, .missingAtBranch])
    #expect(
      verification.differences.first { $0.kind == .differs }.map { String(decoding: $0.key.values[1], as: UTF8.self) }
        == "it's, \"\\\" 10")
  }

  @Test func theOrderInWhichAVectorIsStoredDoesNotMatter() throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t SELECT g, 'x', 1 FROM generate_series(1, 4) g")
    try pair.settle()
    let versions = pair.head.tables[0].versions
    try pair.head.hub.script(
      """
      UPDATE \(versions) SET actor = 5, n = 7, vector = CASE k1 WHEN 1 THEN ARRAY[5, 7, 3, 1] WHEN 2 THEN ARRAY[5, 7]
        WHEN 3 THEN ARRAY[9, 2, 5, 7, 3, 1] ELSE NULL END::bigint[]
      """)
    try pair.branch.hub.script(
      """
      UPDATE \(pair.branch.tables[0].versions) SET actor = 5, n = 7, vector = CASE k1 WHEN 1 THEN ARRAY[3, 1, 5, 7]
        WHEN 2 THEN NULL WHEN 3 THEN ARRAY[3, 1, 9, 2, 5, 7] ELSE ARRAY[5, 7] END::bigint[]
      """)
    #expect(try digests(pair.head, .root(step: 3)) == digests(pair.branch, .root(step: 3)))
    try pair.branch.hub.script(
      "UPDATE \(pair.branch.tables[0].versions) SET vector = ARRAY[3, 2, 9, 2, 5, 7] WHERE k1 = 3")
    #expect(try digests(pair.head, .root(step: 0)) != digests(pair.branch, .root(step: 0)))
    #expect(
      try digests(pair.head, .root(step: 0), versions: false) == digests(pair.branch, .root(step: 0), versions: false))
    #expect(try found(compare(pair)) == ["3": .versionDiffers])
  }

  @Test func bucketsFallIntoTheirChildren() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(Self.schema)
    try office.track([("public", "t")])
    try office.application.script("INSERT INTO t SELECT g, 'x', g FROM generate_series(1, 2000) g")
    let root = try digests(office, .root(step: 0))[0]
    #expect(root.rows == 2_000)
    let coarse = try digests(office, .root(step: 3))
    #expect(coarse.reduce(0) { $0 + $1.rows } == 2_000 && coarse.reduce(0) { $0 ^ $1.sum } == root.sum)
    let fine = try digests(office, BucketSet(bits: 3, step: 4, buckets: [2, 5]))
    for (at, bucket) in [2, 5].enumerated() {
      let children = fine[at * 16..<at * 16 + 16]
      #expect(children.reduce(0) { $0 ^ $1.sum } == coarse[bucket].sum)
      guard
        case .keys(let keys, false) = try answer(
          office, .keys(scope(office), BucketSet(bits: 3, step: 0, buckets: [Int64(bucket)])))
      else {
        Issue.record("no keys")
        return
      }
      #expect(keys.count == Int(coarse[bucket].rows) && keys.values.reduce(0, ^) == coarse[bucket].sum)
    }
  }

  @Test func ofATableThatBranchesWriteHeadComparesThisBranchesRows() throws {
    let pair = try Pair(Self.schema)
    for office in [pair.head, pair.branch] { try office.track([("public", "t")]) { $0.direction = "up" } }
    try pair.branch.application.script("INSERT INTO t SELECT g, 'mine', g FROM generate_series(1, 500) g")
    let actor = try pair.branch.hub.query("SELECT actor FROM hub.office").int64(0, 0)
    try pair.head.hub.query("INSERT INTO hub.actor VALUES (\(actor), 'branch')")
    try pair.up()
    // Another branch's rows, and one that was at head before it was tracked.
    try pair.head.hub.transaction { session in
      try ApplyTransaction.begin(session)
      try session.script(
        """
        INSERT INTO public.t SELECT g, 'another', g FROM generate_series(1000, 1099) g;
        INSERT INTO \(pair.head.tables[0].versions) SELECT g, 77, g, 1, pg_current_xact_id(), true, false
        FROM generate_series(1000, 1098) g
        """)
    }
    #expect(try compare(pair, passing: { try $0.up() }).rows == 500)
    #expect(try found(compare(pair, passing: { try $0.up() })).isEmpty)
    try unnoticed(pair.branch, "UPDATE t SET a = 'x' WHERE id = 1; INSERT INTO t VALUES (600, 'x', 1)")
    try unnoticed(pair.head, "DELETE FROM t WHERE id IN (3, 1000)")
    let kinds = try found(compare(pair, passing: { try $0.up() }))
    #expect(kinds == ["1": .differs, "600": .missingAtHead, "3": .missingAtHead])
  }

  @Test func rowsInQuarantineAreSaidToBe() throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1), (2, 'x', 1); ALTER TABLE t ADD CHECK (b < 10)")
    try pair.settle()
    try pair.branch.application.script("UPDATE t SET b = 50 WHERE id = 1; INSERT INTO t VALUES (3, 'x', 60)")
    try pair.settle()
    #expect(try found(compare(pair)) == ["1": .quarantined, "3": .quarantined])
  }

  // MARK: repair

  private func restate(_ office: Office, _ rows: [RestatedRow], _ copies: [OverwrittenCopy] = []) throws -> Int {
    try office.hub.transaction { session in
      try RowRestatement(session: session, table: office.tables[0]).run(rows, copies, from: "branch")
    }
  }

  private func key(_ id: Int) -> RowKey { RowKey([Array(String(id).utf8)]) }

  @Test func aRestatedRowIsTakenByTheOtherOfficeAndWhatItOverwritesIsLogged() throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t SELECT g, 'row', g FROM generate_series(1, 9) g")
    try pair.settle()
    try unnoticed(
      pair.branch,
      "UPDATE t SET a = 'drift' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (50, 'new', 1)")
    try unnoticed(pair.head, "INSERT INTO t VALUES (60, 'new', 1); DELETE FROM t WHERE id = 4")
    let (ours, theirs) = (try looks(pair.head, ["1", "2", "60"]), try looks(pair.branch, ["1", "2", "60"]))
    let copy = OverwrittenCopy(
      key: key(1), json: "{\"id\":\"1\",\"a\":\"drift\",\"b\":\"1\"}", vector: theirs[0].vector, kind: .differs)
    let rows = [1, 2, 60].enumerated().map {
      RestatedRow(key: key($1), seen: theirs[$0].vector, expected: ours[$0].vector)
    }
    #expect(try restate(pair.head, rows, [copy]) == 3)
    let (mine, others) = (try looks(pair.branch, ["4", "50"]), try looks(pair.head, ["4", "50"]))
    let up = [4, 50].enumerated().map { RestatedRow(key: key($1), seen: others[$0].vector, expected: mine[$0].vector) }
    #expect(try restate(pair.branch, up) == 2)
    try pair.settle()
    #expect(try compare(pair).differences.isEmpty)
    for office in [pair.head, pair.branch] {
      #expect(try office.text("SELECT a FROM t WHERE id = 1") == "row")
      #expect(
        try office.text("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE id IN (2, 4, 50, 60)") == "2 4 50 60"
      )
    }
    let entries = try ConflictEntry.list(pair.head.hub)
    #expect(entries.count == 1 && entries[0].reason == "repaired" && entries[0].winner.office == "head")
    #expect(try ConflictEntry.find(pair.head.hub, entries[0].id).loser.row?["a"] == "drift")
  }

  @Test func aRowThatWasWrittenSinceItWasComparedIsLeftAlone() throws {
    let pair = try Pair(Self.schema, tracking: [("public", "t")])
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 1)")
    try pair.settle()
    let look = try looks(pair.head, ["1"])[0]
    try pair.head.application.script("UPDATE t SET a = 'later'")
    #expect(try restate(pair.head, [RestatedRow(key: key(1), seen: nil, expected: look.vector)]) == 0)
    #expect(try restate(pair.head, [RestatedRow(key: key(2), seen: nil, expected: look.vector)]) == 0)
  }

  @Test func whatHeadDoesNotHaveOfItsOwnTableGoesAtTheBranch() throws {
    let pair = try Pair(Self.schema)
    for office in [pair.head, pair.branch] { try office.track([("public", "t")]) { $0.direction = "down" } }
    try pair.head.application.script("INSERT INTO t SELECT g, 'row', g FROM generate_series(1, 9) g")
    try pair.down()
    try pair.branch.application.script(
      "ALTER TABLE t DISABLE TRIGGER ALL; INSERT INTO t VALUES (50, 'mine', 1); ALTER TABLE t ENABLE TRIGGER ALL")
    let ours = try looks(pair.head, ["50"])[0]
    let copy = OverwrittenCopy(key: key(50), json: "{\"id\":\"50\"}", vector: nil, kind: .missingAtHead)
    #expect(try restate(pair.head, [RestatedRow(key: key(50), seen: nil, expected: ours.vector)], [copy]) == 1)
    try pair.down()
    #expect(try pair.branch.count("t") == 9)
    #expect(try ConflictEntry.list(pair.head.hub).map(\.type) == ["update_deleted"])
    #expect(try compare(pair).differences.isEmpty)
  }
}
