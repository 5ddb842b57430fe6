/// When rows in quarantine are tried again: at once when the tables that they belong to look otherwise, soon after
/// rows were applied (a parent may have come), and every `Limits.quarantineEvery` in any case.
///
/// Trying costs the time of whatever arrives meanwhile, so it rests ten times as long as it took. Times are of a
/// monotonic clock.
package struct QuarantineMachine: Hashable, Sendable {
  /// What the tables looked like when the rows were tried last.
  private var cause: String?
  private var rowsCame = true
  private var triedAt: Duration?
  private var restsUntil: Duration = .zero
  private var looksAt: Duration = .zero

  package init() {}

  package mutating func rowsApplied() { rowsCame = true }

  /// Whether to look what is in quarantine and what the tables are like.
  package func isWorthALook(at now: Duration) -> Bool { now >= restsUntil && (rowsCame || now >= looksAt) }

  /// Looked; `found` nil: nothing is quarantined. Returns whether to try the rows now.
  package mutating func looked(_ found: String?, at now: Duration) -> Bool {
    looksAt = now + Limits.quarantineLookEvery
    guard let found else {
      rowsCame = false
      return false
    }
    let isDue = triedAt.map { now - $0 >= Limits.quarantineEvery } ?? true
    guard rowsCame || isDue || found != cause else { return false }
    cause = found
    rowsCame = false
    triedAt = now
    return true
  }

  /// What went in may be what others waited for.
  package mutating func tried(released: Int, from began: Duration, to ended: Duration) {
    if released > 0 { rowsCame = true }
    restsUntil = ended + max(.seconds(1), (ended - began) * 10)
  }
}
