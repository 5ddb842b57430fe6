import Foundation
import Testing

extension EndToEnd {
  /// What people decide, whatever the broker loses and whether or not a daemon runs.
  @Suite(.serialized)
  struct VerdictTests {
    private func list(_ office: Office, _ command: String) throws -> [[String: Any]] {
      try office.must(command, "list", "--json").json() as? [[String: Any]] ?? []
    }

    private func number(_ office: Office, _ table: String) throws -> String {
      let rows = try list(office, "quarantine").filter { $0["table"] as? String == "public.\(table)" }
      guard let id = rows.first?["id"] as? Int else { throw Failed("nothing of \(table) is quarantined") }
      return String(id)
    }

    /// The request for a discarded row was sent once: lost, the row differed until head wrote it again.
    @Test("Quarantine: a branch gets the row that it asked for although the broker lost the request")
    func aLostRequestIsRepeated() throws {
      let schema = "CREATE TABLE part (id int PRIMARY KEY, weight int); INSERT INTO part VALUES (1, 1)"
      try Company.with(branches: 1, schema: schema, tracks: [["part"]]) { company in
        let (head, a) = (company.head, company["a"])
        try a.run("ALTER TABLE part ADD CONSTRAINT light CHECK (weight < 100)")
        try head.run("UPDATE part SET weight = 200")
        try until(20, "it is quarantined") { try list(a, "quarantine").count == 1 }
        #expect(try head.stop() == 0)
        func waiting() throws -> Int { try Broker.queues(company.virtualHost)["hub.head"] ?? 0 }
        let before = try waiting()
        try a.must("quarantine", "discard", number(a, "part"))
        // A beat comes every five seconds, the request within one.
        try until(30, "the request is with the broker") { try waiting() >= before + 2 }
        _ = try Broker.ctl(["-p", company.virtualHost, "purge_queue", "hub.head"])
        try a.run("ALTER TABLE part DROP CONSTRAINT light")
        #expect(try a.connect().number("SELECT count(*) FROM hub.restate") == 1)
        try head.startAndWait()
        try company.eventually(a, "SELECT weight FROM part", is: "200", within: 60)
        try company.eventually(a, "SELECT count(*) FROM hub.restate", is: "0", within: 60)
        try company.settle(["part"])
      }
    }

    /// They waited for the next look, up to half a minute.
    @Test(
      "Quarantine: the children of an edited row are in when the command has ended, with and without a daemon")
    func childrenGoInAtOnce() throws {
      let schema = """
        CREATE TABLE customer (id int PRIMARY KEY, email text UNIQUE);
        CREATE TABLE sale (id int PRIMARY KEY, customer int NOT NULL REFERENCES customer)
        """
      try Company.with(branches: 1, schema: schema, tracks: [["customer"], ["sale"]]) { company in
        let (head, a) = (company.head, company["a"])
        let path = company.directory + "/customer.json"
        for (round, serves) in [true, false].enumerated() {
          let id = 10 + round
          try company.settle(["customer", "sale"])
          for office in company.offices { #expect(try office.stop() == 0) }
          try head.run("INSERT INTO customer VALUES (\(id), 'same\(round)')")
          try a.run(
            "INSERT INTO customer VALUES (\(id + 10), 'same\(round)'); INSERT INTO sale VALUES (\(id), \(id + 10))")
          for office in company.offices { try office.startAndWait() }
          try until(30, "both are quarantined at head") { try list(head, "quarantine").count == 2 }
          if !serves { #expect(try head.stop() == 0) }
          try Data("{\"email\": \"other\(round)\"}".utf8).write(to: URL(fileURLWithPath: path))
          try head.must("quarantine", "edit", number(head, "customer"), path)
          // The daemon may be trying them itself at this moment; its next own try would be half a minute away.
          try until(10, "the children are in, served: \(serves)") { try list(head, "quarantine").isEmpty }
          #expect(try head.connect().number("SELECT count(*) FROM sale WHERE id = \(id)") == 1)
          if !serves { try head.startAndWait() }
          try company.settle(["customer", "sale"])
        }
      }
    }

    @Test("Inbox: how long entries are kept is set at head, and the branches' copies follow")
    func entriesAreKeptAsLongAsIsSaid() throws {
      let schema =
        "CREATE TABLE doc (id int PRIMARY KEY, v text); INSERT INTO doc SELECT g, 'x' FROM generate_series(1, 5) g"
      try Company.with(branches: 1, schema: schema, tracks: [["doc"]]) { company in
        let (head, a) = (company.head, company["a"])
        try company.settle(["doc"])
        for office in company.offices { #expect(try office.stop() == 0) }
        try head.run("UPDATE doc SET v = 'head'")
        try a.run("UPDATE doc SET v = 'a'")
        for office in company.offices { try office.startAndWait() }
        try until(30, "a has its entries") { try list(a, "conflicts").count == 5 }
        let usual = try head.must("conflicts", "keep", "--json").object()
        #expect(usual["days"] as? Int == 400 && usual["entries"] as? Int == 1_000_000)
        #expect(try a.hub("conflicts", "keep", "--days", "3").code == 1, "at a branch")
        #expect(try head.hub("conflicts", "keep", "--days", "-3").code == 2)
        try head.must("conflicts", "keep", "--entries", "2")
        // Within a minute, and when the daemon starts.
        #expect(try head.stop() == 0)
        try head.startAndWait()
        try company.eventually(head, "SELECT string_agg(id::text, ',') FROM hub.conflict", is: "4,5")
        try company.eventually(a, "SELECT string_agg(id::text, ',') FROM hub.conflict", is: "4,5", within: 60)
      }
    }
  }
}
