import SyncCore

/// Applying rows: the merge of SyncCore, watched by the ledger.
extension Office {
  /// One transaction, or nothing (false): hub gives way to an application that has a row locked. What the database
  /// refuses goes to quarantine; `retrying`: it was there, each row for itself.
  func apply(_ rows: [TravellingRow], from peer: String, retrying: Bool = false, _ world: World) -> Bool {
    guard !rows.contains(where: { database.isLocked($0.key) }) else {
      world.note("\(name) gives way")
      return false
    }
    let before = world.scenario.constraints.map { _ in (database, world.ledger) }
    var excluded: Set<Int> = []
    while true {
      let attempt = ApplyAttempt(self, world, peer: peer, excluded: excluded)
      attempt.run(rows, retrying: retrying)
      let orphans = attempt.orphans
      let isBlocked = attempt.isBlocked
      guard let before, isBlocked || !orphans.isEmpty else {
        attempt.finish()
        return true
      }
      // What a sequence gave is not taken back.
      let n = database.n
      (database, world.ledger) = before
      database.n = n
      if isBlocked {
        world.note("\(name) gives way to what an application is about to write")
        return false
      }
      excluded.formUnion(orphans)
    }
  }
}

/// A row that arrived, and what merging it came to.
struct PlannedRow {
  var row: TravellingRow
  var outcome: MergeOutcome<Int>
  var arbiter: Arbiter?
  var answer: Decision<Int>
  /// The table's function failed.
  var isRefused = false

  /// The state to be stored.
  var result: RowState<Int>? {
    switch outcome {
    case .keepLocal, .held: nil
    case .takeIncoming: row.state
    case .merged(let merged): merged.row
    }
  }
}

extension Office {
  func plan(_ row: TravellingRow, _ world: World) -> PlannedRow {
    let local = database.rows[row.key]
    let arbiter = isHead ? Arbiter(dot: database.nextDot(server: server), now: clock(world)) : nil
    let answer = world.functionAnswer()
    let outcome = merge(
      local: local?.state, incoming: row.state, policy: world.scenario.policy, arbiter: arbiter,
      function: { conflict in
        guard case .values(let values) = answer else { return answer }
        return .values(conflict.column.map { [$0: values[$0] ?? 0] } ?? values)
      })
    world.note(
      "\(name) key \(row.key): \(local?.state.text ?? "-") meets \(row.state.text): \(outcome.text)")
    var planned = PlannedRow(row: row, outcome: outcome, arbiter: arbiter, answer: answer)
    if case .merged(let merged) = outcome, merged.decided.contains(where: { $0.reason == .function }) {
      planned.isRefused = world.scenario.functionFails && !world.isHealed && world.random.chance(35)
    }
    return planned
  }

  /// Writes what was planned, and tells the ledger.
  func store(_ planned: PlannedRow, _ transaction: Int, _ world: World) {
    let (row, outcome) = (planned.row, planned.outcome)
    let local = database.rows[row.key]
    if case .merged(let merged) = outcome {
      for decided in merged.decided {
        world.ledger.checkPolicy(decided, world.scenario.policy, answer: planned.answer.side)
      }
    }
    world.ledger.checkDots(outcome, local: local, incoming: row, at: name)
    var truth = local?.truth ?? WriteSet()
    truth.formUnion(row.truth)
    if case .held = outcome { database.held[row.key, default: WriteSet()].formUnion(truth) }
    if case .merged(let merged) = outcome {
      world.ledger.merged(
        merged, local: local, incoming: row, key: row.key, arbiter: planned.arbiter, truth: &truth)
    }
    if let held = database.held[row.key], outcome.isSettled, world.ledger.covers(held, truth) {
      database.held[row.key] = nil
    }
    if let stored = planned.result {
      replace(row.key, Copy(state: stored, truth: truth, transaction: transaction, isEcho: false))
    }
    switch FeedMark.of(outcome, local: local?.state, incoming: row.state, atHead: isHead) {
    case .leave: break
    case .echo:
      database.rows[row.key]?.isEcho = true
      database.rows[row.key]?.transaction = transaction
    case .publish:
      database.rows[row.key]?.isEcho = false
      database.rows[row.key]?.transaction = transaction
    }
  }

  /// Head keeps what a row looked like when it last lived.
  func replace(_ key: Int, _ copy: Copy) {
    if isHead, let old = database.rows[key], old.state.isAlive, !copy.state.isAlive { database.inbox.images[key] = old }
    database.rows[key] = copy
  }
}

extension World {
  /// What the table's own function says: a coin, or a row of its own.
  func functionAnswer() -> Decision<Int> {
    let coin: Decision<Int> = random.chance(50) ? .local : .incoming
    guard scenario.functionInvents, random.chance(30) else { return coin }
    guard let constraints = scenario.constraints else {
      return .values(Dictionary(uniqueKeysWithValues: (0..<scenario.registers).map { ($0, random.int(0...9)) }))
    }
    return .values(constraints.values(scenario, parents: Array(0..<scenario.keys), &random))
  }
}

extension MergeOutcome {
  /// The row is in conflict no more.
  fileprivate var isSettled: Bool {
    if case .held = self { false } else { true }
  }
}
