import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore
import RabbitTransport
import SyncCore
import SyncWire

struct Init: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make this database the head office; declare its exchanges and queue.")

  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @Option(help: "The head office's name.") var office = "head"
  @Option(help: "classic, or quorum on a RabbitMQ cluster; classic unless said before.") var queueType: String?
  @Option(help: "Grant the role of the daemon what it needs.") var daemonRole: String?
  @Flag(help: "Accept a server with fsync off: for trials only.") var allowUnsafeDatabase = false

  func run() async throws {
    try checkName(office)
    if let queueType, !["classic", "quorum"].contains(queueType) {
      throw HubError(.usage, "no such queue type: \(queueType)", hint: "use classic or quorum")
    }
    let url = try broker.url(stored: nil)
    // The database is checked, then the broker, and only then anything is kept.
    let session = try options.session()
    try HeadSetup.checkServer(session, allowsUnsafe: allowUnsafeDatabase)
    let queueType = try queueType ?? HeadSetup.setting(session, "queue_type") ?? "classic"
    let transport = try makeTransport(
      broker, stored: nil, name: "hub init", queueType: queueType, logger: Logger(label: "hub"))
    try initialise(url, queueType, isRehearsal: true)
    try await declare(offices: [], options, transport)
    try initialise(url, queueType, isRehearsal: false)
    print(
      options.json
        ? JSONValue.fields(["office": .string(office), "role": .string("head")]).description
        : "this database is the head office \(office)")
  }
}

extension Init {
  private struct Rehearsed: Error {}

  /// A rehearsal is rolled back: it says what would be refused before the broker is touched.
  private func initialise(_ url: String, _ queueType: String, isRehearsal: Bool) throws {
    do {
      try options.transaction { session in
        try HeadSetup.initialise(
          session, name: office, broker: url, queueType: queueType, daemonRole: daemonRole,
          allowsUnsafe: allowUnsafeDatabase)
        if isRehearsal { throw Rehearsed() }
      }
    } catch is Rehearsed {}
  }
}

/// Declares what the broker must have, unless a daemon is connected and has done so.
func declare(offices: [String], _ options: DatabaseOptions, _ transport: RabbitTransport) async throws {
  do throws(TransportError) {
    let session = try await transport.open(.head(offices: offices))
    await session.close()
  } catch {
    if error.kind == .queueInUse { return }
    throw error.asHubError
  }
}

func checkName(_ name: String) throws {
  let allowed = name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
  guard allowed, (1...32).contains(name.utf8.count) else {
    throw HubError(.usage, "\(name) is no office name", hint: "use 1 to 32 of a-z, 0-9 and -")
  }
}

struct Track: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Track a table (head); existing rows too.")

  @Argument(help: "TABLE or SCHEMA.TABLE; quote names with capitals.") var table: String
  @OptionGroup var options: DatabaseOptions
  @Option(help: "both; down: head to branches; up: branches to head.") var direction = "both"
  @Option(help: "row or columns.") var merge = "row"
  @Option(help: "latest, head, branch or function:NAME.") var onConflict = "latest"
  @Option(help: "Of an update and a concurrent delete: update or delete wins.") var onDelete = "update"
  @Option(help: "A column that counts: concurrent changes add up.") var counter: [String] = []
  @Option(help: "A key column that holds the office's name.") var originColumn: String?
  @Option(help: "stride: sequences step so that offices never draw the same; as-is.") var keys = "stride"
  @Option(help: "Of writes against the direction: refuse or ignore.") var foreignWrites = "refuse"
  @Option(parsing: .unconditional, help: "Higher passes first on a thin link: -1000 to 1000.") var priority = 0

  func run() throws {
    guard (-1000...1000).contains(priority) else {
      throw HubError(.usage, "--priority \(priority) is out of range", hint: "use -1000 to 1000; 0 is usual")
    }
    var tracking = TrackingOptions()
    tracking.direction = direction
    tracking.merge = merge
    tracking.onConflict = onConflict
    tracking.onDelete = onDelete
    tracking.counters = counter
    tracking.originColumn = originColumn
    tracking.keys = keys
    tracking.foreignWrites = foreignWrites
    tracking.priority = priority
    let warnings = try options.transaction { session in
      _ = try HeadSetup.requireHead(session, for: "track")
      return try HeadSetup.track(session, table, tracking)
    }
    for warning in warnings { printError("note: \(warning)") }
    print(
      options.json
        ? JSONValue.fields(["table": .string(table), "direction": .string(direction)]).description
        : "tracking \(table), direction \(direction)")
  }
}

struct Untrack: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Stop tracking a table (head); its rows stay everywhere.")

  @Argument var table: String
  @OptionGroup var options: DatabaseOptions

  func run() throws {
    try options.transaction { session in
      _ = try HeadSetup.requireHead(session, for: "untrack")
      try HeadSetup.untrack(session, table)
    }
    print(options.json ? JSONValue.fields(["table": .string(table)]).description : "no longer tracking \(table)")
  }
}

struct Tables: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the tracked tables.")

  @OptionGroup var options: DatabaseOptions

  func run() throws {
    let tables = try options.transaction { session in
      _ = try PostgresStore.readOffice(session)
      return try TableInfo.catalogue(session)
    }
    if options.json {
      let list = tables.map { table in
        JSONValue.fields([
          "id": .string(table.name), "table": .string(table.name), "direction": .string(table.options.direction),
          "merge": .string(table.options.merge), "on_conflict": .string(table.options.onConflict),
          "on_delete": .string(table.options.onDelete), "keys": .string(table.options.keys),
          "foreign_writes": .string(table.options.foreignWrites),
          "counters": .array(table.options.counters.map { .string($0) }),
          "priority": .integer(Int64(table.options.priority)),
        ])
      }
      return print(JSONValue.array(list))
    }
    printTable(
      ["TABLE", "DIRECTION", "PRIORITY", "MERGE", "ON CONFLICT", "ON DELETE", "KEYS", "COUNTERS"],
      tables.map {
        [
          $0.name, $0.options.direction, String($0.options.priority), $0.options.merge, $0.options.onConflict,
          $0.options.onDelete, $0.options.keys, $0.options.counters.joined(separator: ", "),
        ]
      })
  }
}

struct Remove: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Remove a branch (head): it no longer counts, its queue goes. Its database stays as it is.")

  @Argument var name: String
  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions

  func run() async throws {
    let (requested, stored, queueType) = try options.transaction { session -> (Int64?, String?, String) in
      _ = try HeadSetup.requireHead(session, for: "remove")
      let known = try session.query(
        """
        SELECT EXISTS (SELECT FROM hub.peer WHERE office = \(name) AND state <> 'removed')
          OR EXISTS (SELECT FROM hub.invite WHERE office = \(name) AND NOT reusable)
        """)
      guard known.bool(0, 0) else {
        throw HubError(.refused, "there is no branch \(name)", hint: "hub branches lists them")
      }
      if try Requests.daemonRuns(session) { return (try Requests.leave(session, "remove", name), nil, "") }
      try session.query("UPDATE hub.peer SET state = 'removed', session = NULL WHERE office = \(name)")
      try session.query("DELETE FROM hub.invite WHERE office = \(name) AND NOT reusable")
      return (
        nil, try HeadSetup.setting(session, "broker"), try HeadSetup.setting(session, "queue_type") ?? "classic"
      )
    }
    if let requested {
      guard try await Requests.wait(options, requested, seconds: 30) != nil else {
        throw HubError(.timedOut, "the daemon has not removed \(name) yet", hint: "look at hub status")
      }
    } else {
      let transport = try makeTransport(
        broker, stored: stored, name: "hub remove", queueType: queueType, logger: Logger(label: "hub"))
      do throws(TransportError) {
        let session = try await transport.open(.head(offices: []))
        try await session.deleteOffice(name)
        await session.close()
      } catch {
        printError("note: the branch is removed, its queue is not deleted yet: \(error.message)")
      }
    }
    print(
      options.json
        ? JSONValue.fields(["office": .string(name), "state": .string("removed")]).description : "removed \(name)")
  }
}

func notYet(_ what: String) -> HubError { HubError(.unsupported, "\(what): not in this version") }
