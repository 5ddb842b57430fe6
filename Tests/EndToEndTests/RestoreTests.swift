import Foundation
import Testing

/// A cluster's files, put aside while it is stopped, and put back.
private struct FileCopy {
  let cluster: Int
  let data: String
  let copy: String

  init(of cluster: Int, _ company: Company) throws {
    self.cluster = cluster
    data = try Application(Servers.variable("HUB_TEST_POSTGRES_\(cluster)")).value("SHOW data_directory")
    copy = "\(data)-copy-\(company.id)-\(UInt32.random(in: 0...UInt32.max))"
    try Servers.control(cluster, "stop")
    try Self.copy(data, to: copy)
    try Servers.control(cluster, "start")
  }

  func putBack() throws {
    try Servers.control(cluster, "stop")
    try FileManager.default.removeItem(atPath: data)
    try Self.copy(copy, to: data)
    try Servers.control(cluster, "start")
  }

  func remove() { try? FileManager.default.removeItem(atPath: copy) }

  /// With owners and times.
  private static func copy(_ from: String, to: String) throws {
    let outcome = try Servers.shell("/bin/cp", ["-a", from, to], seconds: 120)
    guard outcome.code == 0 else { throw Failed("cp \(from): \(outcome.errors)") }
  }
}

enum Store {
  static let schema = """
    CREATE TABLE stock (sku text PRIMARY KEY, qty int NOT NULL, note text);
    CREATE TABLE sale (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), what text NOT NULL);
    CREATE TABLE ticket (id bigserial PRIMARY KEY, what text NOT NULL);
    CREATE TABLE price (sku text PRIMARY KEY, cents int NOT NULL);
    INSERT INTO stock VALUES ('counted', 0, 'from the beginning');
    INSERT INTO price SELECT 'p' || g, g FROM generate_series(1, 20) g;
    """
  static let tracks = [
    ["stock", "--merge", "columns", "--counter", "qty"], ["sale", "--direction", "up"],
    ["price", "--direction", "down"], ["ticket"],
  ]

  /// `count` transactions at a branch; every one counts.
  static func work(_ office: Office, _ name: String, _ count: Int) throws {
    let application = try office.connect()
    for i in 0..<count {
      try application.run(
        """
        BEGIN; INSERT INTO stock VALUES ('\(name)-\(i)', 1, '\(name)');
        INSERT INTO sale (what) VALUES ('\(name)-\(i)');
        UPDATE stock SET qty = qty + 1 WHERE sku = 'counted'; COMMIT
        """)
    }
  }

  static func settle(_ company: Company, counted: Int, within seconds: Double = 90) throws {
    try company.settle(["stock", "price", "ticket"], within: seconds)
    for office in company.offices {
      #expect(try office.connect().number("SELECT qty FROM stock WHERE sku = 'counted'") == counted, "\(office.name)")
      #expect(try office.connect().value("SELECT count(*) FROM hub.quarantine") == "0", "quarantine at \(office.name)")
    }
  }

  /// What the branch sold, everything once: in its own table and at head.
  static func sales(_ company: Company, _ office: Office, _ names: [(String, Int)]) throws {
    for (name, count) in names {
      for place in [office, company.head] {
        try company.eventually(
          place, "SELECT count(*) || ' ' || count(DISTINCT what) FROM sale WHERE what LIKE '\(name)-%'",
          is: "\(count) \(count)", within: 60)
      }
    }
  }
}

extension EndToEnd {
  @Suite(.serialized)
  struct RestoreTests {
    @Test("head put back while what it lost is in the branches' quarantine alone")
    func whatWaitsInQuarantineComesBack() throws {
      try Company.with(branches: 2, schema: Store.schema, tracks: Store.tracks) { company in
        let (head, a) = (company.head, company["a"])
        try Store.settle(company, counted: 0)
        for branch in company.branches {
          try branch.run(
            "ALTER TABLE price ADD CONSTRAINT cheap CHECK (cents < 1000); ALTER TABLE stock ADD CONSTRAINT short CHECK (note <> 'refused')"
          )
        }
        let copy = try FileCopy(of: head.cluster, company)
        defer { copy.remove() }
        try head.run("INSERT INTO price VALUES ('dear', 5000); INSERT INTO stock VALUES ('odd', 0, 'refused')")
        for branch in company.branches {
          try company.eventually(branch, "SELECT count(*) FROM hub.quarantine", is: "2", within: 60)
        }
        // One of them is in conflict by then: the branch's own write stands, and head decides nothing of what it lost.
        try a.run("INSERT INTO stock VALUES ('odd', 0, 'mine')")
        try copy.putBack()
        try company.eventually(
          head, "SELECT count(*) FROM price WHERE sku = 'dear' AND cents = 5000", is: "1", within: 90)
        try company.eventually(head, "SELECT count(*) FROM stock WHERE sku = 'odd'", is: "1", within: 60)
        for branch in company.branches {
          try branch.run("ALTER TABLE price DROP CONSTRAINT cheap; ALTER TABLE stock DROP CONSTRAINT short")
        }
        try Store.settle(company, counted: 0)
        #expect(try head.connect().value("SELECT count(*) FROM price WHERE sku = 'dear'") == "1")
      }
    }

    @Test("S1, DESIGN 5: a branch put back twice, with fewer and with more writes after than were lost")
    func aBranchMayGoBackInTime() throws {
      try Company.with(branches: 2, schema: Store.schema, tracks: Store.tracks) { company in
        let a = company["a"]
        try Store.work(a, "before", 5)
        try Store.settle(company, counted: 5)
        let copy = try FileCopy(of: a.cluster, company)
        defer { copy.remove() }
        try Store.work(a, "lost", 40)
        try a.run("INSERT INTO ticket (what) SELECT 'lost' FROM generate_series(1, 5)")
        try company.head.run("UPDATE price SET cents = cents + 100")
        try Store.settle(company, counted: 45)

        try copy.putBack()
        try Store.work(a, "fewer", 3)
        try Store.settle(company, counted: 48)
        try Store.sales(company, a, [("before", 5), ("lost", 40), ("fewer", 3)])

        a.murder()
        try copy.putBack()
        try Store.work(a, "more", 120)
        try a.start()
        try Store.settle(company, counted: 168)
        try Store.sales(company, a, [("before", 5), ("lost", 40), ("fewer", 3), ("more", 120)])
        try company.eventually(a, "SELECT recovers FROM hub.office", is: "f")
        // The sequence went back, too: it is set behind the keys that came back.
        try a.run("INSERT INTO ticket (what) SELECT 'after' FROM generate_series(1, 5)")
        try company.eventually(company["b"], "SELECT count(*) FROM ticket", is: "10")
        try Store.work(a, "after", 5)
        try Store.settle(company, counted: 173)
        #expect(try company.head.connect().value("SELECT count(*) FROM hub.conflict") == "0")
      }
    }

    @Test("S1, DESIGN 5: head put back gets from the branches what it lost, also what only head writes")
    func headMayGoBackInTime() throws {
      try Company.with(branches: 2, schema: Store.schema, tracks: Store.tracks) { company in
        let head = company.head
        try Store.work(company["a"], "before", 5)
        try Store.settle(company, counted: 5)
        let copy = try FileCopy(of: 1, company)
        defer { copy.remove() }
        try Store.work(company["a"], "a", 30)
        try Store.work(company["b"], "b", 30)
        try head.run("INSERT INTO price SELECT 'new' || g, g FROM generate_series(1, 7) g")
        try head.run("UPDATE stock SET note = 'head''s' WHERE sku = 'before-0'")
        try head.run("DELETE FROM stock WHERE sku = 'before-1'")
        try Store.settle(company, counted: 65)

        for round in 1...2 {
          company["b"].murder()
          try copy.putBack()
          try head.run("INSERT INTO price VALUES ('since-\(round)', 1)")
          try Store.work(company["a"], "a\(round)", 3)
          try company.eventually(
            head, "SELECT string_agg(office || recovery, ',') FROM hub.peer", is: "bawaited", within: 60)
          #expect(try head.status()["recovering"] as? Bool == true)
          #expect(try head.must("status").output.contains("not yet back from b"))
          try company["b"].start()
          try Store.settle(company, counted: 65 + 3 * round)
          try company.eventually(head, "SELECT count(*) FROM hub.peer WHERE recovery IS NOT NULL", is: "0")
          #expect(try head.status()["recovering"] as? Bool == false)
        }
        for office in company.offices {
          let prices = try office.connect().value(
            "SELECT count(*) FROM price WHERE sku LIKE 'new%' OR sku LIKE 'since-%'")
          #expect(prices == "9", "\(office.name)")
        }
        try Store.sales(company, company["a"], [("a", 30), ("a1", 3), ("a2", 3)])
        try Store.sales(company, company["b"], [("b", 30)])
      }
    }

    @Test("S1, HAZARDS Identity: a copy of an office's database is refused by name, and the office goes on")
    func aCopyIsNotTheOffice() throws {
      try Company.with(branches: 1, schema: Store.schema, tracks: Store.tracks) { company in
        let a = company["a"]
        try Store.work(a, "before", 3)
        try Store.settle(company, counted: 3)
        let copy = try company.open("copy", cluster: a.cluster)
        a.murder()
        let admin = try Application(Servers.variable("HUB_TEST_POSTGRES_\(a.cluster)"))
        try admin.run("DROP DATABASE \(copy.database)")
        try admin.run("CREATE DATABASE \(copy.database) TEMPLATE \(a.database)")
        // Same server, same table, another database: its writes bear another actor before any hub looks at it.
        #expect(
          try copy.connect().value("SELECT hub.current_actor()") != a.connect().value("SELECT hub.current_actor()"))
        try a.startAndWait()
        try copy.start()
        try until(30, "the copy is told") { copy.daemon?.errorText.contains("office a") ?? false }
        try Store.work(a, "a", 3)
        try company.eventually(company.head, "SELECT qty FROM stock WHERE sku = 'counted'", is: "6")
        #expect(a.daemon?.isRunning ?? false)
        // Only when the office falls silent its copy may take its place; then the office is the copy.
        a.murder()
        try until(60, "the copy serves") { try copy.connect().value("SELECT broker_connected FROM hub.daemon") == "t" }
        try company.eventually(
          company.head, "SELECT incarnation FROM hub.peer",
          is: copy.connect().value("SELECT hub.current_actor()"), within: 60)
        try company.eventually(copy, "SELECT qty FROM stock WHERE sku = 'counted'", is: "6", within: 60)
        try copy.stop()
        let refused = try a.hub("run", "--broker", a.brokerURL, seconds: 60)
        #expect(refused.code == 1 && refused.errors.contains("office a is served by another copy"), "\(refused.errors)")
      }
    }

    @Test("a standby takes over within 10 s of a kill, and from a hub that stands still; that one does not act again")
    func theStandbyIsFenced() throws {
      try Company.with(branches: 1, schema: Store.schema, tracks: Store.tracks) { company in
        let a = company["a"]
        try until(40, "the first serves") { a.daemon?.errorText.contains("connected") ?? false }
        let first = a.daemon
        let second = try a.launch(["run", "--broker", a.brokerURL], as: "standby")
        defer { second.murder() }
        try until(30, "the standby waits") { second.errorText.contains("hot standby") }
        let began = monotonic()
        first?.murder()
        try until(20, "the standby serves") { second.errorText.contains("connected") }
        #expect(monotonic() - began < 10)
        try Store.work(a, "second", 3)
        try company.eventually(company.head, "SELECT qty FROM stock WHERE sku = 'counted'", is: "3")

        let third = try a.launch(["run", "--broker", a.brokerURL], as: "third")
        defer { third.murder() }
        try until(30, "the third waits") { third.errorText.contains("hot standby") }
        second.signal(SIGSTOP)
        try until(150, "the third serves") { third.errorText.contains("connected") }
        try Store.work(a, "third", 3)
        try company.eventually(company.head, "SELECT qty FROM stock WHERE sku = 'counted'", is: "6")
        let epoch = try a.connect().value("SELECT epoch FROM hub.office")
        second.signal(SIGCONT)
        try until(60, "the second has seen that it is not the office's hub any more") {
          second.errorText.contains("another hub serves this office")
        }
        try Store.work(a, "both", 10)
        try Store.settle(company, counted: 16)
        #expect(try a.connect().value("SELECT epoch FROM hub.office") == epoch)
        #expect(third.isRunning)
      }
    }

    /// Believed: a running hub may look now and then whether its actor is valid. That of a branch that is not proven yet is
    /// not: it began anew every five seconds, and on a thin line would never have heard head's answer.
    @Test("S1: a branch whose machine was started anew waits for head, however long, on one connection")
    func anUnprovenBranchWaitsForHead() throws {
      try Company.with(branches: 1, schema: Store.schema, tracks: Store.tracks) { company in
        let a = company["a"]
        try Store.work(a, "before", 3)
        try Store.settle(company, counted: 3)
        try a.stop()
        try company.head.stop()
        let actor = try a.connect().value("SELECT actor FROM hub.office")
        let state = company.directory + "/state/"
        for name in try FileManager.default.contentsOfDirectory(atPath: state) {
          var words = try String(contentsOfFile: state + name, encoding: .utf8).split(separator: " ").map(String.init)
          guard words.count == 7, words[1] == actor else { continue }
          words[5] = "another-boot"
          try words.joined(separator: " ").write(toFile: state + name, atomically: true, encoding: .utf8)
        }
        try Servers.control(a.cluster, "restart")
        try a.startAndWait()
        Thread.sleep(forTimeInterval: 13)
        #expect(
          try a.connect().value("SELECT hub.current_actor() = actor FROM hub.office") == "f", "it is proven already")
        let words = a.daemon?.errorText ?? ""
        #expect(words.components(separatedBy: "connected").count == 2, "\(words)")
        try Store.work(a, "alone", 3)
        try company.head.start()
        try Store.settle(company, counted: 6)
        try company.eventually(a, "SELECT hub.current_actor() = actor FROM hub.office", is: "t")
      }
    }

    @Test("a branch whose hub schema is gone says what to do, and joins again with its rows")
    func theSchemaMayBeMissing() throws {
      try Company.with(branches: 1, schema: Store.schema, tracks: Store.tracks) { company in
        let a = company["a"]
        try Store.work(a, "before", 3)
        try Store.settle(company, counted: 3)
        a.murder()
        try a.run("DROP SCHEMA hub CASCADE; INSERT INTO stock VALUES ('without', 2, 'hub')")
        let refused = try a.hub("run", "--broker", a.brokerURL)
        #expect(refused.code == 1 && refused.errors.contains("join TOKEN --existing merge"), "\(refused.errors)")
        try company.head.must("remove", a.name)
        try company.join(a, "--existing", "merge")
        try a.start()
        try company.settle(["stock", "price"])
        #expect(try company.head.connect().value("SELECT qty FROM stock WHERE sku = 'without'") == "2")
      }
    }
  }
}
