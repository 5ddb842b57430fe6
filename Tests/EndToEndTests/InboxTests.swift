import Foundation
import Testing

extension EndToEnd {
  /// The two lists that wait for a person: decided conflicts, and rows that a database refused.
  @Suite(.serialized)
  struct InboxTests {
    private typealias Entry = [String: Any]

    private func list(_ office: Office, _ command: String...) throws -> [Entry] {
      guard let list = try office.must("\(command[0])", "list", "--json").json() as? [Entry] else {
        throw Failed("hub \(command) is no list")
      }
      return list
    }

    private func id(_ entry: Entry) throws -> String {
      guard let id = entry["id"] as? Int else { throw Failed("no id: \(entry)") }
      return String(id)
    }

    private func key(_ entry: Entry, _ name: String) -> String {
      (entry["key"] as? [String: Any])?[name] as? String ?? ""
    }
    private func copy(_ entry: Entry, _ side: String) -> Entry { entry[side] as? Entry ?? [:] }
    private func row(_ entry: Entry, _ side: String) -> Entry? { copy(entry, side)["row"] as? Entry }

    private func file(_ company: Company, _ json: String) throws -> String {
      let path = company.directory + "/row-\(UInt32.random(in: 0...UInt32.max)).json"
      try Data(json.utf8).write(to: URL(fileURLWithPath: path))
      return path
    }

    private func refused(_ outcome: Outcome, _ words: String, _ what: String) {
      #expect(outcome.code == 1 && outcome.errorLines.count == 1, "\(what): \(outcome.code) \(outcome.errors)")
      #expect(outcome.errors.contains(words), "\(what): \(outcome.errors)")
    }

    /// Runs `body` while no hub runs, then lets all meet and come to rest.
    private func apart(_ company: Company, _ table: String, _ body: () throws -> Void) throws {
      for office in company.offices {
        try company.eventually(office, "SELECT broker_connected FROM hub.daemon", is: "t")
        #expect(try office.stop() == 0)
      }
      try body()
      for office in company.offices { try office.startAndWait() }
      for office in company.offices { try office.must("sync", "--timeout", "60s") }
      try company.settle([table])
    }

    private static let schema = """
      CREATE TABLE doc (id text PRIMARY KEY, v text, n int NOT NULL DEFAULT 0, note text);
      CREATE TABLE log (what text);
      CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END $$;
      CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON doc FOR EACH ROW EXECUTE FUNCTION noted();
      INSERT INTO doc SELECT s, 'start', 1 FROM unnest('{uu,ud,du,later}'::text[]) s;
      """

    /// One conflict of every kind between head and a.
    private func conflict(_ company: Company) throws {
      let (head, a) = (company.head, company["a"])
      try apart(company, "doc") {
        try head.run("UPDATE doc SET v = 'head' WHERE id IN ('uu', 'du', 'later'); DELETE FROM doc WHERE id = 'ud'")
        try head.run("INSERT INTO doc VALUES ('ii', 'head', 7)")
        usleep(5000)
        try a.run(
          "UPDATE doc SET v = 'a', note = NULL WHERE id IN ('uu', 'ud', 'later'); DELETE FROM doc WHERE id = 'du'")
        try a.run("INSERT INTO doc VALUES ('ii', 'a', 8, 'mine')")
      }
    }

    @Test("Inbox: a conflict of every kind is listed, shown, reversed and seen everywhere without a new one")
    func everyKindOfConflictIsReversed() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: [["doc"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try conflict(company)
        let entries = try list(head, "conflicts")
        let types = Dictionary(uniqueKeysWithValues: entries.map { (key($0, "id"), $0["type"] as? String ?? "") })
        #expect(
          types == [
            "uu": "update_origin_differs", "later": "update_origin_differs", "ii": "insert_exists",
            "ud": "update_deleted", "du": "delete_origin_differs",
          ], "\(types)")
        for entry in entries {
          for name in ["table", "policy", "reason", "resolved", "at"] {
            #expect(entry[name] != nil, "\(name): \(entry)")
          }
          for side in ["winner", "loser"] {
            for name in ["office", "vector", "stamp", "row"] {
              #expect(copy(entry, side)[name] != nil, "\(side) \(name)")
            }
          }
          #expect(entry["kept"] is NSNull && entry["reviewed_at"] is NSNull)
        }
        guard let uu = entries.first(where: { key($0, "id") == "uu" }) else { throw Failed("\(entries)") }
        let shown = try head.must("conflicts", "show", id(uu)).output
        for words in [
          "update_origin_differs", "HEAD'S COPY", "a (won)", "later write wins (latest)", "* ", "head:", "a:",
        ] {
          #expect(shown.contains(words), "\(words) is not in:\n\(shown)")
        }
        // The losers are back: an update, a delete undone, an insert, a delete.
        let wanted = ["uu": "head", "ii": "head", "ud": nil, "du": nil, "later": "a"]
        for entry in entries where key(entry, "id") != "later" {
          try head.must(
            "conflicts", "resolve", id(entry), "--keep", entry["head_copy"] as? String == "winner" ? "branch" : "head")
        }
        for office in company.offices {
          for (key, value) in wanted {
            try company.eventually(
              office, "SELECT coalesce((SELECT v FROM doc WHERE id = '\(key)'), 'gone')", is: value ?? "gone")
          }
        }
        // … and reversed once more.
        for entry in entries where ["ud", "du"].contains(key(entry, "id")) {
          try head.must(
            "conflicts", "resolve", id(entry), "--keep", entry["head_copy"] as? String == "winner" ? "head" : "branch")
        }
        try company.eventually(
          b, "SELECT string_agg(id || v, ' ' ORDER BY id) FROM doc WHERE id ~ '^[du][du]$'", is: "duhead uda uuhead")
        for office in company.offices { try office.must("sync", "--timeout", "60s") }
        try company.settle(["doc"])
        #expect(try list(head, "conflicts").count == 5, "no new conflict")
        let reviewed = try list(head, "conflicts").filter { !($0["reviewed_at"] is NSNull) }
        #expect(reviewed.count == 4)
        // Head's triggers fire as for any write of head.
        #expect(try head.connect().number("SELECT count(*) FROM log WHERE what IN ('INSERT', 'DELETE')") > 2)
        // The branch that wrote sees its entries, with what became of them; the other has none.
        try until(30, "a has its entries, reviewed") {
          try list(a, "conflicts").filter { !($0["kept"] is NSNull) }.count == 4
        }
        let atA = try list(a, "conflicts")
        #expect(atA.map { $0["id"] as? Int } == entries.map { $0["id"] as? Int })
        #expect(row(atA[0], "loser") != nil || row(atA[0], "winner") != nil)
        #expect(try list(b, "conflicts").isEmpty)
        #expect(try a.must("conflicts", "show", id(uu)).output.contains("kept head"))
        #expect(try a.status()["conflicts"] as? Int == 5)
      }
    }

    @Test("Inbox: a later edit is not overwritten, a file must fit, and what is wrong is said in one line")
    func whatCannotBeResolvedIsRefused() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: [["doc"]]) { company in
        let (head, a) = (company.head, company["a"])
        try conflict(company)
        let entries = try list(head, "conflicts")
        func number(_ name: String) throws -> String { try id(entries.first { key($0, "id") == name } ?? [:]) }
        let (uu, later, ii) = (try number("uu"), try number("later"), try number("ii"))
        refused(try head.hub("conflicts", "resolve", "9999", "--keep", "head"), "no conflict 9999", "unknown")
        refused(try head.hub("conflicts", "show", "9999"), "no conflict 9999", "unknown")
        refused(try a.hub("conflicts", "resolve", uu, "--keep", "head"), "head's --database", "at a branch")
        // The row was written again since, by the other office.
        try a.run("UPDATE doc SET v = 'newer' WHERE id = 'later'")
        try company.eventually(head, "SELECT v FROM doc WHERE id = 'later'", is: "newer")
        refused(try head.hub("conflicts", "resolve", later, "--keep", "head"), "--force", "a later edit")
        #expect(try head.connect().value("SELECT v FROM doc WHERE id = 'later'") == "newer")
        // That the decision was right may be said all the same.
        let stands = try head.must("conflicts", "resolve", later, "--keep", "branch", "--json").object()
        #expect(stands["outcome"] as? String == "changed_since")
        #expect(try head.connect().value("SELECT v FROM doc WHERE id = 'later'") == "newer")
        try head.must("conflicts", "resolve", later, "--keep", "head", "--force")
        try company.eventually(a, "SELECT v FROM doc WHERE id = 'later'", is: "head")
        // A row of the person's own.
        for (json, words) in [
          ("{\"v\": \"x\"}", "lacks n, note"), ("{\"v\": 1, \"n\": 1, \"note\": 1, \"w\": 2}", "has w"),
          ("[1]", "JSON array"),
          ("{\"v\": \"x\"", "json"), ("{\"v\": 1, \"n\": \"many\", \"note\": null}", "many"),
          ("{\"id\": \"other\", \"v\": 1, \"n\": 1, \"note\": null}", "part of the key"),
          ("{\"v\": 1, \"n\": null, \"note\": null}", "null"),
        ] {
          refused(try head.hub("conflicts", "resolve", uu, "--keep", file(company, json)), words, json)
        }
        #expect(try head.hub("conflicts", "resolve", uu, "--keep", "/nowhere.json").code == 2)
        #expect(try head.connect().value("SELECT v FROM doc WHERE id = 'uu'") == "a", "nothing was written")
        try head.must(
          "conflicts", "resolve", uu, "--keep", file(company, "{\"v\": \"é'\\\"\", \"n\": 42, \"note\": null}"))
        try company.eventually(a, "SELECT v || n FROM doc WHERE id = 'uu'", is: "é'\"42")
        try head.must("conflicts", "resolve", ii, "--keep", file(company, "null"))
        try company.eventually(a, "SELECT count(*) FROM doc WHERE id = 'ii'", is: "0")
        #expect(try list(head, "conflicts").count == 5)
        try head.must("untrack", "doc")
        refused(try head.hub("conflicts", "resolve", uu, "--keep", "head"), "not tracked any more", "untracked")
      }
    }

    @Test("Inbox: recorded conflicts are tried with another policy, and nothing changes")
    func anotherPolicyIsTried() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: [["doc"]]) { company in
        let head = company.head
        try conflict(company)
        func differing(_ arguments: String...) throws -> Set<String> {
          let outcome = try head.must2(["conflicts", "try"] + arguments + ["--json"])
          return Set((try outcome.json() as? [Entry] ?? []).map { $0["key"] as? String ?? "" })
        }
        let before = try head.connect().copy("SELECT * FROM doc ORDER BY id")
        #expect(try differing("--policy", "latest").isEmpty)
        #expect(try differing("--policy", "branch").isEmpty)
        #expect(try differing("--policy", "head") == ["id=uu", "id=later", "id=ii"])
        #expect(try differing("--policy", "head", "doc").count == 3)
        #expect(try differing("--policy", "latest", "--on-delete", "delete") == ["id=ud", "id=du"])
        #expect(try head.must("conflicts", "try", "--policy", "head").line.hasPrefix("3 of 5"))
        #expect(try head.hub("conflicts", "try", "--policy", "coin").code == 2)
        #expect(try head.connect().copy("SELECT * FROM doc ORDER BY id") == before)
      }
    }

    @Test("Inbox: entries reach the branch concerned although the broker loses them")
    func entriesReachTheBranchAfterAPurge() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: [["doc"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try head.run("INSERT INTO doc SELECT 'k' || g, 'start', g FROM generate_series(1, 700) g")
        try company.settle(["doc"])
        for office in company.offices { #expect(try office.stop() == 0) }
        try head.run("UPDATE doc SET v = 'head' WHERE id ~ '^k'")
        try a.run("UPDATE doc SET v = 'a' WHERE id ~ '^k'")
        // a says hello and sends its rows; then it is away while head decides and answers.
        let batches = try a.connect().number("SELECT max(number) FROM hub.batch")
        try a.startAndWait()
        try until(30, "a's rows are with the broker") {
          let sent = try a.connect().number("SELECT max(number) FROM hub.batch") > batches
          return try sent && Broker.queues(company.virtualHost)["hub.head"] ?? 0 > 1
        }
        #expect(try a.stop() == 0)
        try head.startAndWait()
        try b.startAndWait()
        try company.eventually(head, "SELECT count(*) FROM hub.conflict", is: "700", within: 60)
        #expect(try list(b, "conflicts").isEmpty)
        _ = try Broker.ctl(["-p", company.virtualHost, "purge_queue", "hub.office.a"])
        try a.startAndWait()
        try until(60, "a has 700 entries") { try a.connect().number("SELECT count(*) FROM hub.conflict") == 700 }
        // Live, with the line cut in between: what is lost on the way comes again.
        let entry = try id(list(head, "conflicts")[0])
        try head.must("conflicts", "resolve", entry, "--keep", "head")
        try until(30, "a knows of the review") {
          try a.connect().number("SELECT count(*) FROM hub.conflict WHERE kept = 'head'") == 1
        }
        #expect(
          try a.connect().copy("SELECT id, key, winner, loser FROM hub.conflict ORDER BY id")
            == head.connect().copy("SELECT id, key, winner, loser FROM hub.conflict ORDER BY id"))
        try company.settle(["doc"])
      }
    }

    @Test(
      "Quarantine: of 10 000 rows one breaks a CHECK at head: the rest arrives, it goes in when the check goes")
    func oneRowOfTenThousandWaitsAlone() throws {
      let schema = "CREATE TABLE part (id serial PRIMARY KEY, weight int NOT NULL, name text)"
      try Company.with(branches: 2, schema: schema, tracks: [["part"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try head.run("ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 10000) NOT VALID")
        try a.run("INSERT INTO part (weight, name) SELECT g, 'p' || g FROM generate_series(1, 10000) g")
        let began = monotonic()
        try company.eventually(head, "SELECT count(*) FROM part", is: "9999")
        say("9 999 of 10 000 rows were there after \(Int((monotonic() - began) * 1000)) ms")
        try company.eventually(b, "SELECT count(*) FROM part", is: "9999")
        var rows: [Entry] = []
        try until(20, "it is quarantined") {
          rows = try list(head, "quarantine")
          return rows.count == 1
        }
        #expect(rows[0]["sqlstate"] as? String == "23514" && rows[0]["peer"] as? String == "a")
        #expect(rows[0]["table"] as? String == "public.part")
        #expect((rows[0]["error"] as? String)?.contains("light") == true)
        #expect((rows[0]["row"] as? Entry)?["weight"] as? String == "10000")
        #expect(rows[0]["since"] != nil && rows[0]["attempts"] != nil)
        let number = try id(rows[0])
        for words in ["23514", "light", "weight", "10000"] {
          #expect(try head.must("quarantine", "show", number).output.contains(words))
        }
        refused(try head.hub("quarantine", "retry", number), "still refused: 23514", "retried too early")
        refused(try head.hub("quarantine", "retry", "999"), "no quarantined row 999", "unknown")
        // Nobody writes anything: only the constraint goes.
        try head.run("ALTER TABLE part DROP CONSTRAINT light")
        let dropped = monotonic()
        try company.eventually(head, "SELECT count(*) FROM hub.quarantine", is: "0", within: 20)
        say("in by itself \(Int(monotonic() - dropped)) s after the constraint went")
        try company.settle(["part"])
        #expect(try b.connect().number("SELECT count(*) FROM part") == 10000)
        // By hand, also where no daemon runs.
        try head.run("ALTER TABLE part ADD CONSTRAINT named CHECK (name IS NOT NULL)")
        try a.run("UPDATE part SET name = NULL WHERE weight = 5")
        try until(20, "it is quarantined") { try list(head, "quarantine").count == 1 }
        #expect(try head.stop() == 0)
        try head.run("ALTER TABLE part DROP CONSTRAINT named")
        #expect(try head.must("quarantine", "retry", "--json").object()["released"] as? Int == 1)
        #expect(try head.must("quarantine").line == "nothing is quarantined")
        try head.start()
        try company.settle(["part"])
      }
    }

    private static let checked = """
      CREATE TABLE part (id int PRIMARY KEY, weight int NOT NULL, name text);
      INSERT INTO part VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three');
      """

    @Test("Quarantine: what head discards or edits, the branch takes: both are equal and stay so")
    func discardedAndEditedRowsConverge() throws {
      try Company.with(branches: 2, schema: Self.checked, tracks: [["part"]]) { company in
        let (head, a) = (company.head, company["a"])
        try company.settle(["part"])
        try head.run("ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 100) NOT VALID")
        // Of a row that head has, of one that it has not, of one to be edited, of one to be edited away.
        try a.run(
          "UPDATE part SET weight = 200 WHERE id = 1; INSERT INTO part VALUES (10, 1000, 'ten'), (11, 1100, 'eleven'), (12, 1200, '12')"
        )
        try until(20, "four rows are quarantined") { try list(head, "quarantine").count == 4 }
        func number(_ key: Int) throws -> String {
          try id(list(head, "quarantine").first { self.key($0, "id") == "\(key)" } ?? [:])
        }
        for key in [1, 10] { try head.must("quarantine", "discard", number(key)) }
        refused(
          try head.hub("quarantine", "edit", number(11), file(company, "{\"weight\": 300}")), "light", "edited wrongly")
        refused(
          try head.hub("quarantine", "edit", number(11), file(company, "{\"wait\": 3}")), "no column wait",
          "edited wrongly")
        try head.must("quarantine", "edit", number(11), file(company, "{\"weight\": 11}"))
        try head.must("quarantine", "edit", number(12), file(company, "null"))
        try company.eventually(
          a, "SELECT string_agg(id || ':' || weight || name, ' ' ORDER BY id) FROM part",
          is: "1:1one 2:2two 3:3three 11:11eleven")
        try company.settle(["part"])
        #expect(try list(head, "quarantine").isEmpty)
        // A discarded row is no grudge: the next write of the branch passes.
        try a.run("UPDATE part SET weight = 50 WHERE id = 1; INSERT INTO part VALUES (10, 10, 'ten')")
        try company.settle(["part"])
        #expect(try head.connect().number("SELECT weight FROM part WHERE id = 1") == 50)
        #expect(try list(head, "conflicts").isEmpty)
      }
    }

    @Test("Quarantine: at a branch, discarded is asked of head again, and edited goes to every office")
    func theBranchesSide() throws {
      let schema = Self.checked + "CREATE TABLE price (id int PRIMARY KEY, v int);"
      try Company.with(branches: 2, schema: schema, tracks: [["part"], ["price", "--direction", "down"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try a.run(
          "ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 100); ALTER TABLE price ADD CONSTRAINT low CHECK (v < 9)"
        )
        try head.run(
          "UPDATE part SET weight = 200 WHERE id = 1; INSERT INTO part VALUES (10, 1000, 'ten'); INSERT INTO price VALUES (1, 10)"
        )
        try until(20, "three rows are quarantined") { try list(a, "quarantine").count == 3 }
        func number(_ table: String, _ key: Int) throws -> String {
          try id(
            list(a, "quarantine").first {
              self.key($0, "id") == "\(key)" && $0["table"] as? String == "public.\(table)"
            } ?? [:])
        }
        // Head is asked; the row is still refused, so it is back under a new number.
        let old = try number("part", 1)
        try a.must("quarantine", "discard", old)
        try until(20, "the row is back") { try list(a, "quarantine").count == 3 && number("part", 1) != old }
        // The cause is gone before it is asked for: it goes in.
        try a.run("ALTER TABLE price DROP CONSTRAINT low")
        if let price = try? number("price", 1) { _ = try a.hub("quarantine", "discard", price) }
        try company.eventually(a, "SELECT v FROM price WHERE id = 1", is: "10")
        refused(
          try a.hub("quarantine", "edit", old, file(company, "null")), "no quarantined row", "a number that is gone")
        // Edited here, it is this branch's write and reaches all.
        try a.must("quarantine", "edit", number("part", 10), file(company, "{\"weight\": 10}"))
        for office in [head, a, b] {
          try company.eventually(office, "SELECT weight FROM part WHERE id = 10", is: "10")
        }
        // Head's next write mends the rest.
        try head.run("UPDATE part SET weight = 20 WHERE id = 1")
        try company.settle(["part", "price"])
        try company.eventually(a, "SELECT count(*) FROM hub.quarantine", is: "0")
        #expect(try list(head, "conflicts").isEmpty)
      }
    }
  }
}

extension Office {
  fileprivate func must2(_ arguments: [String]) throws -> Outcome {
    let outcome = try hub(arguments)
    guard outcome.code == 0 else { throw Failed("hub \(arguments): exit \(outcome.code): \(outcome.errors)") }
    return outcome
  }
}
