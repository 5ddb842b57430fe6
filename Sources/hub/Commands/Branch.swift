import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore
import ServiceLifecycle
import SyncCore
import UnixSignals

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
    // Held until the process ends.
    let place = try await DatabasePlace.take(options.database, logger)
    defer { withExtendedLifetime(place) {} }
    var served = options
    if let place { served.database = place.url }
    let office = OfficeDaemon(
      options: served, broker: broker, daemon: daemon, keepDeleted: .milliseconds(Int64(keepDeleted * 86_400_000)),
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
    try await SelfJoin.run(options, broker, daemon, logger)
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
