import Foundation
import Testing

extension EndToEnd {
  /// Servers that stop, crash, forget; nobody does anything about it but start them again.
  @Suite(.serialized)
  struct ServerTests {
    private func underTraffic(_ faults: (Company) throws -> Void) throws {
      try Company.with(branches: 2, schema: HistoryKeeper.schema, tracks: [["ledger"], ["shared"]]) { company in
        let keepers = company.offices.map { HistoryKeeper($0, pause: 4000) }
        for keeper in keepers { keeper.begin() }
        do {
          try until(30, "rows move") { try company.head.connect().number("SELECT count(*) FROM ledger") > 30 }
          try faults(company)
        } catch {
          for keeper in keepers { try? keeper.end() }
          throw error
        }
        for keeper in keepers { try keeper.end() }
        for office in company.offices {
          #expect(
            office.daemon?.isRunning == true, "hub run at \(office.name) ended: \(office.daemon?.errorLines.last ?? "")"
          )
        }
        let began = monotonic()
        try HistoryKeeper.judge(keepers, company)
        say("\(keepers.map(\.done)) writes, equal \(Int(monotonic() - began)) s after the last")
      }
    }

    private func passes(_ company: Company, within seconds: Double = 60) throws {
      let mark = "mark-\(UInt32.random(in: 0...UInt32.max))"
      for office in company.offices {
        try office.run("INSERT INTO ledger (who, what, v) VALUES ('test', '\(mark)-\(office.name)', 0)")
      }
      for office in company.offices {
        try company.eventually(
          office, "SELECT count(*) FROM ledger WHERE what LIKE '\(mark)%'", is: "3", within: seconds)
      }
    }

    @Test("BRK: RabbitMQ stopped and started, and killed, while rows move: nothing lost")
    func theBrokerMayStopAndCrash() throws {
      try underTraffic { company in
        for action in ["stop", "kill"] {
          try Servers.control(0, action)
          for office in company.offices {
            // Applications never feel it, and the hub says what is wrong.
            try company.eventually(office, "SELECT broker_connected FROM hub.daemon", is: "f", within: 40)
            try office.run("UPDATE shared SET v = v + 1 WHERE id = 1")
            let status = try office.status()
            #expect(status["state"] as? String == "offline")
          }
          try Servers.control(0, "start")
          try passes(company, within: 90)
        }
      }
    }

    @Test("the broker's account is changed while rows move, one office after the other; the old one is of no use then")
    func theAccountMayChange() throws {
      try underTraffic { company in
        let (old, account) = (try Broker.url(company.virtualHost), "account-\(company.virtualHost)")
        _ = try Broker.ctl(["add_user", account, "a new word"])
        // The hubs use it to the end of the test.
        Leftovers.atEnd { _ = try? Broker.ctl(["delete_user", account]) }
        _ = try Broker.ctl(["set_permissions", "-p", company.virtualHost, account, ".*", ".*", ".*"])
        let new = "amqp://\(account):a%20new%20word@127.0.0.1:\(try Broker.port())/\(company.virtualHost)"
        for office in company.offices {
          #expect(try office.stop() == 0)
          // The first of the nodes is down.
          office.brokerURL = "amqp://\(account):a%20new%20word@127.0.0.1:1/\(company.virtualHost),\(new)"
          try office.start()
        }
        // What the other commands at head use from now on.
        try company.head.must("init", "--broker", "amqp://\(account):x@127.0.0.1:1", "--broker", new)
        _ = try Broker.ctl(["clear_permissions", "-p", company.virtualHost, "hub"])
        defer { _ = try? Broker.ctl(["set_permissions", "-p", company.virtualHost, "hub", ".*", ".*", ".*"]) }
        try passes(company)
        #expect(try company.head.hub("doctor").code == 0)
        #expect(try company.head.hub("doctor", "--broker", old).errors.contains("1 of"))
      }
    }

    @Test("BRK: a wiped broker is declared anew by head and everything catches up")
    func theBrokerMayForgetEverything() throws {
      try underTraffic { company in
        // All that the node has of this company: exchanges, queues, bindings and messages.
        try Broker.delete([company.virtualHost])
        try until(40, "head is offline") { try company.head.status()["state"] as? String == "offline" }
        try Broker.add([company.virtualHost])
        try passes(company, within: 120)
      }
    }

    @Test("BRK: an office's queue deleted, or purged, behind everybody's back heals by itself")
    func aDeletedOrPurgedQueueHeals() throws {
      try underTraffic { company in
        for queue in ["hub.office.a", "hub.head"] {
          company["a"].murder()
          company["b"].murder()
          usleep(300_000)
          _ = try? Broker.ctl(["-p", company.virtualHost, "purge_queue", queue])
          try company["a"].start()
          try company["b"].start()
          try passes(company)
          _ = try Broker.ctl(["-p", company.virtualHost, "delete_queue", queue])
          try passes(company, within: 120)
        }
      }
    }

    @Test("BRK: a queue that was lost between invite and join, with the broker's disk or alone, is declared anew")
    func anInvitationOutlivesItsQueue() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks, joined: false) { company in
        let (a, b) = (company["a"], company["b"])
        let (first, second) = (try company.token("a"), try company.token("b"))
        try Broker.delete([company.virtualHost])
        try until(40, "head is offline") { try company.head.status()["state"] as? String == "offline" }
        try Broker.add([company.virtualHost])
        try a.must("join", first)
        _ = try Broker.ctl(["-p", company.virtualHost, "delete_queue", "hub.office.b"])
        try b.must("join", second)
      }
    }

    @Test("PostgreSQL restarted and killed at head and at a branch while rows move: new dots, nothing lost")
    func theDatabasesMayStopAndCrash() throws {
      try underTraffic { company in
        for office in [company.head, company["a"]] {
          for action in ["restart", "kill"] {
            try Servers.control(office.cluster, action)
            if action == "kill" { try Servers.control(office.cluster, "start") }
            try passes(company, within: 90)
          }
        }
        for office in company.offices {
          #expect(
            try office.connect().value("SELECT server_started = pg_postmaster_start_time() FROM hub.office") == "t",
            "\(office.name)'s actor was not renewed")
        }
      }
    }

    /// Believed: connections that rest are left alone. PostgreSQL ends them where `idle_session_timeout` says so.
    @Test("CAP-10: whatever a database says of its sessions, hub's stay connected and mean the same")
    func settingsOfTheDatabase() throws {
      let settings = [
        "idle_session_timeout = '2s'", "lock_timeout = '1s'", "statement_timeout = '4s'", "quote_all_identifiers = on",
        "transform_null_equals = on", "standard_conforming_strings = off", "bytea_output = escape", "array_nulls = off",
        "\"DateStyle\" = 'SQL, DMY'", "\"TimeZone\" = 'Asia/Kathmandu'", "extra_float_digits = -15",
        "plpgsql.extra_errors = 'all'", "plpgsql.variable_conflict = error", "search_path = nowhere",
        "default_transaction_isolation = serializable", "plan_cache_mode = force_generic_plan",
      ]
      try Company.with(branches: 1, schema: Shop.schema, tracks: Shop.tracks, run: false, joined: false) { company in
        let a = company["a"]
        for office in company.offices {
          for setting in settings { try office.run("ALTER DATABASE \(office.database) SET \(setting)") }
        }
        try company.head.start()
        try company.join(a)
        try a.start()
        for round in 1...2 {
          for office in company.offices {
            try office.run("INSERT INTO public.stock VALUES ('\(office.name)-\(round)', \(round), NULL)")
          }
          try company.settle(["public.stock"])
          Thread.sleep(forTimeInterval: 5)
        }
        for office in company.offices {
          let words = office.daemon?.errorText ?? ""
          #expect(!words.contains("error"), "\(office.name): \(words)")
          #expect(try office.connect().value("SELECT count(*) FROM hub.quarantine") == "0")
        }
      }
    }

    @Test("CAP: a transaction open for long delays nobody else's rows; it arrives when it commits")
    func anOpenTransactionDelaysNobody() throws {
      try Company.with(branches: 2, schema: Shop.schema, tracks: Shop.tracks) { company in
        for (office, other) in [(company.head, company["a"]), (company["a"], company.head)] {
          let long = try office.connect()
          try long.run("BEGIN; INSERT INTO stock VALUES ('long-\(office.name)', 1, 'open')")
          var slowest = 0.0
          for round in 0..<10 {
            let sku = "quick-\(office.name)-\(round)"
            try office.run("INSERT INTO stock VALUES ('\(sku)', 1, 'quick')")
            let began = monotonic()
            try company.eventually(other, "SELECT count(*) FROM stock WHERE sku = '\(sku)'", is: "1", within: 20)
            slowest = max(slowest, monotonic() - began)
          }
          #expect(slowest < 3, "rows of \(office.name) took \(slowest) s while a transaction was open")
          #expect(try other.connect().value("SELECT count(*) FROM stock WHERE sku LIKE 'long-\(office.name)'") == "0")
          try long.run("COMMIT")
          try company.eventually(other, "SELECT count(*) FROM stock WHERE sku = 'long-\(office.name)'", is: "1")
          say("beside an open transaction at \(office.name): slowest \(Int(slowest * 1000)) ms")
        }
        try company.settle(["stock"])
      }
    }
  }
}
