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
