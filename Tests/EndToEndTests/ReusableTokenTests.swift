import Foundation
import Testing

extension EndToEnd {
  /// One token for several branches, and branches that join by themselves when they are started.
  @Suite(.serialized)
  struct ReusableTokenTests {
    private static let tables = ["stock"]

    private func refused(_ outcome: Outcome, mentions words: String..., by office: Office) throws {
      #expect(outcome.code == 1, "exit \(outcome.code): \(outcome.errors)")
      #expect(outcome.errorLines.count == 1, "\(outcome.errors)")
      for word in words { #expect(outcome.errors.contains(word), "no \(word) in \(outcome.errors)") }
      #expect(try office.connect().value("SELECT to_regnamespace('hub') IS NULL") == "t", "something was left")
    }

    @Test("three branches join with one token, each with its name; edits of all of them meet; a taken name is refused")
    func oneTokenForSeveral() throws {
      try Company.with(branches: 4, schema: Shop.schema, tracks: Shop.tracks, joined: false) { company in
        let (head, a, b, c, d) = (company.head, company["a"], company["b"], company["c"], company["d"])
        let token = try head.must("invite", "shop", "--reusable", "--uses", "3").line
        try a.must("join", token, "--name", "shop-1")
        try a.start()
        try b.must("join", token, "--name", "shop-2")
        try b.start()
        for office in [head, a, b] { try office.run("INSERT INTO stock VALUES ('\(office.name)', 1, 'x')") }
        try company.settle(Self.tables, offices: [head, a, b])

        // The name of one that is there, of one that is away, of head, and one that the token is not for.
        try refused(try c.hub("join", token, "--name", "shop-1"), mentions: "shop-1", "--name", by: c)
        try b.stop()
        try head.run("INSERT INTO stock SELECT 'while-away-' || g, g, 'x' FROM generate_series(1, 50) g")
        try refused(try c.hub("join", token, "--name", "shop-2"), mentions: "shop-2", "--name", by: c)
        try refused(try c.hub("join", token, "--name", "north"), mentions: "shop-", by: c)
        try b.start()
        try company.settle(Self.tables, offices: [head, a, b])

        // The third and last; then the token is used up. One that is taken back makes no more members.
        try c.must("join", token, "--name", "shop-3")
        try c.start()
        try refused(try d.hub("join", token, "--name", "shop-4"), mentions: "used", by: d)
        let other = try head.must("invite", "shop", "--reusable").line
        #expect(try head.must("invite", "shop", "--revoke").output.contains("revoked"))
        try refused(try d.hub("join", other, "--name", "shop-4"), mentions: "revoked", by: d)
        let list = try head.must("invite", "--list", "--json").json() as? [[String: Any]] ?? []
        #expect(list.map { $0["state"] as? String } == ["revoked", "revoked"], "\(list)")
        #expect(list.first?["uses"] as? Int == 3)
        try c.run("INSERT INTO stock VALUES ('c', 1, 'x')")
        try company.settle(Self.tables, offices: [head, a, b, c])
        let names = (try head.must("branches", "--json").json() as? [[String: Any]] ?? []).map { $0["name"] as? String }
        #expect(names == ["shop-1", "shop-2", "shop-3"])
      }
    }

    @Test("hub run joins by itself with head's secret, waits for head, and serves; a removed name is free")
    func aBranchThatJoinsByItself() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks, run: false, joined: false) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let secret = company.directory + "/join-secret"
        try "0123456789abcdef0123456789abcdef\n".write(toFile: secret, atomically: true, encoding: .utf8)
        let broker = company.directory + "/broker-url"
        try (company.brokerURL + "\n").write(toFile: broker, atomically: true, encoding: .utf8)
        let environment = [
          "HUB_JOIN_SECRET_FILE": secret, "HUB_BROKER_URL_FILE": broker, "HUB_OFFICE_NAME": "branch-0",
        ]
        let first = try a.launch(["run"], with: environment)
        defer { first.murder() }
        try until(20, "it waits: \(first.errorText)") { first.errorText.contains("waiting") }
        #expect(try a.hub("health").code == 1, "not in step yet")
        for _ in 0..<2 {
          try head.must("invite", "branch", "--reusable", "--secret-file", secret, "--expires", "1d")
        }
        try head.start()
        try a.run("SELECT 1")
        try until(60, "it serves: \(first.errorText)") { try a.hub("health").code == 0 }
        try a.run("INSERT INTO stock VALUES ('by-itself', 1, 'x')")
        try company.settle(Self.tables, offices: [head, a])
        // SIGTERM, and again: it is a member and asks nobody.
        first.signal(SIGTERM)
        #expect(try first.wait(20) == 0)
        let again = try a.launch(["run"], as: "again", with: environment)
        defer { again.murder() }
        try until(30, "it serves again") { again.errorText.contains("connected") }

        // Another database under its name, while it is there; and when head has let it go.
        let second = try b.launch(["run"], with: environment)
        defer { second.murder() }
        #expect(try second.wait(60) == 1)
        #expect(second.errorLines.last?.contains("there is an office branch-0 already") == true, "\(second.errorText)")
        try head.must("remove", "branch-0")
        // Whoever started it would start it again and again: it stays, and says what it is.
        try until(60, "it knows: \(again.errorText)") { try a.status()["state"] as? String == "removed" }
        let health = try a.hub("health")
        #expect(health.code == 1 && health.errors.contains("hub leave"), "\(health)")
        #expect(try a.hub("health", "--local").code == 0)
        // Started anew it is the same.
        again.signal(SIGTERM)
        #expect(try again.wait(20) == 0)
        let idle = try a.launch(["run"], as: "idle", with: environment)
        defer { idle.murder() }
        try until(20, "it says so: \(idle.errorText)") { idle.errorText.contains("head has removed this office") }
        let third = try b.launch(["run"], as: "third", with: environment)
        defer { third.murder() }
        try until(60, "it takes the name: \(third.errorText)") { try b.hub("health").code == 0 }
        try head.run("INSERT INTO stock VALUES ('for the new one', 1, 'x')")
        try company.settle(Self.tables, offices: [head, b])

        // Offline it is well on its own side of the line.
        try b.must("pause")
        #expect(try b.hub("health", "--local").code == 0)
        try b.must("resume")

        // With hub out of its database, and its name free, the first joins anew.
        third.signal(SIGTERM)
        #expect(try third.wait(20) == 0)
        #expect(try b.hub("health", "--local").code == 1)
        try head.must("remove", "branch-0")
        try a.run("TRUNCATE stock")
        try a.must("leave")
        try until(60, "it joins anew: \(idle.errorText)") { try a.hub("health").code == 0 }
        try a.run("INSERT INTO stock VALUES ('anew', 1, 'x')")
        try company.settle(Self.tables, offices: [head, a])
      }
    }

    @Test("replicas started alike take a database each, keep its office, and find it again in any order")
    func replicasTakeADatabaseEach() throws {
      try Company.with(branches: 0, schema: Shop.schema, tracks: Shop.tracks, joined: false) { company in
        let one = try company.open("r-1", cluster: 2)
        let two = try company.open("r-2", cluster: 2)
        let pattern = String(one.url.dropLast()) + "{n}"
        let token = try company.head.must("invite", "branch", "--reusable").line
        func environment(_ replica: Int) throws -> [String: String] {
          let directory = company.directory + "/runtime-\(replica)"
          try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
          return [
            "HUB_DATABASE_URL": pattern, "HUB_OFFICE_NAME": "branch-{n}", "HUB_JOIN_TOKEN": token,
            "HUB_RUNTIME_DIR": directory, "HUB_BROKER_URL": company.brokerURL,
          ]
        }
        func health(_ replica: Int) throws -> Outcome {
          let program = try one.launch(["health"], as: "health", with: try environment(replica))
          let code = try program.wait(20)
          return Outcome(code: code, output: program.outputText, errors: program.errorText, seconds: 0)
        }
        var running = try (1...2).map { try one.launch(["run"], as: "replica-\($0)", with: try environment($0)) }
        defer { for program in running { program.murder() } }
        try until(60, "both serve: \(running.map(\.errorText))") { try (1...2).allSatisfy { try health($0).code == 0 } }
        #expect(Set(try (1...2).map { try health($0).line }) == ["branch-1 running", "branch-2 running"])
        for office in [one, two] { try office.run("INSERT INTO stock VALUES ('\(office.name)', 1, 'x')") }
        try company.settle(Self.tables, offices: [company.head, one, two])
        // A third finds none free; when one ends it takes that one's place, and is that office.
        let third = try one.launch(["run"], as: "replica-3", with: try environment(3))
        running.append(third)
        try until(20, "the third waits: \(third.errorText)") { third.errorText.contains("every database is taken") }
        running[0].signal(SIGTERM)
        #expect(try running[0].wait(20) == 0, "\(running[0].errorText)")
        try until(60, "the third serves: \(third.errorText)") { try health(3).code == 0 }
        try company.head.run("INSERT INTO stock VALUES ('for all', 1, 'x')")
        try company.settle(Self.tables, offices: [company.head, one, two])
        #expect(try company.head.connect().number("SELECT count(*) FROM hub.peer") == 2)
        // An office that head let go is left out: a replica that starts afterwards takes the other one.
        try company.head.must("remove", "branch-1")
        try until(60, "one knows") { try one.status()["state"] as? String == "removed" }
        for program in running.dropFirst() {
          program.signal(SIGTERM)
          #expect(try program.wait(20) == 0, "\(program.errorText)")
        }
        let last = try one.launch(["run"], as: "replica-4", with: try environment(1))
        running.append(last)
        try until(60, "it serves the other: \(last.errorText)") { try health(1).line == "branch-2 running" }
      }
    }
  }
}
