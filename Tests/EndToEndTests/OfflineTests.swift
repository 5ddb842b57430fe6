import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct OfflineTests {
    @Test("§2: rows changed thousands of times while a branch is cut off travel once each when it is back")
    func anAbsentBranchGetsEachRowOnce() throws {
      let schema =
        "CREATE TABLE price (id int PRIMARY KEY, v int NOT NULL); INSERT INTO price SELECT g, 0 FROM generate_series(1, 100) g;"
      try Company.with(branches: 2, schema: schema, tracks: [["price"]], joined: false) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let line = try company.forwarder()
        a.brokerURL = try Broker.url(company.virtualHost, port: line.port)
        for branch in [a, b] {
          try company.join(branch)
          try branch.start()
        }
        try head.run("UPDATE price SET v = 1")
        try company.settle(["price"])
        try a.must("sync")
        func sent(_ office: Office) throws -> Int { try office.status()["rows_sent"] as? Int ?? -1 }
        func applied(_ office: Office) throws -> Int { try office.status()["rows_applied"] as? Int ?? -1 }
        // a is cut off: it writes on and says so.
        line.cut()
        try until(60, "a is offline") { try a.status()["state"] as? String == "offline" }
        let rounds = Servers.isFull ? 500 : 50
        let before = try sent(a)
        for round in 2..<(2 + rounds) { try a.run("UPDATE price SET v = \(round) WHERE id <= 50") }
        #expect((try a.status()["outgoing"] as? [String: Any])?["pending"] as? Int == 50)
        let updating = try head.connect()
        for round in 2..<(2 + rounds) {
          for _ in 0..<2 { try updating.run("UPDATE price SET v = \(round * 1000) WHERE id > 50") }
        }
        try company.settle(["price"], offices: [head, b])
        // Its hub starts anew meanwhile, so that the counters begin at zero.
        #expect(try a.stop() == 0)
        try a.start()
        line.mend()
        try company.settle(["price"], within: 90)
        try a.must("sync")
        // The counters are published every second or so.
        try until(20, "a counted its rows") { try sent(a) > 0 && applied(a) > 0 }
        let (up, down) = (try sent(a), try applied(a))
        print("  \(rounds) rounds: \(up) rows up, \(down) rows down (before \(before))")
        // Each of the 50 rows once each way; a batch or two more are echoes and repeats, not history.
        #expect(up >= 50 && up <= 150, "a sent \(up) rows for 50")
        #expect(down >= 50 && down <= 150, "a applied \(down) rows for 50")
        #expect(try head.connect().value("SELECT count(*) FROM hub.conflict") == "0")
      }
    }
  }

  @Suite(.serialized)
  struct BulkTests {
    @Test("Issue: a statement of very many rows passes with both hubs under 300 MB")
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
          print(
            "  \(rows) rows \(office.name) to \(other.name): \(Int(Double(rows) / seconds)) rows/s inserted, \(Int(Double(rows) / (monotonic() - began2))) rows/s updated"
          )
        }
        try company.settle(["big"], within: 60)
        try head.run("DELETE FROM big WHERE id % 10 = 0")
        try company.eventually(a, "SELECT count(*) FROM big WHERE id % 10 = 0", is: "0", within: 300)
        for office in company.offices {
          let megabytes = (office.daemon?.kilobytes("VmHWM") ?? 0) / 1024
          print("  \(office.name): VmHWM \(megabytes) MB")
          #expect(megabytes > 0 && megabytes < 300, "\(office.name) used \(megabytes) MB")
        }
      }
    }
  }
}
