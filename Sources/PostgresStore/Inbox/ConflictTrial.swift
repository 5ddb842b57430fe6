package import SyncCore

/// What another policy would have made of a recorded conflict.
package struct ConflictTrial: Sendable {
  package var entry: ConflictEntry
  package var winner: ConflictEntry.Copy
  package var reason: Reason

  /// nil: the table's function would have to be asked.
  package init?(_ entry: ConflictEntry, _ conflict: ConflictPolicy, onDelete: DeletePolicy?) {
    // Foreign keys hold whatever the policy is, and drift was none of its business.
    if let fixed = Reason(rawValue: entry.reason), fixed == .referenced || fixed == .repaired {
      (self.entry, winner, reason) = (entry, entry.winner, fixed)
      return
    }
    let recorded: DeletePolicy = entry.reason == Reason.deleteWins.rawValue ? .delete : .update
    let policy = Policy(conflict: conflict, onDelete: onDelete ?? recorded)
    let column: Int? = entry.isOfOneColumn ? 1 : nil
    let asked = Conflict(
      column: column, local: Self.state(entry.headCopy, column), incoming: Self.state(entry.branchCopy, column))
    guard let answer = policy.decision(on: asked) else { return nil }
    self.entry = entry
    winner = answer.decision == .local ? entry.headCopy : entry.branchCopy
    reason = answer.reason
  }

  /// The copy as the merge had it: the log names the write in conflict, which is the row's latest, or that of the
  /// column.
  private static func state(_ copy: ConflictEntry.Copy, _ column: Int?) -> RowState<Bool> {
    let write = Register(
      value: true, dot: Dot(actor: copy.actor, n: copy.vector[copy.actor]), stamp: copy.stamp)
    guard let column else {
      return RowState(vector: copy.vector, dot: write.dot, stamp: write.stamp, value: copy.isAlive ? true : nil)
    }
    return RowState(vector: copy.vector, alive: write, registers: [column: write])
  }

  package var isDifferent: Bool { winner.json != entry.winner.json || entry.hasOwnAnswer }
}
