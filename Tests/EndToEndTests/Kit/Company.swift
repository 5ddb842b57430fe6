import Foundation
import Testing

/// Every suite of this target, one after the other: they stop and wipe the servers that they share.
@Suite(.serialized)
enum EndToEnd {}

/// One office of a test's company: a database of its own, a hub of its own.
final class Office: @unchecked Sendable {
  // Proof: `daemon` changes only under `lock`.
  let name: String
  let cluster: Int
  let database: String
  var url: String
  unowned let company: Company
  var brokerURL: String
  private let lock = NSLock()
  private var running: Program?

  init(_ name: String, cluster: Int, company: Company) throws {
    self.name = name
    self.cluster = cluster
    self.company = company
    brokerURL = company.brokerURL
    database = "e2e_\(company.id)_\(name.replacingOccurrences(of: "-", with: "_"))"
    let admin = try Servers.variable("HUB_TEST_POSTGRES_\(cluster)")
    url = admin.prefix(upTo: admin.lastIndex(of: "/") ?? admin.endIndex) + "/" + database
    try Application(admin).run("CREATE DATABASE \(database)")
  }

  func drop() {
    guard let admin = try? Servers.variable("HUB_TEST_POSTGRES_\(cluster)") else { return }
    _ = try? Application(admin).run("DROP DATABASE IF EXISTS \(database) WITH (FORCE)")
  }

  /// A copy of the database as it is, to be put back later; nobody may be connected.
  func copy() throws -> String {
    let admin = try Application(Servers.variable("HUB_TEST_POSTGRES_\(cluster)"))
    try admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '\(database)'")
    try admin.run("CREATE DATABASE \(database)_copy TEMPLATE \(database)")
    return database + "_copy"
  }

  func putBack(_ copy: String) throws {
    let admin = try Application(Servers.variable("HUB_TEST_POSTGRES_\(cluster)"))
    try admin.run("DROP DATABASE \(database) WITH (FORCE)")
    try admin.run("ALTER DATABASE \(copy) RENAME TO \(database)")
  }

  func connect() throws -> Application { try Application(url) }

  @discardableResult
  func run(_ sql: String) throws -> [[String?]] { try connect().run(sql) }

  // MARK: hub

  var environment: [String: String] {
    var environment = ProcessInfo.processInfo.environment.filter {
      !$0.key.hasPrefix("HUB_") && !$0.key.hasPrefix("PG")
    }
    environment["HUB_DATABASE_URL"] = url
    environment["HUB_STATE_DIR"] = company.directory + "/state"
    environment["SWIFT_BACKTRACE"] = "enable=no"
    return environment
  }

  func launch(_ arguments: [String], as name: String? = nil, with more: [String: String] = [:]) throws -> Program {
    try Program(
      Servers.hub(), arguments, environment: environment.merging(more) { $1 }, directory: company.directory,
      name: "\(self.name)-\(name ?? arguments[0])")
  }

  /// Runs `hub …` to its end.
  func hub(_ arguments: String..., seconds: Double = 100) throws -> Outcome {
    try hub(arguments, seconds: seconds)
  }

  func hub(_ arguments: [String], seconds: Double = 100) throws -> Outcome {
    let began = monotonic()
    let program = try launch(arguments)
    defer { program.murder() }
    let code = try program.wait(seconds)
    return Outcome(
      code: code, output: program.outputText, errors: program.errorText, seconds: monotonic() - began)
  }

  /// The same; anything but exit 0 fails the test.
  @discardableResult
  func must(_ arguments: String..., seconds: Double = 100) throws -> Outcome {
    let outcome = try hub(arguments, seconds: seconds)
    guard outcome.code == 0 else {
      throw Failed("hub \(arguments.joined(separator: " ")) at \(name): exit \(outcome.code): \(outcome.errors)")
    }
    return outcome
  }

  var daemon: Program? { lock.withLock { running } }

  /// Starts `hub run`, with more in its environment; does not wait.
  @discardableResult
  func start(_ arguments: String..., with more: [String: String] = [:]) throws -> Program {
    let program = try launch(["run", "--broker", brokerURL] + arguments, with: more)
    lock.withLock { running = program }
    return program
  }

  func startAndWait() throws {
    let program = try start()
    try until(40, "\(name) is connected: \(program.errorText)") {
      guard program.isRunning else { throw Failed("hub run ended with \(program.ended ?? 0)") }
      return try self.connect().value("SELECT broker_connected FROM hub.daemon") == "t"
        && program.errorText.contains("connected")
    }
  }

  /// kill -9.
  func murder() {
    daemon?.murder()
    lock.withLock { running = nil }
  }

  /// SIGTERM; returns the exit code.
  @discardableResult
  func stop(within seconds: Double = 20) throws -> Int32 {
    guard let program = daemon else { return 0 }
    program.awaitHandler(of: SIGTERM)
    program.signal(SIGTERM)
    let code = try program.wait(seconds)
    lock.withLock { running = nil }
    return code
  }

  func status() throws -> [String: Any] { try must("status", "--json").object() }
}

/// Head and branches on the private servers, with a virtual host of their own at the broker.
final class Company {
  let id = String(UInt32.random(in: 0...UInt32.max), radix: 36)
  let directory: String
  let virtualHost: String
  let brokerURL: String
  private(set) var offices: [Office] = []
  private var forwarders: [Forwarder] = []

  var head: Office { offices[0] }
  var branches: ArraySlice<Office> { offices.dropFirst() }
  subscript(_ name: String) -> Office { offices.first { $0.name == name } ?? head }

  private init() throws {
    directory = NSTemporaryDirectory() + "hub-e2e-\(id)"
    try FileManager.default.createDirectory(atPath: directory + "/state", withIntermediateDirectories: true)
    virtualHost = try Broker.takeVirtualHost()
    brokerURL = try Broker.url(virtualHost)
  }

  /// Makes head, tracks tables, joins branches a, b, … and starts all hubs; ends everything afterwards.
  ///
  /// - Parameters:
  ///   - schema: run at head before tracking.
  ///   - tracks: the arguments of each `hub track`.
  static func with(
    branches: Int = 2, schema: String, tracks: [[String]], run: Bool = true, joined: Bool = true,
    _ body: (Company) throws -> Void
  ) throws {
    let company = try Company()
    defer { company.close() }
    do {
      try company.offices.append(Office("head", cluster: 1, company: company))
      for index in 0..<branches {
        try company.open(String(UnicodeScalar(UInt8(97 + index))), cluster: 2 + index % 3)
      }
      try company.head.run(schema)
      try company.head.must("init", "--broker", company.brokerURL)
      for track in tracks { _ = try company.track(track) }
      if run { try company.head.start() }
      if joined {
        for branch in company.branches {
          try company.join(branch)
          if run { try branch.start() }
        }
      }
      try body(company)
    } catch {
      company.report()
      throw error
    }
  }

  func track(_ arguments: [String]) throws -> Outcome {
    let outcome = try head.hub(["track"] + arguments)
    guard outcome.code == 0 else { throw Failed("hub track \(arguments): \(outcome.errors)") }
    return outcome
  }

  @discardableResult
  func open(_ name: String, cluster: Int) throws -> Office {
    let office = try Office(name, cluster: cluster, company: self)
    offices.append(office)
    return office
  }

  func token(_ name: String) throws -> String { try head.must("invite", name).line }

  func join(_ office: Office, _ arguments: String...) throws {
    let outcome = try office.hub(["join", try token(office.name), "--broker", office.brokerURL] + arguments)
    guard outcome.code == 0 else { throw Failed("hub join at \(office.name): exit \(outcome.code): \(outcome.errors)") }
  }

  /// A line to the broker that a test can cut and count.
  func forwarder() throws -> Forwarder {
    let forwarder = try Forwarder(to: Broker.port())
    forwarders.append(forwarder)
    return forwarder
  }

  /// Every table equal everywhere by COPY, at last.
  func settle(_ tables: [String], within seconds: Double = 60, offices: [Office]? = nil) throws {
    let offices = offices ?? self.offices
    let sessions = try offices.map { try $0.connect() }
    for table in tables {
      var differing = ""
      try until(seconds, "\(table) is equal everywhere\(differing)", every: 0.05) {
        let copies = try zip(offices, sessions).map { ($0.name, try $1.copy("SELECT * FROM \(table) AS t ORDER BY t")) }
        differing = copies.map { " \($0.0): \($0.1.filter { $0 == 10 }.count) rows" }.joined(separator: ",")
        return copies.allSatisfy { $0.1 == copies[0].1 }
      }
    }
  }

  /// `what` becomes true of a value that a statement returns at an office.
  func eventually(_ office: Office, _ sql: String, is wanted: String, within seconds: Double = 30) throws {
    var seen = ""
    try until(seconds, "\(sql) at \(office.name) is \(wanted), it is \(seen)") {
      seen = try office.connect().value(sql)
      return seen == wanted
    }
  }

  /// The hubs' last words, for a test that failed.
  private func report() {
    for office in offices {
      let words = (office.daemon?.errorLines.suffix(8) ?? []).joined(separator: "\n    ")
      say("\(office.name) (\(office.daemon.map { $0.isRunning ? "runs" : "ended" } ?? "no daemon")):\n    \(words)")
    }
  }

  private func close() {
    for office in offices { office.murder() }
    for forwarder in forwarders { forwarder.end() }
    for office in offices { office.drop() }
    if ProcessInfo.processInfo.environment["HUB_TEST_KEEP"] == nil {
      try? FileManager.default.removeItem(atPath: directory)
    }
  }
}

/// Work on a thread of its own until it is told to stop; what it threw fails the test that waits for it.
final class Worker: @unchecked Sendable {
  // Proof: everything that changes is read and written under `lock`.
  private let lock = NSLock()
  private let done = DispatchSemaphore(value: 0)
  private var stopping = false
  private var failure: (any Error)?

  init(_ body: @escaping @Sendable (Worker) throws -> Void) {
    Thread { [self] in
      do { try body(self) } catch { lock.withLock { failure = error } }
      done.signal()
    }.start()
  }

  var isStopping: Bool { lock.withLock { stopping } }

  func stop() throws {
    lock.withLock { stopping = true }
    done.wait()
    done.signal()
    if let failure = lock.withLock({ failure }) { throw failure }
  }
}
