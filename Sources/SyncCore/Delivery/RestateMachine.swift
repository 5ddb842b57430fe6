/// A branch: rows of which head is asked for the present state, because what head sent was discarded here.
///
/// The requests themselves are durable and stay until head has answered them by their numbers; the broker may lose a
/// request or its answer. Asked for again after a new connection and when no answer came, at longer and longer
/// intervals; asking twice is harmless. Times are of a monotonic clock.
package struct RestateMachine: Sendable {
  private var asked: Set<Int64> = []
  private var reminder = Reminder()

  package init() {}

  /// The connection is new: what was asked for may be lost.
  package mutating func disconnected() { self = RestateMachine() }

  /// Which of the unanswered requests to send now.
  package mutating func due(_ unanswered: [Int64], at now: Duration) -> [Int64] {
    asked.formIntersection(unanswered)
    if unanswered.isEmpty { reminder.answered() }
    if reminder.isDue(at: now) { asked = [] }
    let due = unanswered.filter { !asked.contains($0) }
    guard !due.isEmpty else { return [] }
    asked.formUnion(due)
    reminder.asked(at: now)
    return due
  }

  package mutating func answered(_ request: Int64) {
    asked.remove(request)
    if asked.isEmpty { reminder.answered() }
  }
}
