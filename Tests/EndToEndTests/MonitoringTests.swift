import Foundation
import FoundationNetworking
import Testing

extension EndToEnd {
  /// `hub run --http`: what a monitor reads.
  @Suite(.serialized)
  struct MonitoringTests {
    private static let schema = "CREATE TABLE sale (id bigserial PRIMARY KEY, amount int NOT NULL)"

    @Test("metrics and health say what status says: of a connected hub, a standby, a database that goes away")
    func metrics() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: [["sale"]], run: false, joined: false) { company in
        let (head, a) = (company.head, company["a"])
        let first = try head.start("--http", "0")
        try company.join(a)
        try a.start()
        try a.run("INSERT INTO sale (amount) SELECT g FROM generate_series(1, 250) g")
        try a.must("sync")
        let page = try address(of: first)
        try until(30, "head is healthy") { try get(page, "/healthz").code == 200 }
        // What it has done is written down every few seconds.
        try until(30, "its counts are written down") {
          try Metrics(get(page, "/metrics"))["hub_rows_applied_total"] ?? 0 >= 250
        }
        let metrics = try Metrics(get(page, "/metrics"))
        #expect(metrics["hub_info{role=\"head\",version=\"0.1.0\"}"] == 1)
        for name in ["database_up", "healthy", "running", "broker_connected"] {
          #expect(metrics["hub_" + name] == 1, "\(name)")
        }
        for name in ["paused", "broker_blocked", "recovering", "conflicts", "quarantined_rows"] {
          #expect(metrics["hub_" + name] == 0, "\(name)")
        }
        #expect(metrics["hub_branch_state{branch=\"a\",state=\"active\"}"] == 1)
        #expect(metrics["hub_branch_pending_rows{branch=\"a\"}"] == 0)
        #expect(metrics["hub_branch_silent_seconds{branch=\"a\"}"] ?? 1e9 < 60)

        // What waits for a branch that is away is counted, at a standby as at the hub that serves.
        #expect(try a.stop() == 0)
        try head.run("INSERT INTO sale (amount) SELECT g FROM generate_series(1, 1000) g")
        let standby = try head.launch(["run", "--broker", head.brokerURL, "--http", "127.0.0.1:0"], as: "standby")
        defer { standby.murder() }
        let second = try address(of: standby)
        for page in [page, second] {
          try until(30, "1 000 rows wait for a") {
            try Metrics(get(page, "/metrics"))["hub_branch_pending_rows{branch=\"a\"}"] == 1000
          }
        }
        #expect(try get(second, "/healthz") == Answer(code: 200, text: "running\n"))

        // The standby outlives the hub that served, and nobody serves while it is stopped.
        #expect(try head.stop() == 0)
        try until(30, "the standby serves") { try get(second, "/healthz").code == 200 }

        // A database that goes away: said at once, and no longer when it is back.
        let copy = head.database + "_away"
        let admin = try Application(Servers.variable("HUB_TEST_POSTGRES_1"))
        try until(20, "renamed") {
          _ = try admin.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '\(head.database)'")
          return (try? admin.run("ALTER DATABASE \(head.database) RENAME TO \(copy)")) != nil
        }
        try until(30, "the database is away") { try get(second, "/healthz").code == 503 }
        let without = try Metrics(get(second, "/metrics"))
        #expect(without.values == ["hub_database_up": 0])
        try admin.run("ALTER DATABASE \(copy) RENAME TO \(head.database)")
        try until(60, "the database is back") { try get(second, "/healthz") == Answer(code: 200, text: "running\n") }
        standby.awaitHandler(of: SIGTERM)
        standby.signal(SIGTERM)
        #expect(try standby.wait(20) == 0)
      }
    }

    @Test("an address that is none, or taken, ends hub run with a clear error")
    func addresses() throws {
      try Company.with(branches: 0, schema: Self.schema, tracks: [["sale"]]) { company in
        let none = try company.head.hub("run", "--http", "everywhere")
        #expect(none.code == 2 && none.errors.contains("--http everywhere is no address"), "\(none)")
        let standby = try company.head.launch(["run", "--http", "0"], as: "standby")
        defer { standby.murder() }
        let port = try address(of: standby).split(separator: ":").last ?? ""
        let taken = try company.head.hub("run", "--http", String(port))
        #expect(taken.code == 2 && taken.errors.contains("cannot listen at 127.0.0.1:\(port)"), "\(taken)")
      }
    }

    // MARK: reading

    private struct Answer: Equatable {
      var code: Int
      var text: String
    }

    private func address(of program: Program) throws -> String {
      var found = ""
      try until(20, "it says where it listens: \(program.errorText)") {
        guard let range = program.errorText.range(of: #"http://127\.0\.0\.1:\d+"#, options: .regularExpression) else {
          return false
        }
        found = String(program.errorText[range])
        return true
      }
      return found
    }

    private func get(_ address: String, _ path: String) throws -> Answer {
      final class Box: @unchecked Sendable {
        var answer: Answer?
        var error: (any Error)?
      }
      let box = Box()
      let done = DispatchSemaphore(value: 0)
      let url = try #require(URL(string: address + path))
      URLSession.shared.dataTask(with: URLRequest(url: url, timeoutInterval: 30)) { data, response, error in
        if let response = response as? HTTPURLResponse {
          box.answer = Answer(code: response.statusCode, text: String(decoding: data ?? Data(), as: UTF8.self))
        }
        box.error = error
        done.signal()
      }.resume()
      done.wait()
      guard let answer = box.answer else {
        throw Failed("\(address)\(path): \(box.error.map { "\($0)" } ?? "nothing")")
      }
      return answer
    }

    /// The samples by name and labels, of a page in which every sample has been announced.
    private struct Metrics {
      var values: [String: Double] = [:]

      init(_ answer: Answer) throws {
        guard answer.code == 200 else { throw Failed("\(answer)") }
        var announced: Set<Substring> = []
        for line in answer.text.split(separator: "\n") {
          let words = line.split(separator: " ")
          if line.hasPrefix("# TYPE ") {
            announced.insert(words[2])
          } else if !line.hasPrefix("#") {
            let name = line.prefix { $0 != " " && $0 != "{" }
            guard announced.contains(name), let value = words.last.flatMap({ Double($0) }) else {
              throw Failed("no metric: \(line)")
            }
            values[try Self.withoutOffice(words.dropLast().joined(separator: " "))] = value
          }
        }
      }

      /// Whoever watches many offices must be able to tell them apart by every sample.
      private static func withoutOffice(_ sample: String) throws -> String {
        guard let label = sample.range(of: #"\{office="head"[,}]"#, options: .regularExpression) else {
          throw Failed("of which office? \(sample)")
        }
        return sample.replacingCharacters(in: label, with: sample[label].hasSuffix("}") ? "" : "{")
      }

      subscript(_ name: String) -> Double? { values[name] }
    }
  }
}
