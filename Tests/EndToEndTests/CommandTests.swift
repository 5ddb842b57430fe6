import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct CommandTests {
    @Test("a second hub run is a hot standby and takes over; SIGTERM exits 0 promptly and loses nothing")
    func theStandbyTakesOver() throws {
      try Company.with(branches: 1, schema: HistoryKeeper.schema, tracks: [["ledger"], ["shared"]]) { company in
        let keepers = company.offices.map { HistoryKeeper($0) }
        for keeper in keepers { keeper.begin() }
        for office in company.offices {
          let standby = try office.launch(["run", "--broker", office.brokerURL], as: "standby")
          defer { standby.murder() }
          try until(20, "\(office.name)'s standby says so") { standby.errorText.contains("standby") }
          let first = office.daemon
          office.murder()
          #expect(first?.ended == -SIGKILL)
          try until(30, "\(office.name)'s standby serves: \(standby.errorText)") {
            standby.errorText.contains("connected")
          }
          let other = try company.offices.first { $0 !== office }!.connect()
          let before = try other.number("SELECT count(*) FROM ledger WHERE who = '\(office.name)'")
          try until(40, "rows of \(office.name) go on") {
            try other.number("SELECT count(*) FROM ledger WHERE who = '\(office.name)'") > before + 20
          }
          standby.signal(SIGTERM)
          let began = monotonic()
          #expect(try standby.wait(20) == 0, "\(standby.errorText)")
          #expect(monotonic() - began < 5, "SIGTERM took \(monotonic() - began) s")
          try office.start()
        }
        for keeper in keepers { try keeper.end() }
        try HistoryKeeper.judge(keepers, company)
        for office in company.offices { #expect(try office.stop() == 0) }
      }
    }

    /// Believed: exit(3) is how a program ends. Handlers of libraries then run beside threads that end, too: `hub join`
    /// aborted ("double free") after its last line, once in a thousand times.
    @Test("a command that ends, well or badly, runs no exit handlers of libraries beside its threads")
    func noLibraryEndsBesideAThread() throws {
      try Company.with(branches: 0, schema: HistoryKeeper.schema, tracks: [["ledger"]], run: false) { company in
        var environment = company.head.environment
        environment["LD_DEBUG"] = "files"  // ld.so(8): says which handlers it calls
        for (arguments, code) in [(["status", "--json"], Int32(0)), (["track", "nothing"], 2), (["invent"], 2)] {
          let program = try Program(
            Servers.hub(), arguments, environment: environment, directory: company.directory, name: "ends")
          defer { program.murder() }
          #expect(try program.wait(30) == code, "\(arguments): \(program.ended ?? 99)")
          #expect(program.errorText.contains("calling init"), "LD_DEBUG says nothing")
          #expect(!program.errorText.contains("calling fini"), "\(arguments)")
        }
      }
    }

    @Test("CAP-09: behind a connection pooler every command says so in one line and changes nothing")
    func poolersAreRefused() throws {
      try Company.with(branches: 1, schema: HistoryKeeper.schema, tracks: [["ledger"]]) { company in
        let head = company.head
        let url = try #require(URLComponents(string: head.url))
        let directory = "/tmp/hub-pooler-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        // The pooler gives up root's rights before it makes its socket.
        guard chmod(directory, 0o777) == 0 else { throw Failed("chmod") }
        // As an operator would who saw the pooler refuse hub's startup parameters.
        try """
        [databases]
        * = host=\(url.host ?? "") port=\(url.port ?? 5432) user=\(url.user ?? "") password=\(url.password ?? "")
        [pgbouncer]
        listen_addr =
        listen_port = 6432
        unix_socket_dir = \(directory)
        auth_type = any
        pool_mode = transaction
        ignore_startup_parameters = options, extra_float_digits

        """.write(toFile: directory + "/pgbouncer.ini", atomically: false, encoding: .utf8)
        let pooler = try Program(
          "/usr/sbin/pgbouncer", (getuid() == 0 ? ["-u", "nobody"] : []) + [directory + "/pgbouncer.ini"],
          environment: [:], directory: directory, name: "pgbouncer")
        defer { pooler.murder() }
        let socket = directory.split(separator: "/").map { "%2F" + $0 }.joined()
        let text = "postgresql://\(url.user ?? "")@\(socket):6432\(url.path)"
        try until(20, "the pooler listens: \(pooler.errorText)") {
          try head.hub("doctor", "--database", text).errors.contains("a connection pooler")
        }
        let before = try head.connect().number("SELECT count(*) FROM hub.request")
        for command in [["doctor"], ["status"], ["track", "shared"], ["run"], ["sync"], ["invite", "z"]] {
          let outcome = try head.hub(command + ["--database", text])
          #expect(outcome.code == 1, "\(command): \(outcome)")
          #expect(outcome.errorLines.count == 1 && outcome.errors.contains("a connection pooler"), "\(outcome.errors)")
        }
        #expect(try head.connect().number("SELECT count(*) FROM hub.request") == before)
      }
    }

    @Test(
      "Contract: status, branches and tables have their keys; pause holds rows, resume lets them go; watch shows them")
    func commandsKeepTheContract() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        for office in company.offices {
          try until(40, "\(office.name) runs") { try office.status()["state"] as? String == "running" }
          let status = try office.status()
          for key in ["office", "role", "state", "broker", "outgoing", "incoming", "conflicts", "quarantined"] {
            #expect(status[key] != nil, "status --json at \(office.name) lacks \(key)")
          }
          #expect((status["broker"] as? [String: Any])?["connected"] as? Bool == true)
          #expect((status["outgoing"] as? [String: Any])?["pending"] is Int)
          #expect((status["incoming"] as? [String: Any])?.keys.contains("lag_seconds") == true)
          #expect(status["role"] as? String == (office === head ? "head" : "branch"))
          let health = try office.hub("health")
          #expect(health.code == 0)
          let found = try office.must("doctor").output
          #expect(found.contains("PostgreSQL"))
          let queue = office === head ? "classic queue hub.head" : "queue hub.office.\(office.name)"
          #expect(found.contains(#/broker: RabbitMQ \d+\.\d+\S*, /#), "\(found)")
          #expect(found.contains("\(queue): ") && found.contains(" messages, 1 readers"), "\(found)")
        }
        let branches = try head.status()["branches"] as? [[String: Any]] ?? []
        #expect(branches.map { $0["name"] as? String } == ["a", "b"])
        for key in ["id", "name", "state", "pending", "last_seen"] {
          #expect(branches.allSatisfy { $0[key] != nil }, "branches[] lacks \(key)")
        }
        try until(20, "both are active") {
          (try head.must("branches", "--json").json() as? [[String: Any]] ?? []).map { $0["state"] as? String } == [
            "active", "active",
          ]
        }
        let tables = try b.must("tables", "--json").json() as? [[String: Any]] ?? []
        #expect(
          tables.map { $0["table"] as? String }.sorted { $0 ?? "" < $1 ?? "" } == [
            "public.catalogue", "public.sales", "public.stock",
          ])
        // invited
        _ = try company.token("c")
        #expect(
          (try head.must("branches", "--json").json() as? [[String: Any]] ?? []).contains {
            $0["name"] as? String == "c" && $0["state"] as? String == "invited"
          })
        // pause and resume, at both ends
        let watch = try b.launch(["watch", "--json"])
        defer { watch.murder() }
        usleep(700_000)
        for office in [a, head] {
          try office.must("pause")
          try until(10, "\(office.name) is paused") { try office.status()["state"] as? String == "paused" }
          try a.run("INSERT INTO stock VALUES ('p-\(office.name)', 1, 'a')")
          try b.run("INSERT INTO stock VALUES ('q-\(office.name)', 1, 'b')")
          try head.run("INSERT INTO stock VALUES ('r-\(office.name)', 1, 'head')")
          usleep(1_500_000)
          #expect(
            try a.connect().value("SELECT string_agg(sku, ' ') FROM stock WHERE sku LIKE '_-\(office.name)'")
              == "p-\(office.name)")
          if office === a {
            // The others go on.
            try company.eventually(b, "SELECT count(*) FROM stock WHERE sku = 'r-a'", is: "1")
            #expect(((try a.status()["outgoing"] as? [String: Any])?["pending"] as? Int ?? 0) >= 1)
          }
          try office.must("resume")
          try company.settle(["stock"], within: 30)
        }
        try until(10, "watch showed the rows: \(watch.outputText)") {
          ["p-a", "q-a", "r-a", "p-head"].allSatisfy { watch.outputText.contains($0) }
        }
        #expect(
          try watch.outputText.split(separator: "\n").allSatisfy {
            (try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])?["table"] as? String
              == "public.stock"
          })
        // sync beside daemons and without
        for office in company.offices {
          let outcome = try office.must("sync", "--json").object()
          #expect(outcome["quiet"] as? Bool == true, "\(outcome)")
        }
        #expect(try a.stop() == 0)
        try a.run("INSERT INTO sales (day, region, qty) VALUES ('2026-01-01', 'a', 5)")
        let outcome = try a.must("sync", "--json").object()
        #expect(outcome["quiet"] as? Bool == true && outcome["rows_sent"] as? Int == 1, "\(outcome)")
        #expect(try head.connect().value("SELECT count(*) FROM sales") == "1")
        #expect(try a.status()["state"] as? String == "stopped")
        #expect(try a.hub("health").code == 1)
        // head away: sync says that nothing is acknowledged
        try head.stop()
        try a.run("INSERT INTO sales (day, region, qty) VALUES ('2026-01-01', 'a', 6)")
        let waiting = try a.hub("sync", "--timeout", "5s")
        #expect(waiting.code == 3, "exit \(waiting.code)")
        #expect(waiting.errorLines.last?.contains("acknowledged") == true, "\(waiting.errors)")
      }
    }

    @Test(
      "Contract: a removed branch's daemon says so and ends, its queue goes; a branch that leaves pushes first and keeps no trace"
    )
    func branchesComeAndGo() throws {
      try Company.with(branches: 3, schema: Shop.schema, tracks: Shop.tracks) { company in
        let (head, a, b, c) = (company.head, company["a"], company["b"], company["c"])
        try head.run("INSERT INTO stock VALUES ('x', 1, 'head')")
        try company.settle(["stock"])
        // remove
        try head.must("remove", "c")
        let daemon = try #require(c.daemon)
        #expect(try daemon.wait(40) != 0)
        #expect(daemon.errorLines.last?.contains("removed") == true, "\(daemon.errorText)")
        try until(40, "the queue goes") { try Broker.queues(company.virtualHost)["hub.office.c"] == nil }
        let branches = try head.must("branches", "--json").json() as? [[String: Any]] ?? []
        #expect(
          branches.allSatisfy { $0["name"] as? String != "c" || $0["state"] as? String == "removed" }, "\(branches)")
        try head.run("UPDATE stock SET qty = 2")
        try company.eventually(a, "SELECT qty FROM stock", is: "2")
        #expect(try c.connect().value("SELECT qty FROM stock") == "1", "a removed branch keeps its rows as they were")
        // leave: what was pending while the hub was stopped goes first
        #expect(try b.stop() == 0)
        try b.run(
          "INSERT INTO stock VALUES ('pending', 9, 'b'); INSERT INTO sales (day, region, qty) SELECT '2026-01-01', 'b', g FROM generate_series(1, 500) g"
        )
        try b.must("leave")
        #expect(try head.connect().value("SELECT count(*) FROM sales") == "500")
        #expect(try head.connect().value("SELECT qty FROM stock WHERE sku = 'pending'") == "9")
        try traceless(b)
        #expect(try b.connect().value("SELECT count(*) FROM sales") == "500", "its rows stay")
        try b.run(
          "INSERT INTO sales (day, region, qty) VALUES ('2026-01-01', 'b', 1); DELETE FROM catalogue; UPDATE stock SET qty = 0"
        )
        try until(40, "the queue of b goes") { try Broker.queues(company.virtualHost)["hub.office.b"] == nil }
        // a removed branch can be cleaned, and comes back under its name
        let outcome = try c.hub("leave", seconds: 120)
        if outcome.code != 0 { try c.must("leave", "--force") }
        try traceless(c)
        try company.join(c, "--existing", "replace")
        try c.start()
        try company.settle(["stock"], offices: [head, a, c])
        try c.run("UPDATE stock SET qty = 77 WHERE sku = 'x'")
        try company.eventually(a, "SELECT qty FROM stock WHERE sku = 'x'", is: "77")
      }
    }

    private func traceless(_ office: Office) throws {
      let application = try office.connect()
      #expect(try application.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'hub'") == "0")
      #expect(try application.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == "0")
      #expect(try application.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'hub%'") == "0")
      #expect(
        try application.run("SELECT seqincrement FROM pg_sequence WHERE seqincrement <> 1").isEmpty,
        "a sequence of \(office.name) still steps by hub's stride")
    }

    @Test(
      "Contract: tables tracked and untracked while everything runs; foreign keys, composite keys, mixed-case names")
    func tablesComeAndGoWhileEverythingRuns() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try head.run(
          """
          CREATE SCHEMA "Store Room";
          CREATE TABLE "Store Room"."Customer" ("Id" serial PRIMARY KEY, "Full Name" text NOT NULL, "select" int DEFAULT 3);
          CREATE TABLE "Store Room"."OrderLine" (
            "Customer" int REFERENCES "Store Room"."Customer" ON DELETE CASCADE, "Line" int, "When" timestamptz DEFAULT now(),
            amount numeric(12,3) CHECK (amount >= 0), PRIMARY KEY ("Line", "Customer"));
          CREATE INDEX ON "Store Room"."OrderLine" ("When");
          INSERT INTO "Store Room"."Customer" ("Full Name") SELECT 'Customer ' || g FROM generate_series(1, 300) g;
          INSERT INTO "Store Room"."OrderLine" SELECT 1 + g % 300, g, now(), g FROM generate_series(1, 5000) g;
          """)
        let keeper = Worker { worker in
          let application = try head.connect()
          var n = 0
          while !worker.isStopping {
            n += 1
            try application.run("INSERT INTO stock VALUES ('k\(n)', \(n), 'head')")
            usleep(5000)
          }
        }
        // A table tracked between the look at the catalogue and the snapshot was missing from that batch and behind its
        // position: no branch ever got its rows.
        for n in 1...6 {
          try head.run(
            "CREATE TABLE late_\(n) (id int PRIMARY KEY); INSERT INTO late_\(n) SELECT generate_series(1, 100)")
          try head.must("track", "late_\(n)")
        }
        try head.must("track", "\"Store Room\".\"Customer\"")
        try head.must("track", "\"Store Room\".\"OrderLine\"")
        let (customer, line) = ("\"Store Room\".\"Customer\"", "\"Store Room\".\"OrderLine\"")
        try until(60, "the tables arrive") {
          try [a, b].allSatisfy { try $0.connect().number("SELECT count(*) FROM \(line)") == 5000 }
        }
        try company.settle([customer, line] + (1...6).map { "late_\($0)" })
        // Written everywhere: keys of the serial never collide, cascades travel.
        for office in company.offices {
          try office.run(
            """
            WITH new AS (INSERT INTO \(customer) ("Full Name") SELECT '\(office.name) ' || g FROM generate_series(1, 20) g RETURNING "Id")
            INSERT INTO \(line) SELECT "Id", 1, now(), 5.5 FROM new
            """)
        }
        try a.run("DELETE FROM \(customer) WHERE \"Id\" <= 10")
        try b.run("UPDATE \(line) SET \"Line\" = \"Line\" + 100000 WHERE \"Customer\" = 20")
        try company.eventually(head, "SELECT count(*) FROM \(customer)", is: "350")
        try company.settle([customer, line])
        #expect(try b.connect().number("SELECT count(*) FROM \(line) WHERE \"Customer\" <= 10") == 0)
        // Constraints, defaults and indexes came along.
        for branch in company.branches {
          #expect(
            try branch.connect().number(
              "SELECT count(*) FROM pg_constraint WHERE contype IN ('f', 'c', 'p') AND conrelid = '\(line)'::regclass")
              == 3)
          #expect(
            try branch.connect().number("SELECT count(*) FROM pg_index WHERE indrelid = '\(line)'::regclass") == 2)
        }
        // untrack
        try head.must("untrack", "\"Store Room\".\"OrderLine\"")
        try until(30, "the triggers go everywhere") {
          try company.offices.allSatisfy {
            try $0.connect().number(
              "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hub%' AND tgrelid = '\(line)'::regclass") == 0
          }
        }
        let before = try b.connect().number("SELECT count(*) FROM \(line)")
        try head.run("DELETE FROM \(line) WHERE amount = 5.5")
        try head.must("untrack", "stock")
        try keeper.stop()
        try until(30, "stock is free at b") {
          try b.connect().number(
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hub%' AND tgrelid = 'stock'::regclass") == 0
        }
        for office in company.offices { try office.must("sync") }
        #expect(try b.connect().number("SELECT count(*) FROM \(line)") == before, "an untracked table still travels")
        for office in company.offices {
          #expect(try office.connect().value("SELECT count(*) FROM hub.tracked") == "9")
          #expect(
            try office.connect().number(
              "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'hub' AND relname LIKE 'v%' AND relkind = 'r'"
            ) <= 10)
        }
        // tracked again, merged with what is there
        try head.must("untrack", "sales")
        for office in company.offices {
          try until(30, "sales is free at \(office.name)") {
            try office.connect().number(
              "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hub%' AND tgrelid = 'sales'::regclass") == 0
          }
          #expect(
            try office.connect().run(
              "SELECT seqincrement FROM pg_sequence WHERE seqrelid = 'sales_id_seq'::regclass AND seqincrement <> 1"
            ).isEmpty, "sales_id_seq of \(office.name) still steps by hub's stride")
        }
      }
    }
  }
}
