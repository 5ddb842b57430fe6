import Foundation
import Testing

extension EndToEnd {
  /// `hub verify` against real offices: tables that were changed behind hub's back, and tables that change all the time.
  @Suite(.serialized) struct VerifyTests {
    private typealias Entry = [String: Any]

    private static let schema = """
      CREATE TABLE stock (id int PRIMARY KEY, name text, qty int);
      CREATE TABLE price (id int PRIMARY KEY, amount numeric(10, 2));
      CREATE TABLE sale (id int PRIMARY KEY, note text);
      INSERT INTO stock SELECT g, 'item ' || g, g FROM generate_series(1, 2000) g;
      INSERT INTO price SELECT g, g / 10.0 FROM generate_series(1, 300) g;
      """

    private static let tracks = [["stock"], ["price", "--direction", "down"], ["sale", "--direction", "up"]]

    /// As somebody who disables triggers, or a disk that lies.
    private func unnoticed(_ office: Office, _ table: String, _ sql: String) throws {
      let names = try office.run(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = '\(table)'::regclass AND starts_with(tgname, 'hub_capture_')")
      let enable = names.map { "ALTER TABLE \(table) ENABLE ALWAYS TRIGGER \($0[0] ?? "");" }.joined(separator: " ")
      try office.run(
        "ALTER TABLE \(table) DISABLE TRIGGER ALL; \(sql); ALTER TABLE \(table) ENABLE TRIGGER ALL; \(enable)")
    }

    /// `OFFICE TABLE KEY KIND` of every difference printed.
    private func differences(_ outcome: Outcome) throws -> Set<String> {
      var found: Set<String> = []
      for line in outcome.output.split(separator: "\n") {
        let entry = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? Entry ?? [:]
        #expect(entry["id"] is Int)
        let key = (entry["key"] as? Entry)?["id"] as? String ?? "?"
        found.insert("\(entry["office"] ?? "") \(entry["table"] ?? "") \(key) \(entry["kind"] ?? "")")
      }
      return found
    }

    private func certificate(_ company: Company, _ office: String) throws -> Entry {
      let branches = try company.head.must("branches", "--json").json() as? [Entry] ?? []
      return branches.first { $0["name"] as? String == office }?["verified"] as? Entry ?? [:]
    }

    /// The number of each office's last batch.
    private func batches(_ company: Company) throws -> [String] {
      try company.offices.map { try $0.connect().value("SELECT max(number) FROM hub.batch") }
    }

    @Test("Verify: drift at branch and head is named exactly, repaired without an echo, and certified")
    func driftIsNamedAndHealed() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try a.run("INSERT INTO sale SELECT g, 'a' FROM generate_series(1, 400) g")
        try b.run("INSERT INTO sale SELECT g, 'b' FROM generate_series(1001, 1300) g")
        try a.run("UPDATE stock SET qty = -1 WHERE id <= 50")
        try company.settle(["stock", "price"])
        try company.eventually(head, "SELECT count(*) FROM sale", is: "700")
        #expect(try certificate(company, "a").isEmpty)
        let clean = try head.must("verify")
        #expect(clean.output.contains("a is equal to head: 2700 rows in 3 tables"), "\(clean.output)")
        #expect(clean.output.contains("b is equal to head: 2600 rows in 3 tables"), "\(clean.output)")
        let first = try certificate(company, "a")
        #expect(first["equal"] as? Bool == true && first["rows"] as? Int == 2700)
        #expect((first["digest"] as? String)?.count == 16 && first["at"] is String)
        #expect(((first["position"] as? Entry)?["head"] as? Int ?? 0) > 0)

        try unnoticed(
          a, "stock",
          "UPDATE stock SET qty = 999 WHERE id = 7; DELETE FROM stock WHERE id = 8; INSERT INTO stock VALUES (5000, 'a', 1)"
        )
        try unnoticed(
          head, "stock",
          "UPDATE stock SET qty = 777 WHERE id = 9; DELETE FROM stock WHERE id = 10; INSERT INTO stock VALUES (6000, 'h', 1)"
        )
        try unnoticed(a, "price", "UPDATE price SET amount = 0 WHERE id = 1; INSERT INTO price VALUES (900, 9)")
        try unnoticed(a, "sale", "UPDATE sale SET note = 'changed' WHERE id = 1; INSERT INTO sale VALUES (800, 'new')")
        try unnoticed(head, "sale", "DELETE FROM sale WHERE id = 2")
        let both: Set<String> = ["9 differs", "10 missing_at_head", "6000 missing_at_branch"]
        let atA = Set([
          "a public.stock 7 differs", "a public.stock 8 missing_at_branch", "a public.stock 5000 missing_at_head",
          "a public.price 1 differs", "a public.price 900 missing_at_head", "a public.sale 1 differs",
          "a public.sale 800 missing_at_head", "a public.sale 2 missing_at_head",
        ]).union(both.map { "a public.stock " + $0 })
        let found = try head.hub("verify", "a", "--json")
        #expect(found.code == 1)
        #expect(try differences(found) == atA)
        let all = try head.hub("verify", "--json")
        #expect(all.code == 1 && all.errors.contains("hub verify --repair"))
        #expect(try differences(all) == atA.union(both.map { "b public.stock " + $0 }))
        #expect(try certificate(company, "a")["differences"] as? Int == 11)
        #expect(try head.must("branches").output.contains("11 differ"))
        #expect((try head.status()["branches"] as? [Entry])?.first?["verified"] is Entry)

        let repaired = try head.must("verify", "--repair")
        #expect(repaired.output.contains("a is equal to head"), "\(repaired.output)")
        #expect(try certificate(company, "a")["repaired"] as? Int == 11)
        try company.settle(["stock", "price"], within: 10)
        for office in company.offices {
          #expect(
            try office.connect().value(
              "SELECT string_agg(id || ':' || qty, ' ' ORDER BY id) FROM stock WHERE id IN (7, 8, 9, 10, 5000, 6000)")
              == "7:-1 8:-1 9:777 10:-1 5000:1 6000:1")
        }
        #expect(try head.connect().value("SELECT note FROM sale WHERE id = 1") == "changed")
        #expect(try head.connect().number("SELECT count(*) FROM sale WHERE id IN (2, 800)") == 2)
        #expect(try a.connect().number("SELECT count(*) FROM price WHERE id = 900") == 0)
        // What was overwritten is kept, and can be put back.
        let log = try head.must("conflicts", "--json").json() as? [Entry] ?? []
        #expect(log.allSatisfy { $0["reason"] as? String == "repaired" })
        let lost = log.first { ($0["key"] as? Entry)?["id"] as? String == "7" } ?? [:]
        #expect(((lost["loser"] as? Entry)?["row"] as? Entry)?["qty"] as? String == "999")
        try head.must("conflicts", "show", "\(lost["id"] as? Int ?? 0)")
        try head.must("conflicts", "resolve", "\(lost["id"] as? Int ?? 0)", "--keep", "branch")
        try company.eventually(b, "SELECT qty FROM stock WHERE id = 7", is: "999")

        try head.must("sync")
        let before = try batches(company)
        #expect(try differences(head.must("verify", "--json")).isEmpty)
        usleep(3_000_000)
        #expect(try batches(company) == before, "a repair that echoes")
      }
    }

    @Test("Verify: under steady traffic on both sides nothing is accused, and drift among it is found")
    func trafficIsNoDifference() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["stock", "price"])
        func writer(_ office: Office, _ sql: @escaping @Sendable (Int) -> String) -> Worker {
          let url = office.url
          return Worker { worker in
            let session = try Application(url)
            var round = 0
            while !worker.isStopping {
              round += 1
              try session.run(sql(round))
              usleep(150_000)
            }
          }
        }
        let workers = [
          writer(head) { "UPDATE stock SET qty = \($0) WHERE id BETWEEN \($0 % 900) AND \($0 % 900 + 5)" },
          writer(head) { "UPDATE price SET amount = \($0 % 100) WHERE id = \($0 % 300)" },
          writer(a) {
            "UPDATE stock SET qty = -\($0) WHERE id = \(1000 + $0 % 400); INSERT INTO sale VALUES (\($0), 'x')"
          },
          writer(a) {
            "DELETE FROM stock WHERE id = \(3000 + $0 - 3); INSERT INTO stock VALUES (\(3000 + $0), 'n', 1)"
          },
          writer(b) { "UPDATE stock SET name = 'b\($0)' WHERE id = 1999" },
        ]
        do {
          for _ in 0..<(Servers.isFull ? 5 : 2) {
            let outcome = try head.hub("verify", "--json", seconds: 300)
            #expect(outcome.code == 0, "\(outcome.errors)")
            #expect(try differences(outcome).isEmpty)
          }
          try unnoticed(a, "price", "UPDATE price SET amount = 5000 WHERE id = 77")
          try head.run("SELECT 1")
          // A row that nobody writes.
          try unnoticed(b, "stock", "UPDATE stock SET qty = 12345 WHERE id = 1950")
          let found = try differences(head.hub("verify", "--json", seconds: 300))
          #expect(found.contains("b public.stock 1950 differs"))
          #expect(found.isSubset(of: ["b public.stock 1950 differs", "a public.price 77 differs"]), "\(found)")
          try head.must("verify", "--repair", seconds: 300)
        } catch {
          for worker in workers { try? worker.stop() }
          throw error
        }
        for worker in workers { try worker.stop() }
        try company.settle(["stock", "price"])
        #expect(try b.connect().value("SELECT qty FROM stock WHERE id = 1950") == "1950")
      }
    }

    @Test("Verify: one altered row of many is found with less than 100 kB of messages")
    func oneRowCostsFewBytes() throws {
      let rows = Servers.isFull ? 1_000_000 : 60_000
      let schema = """
        CREATE TABLE big (id bigint PRIMARY KEY, name text, qty int, price numeric(10, 2), at timestamptz, note text);
        INSERT INTO big SELECT g, 'item ' || g, g % 100, g / 7.0, now(), repeat('x', 30) FROM generate_series(1, \(rows)) g;
        """
      try Company.with(branches: 1, schema: schema, tracks: [["big"]], run: false, joined: false) { company in
        let (head, a) = (company.head, company["a"])
        let line = try company.forwarder()
        a.brokerURL = try Broker.url(company.virtualHost, port: line.port)
        try head.startAndWait()
        try company.join(a)
        try a.startAndWait()
        try until(120, "a is active") {
          (try head.must("branches", "--json").json() as? [Entry])?.first?["state"] as? String == "active"
        }
        try head.must("verify", "a")
        try unnoticed(a, "big", "UPDATE big SET note = repeat('x', 29) || 'y' WHERE id = \(rows / 3)")
        let before = line.counts
        let outcome = try head.hub("verify", "a", "--json")
        let (up, down) = (line.counts.up - before.up, line.counts.down - before.down)
        say("1 of \(rows) rows: \(Int(outcome.seconds * 1000)) ms, \(up) bytes up, \(down) bytes down")
        #expect(outcome.code == 1)
        #expect(try differences(outcome) == ["a public.big \(rows / 3) differs"])
        #expect(up + down < 100_000)
      }
    }

    @Test("Verify: a branch that is away is named with exit 3, mistakes are said in one line")
    func whoCannotBeCompared() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        func refused(_ outcome: Outcome, _ code: Int32, _ words: String) {
          // Lines before the last are progress.
          let line = outcome.errorLines.last ?? ""
          #expect(outcome.code == code && line.hasPrefix("hub: "), "\(outcome.errors)")
          #expect(line.contains(words), "\(words) is not in: \(outcome.errors)")
        }
        refused(try head.hub("verify", "c"), 1, "there is no branch c")
        refused(try a.hub("verify"), 1, "head's --database")
        refused(try head.hub("verify", "--timeout", "soon"), 2, "--timeout")
        #expect(try b.stop() == 0)
        refused(try head.hub("verify", "b", "--timeout", "4s"), 3, "b")
        let both = try head.hub("verify", "--timeout", "40s")
        refused(both, 3, "b is offline")
        #expect(both.output.contains("a is equal to head"))
        try b.start()
        try head.must("verify", "b")
        // Without a daemon the command serves head meanwhile.
        #expect(try head.stop() == 0)
        try unnoticed(a, "stock", "DELETE FROM stock WHERE id = 3")
        let alone = try head.hub("verify", "a", "--json", "--broker", head.brokerURL)
        #expect(try alone.code == 1 && differences(alone) == ["a public.stock 3 missing_at_branch"], "\(alone.errors)")
        try head.start()
        try head.must("verify", "--repair")
        try company.settle(["stock"])
      }
    }

    @Test("Verify: what --foreign-writes ignore allows is listed and no failure; a quarantined row is one")
    func whatIsAllowedToDiffer() throws {
      let tracks = [["price", "--direction", "down", "--foreign-writes", "ignore"], ["stock"]]
      try Company.with(branches: 1, schema: Self.schema, tracks: tracks) { company in
        let (head, a) = (company.head, company["a"])
        try company.settle(["stock", "price"])
        try a.run("UPDATE price SET amount = 3 WHERE id = 5; INSERT INTO price VALUES (700, 1)")
        let listed = try head.must("verify", "--json")
        #expect(try differences(listed) == ["a public.price 5 local", "a public.price 700 local"])
        try head.must("verify", "--repair")
        #expect(try a.connect().value("SELECT amount FROM price WHERE id = 5") == "3.00")
        try a.run("ALTER TABLE stock ADD CHECK (qty < 100000)")
        try head.run("UPDATE stock SET qty = 100000 WHERE id = 1")
        try company.eventually(a, "SELECT count(*) FROM hub.quarantine", is: "1")
        let found = try head.hub("verify", "--repair", "--json")
        #expect(found.code == 1 && found.errors.contains("hub quarantine"))
        #expect(try differences(found).contains("a public.stock 1 quarantined"))
      }
    }
  }
}
