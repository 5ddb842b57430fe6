/// A person's word on a decided conflict: what it comes to.
package enum Reversal: Hashable, Sendable {
  /// The kept row is written as any application of head would write it.
  case write
  /// The row looks like that already.
  case unchanged
  /// The copy that won is kept, and the row was written since: that stays.
  case changedSince
  /// The row was written since, and would be lost.
  case refused

  /// - Parameters:
  ///   - isAsDecided: the row, or the column in conflict, still bears the write by which it became what was decided last.
  ///   - stands: what is kept is what was decided last.
  ///   - isThere: the row looks like what is kept.
  ///   - force: what was written since may be lost.
  package init(isAsDecided: Bool, stands: Bool, isThere: Bool, force: Bool) {
    if !isAsDecided && !force {
      self = stands ? .changedSince : .refused
    } else {
      self = isThere ? .unchanged : .write
    }
  }
}

extension DecidedConflict {
  /// The office that wrote a side's copy; entries of the log go to the branches among them.
  ///
  /// - Parameters:
  ///   - writer: the branch whose incarnation an actor is; nil: head's, or one that never introduced itself.
  ///   - peer: who sent the batch.
  package func office(
    of side: Side, head: String, peer: String, writer: (ActorID) throws -> String?
  ) rethrows -> String {
    // A row that came back was head's unless a branch is known to have written it.
    let isHeads = side == .local || reason == .referenced && side == winner
    return try writer(conflict.version(of: side).dot.actor) ?? (isHeads ? head : peer)
  }
}

extension RowState {
  /// The write that stands where a conflict was: the row's, or the column's.
  package func write(at column: Int?) -> Dot { column.flatMap { registers[$0]?.dot } ?? alive.dot }
}
