import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore
import ServiceLifecycle
import SyncCore
import SyncWire
import UnixSignals

struct Join: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Register this database as a branch and load it; resumes when it was cut.")

  @Argument(help: "What hub invite printed.") var token: String
  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Option(help: "Tables that hold rows already: refuse, merge them, or replace them by head's.")
  var existing = "refuse"
  @Flag(help: "Accept a server with fsync off: for trials only.") var allowUnsafeDatabase = false

  func run() async throws {
    guard ["refuse", "merge", "replace"].contains(existing) else {
      throw HubError(.usage, "--existing \(existing) is not known", hint: "use refuse, merge or replace")
    }
    let token: JoinToken
    do {
      token = try JoinToken(text: self.token)
    } catch {
      throw HubError(.usage, "the token cannot be read: \(error)", hint: "copy all of what hub invite printed")
    }
    guard !token.isExpired(at: SystemClock.now) else {
      throw HubError(.refused, "the token has expired", hint: "ask head for another: hub invite \(token.office)")
    }
    let url = try broker.url(stored: token.broker)
    let enrol = try prepare(token, url)
    var broker = self.broker
    broker.broker = url
    var logger = try daemon.logger()
    if daemon.logLevel == "info" { logger.logLevel = .warning }
    let runner = try await OfficeRunner(database: options, broker: broker, daemon: daemon, logger: logger)
    guard try await runner.lock() else {
      throw HubError(.refused, "a hub runs on this database already", hint: "stop it first")
    }
    do {
      try await load(runner, enrol)
    } catch let error as HubError {
      // Nothing half-done: before the first row arrived there is nothing to resume.
      if error.code == .refused { try await undo(runner) }
      throw error
    }
  }

  /// The office's row, and what enrolment says; of a join that was cut, what it said then.
  private func prepare(_ token: JoinToken, _ url: String) throws -> Enrol? {
    try options.transaction { session in
      if try Migrations.version(session) != nil {
        let office = try PostgresStore.readOffice(session)
        guard office.role == .branch, office.name == token.office, !office.isJoined else {
          let what = office.role == .head ? "the head office" : "the branch"
          throw HubError(
            .refused, "this database is \(what) \(office.name) already", hint: "hub leave takes it out first")
        }
        try HeadSetup.set(session, "broker", url)
        guard try HeadSetup.setting(session, "enrolled") == nil else { return nil }
      } else {
        try HeadSetup.prepareBranch(
          session, name: token.office, head: token.head, broker: url, existing: existing,
          nonce: .random(in: 1...Int64.max), secret: token.secret, allowsUnsafe: allowUnsafeDatabase)
      }
      let nonce = try HeadSetup.setting(session, "enrol_nonce").flatMap { Int64($0) } ?? 1
      return Enrol(nonce: nonce, secret: token.secret, office: token.office, hubVersion: Hub.version)
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
    defer { serving.cancel() }
    try await waitUntilJoined(runner, serving, isEnrolled: enrol == nil)
    try await service.awaitLive(until: .now + .seconds(60))
    // Rows that were here before go up.
    if existing != "refuse" { _ = try await service.synchronise(until: .now + .seconds(60)) }
    serving.cancel()
    _ = try? await serving.value
    meter.finish()
    let counters = await service.counters
    if options.json {
      print(
        JSONValue.fields([
          "office": .string(runner.identity.name), "head": .string(runner.identity.head), "state": .string("joined"),
          "rows": .integer(counters.applied),
        ]).description)
    } else {
      print("\(runner.identity.name) is in step with \(runner.identity.head): \(counters.applied) rows. Next: hub run")
    }
  }

  private func waitUntilJoined(
    _ runner: OfficeRunner, _ serving: Task<Void, any Error>, isEnrolled: Bool
  ) async throws {
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

  private func undo(_ runner: OfficeRunner) async throws {
    try await runner.store.leave()
  }
}

/// Shows a load's progress: a bar on a terminal, a line every few seconds elsewhere.
final class ProgressMeter: Sendable {
  private let name: String
  private let isTerminal = isatty(2) == 1
  private let last = MutexBox(ContinuousClock.now - .seconds(10))

  init(name: String) { self.name = name }

  func show(_ progress: CatchUpProgress) {
    let total = max(progress.total, progress.rows)
    let percent = progress.isDone ? 100 : total == 0 ? 0 : Int(progress.rows * 100 / total)
    guard last.update(every: isTerminal ? .milliseconds(100) : .seconds(2)) || progress.isDone else { return }
    if isTerminal {
      let filled = percent * 30 / 100
      let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 30 - filled)
      writeError("\r\(name) [\(bar)] \(percent) %  \(progress.rows) rows")
    } else {
      writeError("\(name): \(percent) %, \(progress.rows) of \(total) rows\n")
    }
  }

  func finish() { if isTerminal { writeError("\n") } }
}

struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve this office until stopped. A second one waits as a hot standby.")

  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Option(help: "Address of the dashboard.") var http: String?
  @Option(help: "Head: days that a deleted row is remembered after every branch has the delete.")
  var keepDeleted = 7.0
  @Option(help: "Exchange only between these hours, 01:00-03:00.") var window: String?

  func run() async throws {
    if http != nil { throw notYet("--http") }
    if window != nil { throw notYet("--window") }
    guard (0...36_500).contains(keepDeleted) else {
      throw HubError(.usage, "--keep-deleted \(keepDeleted) is no number of days", hint: "use 0 to 36500")
    }
    try CrashPoint.check()
    let logger = try daemon.logger()
    let office = OfficeDaemon(
      options: options, broker: broker, daemon: daemon, keepDeleted: .milliseconds(Int64(keepDeleted * 86_400_000)),
      logger: logger)
    var quiet = logger
    quiet.logLevel = .error
    let group = ServiceGroup(
      configuration: .init(
        services: [.init(service: office, successTerminationBehavior: .gracefullyShutdownGroup)],
        gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
    try await group.run()
  }
}

/// The daemon: serves the office when it has its lock, waits for it otherwise; ends cleanly on SIGTERM and SIGINT.
struct OfficeDaemon: Service {
  var options: DatabaseOptions
  var broker: BrokerOptions
  var daemon: DaemonOptions
  var keepDeleted: Duration
  var logger: Logger

  func run() async throws {
    try await cancelWhenGracefulShutdown {
      do {
        try await Self.serve(options, broker, daemon, keepDeleted, logger)
      } catch is CancellationError {
        // Asked to stop before the office was taken.
      }
    }
  }

  private static func serve(
    _ options: DatabaseOptions, _ broker: BrokerOptions, _ daemon: DaemonOptions, _ keepDeleted: Duration,
    _ logger: Logger
  ) async throws {
    var isStandby = false
    var wasReached = false
    while !Task.isCancelled {
      do {
        let runner = try await OfficeRunner(
          database: options, broker: broker, daemon: daemon, keepDeleted: keepDeleted, logger: logger)
        wasReached = true
        guard try await runner.lock() else {
          if !isStandby { logger.notice("another hub serves this office: waiting as a hot standby") }
          isStandby = true
          if try await runner.store.endSilentHolder() {
            logger.warning("the hub that serves this office has done nothing for a minute: taking its place")
          }
          await runner.store.close()
          try await Task.sleep(for: .seconds(1))
          continue
        }
        isStandby = false
        guard runner.identity.isJoined else {
          throw HubError(.notReady, "this branch has not finished joining", hint: "repeat hub join TOKEN")
        }
        try await runner.service.prepare()
        logger.notice("serving", metadata: ["hub.office": "\(runner.identity.name)"])
        do {
          try await runner.service.serve()
        } catch let error {
          // Kept, so that hub leave does not wait for a head that answers no more.
          if await runner.service.hasDeparted {
            try options.transaction { try HeadSetup.set($0, "removed", "true") }
          }
          throw error
        }
        await runner.store.close()
        if Task.isCancelled { logger.notice("stopped", metadata: ["hub.office": "\(runner.identity.name)"]) }
      } catch let error as HubError {
        // A database that was never there is a mistake; one that went away comes back.
        guard error.isTransient && wasReached || error.code == .conflict else { throw error }
        logger.warning("database", metadata: ["hub.error": "\(error)"])
        try await Task.sleep(for: .seconds(1))
      }
    }
  }
}

struct Sync: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Exchange until both sides are quiet, print what moved, exit.")

  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Option(help: "Give up after this long.") var timeout = "60s"

  func run() async throws {
    guard let seconds = Int(timeout.hasSuffix("s") ? String(timeout.dropLast()) : timeout), seconds > 0 else {
      throw HubError(.usage, "--timeout \(timeout) is no time", hint: "write it as 60s")
    }
    let deadline = ContinuousClock.now + .seconds(Int64(seconds))
    var logger = try daemon.logger()
    if daemon.logLevel == "info" { logger.logLevel = .warning }
    // A daemon that starts or ends meanwhile holds the office, but takes no requests yet, or no more.
    while true {
      let requested = try options.transaction { session -> Int64? in
        _ = try PostgresStore.readOffice(session)
        return try Requests.daemonRuns(session) ? try Requests.leave(session, "sync", String(seconds)) : nil
      }
      if let requested { return try await report(try await Requests.wait(options, requested, seconds: seconds + 5)) }
      let runner = try await OfficeRunner(database: options, broker: broker, daemon: daemon, logger: logger)
      if try await runner.lock() { return try await exchange(runner, until: deadline) }
      guard deadline > .now else {
        throw HubError(.conflict, "another hub holds this office and does not answer", hint: "hub status shows it")
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  private func exchange(_ runner: OfficeRunner, until deadline: ContinuousClock.Instant) async throws {
    let service = runner.service
    try await service.prepare()
    let serving = Task { try await service.serve() }
    // A branch that is away is not waited for by head: give those that are there a moment to be heard of.
    if runner.identity.role == .head { try await Task.sleep(for: .seconds(2)) }
    let outcome = try await service.synchronise(until: deadline)
    let why = await service.brokerError
    let failure = await service.failed
    serving.cancel()
    _ = try? await serving.value
    if let failure { throw failure }
    if !outcome.isQuiet, let why { printError("not connected: \(why)") }
    try await report(outcome.json.description, outcome)
  }

  private func report(_ json: String?, _ outcome: SyncOutcome? = nil) async throws {
    guard let json else {
      throw HubError(.timedOut, "not in step within \(timeout)", hint: "hub status shows what is pending")
    }
    let isQuiet = json.contains("\"quiet\":true") || json.contains("\"quiet\": true")
    if options.json {
      print(json)
    } else if isQuiet {
      print("in step; safe to unplug")
    }
    guard isQuiet else {
      throw HubError(
        .timedOut, "with the broker, not yet acknowledged by the other side within \(timeout)",
        hint: "hub status shows what is pending")
    }
  }
}

struct Leave: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Send what is pending, then depart: hub goes from this database, its rows stay.")

  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Flag(help: "Depart although head cannot be reached; what is pending stays here alone.") var force = false

  func run() async throws {
    let (office, runs, isRemoved) = try options.transaction { session in
      (
        try PostgresStore.readOffice(session), try Requests.daemonRuns(session),
        try HeadSetup.setting(session, "removed") != nil
      )
    }
    guard office.role == .branch else {
      throw HubError(.refused, "this is the head office", hint: "hub remove NAME retires a branch")
    }
    guard !runs else {
      throw HubError(.refused, "hub run serves this office", hint: "stop it, then repeat hub leave")
    }
    let runner = try await OfficeRunner(
      database: options, broker: broker, daemon: daemon, logger: Logger(label: "hub") { _ in SwiftLogNoOpLogHandler() })
    guard try await runner.lock() else { throw HubError(.conflict, "another hub serves this office") }
    if !force && !isRemoved { try await depart(runner) }
    try await runner.store.leave()
    await runner.store.close()
    print(
      options.json
        ? JSONValue.fields(["office": .string(office.name), "state": .string("left")]).description
        : "\(office.name) has left \(office.head); its rows stay here")
  }

  private func depart(_ runner: OfficeRunner) async throws {
    let service = runner.service
    try await service.prepare()
    let serving = Task { try await service.serve() }
    defer { serving.cancel() }
    let isAcknowledged = try await service.awaitAcknowledged(until: .now + .seconds(60))
    if await service.hasDeparted { return }
    guard isAcknowledged else {
      throw HubError(
        .timedOut, "head has not acknowledged everything within 60 s",
        hint: "repeat when head runs, or depart with --force and keep the pending rows here alone")
    }
    try await service.sayLeave()
    let deadline = ContinuousClock.now + .seconds(30)
    while await !service.hasDeparted {
      guard deadline > .now else {
        throw HubError(.timedOut, "head has not confirmed the departure", hint: "repeat when head runs")
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }
}
