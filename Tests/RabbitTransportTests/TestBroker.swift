import Foundation
import HubEngine
import Logging
import Testing

@testable import RabbitTransport

/// The private broker that Scripts/test starts. Each test has a virtual host of its own.
struct TestBroker: Sendable {
  struct Failed: Error, CustomStringConvertible {
    var description: String
  }

  let address: BrokerAddress

  static func with(_ test: (TestBroker) async throws -> Void) async throws {
    guard let url = ProcessInfo.processInfo.environment["HUB_TEST_BROKER_URL"] else {
      throw Failed(description: "HUB_TEST_BROKER_URL is not set: run Scripts/test")
    }
    var address = try BrokerAddress(url: url)
    address.virtualHost = "test-\(UUID().uuidString.prefix(8).lowercased())"
    let broker = TestBroker(address: address)
    try broker.makeVirtualHost()
    do { try await test(broker) } catch {
      try? broker.dropVirtualHost()
      throw error
    }
    try broker.dropVirtualHost()
  }

  func makeVirtualHost() throws {
    try Self.evaluate(
      """
      rabbit_vhost:add(<<"\(address.virtualHost)">>, <<"hub">>), rabbit_auth_backend_internal:set_permissions(
      <<"\(address.user)">>, <<"\(address.virtualHost)">>, <<".*">>, <<".*">>, <<".*">>, <<"hub">>).
      """)
  }

  func dropVirtualHost() throws {
    try Self.evaluate("rabbit_vhost:delete(<<\"\(address.virtualHost)\">>, <<\"hub\">>).")
  }

  func url(user: String? = nil, password: String? = nil, host: String? = nil, port: UInt16? = nil) -> String {
    "amqp://\(user ?? address.user):\(password ?? address.password)@\(host ?? address.host)"
      + ":\(port ?? address.port)/\(address.virtualHost)"
  }

  func transport(
    url: String? = nil, prefetch: UInt16 = 16, confirmWindow: Int = 64,
    queueType: Topology.QueueType = .classic,
    queueBytesMax: Int64 = 1 << 30, heartbeat: Duration = .seconds(15), authorityFile: String? = nil,
    logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  ) throws -> RabbitTransport {
    try RabbitTransport(
      url: url ?? self.url(), connectionName: "hub test", prefetch: prefetch, confirmWindow: confirmWindow,
      queueType: queueType, queueBytesMax: queueBytesMax, heartbeat: heartbeat, authorityFile: authorityFile,
      logger: logger)
  }

  func purge(_ queue: String) throws {
    _ = try Self.control(["-p", address.virtualHost, "purge_queue", queue])
  }

  /// Messages ready and unacknowledged.
  func messages(in queue: String) throws -> Int {
    try number(of: queue, "messages")
  }

  func number(of queue: String, _ item: String) throws -> Int {
    let text = try Self.evaluate(
      """
      {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"\(address.virtualHost)">>, queue, <<"\(queue)">>)),
      proplists:get_value(\(item), rabbit_amqqueue:info(Q, [\(item)])).
      """)
    guard let number = Int(text) else { throw Failed(description: "\(queue) has \(item) \(text)") }
    return number
  }

  /// Runs an Erlang expression inside the broker; returns what it prints.
  @discardableResult
  static func evaluate(_ expression: String) throws -> String {
    try control(["eval", expression])
  }

  @discardableResult
  static func control(_ arguments: [String]) throws -> String {
    guard let directory = ProcessInfo.processInfo.environment["HUB_TEST_BROKER_DIR"] else {
      throw Failed(description: "HUB_TEST_BROKER_DIR is not set: run Scripts/test")
    }
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    process.arguments =
      ["-c", ". \"$0/env\"; exec /usr/lib/rabbitmq/bin/rabbitmqctl -q \"$@\" 2>&1", directory] + arguments
    process.standardOutput = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failed(description: "rabbitmqctl \(arguments): \(text)")
    }
    return text.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// The broker's process, to stop and continue it.
  static func processID() throws -> pid_t {
    let text = try evaluate("list_to_integer(os:getpid()).")
    guard let id = pid_t(text), id > 1 else { throw Failed(description: "no process id: \(text)") }
    return id
  }
}

struct TooSlow: Error {}

/// Fails when the work takes longer.
func within<Value: Sendable>(
  _ limit: Duration, _ work: @escaping @Sendable () async throws -> Value
) async throws -> Value {
  try await withThrowingTaskGroup(of: Value.self) { group in
    group.addTask { try await work() }
    group.addTask {
      try await Task.sleep(for: limit)
      throw TooSlow()
    }
    defer { group.cancelAll() }
    guard let first = try await group.next() else { throw TooSlow() }
    return first
  }
}

/// Waits until the condition holds.
func eventually(
  within limit: Duration = .seconds(10), _ condition: () async throws -> Bool,
  sourceLocation: SourceLocation = #_sourceLocation
) async throws {
  let end = ContinuousClock.now + limit
  while try await !condition() {
    if ContinuousClock.now > end {
      Issue.record("did not come true within \(limit)", sourceLocation: sourceLocation)
      throw TooSlow()
    }
    try await Task.sleep(for: .milliseconds(20))
  }
}

/// The kind of the error that the call throws.
func kind(of call: () async throws -> Void) async -> TransportError.Kind? {
  do {
    try await call()
    return nil
  } catch {
    return (error as? TransportError)?.kind
  }
}

extension TestBroker {
  /// An account of this virtual host alone; patterns are escaped for Erlang. Returns its URL.
  func addUser(_ name: String, configure: String, write: String, read: String) throws -> String {
    let account = "\(address.virtualHost)-\(name)"
    try Self.evaluate(
      """
      rabbit_auth_backend_internal:add_user(<<"\(account)">>, <<"pw">>, <<"hub">>),
      rabbit_auth_backend_internal:set_permissions(<<"\(account)">>, <<"\(address.virtualHost)">>,
      <<"\(configure)">>, <<"\(write)">>, <<"\(read)">>, <<"hub">>).
      """)
    return url(user: account, password: "pw")
  }

  func removeUser(_ name: String) throws {
    try Self.control(["delete_user", "\(address.virtualHost)-\(name)"])
  }
}

extension TestBroker {
  /// A queue that refuses what it has no room for (nack), as hub's own never do.
  func makeRefusingQueue(boundTo exchange: String) throws {
    try Self.evaluate(
      """
      V = <<"\(address.virtualHost)">>, Q = rabbit_misc:r(V, queue, <<"refusing">>),
      rabbit_amqqueue:declare(Q, true, false, [{<<"x-max-length">>, long, 1},
      {<<"x-overflow">>, longstr, <<"reject-publish">>}], none, <<"hub">>),
      ok = rabbit_binding:add({binding, rabbit_misc:r(V, exchange, <<"\(exchange)">>), <<>>, Q, []}, <<"hub">>).
      """)
  }

  /// Makes the broker listen for TLS as well, with a certificate for `localhost` of an authority made for this test.
  func withTLS(
    versions: String = "'tlsv1.3','tlsv1.2'",
    _ test: (_ port: UInt16, _ authority: String, _ stranger: String) async throws -> Void
  ) async throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
      "hub-tls-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    try Self.shell(
      """
      cd "$0"; for ca in ca stranger; do
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test $ca" -keyout $ca.key -out $ca.pem
      done
      openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
      printf 'subjectAltName=DNS:localhost\\nextendedKeyUsage=serverAuth\\n' >extensions
      openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem -extfile extensions
      chmod -R a+rX .
      """, directory.path)
    let port = UInt16.random(in: 20_000...32_000)
    let listener = "{\"127.0.0.1\", \(port)}"
    try Self.evaluate(
      """
      ok = rabbit_networking:start_ssl_listener(\(listener), [{certfile, "\(directory.path)/server.pem"},
      {keyfile, "\(directory.path)/server.key"}, {verify, verify_none}, {versions, [\(versions)]}], 2).
      """)
    defer { _ = try? Self.evaluate("rabbit_networking:stop_tcp_listener(\(listener)).") }
    try await test(port, directory.path + "/ca.pem", directory.path + "/stranger.pem")
  }

  private static func shell(_ script: String, _ argument: String) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    process.arguments = ["-ec", script, argument]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw Failed(description: "openssl failed") }
  }
}
