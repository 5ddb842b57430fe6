import ArgumentParser
import HubEngine
import Logging
import PostgresStore
import SyncCore
import SyncWire

struct Invite: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make a token for a branch (head): printed alone on stdout, for hub join.")

  @Argument(help: "The branch's name; of a reusable token what the names begin with.") var name: String?
  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @Option(help: "How long the token is good: 30m, 12h, 7d.") var expires = "7d"
  @Flag(help: "For several branches, called NAME-something: each says its own name when it joins.")
  var reusable = false
  @Option(help: "How many branches may join with a reusable token; any number unless given.") var uses: Int?
  @Option(help: "A file with a secret of your own (16 to 256 bytes) for a reusable token; again: renews its expiry.")
  var secretFile: String?
  @Flag(help: "Take back the tokens of this name that may still be used. Who joined stays.") var revoke = false
  @Flag(help: "List the tokens, never their secrets.") var list = false

  func run() async throws {
    if list { return try printList() }
    guard let name else {
      throw HubError(.usage, "no name given", hint: "hub invite NAME, or hub invite --list")
    }
    try checkName(name)
    if revoke { return try revoke(name) }
    guard reusable || (uses == nil && secretFile == nil) else {
      throw HubError(.usage, "--uses and --secret-file are for reusable tokens", hint: "add --reusable")
    }
    guard uses.map({ (1...100_000).contains($0) }) ?? true else {
      throw HubError(.usage, "--uses \(uses ?? 0) is no number of branches", hint: "use 1 to 100000")
    }
    let token = try store(name, try secretFile.map(Self.secret(in:)) ?? (0..<32).map { _ in .random(in: 0...255) })
    if !reusable { try await declareQueue(name) }
    print(
      options.json
        ? JSONValue.fields([
          "office": .string(name), "token": .string(token), "reusable": .bool(reusable),
        ]).description : token)
  }

  private func store(_ name: String, _ secret: [UInt8]) throws -> String {
    let seconds = try Self.seconds(expires)
    let (head, stored) = try options.transaction { session -> (String, String?) in
      let office = try HeadSetup.requireHead(session, for: "invite")
      guard office.name != name else { throw HubError(.refused, "\(name) is the head office itself") }
      if reusable {
        try Invitations.addReusable(session, prefix: name, secret: secret, seconds: seconds, usesMax: uses)
      } else {
        try Invitations.add(session, name, secret: secret, seconds: seconds)
      }
      return (office.name, try HeadSetup.setting(session, "broker"))
    }
    return try JoinToken(
      broker: try broker.url(stored: stored), authority: nil, office: name, secret: secret, head: head,
      expiresAt: SystemClock.now + Int64(seconds) * 1_000_000
    ).text()
  }

  /// The daemon declares the queue if it runs; else this command, if the broker answers; else the daemon's next
  /// connection does.
  private func declareQueue(_ name: String) async throws {
    let (requested, stored, queueType) = try options.transaction { session -> (Int64?, String?, String) in
      (
        try Requests.daemonRuns(session) ? try Requests.leave(session, "declare", name) : nil,
        try HeadSetup.setting(session, "broker"), try HeadSetup.setting(session, "queue_type") ?? "classic"
      )
    }
    if let requested {
      if try await Requests.wait(options, requested, seconds: 10) == nil {
        printError("note: the daemon has not declared the queue yet (is the broker down?); it will when connected")
      }
      return
    }
    let transport = try makeTransport(
      broker, stored: stored, name: "hub invite", queueType: queueType, logger: Logger(label: "hub"))
    do {
      try await declare(offices: [name], options, transport)
    } catch let error as HubError {
      printError("note: \(error.message); the queue is declared when hub run connects")
    }
  }

  private func revoke(_ name: String) throws {
    let count = try options.transaction { session in
      _ = try HeadSetup.requireHead(session, for: "invite")
      return try Invitations.revoke(session, name)
    }
    guard count > 0 else {
      throw HubError(.refused, "no token of \(name) can still be used", hint: "hub invite --list shows them")
    }
    print(
      options.json
        ? JSONValue.fields(["office": .string(name), "revoked": JSONValue(count)]).description
        : "revoked \(count) of \(name); who joined with it stays")
  }

  private func printList() throws {
    let entries = try options.transaction { session in
      _ = try HeadSetup.requireHead(session, for: "invite")
      return try Invitations.list(session)
    }
    if options.json {
      return print(
        JSONValue.array(
          entries.map {
            .fields([
              "id": .integer($0.id), "office": .string($0.office), "reusable": .bool($0.isReusable),
              "state": .string($0.state), "uses": JSONValue($0.uses),
              "uses_max": $0.usesMax.map { JSONValue($0) } ?? .null, "expires": .string($0.expires),
            ])
          }))
    }
    printTable(
      ["TOKEN FOR", "STATE", "USED", "EXPIRES"],
      entries.map {
        let most = $0.isReusable ? $0.usesMax.map { " of \($0)" } ?? "" : " of 1"
        return [$0.isReusable ? "\($0.office)-…" : $0.office, $0.state, "\($0.uses)\(most)", $0.expires]
      })
  }

  /// A file's text without the blanks around it.
  private static func secret(in path: String) throws -> [UInt8] {
    try checkSecret(try readFile(path), of: path)
  }

  private static func seconds(_ text: String) throws -> Int {
    let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
    guard let last = text.last, let unit = units[last], let count = Int(text.dropLast()), count > 0, count < 100_000
    else { throw HubError(.usage, "--expires \(text) is no time", hint: "write it as 30m, 12h or 7d") }
    return min(count * unit, 3_650 * 86_400)
  }
}

/// A secret that somebody chose, on one line; `place` is where it was found.
func checkSecret(_ text: String, of place: String) throws -> [UInt8] {
  let bytes = Array(text.split(whereSeparator: \.isWhitespace).joined(separator: " ").utf8)
  guard (16...256).contains(bytes.count) else {
    throw HubError(
      .usage, "the secret in \(place) has \(bytes.count) bytes", hint: "use 16 to 256, e.g. openssl rand -hex 32")
  }
  return bytes
}
