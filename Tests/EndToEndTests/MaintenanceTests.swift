import Foundation
import Testing

extension EndToEnd {
  /// What people who look after a database do to it, while hub runs.
  @Suite(.serialized)
  struct MaintenanceTests {
    private static let schema = """
      CREATE TABLE item (id int PRIMARY KEY, v text);
      CREATE TABLE line (id bigserial PRIMARY KEY, item int REFERENCES item, v text);
      INSERT INTO item SELECT g, 'first' FROM generate_series(1, 50) g;
      """
    private static let tracks = [["item"], ["line"]]

    private func count(_ office: Office, _ rest: String) throws -> Int {
      try office.connect().number("SELECT count(*) FROM \(rest)")
    }

    /// Believed: a table that is not there has nothing to send. What was written to it under another name was behind the
    /// feed's position when it had its name again, and went nowhere.
    @Test(
      "CAP: a table that is renamed for a while, or without its primary key, loses nothing; the others go on",
      arguments: ["head", "a"],
      [
        ("ALTER TABLE line RENAME TO away", "away", "ALTER TABLE away RENAME TO line"),
        (
          "ALTER TABLE line DROP CONSTRAINT line_pkey", "line", "ALTER TABLE line ADD PRIMARY KEY (id)"
        ),
      ])
    func aTableMayBeAway(_ name: String, _ change: (away: String, name: String, back: String)) throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let office = company[name]
        let other = name == "a" ? company.head : company["a"]
        try company.settle(["item", "line"])
        try office.run(change.away)
        try until(20, "it is said") { try office.must("status").output.contains("table public.line: tracked") }
        #expect(try office.hub("doctor").code == 1)
        for i in 1...3 {
          try office.run("INSERT INTO \(change.name) (item, v) VALUES (1, 'away \(i)')")
          try office.run("UPDATE item SET v = 'away \(i)' WHERE id = \(i)")
          // The feed is past that row by then.
          try company.eventually(other, "SELECT count(*) FROM item WHERE v = 'away \(i)'", is: "1")
        }
        try other.run("INSERT INTO line (item, v) VALUES (2, 'to it')")
        try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "1")
        // A hub that is started meanwhile knows no more than this.
        try office.stop()
        try office.startAndWait()
        try office.run(change.back)
        try company.settle(["item", "line"])
        #expect(try count(other, "line WHERE v LIKE 'away%'") == 3)
        #expect(try count(office, "line WHERE v = 'to it'") == 1)
        try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "0")
        #expect(try office.hub("doctor").code == 0)
      }
    }

    /// Believed: triggers stay with a table. One that was dropped and made anew had none, and nobody was told.
    @Test(
      "CAP: a table that is dropped and made anew is captured again, and healed by hub verify",
      arguments: ["head", "a"])
    func aTableMayBeMadeAnew(_ name: String) throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let office = company[name]
        try company["b"].run("INSERT INTO line (item, v) SELECT 1, 'old' FROM generate_series(1, 20)")
        try company.settle(["item", "line"])
        try office.run("DROP TABLE line")
        try until(20, "it is said") { try office.must("status").output.contains("table public.line: tracked") }
        // Another table is tracked meanwhile: a branch takes the catalogue, and makes what it lacks.
        if name == "a" {
          try company.head.run("CREATE TABLE late (id int PRIMARY KEY)")
          _ = try company.track(["late"])
          try company.eventually(office, "SELECT count(*) FROM pg_tables WHERE tablename = 'line'", is: "1")
        } else {
          try office.run("CREATE TABLE line (id bigserial PRIMARY KEY, item int REFERENCES item, v text)")
        }
        try company.eventually(
          office,
          "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('line') AND tgname = 'hub_capture_insert'",
          is: "1")
        try office.run("INSERT INTO line (id, item, v) VALUES (1000000, 1, 'new')")
        try company.eventually(company["b"], "SELECT count(*) FROM line WHERE v = 'new'", is: "1")
        #expect(try company.head.hub("verify").code == 1)
        try company.head.must("verify", "--repair")
        try company.settle(["item", "line"])
        #expect(try count(company.head, "line") == 21)
        try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "0")
      }
    }

    @Test("CAP: branches that were away, or joined, while head's table was not there get all of it when it is back")
    func branchesComeWhileATableIsAway() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a) = (company.head, company["a"])
        try company.settle(["item", "line"])
        try a.stop()
        try head.run("INSERT INTO line (item, v) VALUES (1, 'before')")
        try company.eventually(company["b"], "SELECT count(*) FROM line", is: "1")
        try head.run("ALTER TABLE line RENAME TO away")
        try until(20, "hub has seen it") {
          try head.connect().value("SELECT is_missing FROM hub.tracked WHERE id = 2") == "t"
        }
        try a.startAndWait()
        try head.run("UPDATE item SET v = 'meanwhile' WHERE id = 1")
        try company.eventually(a, "SELECT v FROM item WHERE id = 1", is: "meanwhile")
        let late = try company.open("late", cluster: 4)
        try company.join(late)
        try late.start()
        try head.run("ALTER TABLE away RENAME TO line")
        try company.settle(["item", "line"])
        try late.run("INSERT INTO line (item, v) VALUES (1, 'late')")
        try company.settle(["item", "line"])
        #expect(try count(a, "line") == 2)
      }
    }

    @Test(
      "CAP: a table made anew with other keys is left alone, said to be so, and keeps nobody waiting; mended it is taken up"
    )
    func aTableMayBeMadeOtherwise() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: Self.tracks) { company in
        let a = company["a"]
        try company.settle(["item", "line"])
        try a.run("DROP TABLE line; CREATE TABLE line (id text PRIMARY KEY, item int REFERENCES item, v text)")
        try until(20, "it is said") {
          a.daemon?.errorText.contains("not there with the primary key that it had") == true
        }
        try a.run("UPDATE item SET v = 'on' WHERE id = 1")
        try company.settle(["item"])
        #expect(a.daemon?.isRunning == true)
        try a.run("DROP TABLE line; CREATE TABLE line (id bigserial PRIMARY KEY, item int REFERENCES item, v text)")
        try company.eventually(
          a, "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('line') AND tgname = 'hub_capture_insert'",
          is: "1", within: 90)
        try a.run("INSERT INTO line (item, v) VALUES (1, 'on')")
        try company.settle(["item", "line"])
      }
    }

    @Test("a tracked table that was dropped may be untracked, and tracked again when it is there")
    func aDroppedTableMayBeLetGo() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a) = (company.head, company["a"])
        try company.settle(["item", "line"])
        try head.run("DROP TABLE line")
        try a.run("DROP TABLE line")
        try head.must("untrack", "line")
        try company.eventually(a, "SELECT count(*) FROM hub.tracked", is: "1")
        try head.run("CREATE TABLE line (id int PRIMARY KEY, other text); INSERT INTO line VALUES (1, 'anew')")
        _ = try company.track(["line"])
        try company.eventually(a, "SELECT count(*) FROM pg_tables WHERE tablename = 'line'", is: "1")
        try company.settle(["item", "line"])
        try a.run("INSERT INTO line VALUES (2, 'back')")
        try company.settle(["item", "line"])
      }
    }

    /// Believed: an office's actor is proven when its hub starts. VACUUM FULL moves the table that the proof is about.
    @Test("VACUUM FULL, CLUSTER and REINDEX lose nothing, and the office's actor writes on")
    func tablesMayBeRewritten() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: Self.tracks) { company in
        for office in company.offices {
          try office.run("UPDATE item SET v = 'before \(office.name)' WHERE id % 2 = \(office.name == "a" ? 1 : 0)")
          try office.run("VACUUM FULL")
          try office.run("CLUSTER item USING item_pkey; REINDEX TABLE line; REINDEX TABLE hub.office")
          try office.run("INSERT INTO line (item, v) VALUES (1, '\(office.name)')")
          try company.eventually(office, "SELECT hub.current_actor() = actor FROM hub.office", is: "t")
          try office.run("INSERT INTO line (item, v) VALUES (1, '\(office.name) after')")
        }
        try company.settle(["item", "line"])
        #expect(try count(company.head, "line") == 4)
      }
    }
  }
}
