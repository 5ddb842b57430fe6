import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore

struct Verify: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compare head's tables with the branches', through the broker (head). Exit 0 equal, 1 different, 3 away.",
    discussion: """
      Both sides may go on writing: rows on their way are no differences. --repair lets head's row stand, on tables \
      that only branches write the branch's; a row that only a branch has goes up. What is overwritten is kept in \
      hub conflicts.
      """)

  @Argument(help: "The branch; all if none is given.") var branch: String?
  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Flag(help: "Heal what differs, then compare again.") var repair = false
  @Option(help: "Give up after this long: 90s, 10m, 2h.") var timeout = "10m"

  func run() async throws {
    let seconds = try Self.seconds(timeout)
    let deadline = ContinuousClock.now + .seconds(seconds)
    var logger = try daemon.logger()
    if daemon.logLevel == "info" { logger.logLevel = .warning }
    // A daemon that starts or ends meanwhile holds the office, but takes no requests yet, or no more.
    while true {
      if let request = try leaveToDaemon(seconds) { return try await wait(request, seconds) }
      let runner = try await OfficeRunner(database: options, broker: broker, daemon: daemon, logger: logger)
      if try await runner.lock() { return try await serve(runner, seconds) }
      await runner.store.close()
      guard deadline > .now else {
        throw HubError(.conflict, "another hub holds this office and does not answer", hint: "hub status shows it")
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  /// nil: no daemon runs.
  private func leaveToDaemon(_ seconds: Int) throws -> Int64? {
    try options.transaction { session in
      _ = try HeadSetup.requireHead(session, for: "verify")
      let known = try session.query(
        "SELECT \(branch)::text IS NULL OR EXISTS (SELECT FROM hub.peer WHERE office = \(branch) AND state <> 'removed')"
      )
      guard known.bool(0, 0) else {
        throw HubError(.refused, "there is no branch \(branch ?? "")", hint: "hub branches lists them")
      }
      return try Requests.daemonRuns(session) ? try leave(session, seconds) : nil
    }
  }

  /// Without a daemon this command serves the office meanwhile.
  private func serve(_ runner: OfficeRunner, _ seconds: Int) async throws {
    try await runner.service.prepare()
    let request = try options.transaction { try leave($0, seconds) }
    let serving = Task { try await runner.service.serve() }
    let outcome: Result<Void, any Error>
    do {
      outcome = .success(try await wait(request, seconds))
    } catch {
      outcome = .failure(error)
    }
    serving.cancel()
    _ = try? await serving.value
    try outcome.get()
  }

  private func leave(_ session: Session, _ seconds: Int) throws -> Int64 {
    try Requests.leave(session, "verify", VerifyRun.argument(office: branch, repairs: repair, seconds: seconds))
  }

  private static func seconds(_ text: String) throws -> Int {
    let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600]
    guard let last = text.last, let unit = units[last], let count = Int(text.dropLast()), count > 0, count < 100_000
    else { throw HubError(.usage, "--timeout \(text) is no time", hint: "write it as 90s, 10m or 2h") }
    return count * unit
  }

  // MARK: waiting

  private func wait(_ request: Int64, _ seconds: Int) async throws {
    let meter = VerifyMeter()
    let session = try options.session()
    let deadline = ContinuousClock.now + .seconds(seconds + 5)
    do {
      while deadline > .now {
        let rows = try session.query(
          """
          SELECT state, outcome ->> 'error', outcome ->> 'hint', outcome ->> 'code', outcome ->> 'office',
            outcome ->> 'table', outcome ->> 'tables_done', outcome ->> 'tables', outcome ->> 'rows',
            array_to_string(ARRAY(SELECT jsonb_array_elements_text(outcome -> 'verified')), chr(10)),
            array_to_string(ARRAY(SELECT jsonb_array_elements_text(outcome -> 'away')), chr(10))
          FROM hub.request WHERE id = \(request)
          """)
        guard rows.count == 1 else { break }
        if rows.text(0, 0) == "failed" {
          meter.finish()
          throw HubError(
            HubError.Code(rawValue: rows.text(0, 3)) ?? .refused, rows.text(0, 1), hint: rows.string(0, 2))
        }
        if rows.text(0, 0) == "done" {
          meter.finish()
          return try report(Self.lines(rows.text(0, 9)), away: Self.lines(rows.text(0, 10)))
        }
        if let office = rows.string(0, 4), let table = rows.string(0, 5), !table.isEmpty {
          meter.show(
            "\(office): \(table), table \(min(rows.int(0, 6) + 1, rows.int(0, 7))) of \(rows.text(0, 7)), \(rows.text(0, 8)) rows"
          )
        }
        try await Task.sleep(for: .milliseconds(20))
      }
      try session.query("UPDATE hub.request SET state = 'interrupted' WHERE id = \(request) AND state = 'waiting'")
    } catch let error as PostgresError {
      throw error.asHubError
    }
    meter.finish()
    throw HubError(.timedOut, "not compared within \(timeout)", hint: "hub status shows whether head is connected")
  }

  private static func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }

  // MARK: the outcome

  private func report(_ verified: [String], away: [String]) throws {
    let (differences, certificates) = try options.transaction { session in
      (
        try verified.flatMap { try KeptDifference.list(session, $0) },
        try Certificate.all(session).filter { verified.contains($0.key) }.values.sorted { $0.office < $1.office }
      )
    }
    if options.json {
      for difference in differences { print(difference.json.description) }
    } else {
      if !differences.isEmpty {
        printTable(
          ["ID", "OFFICE", "TABLE", "KEY", "KIND"],
          differences.map { [String($0.id), $0.office, $0.table, shortened($0.keyText), $0.kind] })
        print("")
      }
      for certificate in certificates {
        print(certificate.sentence)
        for note in certificate.notes { print("  note: \(note)") }
      }
      if verified.isEmpty && away.isEmpty { print("there are no branches to compare with") }
    }
    let different = certificates.filter { !$0.isEqual }
    if !different.isEmpty {
      if !away.isEmpty { printError("note: \(away.joined(separator: ", "))") }
      let rows = different.reduce(0) { $0 + $1.differences }
      throw HubError(
        .refused,
        "\(different.map(\.office).joined(separator: ", ")) \(different.count == 1 ? "differs" : "differ") "
          + "from head in \(rows) \(rows == 1 ? "row" : "rows")",
        hint: repair
          ? "what is left needs a person: hub quarantine, or the rows themselves" : "hub verify --repair heals")
    }
    guard away.isEmpty else {
      throw HubError(.timedOut, away.joined(separator: ", "), hint: "hub branches shows when it was seen last")
    }
  }
}

/// A long comparison's progress: one line that moves on a terminal, a line every few seconds elsewhere.
private final class VerifyMeter: Sendable {
  private let isTerminal = isatty(2) == 1
  private let last = MutexBox(ContinuousClock.now)

  func show(_ text: String) {
    guard last.update(every: isTerminal ? .milliseconds(100) : .seconds(2)) else { return }
    writeError(isTerminal ? "\r\u{1B}[K\(text)" : text + "\n")
  }

  func finish() { if isTerminal { writeError("\r\u{1B}[K") } }
}
