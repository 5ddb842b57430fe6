/// Two concurrent copies of a row: what they agree on, and what is in conflict.
///
/// For a driver that asks a function in the database: build it, ask for every conflict, then `settled`.
package struct Reconciliation<Value: Equatable & Sendable>: Equatable, Sendable {
  package let local: RowState<Value>
  package let incoming: RowState<Value>
  /// The joined row; where there are conflicts, local's side of them.
  package private(set) var agreed: RowState<Value>
  /// Either one, of the rows as wholes, or one a column, by column.
  package private(set) var conflicts: [Conflict<Value>] = []

  /// Neither vector may dominate the other.
  package init(local: RowState<Value>, incoming: RowState<Value>, granularity: Granularity) {
    self.local = local
    self.incoming = incoming
    agreed = local
    switch Self.whole(local, incoming, granularity) {
    case .side(let side): agreed = side == .local ? local : incoming
    case .conflict: conflicts = [Conflict(column: nil, local: local, incoming: incoming)]
    case .byColumn(let alive): mergeColumns(alive)
    }
    agreed.vector = local.vector.joined(with: incoming.vector)
    joinContributions()
  }

  private enum Whole {
    case side(Side)
    case conflict
    /// Both are alive and one life began with knowledge of the other: compare the columns.
    case byColumn(Side)
  }

  private static func whole(
    _ local: RowState<Value>, _ incoming: RowState<Value>, _ granularity: Granularity
  ) -> Whole {
    let newer = newer(local.alive, local, incoming.alive, incoming)
    if local.isAlive != incoming.isAlive {
      let (dead, aliveSide): (RowState<Value>, Side) =
        local.isAlive ? (incoming, .local) : (local, .incoming)
      let alive = aliveSide == .local ? local : incoming
      // Inserted again by one that knew of the delete.
      if alive.vector.contains(dead.alive.dot) { return .side(aliveSide) }
      // A delete wins only over writes that it had seen, all of them: also of single columns and counters.
      return alive.currentDots.allSatisfy(dead.vector.contains) ? .side(aliveSide.other) : .conflict
    }
    if !local.isAlive { return .side(newer ?? laterSide(local.alive, incoming.alive)) }
    if let newer { return granularity == .row ? .side(newer) : .byColumn(newer) }
    // Two inserts of one key are two things, not two edits. Equal ones are joined register by register: the side with
    // the latest write is another one later on, so offices that join them at other times would choose otherwise.
    guard local.showsSame(as: incoming) else { return .conflict }
    let later = laterSide(local.alive, incoming.alive)
    return granularity == .row ? .side(later) : .byColumn(later)
  }

  /// The side that wrote its register knowing of the other's; nil when neither did.
  private static func newer<V>(
    _ mine: Register<V>, _ local: RowState<Value>, _ theirs: Register<V>, _ incoming: RowState<Value>
  ) -> Side? {
    switch (local.vector.contains(theirs.dot), incoming.vector.contains(mine.dot)) {
    case (true, false): .local
    case (false, true): .incoming
    // Both: the same write, or equal values of which each office kept another; both must choose alike.
    case (true, true): laterSide(mine, theirs)
    case (false, false): nil
    }
  }

  private static func laterSide<V>(_ mine: Register<V>, _ theirs: Register<V>) -> Side {
    mine.version >= theirs.version ? .local : .incoming
  }

  private mutating func mergeColumns(_ aliveSide: Side) {
    let winner = aliveSide == .local ? local : incoming
    agreed.alive = winner.alive
    for (column, counter) in winner.counters { agreed.counters[column] = counter }
    for column in Set(local.registers.keys).union(incoming.registers.keys).sorted() {
      guard let mine = local.registers[column], let theirs = incoming.registers[column] else {
        // A column that one office does not have yet.
        agreed.registers[column] = local.registers[column] ?? incoming.registers[column]
        continue
      }
      if let side = Self.newer(mine, local, theirs, incoming) {
        agreed.registers[column] = side == .local ? mine : theirs
      } else if mine.value == theirs.value {
        agreed.registers[column] = Self.laterSide(mine, theirs) == .local ? mine : theirs
      } else {
        conflicts.append(Conflict(column: column, local: local, incoming: incoming))
      }
    }
  }

  private mutating func joinContributions() {
    for column in Set(local.counters.keys).union(incoming.counters.keys) {
      guard let mine = local.counters[column], let theirs = incoming.counters[column] else {
        agreed.counters[column] = local.counters[column] ?? incoming.counters[column]
        continue
      }
      agreed.counters[column]?.contributions = mine.contributions(joined: theirs)
    }
  }
}

extension Reconciliation {
  /// The row with every conflict decided, each under the arbiter's dot, so that the outcome dominates both copies.
  ///
  /// The outcome's stamp directly follows the later of both: were it now, a third office's later write that arrives
  /// after the decision would lose by the order of arrival; were it the winner's, a newer write could look older than
  /// what it replaces, and offices that join copies on their own would choose differently. `answers` are those to `conflicts`, in order. Where a stamp was not believed, what it stood on is written
  /// again too.
  package func settled(
    _ answers: [(decision: Decision<Value>, reason: Reason)], by arbiter: Arbiter,
    disbelieved: Disbelieved = Disbelieved()
  ) -> MergedRow<Value> {
    var merged = MergedRow(row: agreed, decided: [], isRestamped: !disbelieved.isEmpty)
    for (conflict, answer) in zip(conflicts, answers) {
      if let column = conflict.column {
        settle(column, answer.decision, arbiter.dot, &merged.row)
      } else {
        settleWhole(answer.decision, arbiter.dot, &merged.row)
      }
      merged.decided.append(
        DecidedConflict(conflict: conflict, winner: answer.decision.side, reason: answer.reason))
    }
    let stamp = Stamp.next(now: arbiter.now, after: max(local.latest.stamp, incoming.latest.stamp))
    if disbelieved.alive {
      merged.row.alive = Register(value: merged.row.isAlive, dot: arbiter.dot, stamp: stamp)
    }
    for (column, register) in merged.row.registers where disbelieved.columns.contains(column) {
      merged.row.registers[column] = Register(value: register.value, dot: arbiter.dot, stamp: stamp)
    }
    if !conflicts.isEmpty || !disbelieved.isEmpty { merged.row.vector.insert(arbiter.dot) }
    return merged
  }

  private func settle(_ column: Int, _ decision: Decision<Value>, _ dot: Dot, _ row: inout RowState<Value>) {
    let mine = local.registers[column]
    let theirs = incoming.registers[column]
    let value: Value? =
      switch decision {
      case .local: mine?.value
      case .incoming: theirs?.value
      case .values(let values): values[column] ?? mine?.value
      }
    let stamp = max(mine?.stamp ?? local.alive.stamp, theirs?.stamp ?? incoming.alive.stamp).advanced(byMicroseconds: 1)
    row.registers[column] = value.map { Register(value: $0, dot: dot, stamp: stamp) }
  }

  /// The winner's row under one new dot: every register of it, because a dead side has none to compare later.
  private func settleWhole(_ decision: Decision<Value>, _ dot: Dot, _ row: inout RowState<Value>) {
    let winner = decision == .incoming ? incoming : local
    let stamp = max(local.latest.stamp, incoming.latest.stamp).advanced(byMicroseconds: 1)
    let contributions = row.counters.mapValues(\.contributions)
    row.counters.merge(winner.counters) { $1 }
    for (column, joined) in contributions { row.counters[column]?.contributions = joined }
    row.alive = Register(value: winner.isAlive, dot: dot, stamp: stamp)
    var values = winner.registers.mapValues(\.value)
    if case .values(let given) = decision { values.merge(given) { $1 } }
    row.registers = winner.isAlive ? values.mapValues { Register(value: $0, dot: dot, stamp: stamp) } : [:]
  }
}

extension Decision {
  /// nil: values of its own.
  package var side: Side? {
    switch self {
    case .local: .local
    case .incoming: .incoming
    case .values: nil
    }
  }
}

/// The registers whose stamp, on either side, runs ahead too far.
package struct Disbelieved: Hashable, Sendable {
  package var alive = false
  package var columns: Set<Int> = []

  package init() {}

  package init<Value>(_ arbiter: Arbiter, _ rows: RowState<Value>...) {
    for row in rows {
      alive = alive || arbiter.disbelieves(row.alive.stamp)
      columns.formUnion(row.registers.filter { arbiter.disbelieves($0.value.stamp) }.keys)
    }
  }

  package var isEmpty: Bool { !alive && columns.isEmpty }
}
