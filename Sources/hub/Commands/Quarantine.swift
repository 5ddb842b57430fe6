import ArgumentParser
import HubEngine
import PostgresStore
import SyncCore

/// Rows that could not be applied here.
struct Quarantine: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Rows of other offices that this database refused: list and show them, retry, edit or discard.",
    subcommands: [List.self, Show.self, Retry.self, Edit.self, Discard.self], defaultSubcommand: List.self)

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List them.")
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      let rows = try options.transaction { session in
        _ = try PostgresStore.readOffice(session)
        return try QuarantinedRow.list(session)
      }
      if options.json { return print(JSONValue.array(rows.map(\.json))) }
      guard !rows.isEmpty else { return print("nothing is quarantined") }
      printTable(
        ["ID", "SINCE", "FROM", "TABLE", "KEY", "SQLSTATE", "TRIES", "ERROR"],
        rows.map {
          [
            String($0.id), $0.since, $0.peer, $0.table, $0.keyText, $0.sqlstate, String($0.attempts),
            shortened($0.error),
          ]
        })
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show one with its row and the error.")
    @Argument(help: "The quarantined row's number.") var id: Int64
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      try options.transaction { session in
        let office = try PostgresStore.readOffice(session)
        let row = try QuarantinedRow.find(session, id)
        if options.json { return print(row.json) }
        print("quarantined row \(id): \(row.table), \(row.keyText), from \(row.peer)")
        print("  \(row.sqlstate) \(row.error)")
        print("  since \(row.since), tried \(row.attempts) times, last \(row.triedAt)\n")
        let names = try TableInfo.loadAll(session).first { $0.name == row.table }?.columnNames ?? []
        let values = try row.row(session)
        let ordered = names.filter { values[$0] != nil } + values.keys.filter { !names.contains($0) }.sorted()
        printTable(["COLUMN", "VALUE"], ordered.map { [$0, shortened((values[$0] ?? nil) ?? "NULL")] })
        let other =
          office.role == .head ? "takes back \(office.name)'s row at \(row.peer)" : "asks \(row.peer) for its row"
        print("\nhub quarantine retry \(id), edit \(id) FILE.json, or discard \(id), which \(other)")
      }
    }
  }

  struct Retry: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Try one again, or all; mend the cause first.")
    @Argument(help: "The quarantined row's number.") var id: Int64?
    @OptionGroup var options: DatabaseOptions

    func run() async throws {
      let before = try options.transaction { session -> [Int64] in
        _ = try PostgresStore.readOffice(session)
        return try id.map { [try QuarantinedRow.find(session, $0).id] } ?? QuarantinedRow.list(session).map(\.id)
      }
      guard try await QuarantineRetry.run(options, id) else {
        throw HubError(.timedOut, "the daemon has not tried yet", hint: "look at hub status")
      }
      try report(before)
    }

    private func report(_ before: [Int64]) throws {
      let left = try options.transaction { try QuarantinedRow.list($0) }.filter { before.contains($0.id) }
      let released = before.count - left.count
      if let id, let row = left.first {
        throw HubError(
          .refused, "row \(id) is still refused: \(row.sqlstate) \(row.error)",
          hint: "mend the cause, or hub quarantine edit or discard \(id)")
      }
      if options.json {
        return print(JSONValue.fields(["released": JSONValue(released), "left": JSONValue(left.count)]))
      }
      print("\(released) went in\(left.isEmpty ? "" : ", \(left.count) are still refused: hub quarantine lists them")")
    }
  }

  struct Edit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write the row with other values, as an application of this office would; the other office takes it.",
      discussion: "The file is a JSON object of the columns to change, or null to delete the row.")
    @Argument(help: "The quarantined row's number.") var id: Int64
    @Argument(help: "A JSON file.") var file: String
    @OptionGroup var options: DatabaseOptions

    func run() async throws {
      let json = try readFile(file)
      try options.transaction { session in
        _ = try PostgresStore.readOffice(session)
        try QuarantineRelease(session, id, coder: rowCoder).edit(json)
      }
      // Rows that refer to it may go in now.
      _ = try await QuarantineRetry.run(options, nil)
      print(
        options.json
          ? JSONValue.fields(["id": .integer(id), "outcome": .string("written")]).description
          : "row \(id) is written as edited and goes to the other offices")
    }
  }

  struct Discard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract:
        "Let go of the row. At head: head's own row stands, and the branch takes it. At a branch: head is asked again.")
    @Argument(help: "The quarantined row's number.") var id: Int64
    @OptionGroup var options: DatabaseOptions

    func run() async throws {
      let outcome = try options.transaction { session in
        _ = try PostgresStore.readOffice(session)
        return try QuarantineRelease(session, id, coder: rowCoder).discard(coder: rowCoder)
      }
      // What it was in the way of may go in now.
      _ = try await QuarantineRetry.run(options, nil)
      if options.json {
        return print(JSONValue.fields(["id": .integer(id), "outcome": .string(outcome.rawValue)]))
      }
      switch outcome {
      case .restated: print("row \(id) is discarded; the other offices take this one's row")
      case .asked: print("row \(id) is discarded; head is asked for the row as it is now")
      case .dropped: print("row \(id) is discarded; it stays different at the other office until it is written again")
      }
    }
  }
}

/// Trying rows in quarantine again, by the daemon that serves the office, or by the command itself.
private enum QuarantineRetry {
  /// False: the daemon has not done it in time.
  static func run(_ options: DatabaseOptions, _ id: Int64?) async throws -> Bool {
    let (isNeeded, requested) = try options.transaction { session -> (Bool, Int64?) in
      guard try id != nil || !QuarantinedRow.list(session).isEmpty else { return (false, nil) }
      // A daemon that is offline serves nobody; beside one a row is applied as beside any application.
      let serves = try PostgresStore.daemonRuns(session) && OfficeStatus.read(session).state == "running"
      return (true, serves ? try Requests.leave(session, "retry", id.map { String($0) } ?? "") : nil)
    }
    guard isNeeded else { return true }
    if let requested { return try await Requests.wait(options, requested, seconds: 60) != nil }
    let store = PostgresStore(url: try options.url(), coder: rowCoder)
    _ = try await store.office()
    try await store.reload()
    _ = try await store.retryQuarantine(only: id)
    await store.close()
    return true
  }
}
