import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct OfflineTests {
    @Test("rows changed thousands of times while offices are cut off travel once each when they are back")
    func anAbsentOfficeSendsEachRowOnce() throws {
      let schema =
        "CREATE TABLE price (id int PRIMARY KEY, v int NOT NULL); INSERT INTO price SELECT g, 0 FROM generate_series(1, 100) g;"
      try Company.with(branches: 2, schema: schema, tracks: [["price"]], run: false, joined: false) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let lines = try [head, a].map { office in
          let line = try company.forwarder()
          office.brokerURL = try Broker.url(company.virtualHost, port: line.port)
          return line
        }
        try head.start()
        for branch in [a, b] {
          try company.join(branch)
          try branch.start()
        }
        try head.run("UPDATE price SET v = 1")
        try company.settle(["price"])
        for office in company.offices { try office.must("sync") }
        // Both are cut off: they write on and say so.
        for line in lines { line.cut() }
        let rounds = Servers.isFull ? 500 : 50
        for (office, rows) in [(a, "id <= 50"), (head, "id > 50")] {
          try until(60, "\(office.name) is offline") { try office.status()["state"] as? String == "offline" }
          let application = try office.connect()
          for round in 2..<(2 + rounds) { try application.run("UPDATE price SET v = \(round) WHERE \(rows)") }
          #expect((try office.status()["outgoing"] as? [String: Any])?["pending"] as? Int == 50, "at \(office.name)")
          // The hub starts anew meanwhile, so that its counters begin at zero.
          #expect(try office.stop() == 0)
          try office.start()
        }
        for line in lines { line.mend() }
        try company.settle(["price"], within: 90)
        for office in company.offices { try office.must("sync") }
        for (office, sends) in [(a, 50), (head, 100)] {
          // The counters are published every second or so.
          var sent = 0
          try until(20, "\(office.name) counted its rows, it sent \(sent)") {
            sent = try office.status()["rows_sent"] as? Int ?? 0
            return sent >= sends
          }
          say("\(rounds) rounds on 50 rows: \(office.name) sent \(sent) rows")
          #expect(sent <= sends + 50, "\(office.name) sent \(sent) rows for \(sends)")
        }
        #expect(try head.connect().value("SELECT count(*) FROM hub.conflict") == "0")
      }
    }

    @Test("away for long: each row once, deletes too, own work kept; at head and the broker nothing grows for it")
    func aLongAbsence() throws {
      let schema = """
        CREATE TABLE price (id int PRIMARY KEY, v int NOT NULL);
        INSERT INTO price SELECT g, 0 FROM generate_series(1, 1000) g
        """
      try Company.with(branches: 2, schema: schema, tracks: [["price"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["price"])
        b.murder()
        try b.run("UPDATE price SET v = -1 WHERE id <= 20; INSERT INTO price VALUES (5000, 7)")
        let rounds = Servers.isFull ? 1000 : 150
        let application = try head.connect()
        for round in 1...rounds { try application.run("UPDATE price SET v = \(round) WHERE id > 20") }
        try company.settle(["price"], offices: [head, a])
        try a.run("DELETE FROM price WHERE id > 900")
        try company.settle(["price"], offices: [head, a])
        #expect(try head.connect().number("SELECT count(*) FROM hub.v1") == 1000, "a version a row, tombstones too")
        #expect(try head.connect().number("SELECT count(*) FROM pg_replication_slots") == 0, "no WAL is kept for it")
        let records = try head.connect().number("SELECT count(*) FROM hub.batch")
        #expect(records <= rounds + 100)
        var waiting = 0
        try until(150, "the queue of b is short, it has \(waiting) messages", every: 3) {
          waiting = try Broker.queues(company.virtualHost)["hub.office.b"] ?? .max
          return waiting <= 64
        }
        try b.start()
        try company.settle(["price"])
        try company.eventually(b, "SELECT count(*) FROM price WHERE v = \(rounds)", is: "880")
        for office in company.offices {
          #expect(try office.connect().value("SELECT count(*) FROM price WHERE v = -1") == "20")
          #expect(try office.connect().value("SELECT count(*) FROM price") == "901", "deleted rows stay away")
        }
        var received = 0
        try until(20, "b counted its rows, it received \(received)") {
          received = try b.status()["rows_applied"] as? Int ?? 0
          return received >= 979
        }
        say("\(rounds) updates of 980 rows while away: \(received) rows came; head keeps \(records) records of batches")
        #expect(received <= 1200, "\(received) rows came for 980 that changed")
      }
    }
  }

  @Suite(.serialized)
  struct BulkTests {
    @Test("a statement of very many rows passes with both hubs under 300 MB")
    func bulkStaysSmall() throws {
      let rows = Servers.isFull ? 1_000_000 : 150_000
      let schema =
        "CREATE TABLE big (id bigint PRIMARY KEY, day date, region text, qty int, cost numeric(10,2), note text);"
      try Company.with(branches: 1, schema: schema, tracks: [["big"]]) { company in
        let (head, a) = (company.head, company["a"])
        for (office, other, first) in [(a, head, 0), (head, a, 10_000_000)] {
          try office.run(
            """
            INSERT INTO big SELECT \(first) + g, '2026-01-01'::date + g % 365, 'region ' || g % 7, g % 100, g * 0.01, md5(g::text)
            FROM generate_series(1, \(rows)) g
            """)
          let began = monotonic()
          try company.eventually(
            other, "SELECT count(*) FROM big WHERE id > \(first) AND id <= \(first) + \(rows)", is: "\(rows)",
            within: 300)
          let seconds = monotonic() - began
          try office.run("UPDATE big SET qty = -qty - 1 WHERE id > \(first) AND id <= \(first) + \(rows)")
          let began2 = monotonic()
          try company.eventually(
            other, "SELECT count(*) FROM big WHERE id > \(first) AND id <= \(first) + \(rows) AND qty < 0",
            is: "\(rows)",
            within: 300)
          say(
            "\(rows) rows \(office.name) to \(other.name): \(Int(Double(rows) / seconds)) rows/s inserted, \(Int(Double(rows) / (monotonic() - began2))) rows/s updated"
          )
        }
        try company.settle(["big"], within: 60)
        try head.run("DELETE FROM big WHERE id % 10 = 0")
        try company.eventually(a, "SELECT count(*) FROM big WHERE id % 10 = 0", is: "0", within: 300)
        for office in company.offices {
          let megabytes = (office.daemon?.kilobytes("VmHWM") ?? 0) / 1024
          say("\(office.name): VmHWM \(megabytes) MB")
          #expect(megabytes > 0 && megabytes < 300, "\(office.name) used \(megabytes) MB")
        }
      }
    }
  }
}
