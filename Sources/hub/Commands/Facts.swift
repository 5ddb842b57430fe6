import ArgumentParser
import Glibc
import HubEngine
import PostgresStore
import SyncCore

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Print what this office knows of itself and the others.")

  @OptionGroup var options: DatabaseOptions

  func run() throws {
    let status = try options.transaction { try OfficeStatus.read($0) }
    if options.json { return print(status.json) }
    let office = status.office
    print("\(office.name) (\(office.role.rawValue)) \(status.state)")
    if let error = status.brokerError, !status.isConnected { print("  broker: not connected: \(error)") }
    if status.isConnected { print("  broker: connected\(status.isBlocked ? ", blocked by an alarm there" : "")") }
    if status.isCatchingUp { print("  catching up") }
    if status.isRecovering {
      let awaited = status.branches.filter { $0.recovery != nil }.map(\.name).joined(separator: ", ")
      print("  recovering: this database went back in time\(awaited.isEmpty ? "" : "; not yet back from \(awaited)")")
    }
    for table in status.missingTables { print("  table \(table): tracked, and not there (hub doctor)") }
    if let horizon = status.horizon {
      let who = horizon.heldBy.isEmpty ? "" : ", held by \(horizon.heldBy.joined(separator: ", "))"
      print(
        "  deleted rows: every branch has batch \(horizon.batch) of \(horizon.last)\(who); forgotten behind \(horizon.purged)"
      )
    }
    if let closes = status.traffic.windowCloses { print("  window: open until \(closes)") }
    print("  outgoing: \(Plan.outgoing(status))")
    print("  incoming: \(status.lagSeconds.map { "lag \(Int($0)) s" } ?? "lag unknown")\(Plan.incoming(status))")
    print("  conflicts \(status.conflicts), quarantined \(status.quarantined)")
    if let note = status.note { print("  note: \(note)") }
    if !status.branches.isEmpty { printBranches(status) }
  }
}

func printBranches(_ status: OfficeStatus) {
  printTable(
    ["BRANCH", "STATE", "PENDING", "ABOUT", "TIME LEFT", "LAST SEEN", "VERIFIED"],
    status.branches.map {
      [
        $0.name, $0.state, ($0.isPendingExact ? "" : ">") + String($0.pending), Plan.bytes(Double($0.backlog.bytes)),
        (status.isConnected ? $0.secondsLeft : nil).map(Plan.time) ?? "unknown",
        $0.secondsSinceSeen.map { "\(Int($0)) s ago" } ?? "never", $0.certificate?.summary ?? "never",
      ]
    })
}

struct Branches: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the members with their lag.")

  @OptionGroup var options: DatabaseOptions

  func run() throws {
    let status = try options.transaction { session -> OfficeStatus in
      _ = try HeadSetup.requireHead(session, for: "branches")
      return try OfficeStatus.read(session)
    }
    if options.json {
      return print(JSONValue.array(status.branches.map { $0.json(isConnected: status.isConnected) }))
    }
    printBranches(status)
  }
}

struct Watch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print each row that changes here, from now on, whoever wrote it.")

  @OptionGroup var options: DatabaseOptions

  func run() async throws {
    let watcher = ChangeWatcher(url: try options.url())
    while true {
      for change in try await watcher.next() {
        print(
          options.json
            ? change.json.description
            : "\(change.at)  \(change.isAlive ? "write " : "delete")  \(change.table)  \(change.key)")
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }
}

struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Stop the exchange without stopping the daemon.")
  @OptionGroup var options: DatabaseOptions
  func run() throws { try setPaused(true, options) }
}

struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Start the exchange again.")
  @OptionGroup var options: DatabaseOptions
  func run() throws { try setPaused(false, options) }
}

private func setPaused(_ paused: Bool, _ options: DatabaseOptions) throws {
  let office = try options.transaction { session -> OfficeIdentity in
    let office = try PostgresStore.readOffice(session)
    try session.query("UPDATE hub.office SET paused = \(paused)::bool")
    return office
  }
  print(
    options.json
      ? JSONValue.fields(["office": .string(office.name), "paused": .bool(paused)]).description
      : "\(office.name) \(paused ? "paused" : "resumed")")
}

struct Health: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Exit 0 when the daemon runs and is connected, else 1.")
  @OptionGroup var options: DatabaseOptions
  @Flag(help: "Exit 0 as well while the broker is out of reach, and of a branch that head removed.") var local = false

  func run() throws {
    let status = try options.transaction { try OfficeStatus.read($0) }
    var (isHealthy, state) = status.health
    if local { isHealthy = status.isWellLocally }
    if options.json {
      print(JSONValue.fields(["healthy": .bool(isHealthy), "state": .string(state)]))
    } else if isHealthy {
      print("\(status.office.name) \(state)")
    }
    guard isHealthy else {
      throw HubError(
        .notReady, "\(status.office.name) is \(state)",
        hint: status.state == "removed"
          ? "hub leave takes hub out of this database"
          : status.state == "stopped" ? "start hub run" : status.brokerError ?? "look at hub status")
    }
  }
}
