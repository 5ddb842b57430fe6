import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct PolicyTests {
    @Test(
      "§3: a function that tosses a coin settles conflicts and all offices end equal; where it fails, that row waits")
    func aCoinTossConverges() throws {
      let schema = """
        CREATE TABLE doc (id int PRIMARY KEY, v text NOT NULL);
        INSERT INTO doc SELECT g, 'start' FROM generate_series(1, 60) g;
        CREATE FUNCTION toss(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
          IF (local ->> 'id')::int = 60 THEN RAISE EXCEPTION 'a coin on its edge' USING ERRCODE = 'ZZ060'; END IF;
          RETURN CASE floor(random() * 3) WHEN 0 THEN local WHEN 1 THEN incoming
            ELSE local || jsonb_build_object('v', concat(local ->> 'v', ' and ', incoming ->> 'v')) END;
        END $$;
        """
      let tracks = [["doc", "--on-conflict", "function:public.toss"]]
      try Company.with(branches: 2, schema: schema, tracks: tracks) { company in
        try company.settle(["doc"])
        for office in company.offices { #expect(try office.stop() == 0) }
        for office in company.offices { try office.run("UPDATE doc SET v = '\(office.name)' WHERE id < 60") }
        for branch in company.branches { try branch.run("UPDATE doc SET v = '\(branch.name)' WHERE id = 60") }
        for office in company.offices { try office.start() }
        try until(60, "all are equal but for the row that the function refuses") {
          let copies = try company.offices.map { try $0.connect().copy("SELECT * FROM doc WHERE id < 60 ORDER BY id") }
          return copies.allSatisfy { $0 == copies[0] }
        }
        let head = try company.head.connect()
        let kept = try head.run("SELECT v, count(*) FROM doc WHERE id < 60 GROUP BY 1 ORDER BY 1")
        say("a coin toss: \(kept)")
        #expect(kept.count > 1, "it decides row by row")
        #expect(try head.value("SELECT bool_and(v <> 'start') FROM doc WHERE id < 60") == "t")
        #expect(try head.number("SELECT count(DISTINCT key) FROM hub.conflict") == 59)
        #expect(
          try head.value("SELECT string_agg(DISTINCT policy || ' ' || reason, ',') FROM hub.conflict")
            == "function:public.toss function")
        #expect(try head.run("SELECT sqlstate, key ->> 'id' FROM hub.quarantine") == [["ZZ060", "60"]])
        // Mended, the last row goes in too.
        let mended = "CREATE OR REPLACE FUNCTION toss(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql"
        try head.run("\(mended) AS 'SELECT incoming'")
        try company.branches.first?.run("UPDATE doc SET v = v || '!' WHERE id = 1")
        try company.settle(["doc"])
        #expect(try head.number("SELECT count(*) FROM hub.quarantine") == 0)
      }
    }
  }
}
