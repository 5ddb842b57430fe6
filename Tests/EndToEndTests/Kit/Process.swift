import Foundation
import Glibc

/// A program that a test started, known by its pid; its output goes to files.
final class Program: @unchecked Sendable {
  // Proof: `status` is read and written under the lock; the rest is constant.
  let pid: pid_t
  let output: String
  let errors: String
  private let lock = NSLock()
  private var status: Int32?

  init(_ path: String, _ arguments: [String], environment: [String: String], directory: String, name: String) throws {
    let stem = "\(directory)/\(name)-\(UInt32.random(in: 0...UInt32.max))"
    output = stem + ".out"
    errors = stem + ".err"
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The test process may block or ignore signals; a program begins with none of that.
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var started: pid_t = 0
    var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0)=\($1)") } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    let code = posix_spawn(&started, path, &actions, &attributes, &argv, &envp)
    guard code == 0 else { throw Failed("cannot start \(path): \(String(cString: strerror(code)))") }
    pid = started
    Leftovers.began(self)
  }

  /// How it ended: an exit code, or minus the signal; nil while it runs.
  var ended: Int32? {
    lock.withLock {
      if let status { return status }
      var raw: Int32 = 0
      guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
      status = raw & 0x7f == 0 ? (raw >> 8) & 0xff : -(raw & 0x7f)
      return status
    }
  }

  var isRunning: Bool { ended == nil }

  func signal(_ number: Int32) {
    lock.withLock { if status == nil { kill(pid, number) } }
  }

  @discardableResult
  func wait(_ seconds: Double) throws -> Int32 {
    try until(seconds, "the end of pid \(pid)") { self.ended != nil }
    return ended ?? 0
  }

  /// A program that is still being loaded ends of a signal by the system's default.
  func awaitHandler(of signal: Int32) {
    let masks = ["SigBlk:", "SigIgn:", "SigCgt:"]
    for _ in 0..<1000 where isRunning {
      let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
      let handled = text.split(separator: "\n").contains { line in
        guard masks.contains(where: line.hasPrefix) else { return false }
        return (UInt64(line.split(separator: "\t").last ?? "", radix: 16) ?? 0) & (1 << UInt64(signal - 1)) != 0
      }
      if handled { return }
      usleep(5000)
    }
  }

  /// kill -9, and it is gone.
  func murder() {
    signal(SIGKILL)
    for _ in 0..<2000 where isRunning { usleep(5000) }
  }

  var outputText: String { text(output) }
  var errorText: String { text(errors) }
  var errorLines: [String] { errorText.split(separator: "\n").map(String.init) }

  private func text(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }

  /// A figure of /proc/PID/status, in kB.
  func kilobytes(_ key: String) -> Int {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
    for line in text.split(separator: "\n") where line.hasPrefix(key + ":") {
      return Int(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0
    }
    return 0
  }
}

/// What a finished command came to.
struct Outcome {
  var code: Int32
  var output: String
  var errors: String
  var seconds: Double
  var line: String { output.split(separator: "\n").first.map(String.init) ?? "" }
  var errorLines: [String] { errors.split(separator: "\n").map(String.init) }

  func json() throws -> Any {
    guard let data = output.data(using: .utf8) else { throw Failed("no JSON: \(output)") }
    return try JSONSerialization.jsonObject(with: data, options: [.fragmentsAllowed])
  }

  func object() throws -> [String: Any] {
    guard let object = try json() as? [String: Any] else { throw Failed("no JSON object: \(output)") }
    return object
  }
}

struct Failed: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Processes and virtual hosts that must not outlive the test process, whatever happens.
enum Leftovers {
  nonisolated(unsafe) private static var programs: [Program] = []
  nonisolated(unsafe) private static var tasks: [@Sendable () -> Void] = []
  private static let lock = NSLock()
  private static let registered: Void = {
    atexit { Leftovers.end() }
    // Interrupted: the same, as far as a handler may.
    for number in [SIGTERM, SIGINT, SIGHUP] {
      Glibc.signal(number) { _ in
        Leftovers.end()
        _exit(1)
      }
    }
  }()

  static func began(_ program: Program) {
    _ = registered
    lock.withLock {
      programs.removeAll { $0.ended != nil }
      programs.append(program)
    }
  }

  static func atEnd(_ task: @escaping @Sendable () -> Void) {
    _ = registered
    lock.withLock { tasks.append(task) }
  }

  private static func end() {
    let (left, work) = lock.withLock { (programs, tasks) }
    for program in left where program.isRunning { program.signal(SIGKILL) }
    for task in work { task() }
  }
}

/// A line of a test's figures, at once: stdout is block-buffered in a pipe.
func say(_ text: String) { FileHandle.standardOutput.write(Data("  \(text)\n".utf8)) }

func monotonic() -> Double {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
}

/// Waits for a condition, never for time to pass. A condition that throws is not met yet.
func until(_ seconds: Double, _ what: @autoclosure () -> String, every: Double = 0.02, _ condition: () throws -> Bool)
  throws
{
  let deadline = monotonic() + seconds
  var last: (any Error)?
  while true {
    do {
      if try condition() { return }
      last = nil
    } catch { last = error }
    guard monotonic() < deadline else {
      throw Failed("not within \(Int(seconds)) s: \(what())\(last.map { " (\($0))" } ?? "")")
    }
    usleep(useconds_t(every * 1e6))
  }
}
