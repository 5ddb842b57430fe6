package import SyncCore

/// What another policy would have made of a recorded conflict.
package struct ConflictTrial: Sendable {
  package var entry: ConflictEntry
  package var winner: ConflictEntry.Copy
  package var reason: Reason

  /// nil: the table's function would have to be asked.
  package init?(_ entry: ConflictEntry, _ conflict: ConflictPolicy, onDelete: DeletePolicy?) {
    func state(_ copy: ConflictEntry.Copy) -> RowState<Bool> {
      RowState(
        vector: copy.vector, dot: Dot(actor: copy.actor, n: copy.vector[copy.actor]), stamp: copy.stamp,
        value: copy.isAlive ? true : nil)
    }
    // Foreign keys hold whatever the policy is, and drift was none of its business.
    if let fixed = Reason(rawValue: entry.reason), fixed == .referenced || fixed == .repaired {
      (self.entry, winner, reason) = (entry, entry.winner, fixed)
      return
    }
    let recorded: DeletePolicy = entry.reason == Reason.deleteWins.rawValue ? .delete : .update
    let policy = Policy(conflict: conflict, onDelete: onDelete ?? recorded)
    let asked = Conflict(column: nil, local: state(entry.headCopy), incoming: state(entry.branchCopy))
    guard let answer = policy.decision(on: asked) else { return nil }
    self.entry = entry
    winner = answer.decision == .local ? entry.headCopy : entry.branchCopy
    reason = answer.reason
  }

  package var isDifferent: Bool { winner.json != entry.winner.json || entry.reason == Reason.function.rawValue }
}
