import Foundation
import Testing

/// The catalogue, the sales and the stock of the demo's company.
enum Shop {
  static let schema = """
    CREATE TABLE catalogue (sku text PRIMARY KEY, title text NOT NULL, price numeric(10,2) NOT NULL);
    CREATE TABLE sales (id bigserial PRIMARY KEY, day date NOT NULL, region text NOT NULL, qty int NOT NULL, note text);
    CREATE TABLE stock (sku text PRIMARY KEY, qty int NOT NULL, place text);
    """
  static let tracks = [
    ["catalogue", "--direction", "down"], ["sales", "--direction", "up"], ["stock"],
  ]
}

extension EndToEnd {
  @Suite(.serialized)
  struct StoryTests {
    @Test("create, update, delete both ways; up, down, both; branch to head to the other branch; then silence")
    func rowsTravelEveryWayAndThenTheExchangeIsQuiet() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks, run: false, joined: false) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let lines = try [head, a, b].map { office in
          let line = try company.forwarder()
          office.brokerURL = try Broker.url(company.virtualHost, port: line.port)
          return line
        }
        try head.run("INSERT INTO catalogue VALUES ('x', 'old', 1.00)")
        try head.start()
        for branch in company.branches {
          try company.join(branch)
          #expect(try branch.connect().value("SELECT title FROM catalogue") == "old")
          try branch.start()
        }
        // down
        try head.run("INSERT INTO catalogue VALUES ('y', 'tea', 2.50), ('z', 'gone soon', 3)")
        try company.eventually(a, "SELECT count(*) FROM catalogue", is: "3")
        try head.run("UPDATE catalogue SET price = 9.99 WHERE sku = 'x'; DELETE FROM catalogue WHERE sku = 'z'")
        for branch in company.branches {
          try company.eventually(
            branch, "SELECT string_agg(sku || price, ' ' ORDER BY sku) FROM catalogue", is: "x9.99 y2.50")
        }
        // up: from both branches, keys never collide
        for (branch, region) in zip(company.branches, ["north", "south"]) {
          try branch.run(
            """
            INSERT INTO sales (day, region, qty) SELECT '2026-03-01', '\(region)', g FROM generate_series(1, 50) g;
            UPDATE sales SET note = 'checked' WHERE qty = 7; DELETE FROM sales WHERE qty = 8
            """)
        }
        try company.eventually(head, "SELECT count(*) || ' ' || count(note) FROM sales", is: "98 2")
        // both: each office's write reaches the other two
        for (office, sku) in [(head, "h"), (a, "a"), (b, "b")] {
          try office.run("INSERT INTO stock VALUES ('\(sku)', 1, '\(sku)')")
        }
        try company.settle(["stock"])
        #expect(try a.connect().number("SELECT count(*) FROM stock") == 3)
        try a.run("UPDATE stock SET qty = 10 WHERE sku = 'b'")
        try company.eventually(b, "SELECT qty FROM stock WHERE sku = 'b'", is: "10")
        try b.run("UPDATE stock SET sku = 'b2' WHERE sku = 'b'; DELETE FROM stock WHERE sku = 'a'")
        try company.eventually(a, "SELECT string_agg(sku, ' ' ORDER BY sku) FROM stock", is: "b2 h")
        try company.settle(["stock", "catalogue"])
        // against the direction
        for (office, statement, side) in [
          (a, "DELETE FROM catalogue", "head only"), (head, "DELETE FROM sales", "the branches only"),
        ] {
          do {
            try office.run(statement)
            Issue.record("\(statement) at \(office.name) was taken")
          } catch let error as Application.Refused {
            #expect(error.sqlstate == "25006" && error.message.contains(side), "\(error)")
          }
        }
        // silence
        for office in company.offices { try office.must("sync", "--timeout", "60s") }
        try quiet(company, lines)
        for office in company.offices {
          let status = try office.status()
          #expect((status["outgoing"] as? [String: Any])?["pending"] as? Int == 0, "\(office.name)")
          #expect(status["conflicts"] as? Int == 0 && status["quarantined"] as? Int == 0)
          #expect(try office.stop() == 0)
        }
      }
    }

    /// No batch, and at most one control message an office in 5 s, counted on the wire.
    private func quiet(_ company: Company, _ lines: [Forwarder]) throws {
      func batches() throws -> [String] {
        try company.offices.map { try $0.connect().value("SELECT max(number) FROM hub.batch") }
      }
      let seconds = Servers.isFull ? 60.0 : 15.0
      // What was on its way when the last command returned may still pass.
      var before = lines.map(\.counts.publishes)
      try until(30, "no message for a second", every: 1) {
        let now = lines.map(\.counts.publishes)
        defer { before = now }
        return now == before
      }
      let numbers = try batches()
      let start = lines.map(\.counts.publishes)
      let began = monotonic()
      while monotonic() - began < seconds { usleep(200_000) }
      #expect(try batches() == numbers, "a batch was made while nothing changed")
      let sent = zip(lines, start).map { $0.counts.publishes - $1 }
      let allowed = Int((seconds / 5).rounded(.up)) + 1
      for (office, count) in zip(company.offices, sent) {
        // Head may say one thing to each branch.
        let peers = office === company.head ? company.branches.count : 1
        #expect(count <= allowed * peers, "\(office.name) sent \(count) control messages in \(Int(seconds)) s")
      }
      say("quiet for \(Int(seconds)) s: messages by office \(sent)")
    }

    @Test("CAP: a transaction arrives whole, also while hubs are killed (transfer test)")
    func noReaderEverSeesHalfOfATransfer() throws {
      let schema = """
        CREATE TABLE account (id int PRIMARY KEY, amount bigint NOT NULL);
        CREATE TABLE vault (id int PRIMARY KEY, amount bigint NOT NULL);
        INSERT INTO account SELECT g, 1000 FROM generate_series(1, 20) g;
        INSERT INTO vault SELECT g, 1000 FROM generate_series(1, 20) g;
        """
      for (writer, others) in [("head", ["a", "b"]), ("a", ["head", "b"])] {
        try Company.with(branches: 2, schema: schema, tracks: [["account"], ["vault"]]) { company in
          let rounds = Servers.isFull ? 10 : 3
          let source = company[writer]
          let moving = Worker { worker in
            let application = try source.connect()
            var moved = 0
            while !worker.isStopping {
              let (from, to, sum) = (Int.random(in: 1...20), Int.random(in: 1...20), Int.random(in: 1...50))
              try application.run(
                moved % 2 == 0
                  ? """
                  BEGIN; UPDATE account SET amount = amount - \(sum) WHERE id = \(from);
                  UPDATE vault SET amount = amount + \(sum) WHERE id = \(to); COMMIT
                  """
                  : """
                  BEGIN; UPDATE account SET amount = amount - \(sum) WHERE id = \(from);
                  UPDATE account SET amount = amount + \(sum) WHERE id = \(to); COMMIT
                  """)
              moved += 1
            }
          }
          let readers = others.map { name -> Worker in
            let office = company[name]
            return Worker { worker in
              let application = try office.connect()
              var different: Set<String> = []
              var looks = 0
              while !worker.isStopping {
                let sum = try application.value(
                  "SELECT (SELECT sum(amount) FROM account) + (SELECT sum(amount) FROM vault)")
                looks += 1
                different.insert(try application.value("SELECT string_agg(amount::text, ',' ORDER BY id) FROM account"))
                if sum != "40000" { throw Failed("\(office.name) saw a total of \(sum)") }
              }
              if different.count < 3 * rounds {
                throw Failed("\(office.name) saw only \(different.count) states in \(looks) looks")
              }
            }
          }
          for _ in 0..<rounds {
            for victim in company.offices {
              func seen() throws -> [String] {
                try others.map {
                  try company[$0].connect().value("SELECT string_agg(amount::text, ',' ORDER BY id) FROM vault")
                }
              }
              let before = try seen()
              try until(60, "rows move to \(others)") { try zip(before, seen()).allSatisfy { $0 != $1 } }
              victim.murder()
              try victim.start()
            }
          }
          try moving.stop()
          try company.settle(["account", "vault"], within: 90)
          for reader in readers { try reader.stop() }
        }
      }
    }
  }
}
