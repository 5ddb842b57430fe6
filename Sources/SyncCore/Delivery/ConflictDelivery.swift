/// What a branch's inbox lacks of head's conflict log, in the order of their numbers.
package struct ConflictEntries: Sendable, Hashable {
  /// The number that the branch must be at.
  package var after: Int64
  /// The number of the last of these.
  package var last: Int64
  package var more: Bool
  /// JSON objects: the log's columns by name.
  package var entries: [String]

  package init(after: Int64, last: Int64, more: Bool, entries: [String]) {
    self.after = after
    self.last = last
    self.more = more
    self.entries = entries
  }

  /// Branch: whether these follow the last entry here; others come again.
  package func follows(_ number: Int64) -> Bool { after == number }
}

/// Head: which entries of the conflict log one branch still lacks, and when they are sent.
///
/// Entries of a branch have growing numbers, and a message of entries says which one it follows. The branch takes it
/// only if that is its last one, and says in its hello and its beats what it has. So the broker may lose anything:
/// what does not arrive is sent again from where the branch stands. Times are of a monotonic clock.
package struct ConflictDelivery: Hashable, Sendable {
  /// The branch's last entry as it said itself; nil: not heard of.
  private var reported: Int64?
  /// The last entry sent.
  private var sent: Int64 = 0
  /// Since when entries are on their way without news of them.
  private var waitingSince: Duration?

  package init() {}

  /// The connection is new: what was on its way may be lost.
  package mutating func disconnected() { self = ConflictDelivery() }

  /// The branch said what it has. Returns after which entry to send; nil: what was sent may yet arrive.
  package mutating func arrived(_ number: Int64, at now: Duration) -> Int64? {
    let before = reported
    reported = number
    if let before, number < sent {
      if number > before || waitingSince == nil { waitingSince = now }
      guard let since = waitingSince, now - since >= Limits.conflictEntriesWithin else { return nil }
    }
    sent = number
    waitingSince = nil
    return number
  }

  /// Entries were logged. Returns after which one to send; nil: the branch has to say first what it has.
  package func logged() -> Int64? { reported == nil ? nil : sent }

  package mutating func sent(through number: Int64, at now: Duration) {
    sent = number
    if waitingSince == nil { waitingSince = now }
  }
}
