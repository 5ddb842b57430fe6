import SyncCore

/// What people and the database's refusals do to the account of writes.
extension Ledger {
  /// A database refused the row: what is new in it is not there for the time being.
  mutating func refused(_ row: TravellingRow, local: Copy?) {
    refusals += 1
    row.truth.visit { if !(local?.truth.contains($0) ?? false) { refusedOnce.insert($0) } }
  }

  /// A row, or its absence, stands over a refused state of it. A person has discarded what that one wrote; what it added
  /// to the counter does not show.
  mutating func absorbed(
    _ row: RowState<Int>, local: Copy?, refused: TravellingRow, dot: Dot, isDiscarded: Bool, _ truth: inout WriteSet
  ) {
    var unseen = 0
    refused.truth.visit { write in
      if !(local?.truth.contains(write) ?? false), writes[write].isCommitted { unseen += writes[write].increment }
    }
    let amount = local.flatMap { copy in copy.state.isAlive ? inserted[copy.state.alive.dot].map { $0 - unseen } : nil }
    for column in [Self.alive] + refused.state.registers.keys.sorted() {
      guard let write = owner(refused.state, column), !(local?.truth.contains(write) ?? false) else { continue }
      logged.insert(ColumnWrite(write: write, column: column))
      if isDiscarded { discarded.insert(ColumnWrite(write: write, column: column)) }
    }
    merged(
      MergedRow(row: row, decided: [], isRestamped: true), local: local, incoming: refused, key: refused.key,
      arbiter: Arbiter(dot: dot, now: row.alive.stamp), truth: &truth)
    inserted[dot] = amount
  }
}

extension World {
  /// Foreign keys and unique values hold at every commit, in every office.
  func checkConstraints(_ office: Office) {
    guard let constraints = scenario.constraints, let violation = office.database.broken(constraints) else { return }
    ledger.fail(violation.promise, "\(office.name): \(violation.detail)")
  }

  /// A branch has the entries of head's log in which a write of its own won or lost, each as it was reviewed last; and
  /// those about what it only sent.
  func logDifference(_ branch: Office) -> String? {
    // The log is as old as its database.
    guard restores == 0 else { return nil }
    for (id, entry) in head.database.inbox.log.enumerated() {
      let isConcerned = [Side.local, .incoming].contains {
        entry.conflict.conflict.version(of: $0).dot.actor == branch.database.actor
      }
      let wanted = isConcerned || entry.notices[branch.name] != nil ? entry.revision : nil
      guard branch.database.inbox.entries[id] != wanted else { continue }
      return "\(branch.name) has revision \(branch.database.inbox.entries[id] ?? -1) of conflict \(id)"
    }
    return nil
  }
}
