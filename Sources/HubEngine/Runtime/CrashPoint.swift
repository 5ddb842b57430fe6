import Glibc
import Synchronization

/// A step between reading the feed and an acknowledgement at which a test ends a hub, as `kill -9` would at just that
/// moment. `HUB_CRASH_AT=point:count` in the environment of `hub run` names the point, and which time it is passed
/// (from 1). Without the variable passing a point does nothing.
package enum CrashPoint: String, CaseIterable, Sendable {
  // Sending a batch.
  case feedRead = "feed-read"
  case batchRecorded = "batch-recorded"
  case batchNoted = "batch-noted"
  case partSent = "part-sent"
  case batchSent = "batch-sent"
  case confirmed
  // Receiving one.
  case received
  case staged
  case rowsApplied = "rows-applied"
  case rowsCommitted = "rows-committed"
  case rowsFlushed = "rows-flushed"
  case acknowledged
  case deliveryAcknowledged = "delivery-acknowledged"
  case acknowledgementSaved = "acknowledgement-saved"
  // Catching up.
  case pullSent = "pull-sent"
  case windowRead = "window-read"
  case windowSent = "window-sent"
  case windowApplied = "window-applied"
  // The handshake.
  case helloSent = "hello-sent"
  case helloSaved = "hello-saved"
  case welcomeSent = "welcome-sent"
  case welcomeSaved = "welcome-saved"
  // The conflict log.
  case conflictsSent = "conflicts-sent"
  case conflictsSaved = "conflicts-saved"

  private static let armed = environment.flatMap { try? parse($0) }
  private static let passes = Atomic<Int>(0)
  private static var environment: String? { getenv("HUB_CRASH_AT").map { String(cString: $0) } }

  /// Ends this process if it is the time.
  package func passed() {
    guard let armed = Self.armed, armed.point == self else { return }
    if Self.passes.add(1, ordering: .relaxed).newValue == armed.count { kill(getpid(), SIGKILL) }
  }

  /// Throws when the variable is set and names no point: a fault that cannot happen would prove nothing.
  package static func check() throws(HubError) {
    if let environment { _ = try parse(environment) }
  }

  private static func parse(_ text: String) throws(HubError) -> (point: CrashPoint, count: Int) {
    let words = text.split(separator: ":", omittingEmptySubsequences: false)
    guard words.count == 2, let point = CrashPoint(rawValue: String(words[0])), let count = Int(words[1]), count > 0
    else {
      throw HubError(
        .usage, "HUB_CRASH_AT=\(text) is no point:count",
        hint: "points are \(allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return (point, count)
  }
}
