import Glibc
import HubEngine
import Logging
import PostgresStore

/// Which of several databases a replica serves, when all replicas are started alike: a URL with `{n}` stands for the
/// databases 1, 2, 3 … of one server. Each `hub run` takes the first that no other has taken and that head has not
/// removed, and its number goes into a file of the container's own, so that other commands there find it.
///
/// The choice is a convenience: that one hub serves an office is what the office's own lock ensures.
struct DatabasePlace {
  static let placeholder = "{n}"
  static let most = 999
  /// `hub` in ASCII; the number that goes with it says what is locked.
  private static let lock: (Int, Int) = (0x687562, 1)

  let url: String
  /// Holds the lock; the server lets go of it when this process ends.
  private let session: Session

  /// nil: the URL names one database.
  static func take(_ given: String?, _ logger: Logger) async throws -> DatabasePlace? {
    guard let pattern = try given ?? setting("HUB_DATABASE_URL"), pattern.contains(placeholder) else { return nil }
    while true {
      do {
        if let place = try search(pattern, logger) { return place }
        logger.warning("every database is taken: waiting for one, or for one more to be made")
      } catch let error as PostgresError {
        guard error.asHubError.isTransient else { throw error.asHubError }
        logger.notice("database", metadata: ["hub.error": "\(error.asHubError)"])
      }
      try await Task.sleep(for: .seconds(2))
    }
  }

  private static func search(_ pattern: String, _ logger: Logger) throws -> DatabasePlace? {
    for number in 1...most {
      let url = replaced(pattern, by: number)
      let session: Session
      do {
        session = try Session(url: url, name: "hub place")
      } catch {
        // The first that does not exist (3D000) ends the list; that there is none at all is an error.
        guard error.asHubError.message.contains("does not exist"), number > 1 else { throw error }
        return nil
      }
      let taken = try session.query("SELECT pg_try_advisory_lock(\(lock.0)::int, \(lock.1)::int)")
      // Of an office that head let go nothing is expected.
      guard taken.bool(0, 0), try !HeadSetup.isRemoved(session) else { continue }
      try write(number)
      logger.notice("took a database", metadata: ["hub.database": "\(number)"])
      return DatabasePlace(url: url, session: session)
    }
    return nil
  }

  /// `text` with the number that this container's `hub run` has taken, if it asks for it.
  static func resolve(_ text: String) throws -> String {
    guard text.contains(placeholder) else { return text }
    guard let number = try? readFile(file), let number = Int(number.filter { !$0.isWhitespace }) else {
      throw HubError(.notReady, "no hub run has taken a database here yet", hint: "wait for it, or look at its log")
    }
    return replaced(text, by: number)
  }

  private static func replaced(_ text: String, by number: Int) -> String {
    var out = ""
    var rest = text[...]
    while !rest.isEmpty {
      if rest.hasPrefix(placeholder) {
        out += String(number)
        rest = rest.dropFirst(placeholder.count)
      } else {
        out.append(rest.removeFirst())
      }
    }
    return out
  }

  /// `HUB_RUNTIME_DIR`, a directory that no other replica sees, lost when the container is.
  private static var file: String { (environment("HUB_RUNTIME_DIR") ?? "/run/hub") + "/database" }

  private static func write(_ number: Int) throws {
    let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    let text = "\(number)\n"
    guard descriptor >= 0, text.withCString({ Glibc.write(descriptor, $0, text.utf8.count) }) == text.utf8.count else {
      throw HubError(
        .refused, "cannot write \(file): \(String(cString: strerror(errno)))",
        hint: "set HUB_RUNTIME_DIR to a directory that this container alone can write to")
    }
    close(descriptor)
  }
}
