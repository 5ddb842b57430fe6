import ArgumentParser
import Glibc
import HubDashboard
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
  @Option(
    help: ArgumentHelp(
      "Serve /metrics (for Prometheus) and /healthz at this address.",
      discussion: "A port alone is this machine only, 0.0.0.0:PORT everybody. No login, and no secrets either.",
      valueName: "address")) var http: String?
  @Option(help: "Head: days that a deleted row is remembered after every branch has the delete.")
  var keepDeleted = 7.0
  @Option(help: "Connect only between these hours, local time, 01:00-03:00; several times for several windows.")
  var window: [String] = []

  func run() async throws {
    guard (0...36_500).contains(keepDeleted) else {
      throw HubError(.usage, "--keep-deleted \(keepDeleted) is no number of days", hint: "use 0 to 36500")
    }
    try CrashPoint.check()
    var service = ServiceOptions()
    service.keepDeleted = .milliseconds(Int64(keepDeleted * 86_400_000))
    service.windows = try window.map { text in
      guard let window = DailyWindow(text) else {
        throw HubError(.usage, "--window \(text) is no window", hint: "write it as 01:00-03:00")
      }
      return window
    }
    let logger = try daemon.logger()
    // Held until the process ends.
    let place = try await DatabasePlace.take(options.database, logger)
    defer { withExtendedLifetime(place) {} }
    var served = options
    if let place { served.database = place.url }
    let office = OfficeDaemon(options: served, broker: broker, daemon: daemon, service: service, logger: logger)
    var quiet = logger
    quiet.logLevel = .error
    var services: [ServiceGroupConfiguration.ServiceConfiguration] = []
    if let http {
      guard let address = ListenAddress(http) else {
        throw HubError(.usage, "--http \(http) is no address", hint: "write it as 9464 or 0.0.0.0:9464")
      }
      let monitoring = try await Monitoring(listeningAt: address, served)
      logger.notice("metrics and health", metadata: ["hub.http": "http://\(monitoring.server.address)"])
      // Begun first, ended last.
      services.append(.init(service: monitoring))
    }
    services.append(.init(service: office, successTerminationBehavior: .gracefullyShutdownGroup))
    let group = ServiceGroup(
      configuration: .init(
        services: services,
        gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
    try await group.run()
  }
}

/// The daemon: serves the office when it has its lock, waits for it otherwise; ends cleanly on SIGTERM and SIGINT.
struct OfficeDaemon: Service {
  var options: DatabaseOptions
  var broker: BrokerOptions
  var daemon: DaemonOptions
  var service: ServiceOptions
  var logger: Logger

  func run() async throws {
    try await cancelWhenGracefulShutdown {
      do {
        try await Self.serve(options, broker, daemon, service, logger)
      } catch is CancellationError {
        // Asked to stop before the office was taken.
      }
    }
  }

  private static func serve(
    _ options: DatabaseOptions, _ broker: BrokerOptions, _ daemon: DaemonOptions, _ service: ServiceOptions,
    _ logger: Logger
  ) async throws {
    let joinsByItself = try await SelfJoin.run(options, broker, daemon, logger)
    var isStandby = false
    var wasReached = false
    var isUpgraded = false
    while !Task.isCancelled {
      do {
        if !isUpgraded {
          try options.transaction { _ in wasReached = true }
          try upgradeSchema(options) { logger.notice("\($0)") }
          isUpgraded = true
        }
        // Whatever started it would start it again: it says so, and waits for what becomes of this database.
        if joinsByItself, try options.transaction({ try HeadSetup.isRemoved($0) }) {
          logger.warning("head has removed this office: hub leave takes hub out of this database, or joins it anew")
          try await untilLeft(options)
          logger.notice("hub is out of this database")
          return try await serve(options, broker, daemon, service, logger)
        }
        let runner = try await OfficeRunner(
          database: options, broker: broker, daemon: daemon, service: service, logger: logger)
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
          guard await runner.service.hasDeparted else { throw error }
          try options.transaction { try HeadSetup.set($0, "removed", "true") }
          guard joinsByItself else { throw error }
          await runner.store.close()
          continue
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

extension OfficeDaemon {
  /// Returns when the database is no office any more.
  private static func untilLeft(_ options: DatabaseOptions) async throws {
    while true {
      do {
        if try options.transaction({ try Migrations.version($0) == nil }) { return }
      } catch let error as HubError {
        guard error.isTransient else { throw error }
      }
      try await Task.sleep(for: .seconds(2))
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
        try HeadSetup.isRemoved(session)
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
