import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore

struct Sync: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Exchange until both sides have everything, with progress; then say: safe to unplug.")

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
      if let requested {
        let json = try await showingProgress { try await Requests.wait(options, requested, seconds: seconds + 5) }
        return try report(json, left: try read())
      }
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
    let outcome = try await showingProgress {
      // A branch that is away is not waited for by head: give those that are there a moment to be heard of.
      if runner.identity.role == .head { try await Task.sleep(for: .seconds(2)) }
      return try await service.synchronise(until: deadline)
    }
    let failure = await service.failed
    // Before it ends: afterwards nobody is connected.
    let left = try read()
    serving.cancel()
    _ = try? await serving.value
    if let failure { throw failure }
    try report(outcome.json.description, left: left)
  }

  private func read() throws -> OfficeStatus { try options.transaction { try OfficeStatus.read($0) } }

  /// A line every two seconds while `work` is under way; on a terminal one that changes.
  private func showingProgress<Value: Sendable>(_ work: @Sendable () async throws -> Value) async throws -> Value {
    let (options, isTerminal) = (options, isatty(2) == 1)
    let showing = Task {
      while true {
        try await Task.sleep(for: isTerminal ? .milliseconds(500) : .seconds(2))
        guard let status = try? options.transaction({ try OfficeStatus.read($0) }) else { continue }
        guard let line = Plan.progress(status), !Task.isCancelled else { continue }
        writeError(isTerminal ? "\r\u{1B}[K\(line)" : "\(line)\n")
      }
    }
    let result: Result<Value, any Error>
    do {
      result = .success(try await work())
    } catch {
      result = .failure(error)
    }
    showing.cancel()
    _ = await showing.result
    if isTerminal { writeError("\r\u{1B}[K") }
    return try result.get()
  }

  /// `json`: what it came to, if somebody answered in time.
  private func report(_ json: String?, left status: OfficeStatus) throws {
    let isQuiet = json.map { $0.contains("\"quiet\":true") || $0.contains("\"quiet\": true") } ?? false
    let away = status.branches.filter { $0.state == "offline" }.map(\.name)
    if isQuiet {
      print(options.json ? json ?? "" : "in step; safe to unplug")
      if !options.json, !away.isEmpty { print("not heard of: \(away.joined(separator: ", "))") }
      return
    }
    if options.json {
      // One object: what it came to, and what is left.
      let outcome = json ?? JSONValue.fields(["quiet": .bool(false)]).description
      print("\(outcome.dropLast()),\"left\":\(Plan.left(status).json)}")
    }
    throw HubError(
      .timedOut, "not in step within \(timeout): \(Plan.left(status).text)",
      hint: "hub status shows what is pending; hub sync again goes on")
  }
}
