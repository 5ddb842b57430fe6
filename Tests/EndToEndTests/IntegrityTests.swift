import Foundation
import Testing

extension EndToEnd {
  /// Constraints hold in every office at every moment, whatever offices do without knowing of each other; and whoever
  /// asks where a row is gets an answer.
  @Suite(.serialized)
  struct IntegrityTests {
    private typealias Entry = [String: Any]

    private func list(_ office: Office, _ command: String) throws -> [Entry] {
      try office.must(command, "list", "--json").json() as? [Entry] ?? []
    }

    private func trace(_ office: Office, _ table: String, _ key: String) throws -> Entry {
      try office.must("trace", table, key, "--json").object()
    }

    private func answer(_ office: Office, _ table: String, _ key: String) throws -> String {
      try trace(office, table, key)["answer"] as? String ?? ""
    }

    private func goAway(_ company: Company, _ branches: Office...) throws {
      for branch in branches {
        try company.eventually(branch, "SELECT broker_connected FROM hub.daemon", is: "t")
        #expect(try branch.stop() == 0)
      }
    }

    private static let family = """
      CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
      CREATE TABLE sale (id int PRIMARY KEY, customer int NOT NULL REFERENCES customer ON DELETE CASCADE, qty int);
      CREATE TABLE line (id int PRIMARY KEY, sale int NOT NULL REFERENCES sale, v text);
      INSERT INTO customer SELECT g, 'customer ' || g FROM generate_series(1, 20) g;
      INSERT INTO sale SELECT g, g, 1 FROM generate_series(1, 20) g;
      """

    private static let orphans = """
      SELECT (SELECT count(*) FROM sale s LEFT JOIN customer c ON c.id = s.customer WHERE c.id IS NULL)
        + (SELECT count(*) FROM line l LEFT JOIN sale s ON s.id = l.sale WHERE s.id IS NULL)
      """

    /// Reads on and on, one statement a look, and fails when a reader could see a child without its parent.
    private func watchForOrphans(_ offices: [Office]) -> [Worker] {
      offices.map { office in
        Worker { worker in
          let session = try office.connect()
          while !worker.isStopping {
            let seen = try session.value(Self.orphans)
            guard seen == "0" else { throw Failed("\(seen) orphans at \(office.name)") }
          }
        }
      }
    }

    private static let tables = [["customer"], ["sale"], ["line"]]

    @Test(
      "Integrity: a parent deleted at one branch while another inserts a child comes back everywhere, logged once"
    )
    func aParentComesBack() throws {
      try Company.with(branches: 3, schema: Self.family, tracks: Self.tables) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["customer", "sale", "line"])
        for first in ["a", "b"] {
          let (customer, key) = first == "a" ? (1, 101) : (2, 102)
          try goAway(company, a, b)
          // a takes the customer with its sale; b sells to it once more, and adds a line to the old sale of another.
          try a.run("DELETE FROM customer WHERE id = \(customer)")
          try b.run("INSERT INTO sale VALUES (\(key), \(customer), 7)")
          let watchers = watchForOrphans(company.offices)
          try company[first].startAndWait()
          try company[first].must("sync", "--timeout", "60s")
          try company[first == "a" ? "b" : "a"].startAndWait()
          for office in company.offices {
            try company.eventually(office, "SELECT count(*) FROM sale WHERE id = \(key)", is: "1")
            try company.eventually(
              office, "SELECT name FROM customer WHERE id = \(customer)", is: "customer \(customer)")
            try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "0")
          }
          try company.settle(["customer", "sale", "line"])
          for watcher in watchers { try watcher.stop() }
          // The sale that the cascade took had been seen: its delete stands.
          #expect(try head.connect().number("SELECT count(*) FROM sale WHERE id = \(customer)") == 0)
          let entries = try list(head, "conflicts").filter { ($0["key"] as? Entry)?["id"] as? String == "\(customer)" }
          #expect(entries.count == 1, "\(entries)")
          let entry = try #require(entries.first)
          #expect(entry["table"] as? String == "public.customer" && entry["reason"] as? String == "referenced")
          #expect(((entry["winner"] as? Entry)?["row"] as? Entry)?["name"] as? String == "customer \(customer)")
          #expect(
            (entry["loser"] as? Entry)?["office"] as? String == "a" && (entry["loser"] as? Entry)?["row"] is NSNull)
          try company.eventually(a, "SELECT count(*) FROM hub.conflict WHERE key ->> 'id' = '\(customer)'", is: "1")
          let said = try answer(head, "customer", "\(customer)")
          #expect(said.contains("a's copy lost") && said.contains("arrived at a, b and c"), "\(said)")
        }
        #expect(try list(head, "conflicts").count == 2)
      }
    }

    @Test("Integrity: three levels deleted at one branch come back in one batch for the sake of a grandchild")
    func aChainComesBack() throws {
      try Company.with(branches: 2, schema: Self.family, tracks: Self.tables) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["customer", "sale", "line"])
        try goAway(company, a, b)
        try a.run("DELETE FROM customer WHERE id <= 10")
        try b.run("INSERT INTO line SELECT g, g, 'b' FROM generate_series(1, 9) g")
        let watchers = watchForOrphans(company.offices)
        for branch in [a, b] { try branch.startAndWait() }
        for office in company.offices {
          try company.eventually(office, "SELECT count(*) FROM line", is: "9")
          try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "0")
        }
        try company.settle(["customer", "sale", "line"])
        for watcher in watchers { try watcher.stop() }
        #expect(try head.connect().number("SELECT count(*) FROM customer") == 19)
        #expect(try list(head, "conflicts").count == 18)
      }
    }

    private static let people = """
      CREATE TABLE person (id int PRIMARY KEY, email text UNIQUE, slot int UNIQUE DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE note (id int PRIMARY KEY, person int NOT NULL REFERENCES person, v text);
      INSERT INTO person SELECT g, 'p' || g, g FROM generate_series(1, 10) g;
      """

    @Test(
      "Integrity: one unique value inserted at two branches: first kept, second quarantined with its children")
    func oneUniqueValueTwice() throws {
      try Company.with(branches: 2, schema: Self.people, tracks: [["person"], ["note"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["person", "note"])
        try goAway(company, a, b)
        try a.run("INSERT INTO person VALUES (101, 'x@y', 101); INSERT INTO note VALUES (101, 101, 'a')")
        try b.run("INSERT INTO person VALUES (102, 'x@y', 102); INSERT INTO note VALUES (102, 102, 'b'), (103, 1, 'b')")
        try a.startAndWait()
        try company.eventually(head, "SELECT count(*) FROM note", is: "1")
        try b.startAndWait()
        try company.eventually(head, "SELECT count(*) FROM hub.quarantine", is: "2")
        try company.eventually(b, "SELECT count(*) FROM hub.quarantine", is: "2")
        // Nothing is deleted, whatever is not concerned arrives, and both offices say so.
        for office in [head, a] {
          try company.eventually(
            office, "SELECT string_agg(id || v, ' ' ORDER BY id) FROM note", is: "101a 103b")
          #expect(try office.connect().value("SELECT id FROM person WHERE email = 'x@y'") == "101")
        }
        #expect(try b.connect().value("SELECT string_agg(id || v, ' ' ORDER BY id) FROM note") == "102b 103b")
        for (office, key) in [(head, "102"), (b, "101")] {
          let rows = try list(office, "quarantine")
          let seen = rows.map { "\($0["table"] ?? "") \(($0["key"] as? Entry)?["id"] ?? "") \($0["sqlstate"] ?? "")" }
          #expect(Set(seen) == ["public.person \(key) 23505", "public.note \(key) 23503"], "\(seen)")
          #expect(try office.status()["quarantined"] as? Int == 2)
          let said = try answer(office, "person", key)
          #expect(said.hasPrefix("quarantined at \(office.name): 23505"), "\(said)")
        }
        #expect(try a.status()["quarantined"] as? Int == 0)
        // A person mends it at head: all of it arrives, the child by itself.
        let number = try #require(
          try list(head, "quarantine").first { $0["table"] as? String == "public.person" }?["id"] as? Int)
        let path = company.directory + "/row.json"
        try Data(#"{"email": "z@y"}"#.utf8).write(to: URL(fileURLWithPath: path))
        try head.must("quarantine", "edit", String(number), path)
        for office in company.offices { try company.eventually(office, "SELECT count(*) FROM hub.quarantine", is: "0") }
        try company.settle(["person", "note"])
        #expect(try a.connect().value("SELECT string_agg(id || v, ' ' ORDER BY id) FROM note") == "101a 102b 103b")
      }
    }

    @Test("Integrity: swapped unique values arrive, and a DEFERRABLE unique constraint stays true everywhere")
    func swappedAndDeferredUniqueValues() throws {
      try Company.with(branches: 2, schema: Self.people, tracks: [["person"], ["note"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["person"])
        let watchers = company.offices.map { office in
          Worker { worker in
            let session = try office.connect()
            while !worker.isStopping {
              let twice = try session.number("SELECT count(*) - count(DISTINCT slot) FROM person")
              guard twice == 0 else { throw Failed("one slot twice at \(office.name)") }
            }
          }
        }
        try a.run(
          "BEGIN; UPDATE person SET email = 'free' WHERE id = 1; UPDATE person SET email = 'p1' WHERE id = 2; "
            + "UPDATE person SET email = 'p2', slot = 2 WHERE id = 1; UPDATE person SET slot = 1 WHERE id = 2; COMMIT")
        try head.run("BEGIN; UPDATE person SET slot = 15 - slot WHERE id BETWEEN 5 AND 10; COMMIT")
        try company.settle(["person"])
        #expect(try b.connect().value("SELECT email || slot FROM person WHERE id = 1") == "p22")
        #expect(try b.connect().value("SELECT slot FROM person WHERE id = 5") == "10")
        // One slot given at two branches: nobody has it twice.
        try goAway(company, a, b)
        try a.run("INSERT INTO person VALUES (201, 'a', 77)")
        try b.run("INSERT INTO person VALUES (202, 'b', 77)")
        for branch in [a, b] { try branch.startAndWait() }
        try company.eventually(head, "SELECT count(*) FROM hub.quarantine WHERE sqlstate = '23505'", is: "1")
        for watcher in watchers { try watcher.stop() }
      }
    }

    private static let article = """
      CREATE TABLE article (id int PRIMARY KEY, v text, updated_at timestamptz);
      INSERT INTO article SELECT g, 'start' FROM generate_series(1, 5) g;
      """
    private static let stamping = """
      CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$;
      CREATE TRIGGER stamp BEFORE UPDATE ON article FOR EACH ROW EXECUTE FUNCTION stamp();
      CREATE TABLE seen (id int, what text);
      CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.seen VALUES (NEW.id, TG_NAME); RETURN NULL; END $$;
      CREATE TRIGGER ordinary AFTER UPDATE ON article FOR EACH ROW EXECUTE FUNCTION seen();
      CREATE TRIGGER replica AFTER UPDATE ON article FOR EACH ROW EXECUTE FUNCTION seen();
      CREATE TRIGGER always AFTER UPDATE ON article FOR EACH ROW EXECUTE FUNCTION seen();
      ALTER TABLE article ENABLE REPLICA TRIGGER replica; ALTER TABLE article ENABLE ALWAYS TRIGGER always;
      """

    @Test(
      "Triggers: updated_at does not make offices differ; REPLICA and ALWAYS fire; doctor names one that changes rows"
    )
    func triggers() throws {
      try Company.with(branches: 2, schema: Self.article, tracks: [["article"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["article"])
        for office in company.offices { try office.run(Self.stamping) }
        for (number, office) in company.offices.enumerated() {
          try office.run("UPDATE article SET v = '\(office.name)' WHERE id = \(number + 1)")
        }
        for office in company.offices {
          try company.eventually(office, "SELECT count(DISTINCT v) FROM article", is: "4")
        }
        try company.settle(["article"])
        #expect(try b.connect().number("SELECT count(*) FROM article WHERE updated_at IS NOT NULL") == 3)
        #expect(
          try b.connect().value("SELECT string_agg(id || what, ' ' ORDER BY id, what) FROM seen")
            == "1always 1replica 2always 2replica 3always 3ordinary")
        func finding() throws -> String {
          let lines = try head.hub("doctor", "--broker", company.brokerURL).output.split(separator: "\n").map(
            String.init)
          return lines.first { $0.contains("triggers of public.article") } ?? ""
        }
        #expect(try finding().hasPrefix("ok"))
        try head.run("ALTER TABLE article ENABLE ALWAYS TRIGGER stamp")
        try until(30, "doctor names the trigger") {
          try a.run("UPDATE article SET v = v || '.' WHERE id = 5")
          usleep(300_000)
          return try finding().hasPrefix("FAIL")
        }
        for words in ["stamp", "id=5", "column updated_at"] { #expect(try finding().contains(words), "\(words)") }
        #expect(try b.hub("doctor", "--broker", company.brokerURL).code == 0)
      }
    }

    @Test(
      "Trace: where a row is, before it is sent, under way, arrived, deleted, refused, and when it never was")
    func traces() throws {
      let schema = """
        CREATE TABLE price (shop text, sku int, v numeric(10,2), PRIMARY KEY (shop, sku));
        CREATE TABLE part (id int PRIMARY KEY, weight int);
        INSERT INTO price VALUES ('north', 1, 1);
        """
      try Company.with(branches: 2, schema: schema, tracks: [["price"], ["part"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["price"])
        try until(20, "the price arrived") { try answer(head, "price", "north,1") == "arrived at a and b" }
        let here = try answer(a, "price", #"{"sku": "01", "shop": "north"}"#)
        #expect(here == "is here as head sent it", "\(here)")
        // Under way.
        try goAway(company, b)
        try head.run("UPDATE price SET v = 2")
        try until(20, "a has it") {
          try answer(head, "price", "north,1").hasPrefix("arrived at a; waits for b, last seen 2")
        }
        let waiting = try trace(head, "public.price", "north,1")
        #expect(
          waiting["state"] as? String == "waiting" && (waiting["version"] as? Entry)?["office"] as? String == "head")
        let peers = waiting["peers"] as? [Entry] ?? []
        #expect(peers.map { $0["arrived"] as? Bool } == [true, false])
        #expect((peers.last?["unacknowledged_batches"] as? Int ?? 0) > 0)
        #expect(try head.must("trace", "price", "north,1").output.contains("OFFICE"))
        // Not sent.
        try b.run("INSERT INTO part VALUES (1, 10)")
        #expect(try answer(b, "part", "1") == "is at b, waits to be sent to head")
        #expect(try trace(b, "part", "1")["state"] as? String == "unsent")
        // Refused by head.
        try head.run("ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 10) NOT VALID")
        try b.startAndWait()
        try until(20, "all is acknowledged") {
          try answer(head, "price", "north,1") == "arrived at a and b" && answer(b, "part", "1") == "arrived at head"
        }
        #expect(try answer(head, "part", "1").hasPrefix("quarantined at head: 23514"))
        // A delete.
        try a.run("DELETE FROM price")
        try until(20, "the delete arrived") {
          try answer(head, "price", "north,1") == "deleted; the delete arrived at a and b"
        }
        for (arguments, code, words) in [
          (["price", "north,7"], Int32(1), "never had a row shop=north, sku=7"),
          (["price", "north"], 2, "the key of public.price is shop, sku; 1 values were given"),
          (["price", "north,x"], 2, "no key of public.price"), (["nothing", "1"], 2, "there is no table nothing"),
          (["price", #"{"sku": 1}"#], 2, "sku was given"),
        ] {
          let outcome = try head.hub(["trace"] + arguments)
          #expect(outcome.code == code && outcome.errorLines.count == 1, "\(arguments): \(outcome.errors)")
          #expect(outcome.errors.contains(words), "\(arguments): \(outcome.errors)")
        }
        try head.run("CREATE TABLE untracked (id int PRIMARY KEY)")
        #expect(try head.hub("trace", "untracked", "1").errors.contains("is not tracked"))
      }
    }
  }
}
