/// A promise that a schedule broke.
package struct Violation: Sendable, CustomStringConvertible {
  /// The promises, each with the checker that watches it.
  package enum Promise: String, Sendable, CaseIterable {
    /// Every office has the same rows, vectors and stamps, nothing is left to send, in a bounded time.
    case converged
    /// A counter is the surviving insert's amount plus every increment.
    case exact
    /// Every write is current, overwritten by one that had seen it, the same value written twice, or in the log.
    case accounted
    /// Outside a catch-up no reader sees half of a transaction.
    case whole
    /// No dot names two writes: vectors tell the truth about what a copy has seen.
    case dots
    /// After the exchange is quiet no batch is published, and control messages are few.
    case quiet
    /// No stamp runs ahead of head's clock by more than is allowed, and no write looks older than what it replaces.
    case stamps
    /// A decision follows the table's policy.
    case policy
    /// A catch-up that was cut goes on where it stopped, and windows are not asked for over and over.
    case resumed
    /// At every commit in every office a row that is referred to is there.
    case keys
    /// At every commit in every office no two rows have the same unique value.
    case unique
    /// Reversing a decision puts the row as it is kept into every office, and makes no new conflict.
    case reversal
    /// What a person discarded does not come back by itself.
    case discarded
  }

  package var promise: Promise
  package var detail: String

  package var description: String { "\(promise.rawValue): \(detail)" }
}
