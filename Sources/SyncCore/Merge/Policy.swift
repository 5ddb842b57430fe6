/// How head settles what two offices wrote without knowing of each other.
package enum ConflictPolicy: String, Hashable, Sendable, CaseIterable {
  /// The later stamp, then the greater actor.
  case latest
  /// The copy that head held when the other arrived.
  case head
  /// The arriving copy.
  case branch
  /// A function of the table's owner decides; the driver asks it.
  case function
}

/// What is compared and settled as one thing.
package enum Granularity: String, Hashable, Sendable, CaseIterable {
  case row
  case columns
}

/// What becomes of an update that meets a concurrent delete, whatever the conflict policy.
package enum DeletePolicy: String, Hashable, Sendable, CaseIterable {
  /// The row lives on.
  case update
  /// The row goes.
  case delete
}

/// A table's rules of merging.
package struct Policy: Hashable, Sendable {
  package var conflict: ConflictPolicy
  package var granularity: Granularity
  package var onDelete: DeletePolicy

  package init(
    conflict: ConflictPolicy = .latest, granularity: Granularity = .row, onDelete: DeletePolicy = .update
  ) {
    self.conflict = conflict
    self.granularity = granularity
    self.onDelete = onDelete
  }

  /// Who wins and why; nil when the table's function has to be asked.
  package func decision<Value>(on conflict: Conflict<Value>) -> (decision: Decision<Value>, reason: Reason)? {
    if conflict.local.isAlive != conflict.incoming.isAlive {
      let wins: Side = conflict.local.isAlive == (onDelete == .update) ? .local : .incoming
      return (wins == .local ? .local : .incoming, onDelete == .update ? .updateWins : .deleteWins)
    }
    switch self.conflict {
    case .latest:
      return (conflict.version(of: .local) > conflict.version(of: .incoming) ? .local : .incoming, .latest)
    case .head: return (.local, .head)
    case .branch: return (.incoming, .branch)
    case .function: return nil
    }
  }
}
