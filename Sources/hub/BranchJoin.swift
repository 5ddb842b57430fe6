import HubEngine
import Logging
import PostgresStore
import SyncCore
import SyncWire

/// Makes a database a branch: `hub join`, or a `hub run` that finds an invitation in its environment.
struct BranchJoin {
  var token: JoinToken
  /// The branch's; the token's, unless that one is for several.
  var name: String
  var options: DatabaseOptions
  var broker: BrokerOptions
  var daemon: DaemonOptions
  /// What becomes of rows that the tables hold already: `refuse`, `merge` or `replace`.
  var existing: String
  var allowsUnsafe = false
  var logger: Logger

  static func read(_ text: String) throws -> JoinToken {
    do {
      return try JoinToken(text: text)
    } catch {
      throw HubError(.usage, "the token cannot be read: \(error)", hint: "copy all of what hub invite printed")
    }
  }

  func run() async throws {
    guard ["refuse", "merge", "replace"].contains(existing) else {
      throw HubError(.usage, "--existing \(existing) is not known", hint: "use refuse, merge or replace")
    }
    try checkName(name)
    guard !token.isExpired(at: SystemClock.now) else {
      throw HubError(.refused, "the token has expired", hint: "ask head for another: hub invite \(token.office)")
    }
    if let office = try memberAlready() {
      return tell(office, rows: 0, "\(office.name) is a branch of \(office.head) already")
    }
    let url = try broker.url(stored: token.broker)
    let enrol = try prepare(url)
    var broker = self.broker
    broker.broker = [url]
    let runner = try await OfficeRunner(database: options, broker: broker, daemon: daemon, logger: logger)
    guard try await runner.lock() else {
      throw HubError(.refused, "a hub runs on this database already", hint: "stop it first")
    }
    do {
      try await load(runner, enrol)
      await runner.store.close()
    } catch let error as HubError {
      // Nothing half-done: before the first row arrived there is nothing to resume.
      if error.code == .refused { try await runner.store.leave() }
      await runner.store.close()
      throw error
    }
  }

  /// The office, if it joined by this very token: a join that was cut after its last row is done when it is repeated.
  private func memberAlready() throws -> OfficeIdentity? {
    try options.transaction { session in
      guard try Migrations.version(session) != nil else { return nil }
      let office = try PostgresStore.readOffice(session)
      let isSame = office.role == .branch && office.name == name && office.isJoined
      return try isSame && HeadSetup.joined(session, by: token.secret) ? office : nil
    }
  }

  private func tell(_ office: OfficeIdentity, rows: Int64, _ what: String) {
    guard options.json else { return print("\(what). Next: hub run") }
    print(
      JSONValue.fields([
        "office": .string(office.name), "head": .string(office.head), "state": .string("joined"),
        "rows": .integer(rows),
      ]).description)
  }

  /// The office's row, and what enrolment says; of a join that was cut, what it said then.
  private func prepare(_ url: String) throws -> Enrol? {
    try options.transaction { session in
      if try Migrations.version(session) != nil {
        let office = try PostgresStore.readOffice(session)
        guard office.role == .branch, office.name == name, !office.isJoined else {
          let what = office.role == .head ? "the head office" : "the branch"
          throw HubError(
            .refused, "this database is \(what) \(office.name) already", hint: "hub leave takes it out first")
        }
        try HeadSetup.set(session, "broker", url)
        guard try HeadSetup.setting(session, "enrolled") == nil else { return nil }
      } else {
        try HeadSetup.prepareBranch(
          session, name: name, head: token.head, broker: url, existing: existing,
          nonce: .random(in: 1...Int64.max), secret: token.secret, allowsUnsafe: allowsUnsafe)
      }
      let nonce = try HeadSetup.setting(session, "enrol_nonce").flatMap { Int64($0) } ?? 1
      return Enrol(nonce: nonce, secret: token.secret, office: name, hubVersion: Hub.version)
    }
  }

  private func load(_ runner: OfficeRunner, _ enrol: Enrol?) async throws {
    let service = runner.service
    try await service.prepare()
    let meter = ProgressMeter(name: runner.identity.name)
    if let enrol {
      await service.enrol(enrol) { meter.show($0) }
    } else {
      await service.resume { meter.show($0) }
    }
    let serving = Task { try await service.serve() }
    do {
      try await waitUntilJoined(runner)
      try await service.awaitLive(until: .now + .seconds(60))
      // Rows that were here before go up.
      if existing != "refuse" { _ = try await service.synchronise(until: .now + .seconds(60)) }
    } catch {
      serving.cancel()
      _ = try? await serving.value
      throw error
    }
    serving.cancel()
    _ = try? await serving.value
    meter.finish()
    let (office, rows) = (runner.identity, await service.counters.applied)
    tell(office, rows: rows, "\(office.name) is in step with \(office.head): \(rows) rows")
  }

  private func waitUntilJoined(_ runner: OfficeRunner) async throws {
    let service = runner.service
    let patience = ContinuousClock.now + .seconds(60)
    var wasTold = false
    while await !service.isJoined {
      if let failure = await service.failed { throw failure }
      let waits = await service.waitsForHead
      if waits && patience < .now {
        let why = await service.brokerError
        throw HubError(
          .timedOut, why.map { "no answer from head: \($0)" } ?? "head does not answer",
          hint: "hub run has to run at head; then repeat hub join, it goes on where it stopped")
      }
      if waits && !wasTold && patience - .seconds(57) < .now {
        wasTold = true
        let why = await service.brokerError
        printError("waiting for head to answer (60 s)\(why.map { ": \($0)" } ?? "")")
      }
      try await Task.sleep(for: .milliseconds(50))
    }
  }
}
