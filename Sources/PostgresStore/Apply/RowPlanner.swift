import SyncCore

/// Decides, for every row of a block, what is written: the fast cases by vectors alone, concurrent copies by
/// `merge`.
struct RowPlanner {
  let applier: TableApplier
  /// Head arbitrates; a branch holds.
  let isHead: Bool
  let now: Stamp

  func plan() throws -> BlockPlan {
    let exists = try applier.lockRows()
    let versions = try applier.lockVersions()
    let block = applier.block
    var plan = BlockPlan()
    var concurrent: [Int] = []
    for row in 0..<block.count {
      let dot = block.dot(row)
      let stamp = Stamp(rawValue: block.stamps[row])
      if isHead && stamp.isAhead(of: now, byMoreThan: Limits.clockSkewMax) {
        concurrent.append(row)
        continue
      }
      guard let local = versions[row] else {
        plan.writes.append(write(row, exists[row], dot, block.vectors[row], hasVersion: false))
        continue
      }
      if block.vectors[row] == nil ? local.vector.contains(dot) : local.vector.dominates(block.vector(row)) {
        continue
      }
      if block.vector(row).dominates(local.vector) {
        plan.writes.append(write(row, exists[row], dot, block.vectors[row], hasVersion: true))
      } else {
        concurrent.append(row)
      }
    }
    if !concurrent.isEmpty { try settle(concurrent, exists, versions, into: &plan) }
    return plan
  }

  private func write(
    _ row: Int, _ exists: Bool, _ dot: Dot, _ vector: VersionVector?, hasVersion: Bool
  ) -> PlannedWrite {
    let alive = applier.block.alive[row]
    let content: PlannedWrite.Content = alive ? (exists ? .update : .insert) : (exists ? .delete : .none)
    return PlannedWrite(
      row: row, content: content, values: nil, isAlive: alive, dot: dot, stamp: applier.block.stamps[row],
      vector: vector, hasVersion: hasVersion, echo: !isHead)
  }

  private func settle(
    _ rows: [Int], _ exists: [Bool], _ versions: [TableApplier.LocalVersion?], into plan: inout BlockPlan
  ) throws {
    let local = try applier.localValues(of: rows)
    let fresh = isHead ? try freshDots(rows.count) : []
    let function = ConflictFunction(applier: applier)
    for (number, row) in rows.enumerated() {
      let block = applier.block
      let incoming = RowState(
        vector: block.vector(row), dot: block.dot(row), stamp: Stamp(rawValue: block.stamps[row]),
        value: block.alive[row] ? applier.values(of: row) : nil)
      let mine = versions[row].map {
        RowState(vector: $0.vector, dot: $0.dot, stamp: Stamp(rawValue: $0.stamp), value: local[row])
      }
      var failure: (any Error)?
      let outcome = merge(
        local: mine, incoming: incoming, policy: policy,
        arbiter: isHead ? Arbiter(dot: fresh[number], now: now) : nil,
        function: { _ in
          do {
            return try function.answer(local: local[row] ?? [], incoming: applier.values(of: row))
          } catch {
            failure = error
            return .local
          }
        })
      if let refused = failure as? ConflictFunction.Refused {
        plan.refused.append((row, refused.refusal))
        continue
      }
      if let failure { throw failure }
      let mark = FeedMark.of(outcome, local: mine, incoming: incoming, atHead: isHead)
      switch outcome {
      case .keepLocal: break
      case .takeIncoming:
        plan.writes.append(
          write(row, exists[row], block.dot(row), block.vectors[row], hasVersion: versions[row] != nil))
      case .held: plan.held.append(row)
      case .merged(let merged):
        if merged.isRestamped { plan.restamped += 1 }
        let values = merged.row.registers[0]?.value
        plan.decided += merged.decided.map { (row, $0, $0.winner == nil ? values : nil) }
        let dot = merged.row.latest.dot
        let alive = merged.row.isAlive
        let unchanged = alive == (local[row] != nil) && (!alive || values == local[row])
        let content: PlannedWrite.Content =
          unchanged ? .none : alive ? (exists[row] ? .update : .insert) : (exists[row] ? .delete : .none)
        plan.writes.append(
          PlannedWrite(
            row: row, content: content, values: values, isAlive: alive, dot: dot,
            stamp: merged.row.latest.stamp.rawValue,
            vector: merged.row.vector.dots.count > 1 ? merged.row.vector : nil,
            hasVersion: versions[row] != nil, echo: mark == .echo))
      }
    }
  }

  private var policy: Policy {
    let options = applier.table.options
    let conflict = options.conflictFunction != nil ? .function : ConflictPolicy(rawValue: options.onConflict) ?? .latest
    return Policy(
      conflict: conflict, granularity: .row, onDelete: DeletePolicy(rawValue: options.onDelete) ?? .update)
  }

  /// One fresh dot of head's own a row.
  private func freshDots(_ count: Int) throws -> [Dot] {
    let rows = try applier.session.query(
      "SELECT hub.current_actor(), nextval('hub.dot') FROM generate_series(1, \(count)::int)")
    return (0..<rows.count).map { Dot(actor: ActorID(rawValue: rows.int64($0, 0)), n: rows.int64($0, 1)) }
  }
}
