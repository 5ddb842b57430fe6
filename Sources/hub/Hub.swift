import ArgumentParser
import CLinux
import Glibc
import HubEngine

/// The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 timed out with work left.
@main
struct Hub: AsyncParsableCommand {
  static let version = "0.1.0"

  static let configuration = CommandConfiguration(
    commandName: "hub",
    abstract: "Keeps the PostgreSQL databases of a head office and its branches in step, through RabbitMQ.",
    version: version,
    subcommands: [
      Init.self, Track.self, Untrack.self, Tables.self, Invite.self, Join.self, Run.self, Sync.self, Status.self,
      Branches.self, Watch.self, Pause.self, Resume.self, Leave.self, Remove.self, Doctor.self, Health.self,
      Conflicts.self, Quarantine.self, Verify.self, Trace.self,
    ])

  static func main() async {
    hub_buffer_lines()
    signal(SIGPIPE, SIG_IGN)
    // Until the service group takes the signals over, a daemon that is asked to stop has nothing to finish.
    if CommandLine.arguments.dropFirst().first == "run" {
      for stop in [SIGTERM, SIGINT] { signal(stop) { _ in _exit(0) } }
    }
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
      end(0)
    } catch let error as HubError {
      printError("\(error)")
      end(error.exitCode)
    } catch let code as ExitCode {
      end(code.rawValue)
    } catch {
      let code = exitCode(for: error)
      guard code != .success else { exit(withError: error) }
      let text = message(for: error)
      let usage = code == .validationFailure
      printError(usage ? "\(text.isEmpty ? "\(error)" : text): see hub --help" : "\(error)")
      end(usage ? 2 : 1)
    }
  }

  /// Ends the process without the exit handlers of libraries: those that libpq brings free what a connection's thread
  /// may be freeing at that moment (seen as an abort after the last line of one `hub join` in a thousand).
  private static func end(_ code: Int32) -> Never {
    fflush(nil)
    _exit(code)
  }
}

/// One line on stderr.
func printError(_ text: String) {
  writeError("hub: " + text.split(whereSeparator: \.isNewline).joined(separator: " ") + "\n")
}

func writeError(_ text: String) {
  var bytes = Array(text.utf8)[...]
  while !bytes.isEmpty {
    let written = bytes.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
    if written <= 0 { return }
    bytes = bytes.dropFirst(written)
  }
}
