import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct ConflictTests {
    @Test("the same row edited at offices that were apart: one winner everywhere, one entry with both rows at head")
    func conflictsEndTheSameEverywhere() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try head.run("INSERT INTO stock SELECT s, 1, 'head' FROM unnest('{uu,ud,du,dd,same,ins-del}'::text[]) s")
        try company.settle(["stock"])
        for office in company.offices { #expect(try office.stop() == 0) }
        // update/update
        try a.run("UPDATE stock SET qty = 10, place = 'a' WHERE sku = 'uu'")
        try b.run("UPDATE stock SET qty = 20, place = 'b' WHERE sku = 'uu'")
        // update at one, delete at the other, in both orders
        try a.run("UPDATE stock SET qty = 11 WHERE sku = 'ud'")
        try b.run("DELETE FROM stock WHERE sku = 'ud'")
        try a.run("DELETE FROM stock WHERE sku = 'du'")
        try b.run("UPDATE stock SET qty = 12 WHERE sku = 'du'")
        // deleted at both, the same value at both
        for office in [a, b] {
          try office.run("DELETE FROM stock WHERE sku = 'dd'; UPDATE stock SET qty = 5 WHERE sku = 'same'")
        }
        // insert/insert
        for office in company.offices {
          try office.run("INSERT INTO stock VALUES ('ii', \(office.name.utf8.count), '\(office.name)')")
        }
        for office in company.offices { try office.start() }
        try until(60, "all are equal and quiet") {
          try company.offices.allSatisfy { try $0.hub("sync", "--timeout", "20s").code == 0 }
        }
        try company.settle(["stock"])
        func row(_ sku: String) throws -> String {
          try head.connect().value("SELECT qty || ' ' || place FROM stock WHERE sku = '\(sku)'")
        }
        #expect(try row("uu") == "20 b", "the latest wins")
        #expect(
          try row("ud") == "11 head" && row("du") == "12 head", "an update wins over a delete that had not seen it")
        #expect(try row("dd") == "" && row("same") == "5 head")
        #expect(try row("ii") == "1 b", "the latest insert wins as a whole row")
        let conflicts = try head.connect().run(
          "SELECT key->>'sku', count(*), bool_and(winner->'row' IS NOT NULL AND loser->'row' IS NOT NULL), min(table_name) FROM hub.conflict GROUP BY 1 ORDER BY 1"
        )
        let names = conflicts.map { ($0[0] ?? "", $0[1] ?? "", $0[2] ?? "") }
        say("conflicts: \(conflicts)")
        #expect(names.first { $0.0 == "uu" }.map { $0.1 == "1" && $0.2 == "t" } == true, "\(conflicts)")
        for sku in ["ud", "du", "ii"] { #expect(names.contains { $0.0 == sku }, "no entry of \(sku): \(conflicts)") }
        #expect(!names.contains { $0.0 == "dd" || $0.0 == "same" }, "equal outcomes are no conflict: \(conflicts)")
        let uu = try head.connect().run(
          "SELECT winner->>'office', loser->>'office', winner->'row'->>'qty', loser->'row'->>'qty', resolved, type FROM hub.conflict WHERE key->>'sku' = 'uu'"
        )
        // Each copy bears the name of the office that wrote it, in whatever order they came.
        #expect(uu.first?.map { $0 ?? "" } == ["b", "a", "20", "10", "t", "update_origin_differs"], "\(uu)")
        // Branches hold nothing: whatever comes next passes.
        try a.run("UPDATE stock SET qty = qty + 100")
        try company.eventually(b, "SELECT min(qty) >= 100 FROM stock", is: "t")
        try company.settle(["stock"])
      }
    }

    @Test("hundreds of rows edited everywhere while apart end equal, every lost write is in the log")
    func manyConflictsConverge() throws {
      let schema =
        "CREATE TABLE doc (id int PRIMARY KEY, v text); INSERT INTO doc SELECT g, 'start' FROM generate_series(1, 300) g;"
      try Company.with(branches: 2, schema: schema, tracks: [["doc"]]) { company in
        for round in 1...(Servers.isFull ? 10 : 3) {
          for office in company.offices { #expect(try office.stop() == 0) }
          var written: [String: [Int]] = [:]
          for office in company.offices {
            let application = try office.connect()
            let tag = "\(office.name)\(round)"
            let ids = (1...300).filter { _ in Bool.random() }.map(String.init).joined(separator: ",")
            let updated = try application.run("UPDATE doc SET v = '\(tag)' WHERE id IN (\(ids)) RETURNING id")
            written[tag] = updated.compactMap { $0[0].flatMap { Int($0) } }
            try application.run("DELETE FROM doc WHERE id % 17 = \(round) AND v <> '\(tag)'")
          }
          for office in company.offices.shuffled() { try office.start() }
          try company.settle(["doc"], within: 90)
          for office in company.offices { try office.must("sync", "--timeout", "60s") }
          try company.settle(["doc"])
          // A write that is not current was logged as a loser.
          let head = try company.head.connect()
          for (tag, ids) in written {
            let missing = try head.run(
              """
              SELECT id FROM unnest('{\(ids.map(String.init).joined(separator: ","))}'::int[]) AS id
              WHERE NOT EXISTS (SELECT FROM doc WHERE doc.id = id.id AND v = '\(tag)')
                AND NOT EXISTS (SELECT FROM hub.conflict WHERE key->>'id' = id.id::text
                  AND (loser->'row'->>'v' = '\(tag)'))
              """)
            #expect(missing.isEmpty, "writes \(tag) lost without a word: \(missing.prefix(5)) of \(missing.count)")
          }
        }
        for office in company.offices {
          #expect(try office.connect().value("SELECT count(*) FROM hub.quarantine") == "0")
        }
      }
    }

    @Test("APP: rows that head cannot take are quarantined with their SQLSTATE, the rest arrives, mended they go in")
    func badRowsDoNotBlockTheOthers() throws {
      let schema = """
        CREATE TABLE part (id serial PRIMARY KEY, weight int NOT NULL, name text);
        CREATE TABLE kit (id int PRIMARY KEY, note text);
        CREATE TABLE piece (id int PRIMARY KEY, kit int REFERENCES kit, v int);
        INSERT INTO kit VALUES (1, 'one'), (2, 'two');
        """
      try Company.with(branches: 2, schema: schema, tracks: [["part"], ["kit"], ["piece"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try head.run("ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 1000) NOT VALID")
        try a.run("INSERT INTO part (weight, name) SELECT g, 'p' || g FROM generate_series(1, 1000) g")
        try company.eventually(head, "SELECT count(*) FROM part", is: "999")
        try company.eventually(head, "SELECT count(*) FROM hub.quarantine", is: "1")
        let row = try head.connect().run(
          "SELECT sqlstate, peer, table_name, \"row\"->>'weight', error FROM hub.quarantine")
        #expect(row.first?.prefix(4).map { $0 ?? "" } == ["23514", "a", "public.part", "1000"], "\(row)")
        #expect(row.first?[4]?.contains("light") == true, "\(row)")
        try until(20, "status counts it") { try head.status()["quarantined"] as? Int == 1 }
        try company.eventually(b, "SELECT count(*) FROM part", is: "999")
        // The row changes at the branch so that it fits, another does not.
        try head.run("ALTER TABLE part DROP CONSTRAINT light")
        try a.run("INSERT INTO part (weight, name) VALUES (5, 'a nudge')")
        try company.eventually(head, "SELECT count(*) FROM hub.quarantine", is: "0", within: 60)
        try company.settle(["part"])
        #expect(try b.connect().value("SELECT count(*) FROM part") == "1001")
        // The parent goes at head while a child comes at a branch that is apart: it comes back.
        #expect(try a.stop() == 0)
        try head.run("DELETE FROM kit WHERE id = 2")
        try a.run("INSERT INTO piece VALUES (20, 2, 1), (10, 1, 1)")
        try a.start()
        try company.eventually(head, "SELECT count(*) FROM piece WHERE id IN (10, 20)", is: "2")
        try until(60, "no quarantine is left") {
          try company.offices.allSatisfy { try $0.connect().number("SELECT count(*) FROM hub.quarantine") == 0 }
        }
        try company.settle(["kit", "piece"])
      }
    }
  }
}
