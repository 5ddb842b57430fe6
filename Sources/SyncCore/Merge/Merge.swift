/// What becomes of a row when a copy of it arrives.
package enum MergeOutcome<Value: Equatable & Sendable>: Equatable, Sendable {
  /// The copy that arrived is the same or older: an echo, a duplicate, late.
  case keepLocal
  /// The copy that arrived has seen everything that is here.
  case takeIncoming
  /// A row that is neither copy: concurrent writes joined, conflicts decided, or a stamp corrected.
  case merged(MergedRow<Value>)
  /// A branch keeps its own copy of a row in conflict, and publishes it again: head decides.
  case held([Conflict<Value>])
}

/// A row made of two copies.
package struct MergedRow<Value: Equatable & Sendable>: Equatable, Sendable {
  package var row: RowState<Value>
  package var decided: [DecidedConflict<Value>]
  /// A stamp ran ahead too far and was replaced: to be reported.
  package var isRestamped: Bool

  package init(row: RowState<Value>, decided: [DecidedConflict<Value>], isRestamped: Bool) {
    self.row = row
    self.decided = decided
    self.isRestamped = isRestamped
  }
}

/// Merges the copy of a row that arrived into the one that is stored: the only place where this is decided.
///
/// - A vector that dominates wins whole. Else register by register: a side that has seen the other's dot is newer.
/// - Equal values written twice are no conflict. Two inserts of one key, and rows that were not there on one side,
///   are settled as whole rows.
/// - What is left is a true conflict. With an arbiter (head) it is decided by the policy under the arbiter's dot;
///   without one (branch) the row is held.
/// - `function` is asked where the policy is `.function`; whoever cannot answer at once uses `Reconciliation`.
/// - Every outcome is the same whichever copy is called local, policies `head` and `branch` and held rows aside.
package func merge<Value>(
  local: RowState<Value>?, incoming: RowState<Value>, policy: Policy, arbiter: Arbiter? = nil,
  function: (Conflict<Value>) -> Decision<Value> = { _ in .local }
) -> MergeOutcome<Value> {
  if let local, local.vector.dominates(incoming.vector) { return .keepLocal }
  guard let local, !incoming.vector.dominates(local.vector) else {
    guard let row = arbiter?.restamped(incoming) else { return .takeIncoming }
    return .merged(MergedRow(row: row, decided: [], isRestamped: true))
  }
  let reconciliation = Reconciliation(
    local: arbiter?.believed(local) ?? local, incoming: arbiter?.believed(incoming) ?? incoming,
    granularity: policy.granularity)
  guard let arbiter else {
    guard reconciliation.conflicts.isEmpty else { return .held(reconciliation.conflicts) }
    return .merged(MergedRow(row: reconciliation.agreed, decided: [], isRestamped: false))
  }
  let answers = reconciliation.conflicts.map { conflict in
    policy.decision(on: conflict) ?? (function(conflict), .function)
  }
  return .merged(
    reconciliation.settled(answers, by: arbiter, disbelieved: Disbelieved(arbiter, local, incoming)))
}
