import SyncCore

/// Applying rows: the merge of SyncCore, watched by the ledger.
extension Office {
  /// One transaction, or nothing (false): hub gives way to an application that has a row locked.
  func apply(_ rows: [TravellingRow], _ world: World) -> Bool {
    guard !rows.contains(where: { database.isLocked($0.key) }) else {
      world.note("\(name) gives way")
      return false
    }
    let transaction = database.beginHubTransaction()
    for row in rows { apply(row, transaction, world) }
    return true
  }

  private func apply(_ row: TravellingRow, _ transaction: Int, _ world: World) {
    let local = database.rows[row.key]
    let arbiter = isHead ? Arbiter(dot: database.nextDot(), now: clock(world)) : nil
    let coin: Decision<Int> = world.random.chance(50) ? .local : .incoming
    let outcome = merge(
      local: local?.state, incoming: row.state, policy: world.scenario.policy, arbiter: arbiter,
      function: { _ in coin })
    world.note(
      "\(name) key \(row.key): \(local?.state.text ?? "-") meets \(row.state.text): \(outcome.text)")
    if case .merged(let merged) = outcome {
      for decided in merged.decided {
        world.ledger.checkPolicy(decided, world.scenario.policy, answer: coin.side)
      }
    }
    world.ledger.checkDots(outcome, local: local, incoming: row, at: name)
    var truth = local?.truth ?? WriteSet()
    truth.formUnion(row.truth)
    var stored: RowState<Int>?
    switch outcome {
    case .keepLocal: break
    case .takeIncoming: stored = row.state
    case .held: database.held[row.key, default: WriteSet()].formUnion(truth)
    case .merged(let merged):
      stored = merged.row
      world.ledger.merged(
        merged, local: local, incoming: row, key: row.key, arbiter: arbiter, truth: &truth)
    }
    if let stored {
      if database.held[row.key]?.isSubset(of: truth) ?? false { database.held[row.key] = nil }
      database.rows[row.key] = Copy(state: stored, truth: truth, transaction: transaction, isEcho: false)
    }
    switch FeedMark.of(outcome, local: local?.state, incoming: row.state, atHead: isHead) {
    case .leave: break
    case .echo: database.rows[row.key]?.isEcho = true
    case .publish:
      database.rows[row.key]?.isEcho = false
      database.rows[row.key]?.transaction = transaction
    }
  }
}
