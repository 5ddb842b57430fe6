import Foundation

/// The private servers that `Scripts/servers up` started. Missing variables fail the test: nothing is skipped.
enum Servers {
  static func variable(_ name: String) throws -> String {
    guard let value = ProcessInfo.processInfo.environment[name], !value.isEmpty else {
      throw Failed("\(name) is not set: run Scripts/test, or source what Scripts/servers up wrote")
    }
    return value
  }

  static var isFull: Bool { ProcessInfo.processInfo.environment["HUB_TEST_FULL"] == "1" }

  static func hub() throws -> String { try variable("HUB_TEST_HUB") }

  /// `stop`, `start`, `restart`, `kill` of cluster 1… or of the broker (0).
  static func control(_ number: Int, _ action: String) throws {
    let script = try variable(number == 0 ? "HUB_TEST_BROKER_CTL" : "HUB_TEST_POSTGRES_\(number)_CTL")
    let outcome = try shell("/bin/sh", [script, action], seconds: 120)
    guard outcome.code == 0 else { throw Failed("\(script) \(action): \(outcome.errors)") }
  }

  static func shell(
    _ path: String, _ arguments: [String], environment: [String: String] = [:], seconds: Double
  ) throws -> Outcome {
    let directory = NSTemporaryDirectory() + "hub-e2e-\(UInt64.random(in: 0...UInt64.max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let began = monotonic()
    let program = try Program(
      path, arguments, environment: ProcessInfo.processInfo.environment.merging(environment) { $1 },
      directory: directory, name: "program")
    defer { program.murder() }
    let code = try program.wait(seconds)
    return Outcome(
      code: code, output: program.outputText, errors: program.errorText, seconds: monotonic() - began)
  }
}

/// The private RabbitMQ node. Exchanges and queues have fixed names, so every company has a virtual host; they are
/// made a dozen at a time because starting rabbitmqctl takes longer than making them.
enum Broker {
  nonisolated(unsafe) private static var made: [String] = []
  nonisolated(unsafe) private static var free: [String] = []

  static func ctl(_ arguments: [String], seconds: Double = 60) throws -> String {
    let file = try Servers.variable("HUB_TEST_BROKER_DIR") + "/env"
    let bin = ProcessInfo.processInfo.environment["HUB_RABBITMQ_BIN"] ?? "/usr/lib/rabbitmq/bin"
    let outcome = try Servers.shell(
      "/bin/sh", ["-c", ". \"$0\"; exec \"$@\"", file, bin + "/rabbitmqctl"] + arguments, seconds: seconds)
    guard outcome.code == 0 else { throw Failed("rabbitmqctl \(arguments): \(outcome.errors)\(outcome.output)") }
    return outcome.output
  }

  @discardableResult
  static func evaluate(_ erlang: String) throws -> String { try ctl(["eval", erlang]) }

  private static func list(_ names: [String]) -> String { names.map { "<<\"\($0)\">>" }.joined(separator: ",") }

  static func add(_ names: [String]) throws {
    try evaluate(
      """
      [begin rabbit_vhost:add(V, <<"hub">>), rabbit_auth_backend_internal:set_permissions(
      <<"hub">>, V, <<".*">>, <<".*">>, <<".*">>, <<"hub">>) end || V <- [\(list(names))]].
      """)
  }

  static func delete(_ names: [String]) throws {
    try evaluate("[catch rabbit_vhost:delete(V, <<\"hub\">>) || V <- [\(list(names))]].")
  }

  static func takeVirtualHost() throws -> String {
    if free.isEmpty {
      let names = (0..<12).map { _ in "e2e-\(String(UInt64.random(in: 0...UInt64.max), radix: 36))" }
      try add(names)
      if made.isEmpty { Leftovers.atEnd { try? Broker.delete(Broker.made) } }
      made += names
      free = names
    }
    return free.removeLast()
  }

  /// The node was wiped: what was made is gone.
  static func forget() { free = [] }

  static func url(_ virtualHost: String, port: UInt16? = nil) throws -> String {
    let base = try Servers.variable("HUB_TEST_BROKER_URL")
    guard let port else { return base + "/" + virtualHost }
    return base.prefix { $0 != "@" } + "@127.0.0.1:\(port)/" + virtualHost
  }

  static func port() throws -> UInt16 {
    let base = try Servers.variable("HUB_TEST_BROKER_URL")
    guard let port = base.split(separator: ":").last.flatMap({ UInt16($0) }) else { throw Failed("no port in \(base)") }
    return port
  }

  /// Queue names with their messages.
  static func queues(_ virtualHost: String) throws -> [String: Int] {
    var found: [String: Int] = [:]
    for line in try ctl(["-q", "-p", virtualHost, "list_queues", "--no-table-headers", "name", "messages"]).split(
      separator: "\n")
    {
      let fields = line.split(separator: "\t")
      if fields.count == 2 { found[String(fields[0])] = Int(fields[1]) ?? 0 }
    }
    return found
  }
}
