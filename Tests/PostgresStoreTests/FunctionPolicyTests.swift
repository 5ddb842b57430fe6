import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct FunctionPolicyTests {
  private static let schema = """
    CREATE TABLE t (id int PRIMARY KEY, v text, qty numeric(6,2), j json, twice int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE SCHEMA "Own";
    CREATE FUNCTION "Own".pick(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
      CASE local ->> 'v'
        WHEN 'keep' THEN RETURN NULL;
        WHEN 'local' THEN RETURN local;
        WHEN 'incoming' THEN RETURN incoming;
        WHEN 'third' THEN RETURN local || jsonb_build_object('v', 'both', 'qty',
          (local ->> 'qty')::numeric + (incoming ->> 'qty')::numeric);
        WHEN 'part' THEN RETURN '{"v": "part of it"}';
        WHEN 'raise' THEN RAISE EXCEPTION 'no idea' USING ERRCODE = 'ZZ123';
        WHEN 'key' THEN RETURN local || '{"id": 99}';
        WHEN 'stranger' THEN RETURN local || '{"colour": 1}';
        WHEN 'scalar' THEN RETURN '5';
        WHEN 'large' THEN RETURN local || '{"qty": 123456.7}';
        WHEN 'write' THEN DELETE FROM public.t; RETURN local;
        WHEN 'slow' THEN PERFORM pg_sleep(30); RETURN local;
      END CASE;
    END $$;
    """

  /// Row 1 is edited at both offices, `v` at head being what the function does; row 2 at the branch alone.
  private func conflict(_ head: String) throws -> (Pair, AppliedCounts) {
    let pair = try Pair(Self.schema, tracking: [("public", "t")]) {
      $0.onConflict = "function:\"Own\".pick"
      $0.onDelete = "delete"
    }
    try pair.head.application.script("INSERT INTO t VALUES (1, 'x', 0, '{\"a\":  1}'), (2, 'x', 0, NULL)")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = '\(head)', qty = 10.5 WHERE id = 1")
    try pair.branch.application.script("UPDATE t SET v = 'arrived', qty = 2.25; UPDATE t SET v = 'other' WHERE id = 2")
    return (pair, try pair.up())
  }

  @Test(arguments: [
    ("keep", "keep\t10.50\t{\"a\":  1}", "head"), ("local", "local\t10.50\t{\"a\":  1}", "head"),
    ("incoming", "arrived\t2.25\t{\"a\":  1}", "branch"), ("third", "both\t12.75\t{\"a\":  1}", "head"),
    ("part", "part of it\t10.50\t{\"a\":  1}", "head"),
  ])
  func aFunctionDecides(_ does: String, row: String, winner: String) throws {
    let (pair, counts) = try conflict(does)
    #expect(counts.conflicts == 1 && counts.quarantined == 0)
    try pair.settle()
    #expect(try pair.head.copy("t", order: "id", columns: "v, qty, j").first == row)
    #expect(try pair.branch.copy("t") == pair.head.copy("t"))
    let log = try pair.head.hub.script(
      "SELECT policy, reason, winner ->> 'office', winner -> 'answer' ->> 'v', loser ->> 'office' FROM hub.conflict")
    let answer = ["third": "both", "part": "part of it"][does] ?? ""
    #expect(
      (0..<5).map { log.text(0, $0) }
        == ["function:\"Own\".pick", "function", winner, answer, winner == "head" ? "branch" : "head"])
  }

  @Test(
    "APP: what a function cannot settle is quarantined with its SQLSTATE, the rest arrives",
    arguments: [
      ("raise", "ZZ123"), ("key", "22023"), ("stranger", "22023"), ("scalar", "22023"), ("large", "22003"),
      ("write", "25006"), ("slow", "57014"), ("missing case", "20000"),
    ])
  func aFunctionThatFails(_ does: String, sqlstate: String) throws {
    let (pair, counts) = try conflict(does)
    #expect(counts.quarantined == 1 && counts.conflicts == 0 && counts.written == 1)
    #expect(try pair.head.copy("t", order: "id", columns: "v") == [does, "other"])
    #expect(try pair.head.copy("hub.quarantine", columns: "key, sqlstate") == ["{\"id\": \"1\"}\t\(sqlstate)"])
    // The branch keeps its own; the row is tried again, and nothing turns in circles.
    try pair.settle()
    #expect(try pair.branch.copy("t", order: "id", columns: "v") == ["arrived", "other"])
    // Mended, it goes in.
    try pair.head.application.script(
      """
      CREATE OR REPLACE FUNCTION "Own".pick(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql
      AS 'SELECT incoming';
      """)
    try pair.branch.application.script("UPDATE t SET v = 'again' WHERE id = 1")
    try pair.settle()
    #expect(try pair.head.copy("t") == pair.branch.copy("t"))
    #expect(try pair.head.copy("t", order: "id", columns: "v") == ["again", "other"])
  }

  @Test func ofADeleteTheFunctionIsNotAsked() throws {
    let (pair, _) = try conflict("local")
    try pair.settle()
    try pair.head.application.script("UPDATE t SET v = 'raise' WHERE id = 1")
    try pair.branch.application.script("DELETE FROM t WHERE id = 1")
    try pair.settle()
    #expect(try pair.head.count("t") == 1 && pair.branch.count("t") == 1)
  }

  @Test(arguments: [
    ("function:pick", "no function pick in schema public"), ("function:\"Own\".other", "no function other"),
    ("function:public.wrong", "does not take two jsonb"), ("function:", "is not the name of a function"),
    ("function:a.b.c", "is not the name of a function"),
  ])
  func aFunctionIsLookedAtWhenTheTableIsTracked(_ policy: String, message: String) throws {
    let head = try Office("head", cluster: 1)
    try head.application.script(
      Self.schema + "CREATE FUNCTION wrong(json, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2'")
    do {
      try head.track([("public", "t")]) { $0.onConflict = policy }
      Issue.record("tracked")
    } catch let error as HubError {
      #expect(error.message.contains(message), "\(error.message)")
    }
  }
}
