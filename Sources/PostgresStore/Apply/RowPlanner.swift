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
      let columnStamp = block.columnVersions.isEmpty ? nil : block.columnVersions[row]?.map(\.stamp).max()
      let stamp = Stamp(rawValue: max(block.stamps[row], columnStamp ?? 0))
      if isHead && stamp.isAhead(of: now, byMoreThan: Limits.clockSkewMax) {
        concurrent.append(row)
        continue
      }
      guard let local = versions[row] else {
        plan.writes.append(write(row, exists[row], dot, block.vectors[row], hasVersion: false))
        continue
      }
      if block.vectors[row] == nil ? local.vector.contains(dot) : local.vector.dominates(block.vector(row)) {
        if !isHead, !block.alive[row], local.vector == block.vector(row) { plan.confirmed.append(row) }
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
      vector: vector, contributions: applier.block.contributions[row] ?? [],
      columnVersions: applier.block.columnVersions[row] ?? [], hasVersion: hasVersion, echo: !isHead)
  }

  private func settle(
    _ rows: [Int], _ exists: [Bool], _ versions: [TableApplier.LocalVersion?], into plan: inout BlockPlan
  ) throws {
    let block = applier.block
    let values = try applier.localValues(of: rows)
    let fresh = isHead ? try freshDots(rows.count) : []
    let shape = RowShape(applier)
    let arriving = rows.map { row in
      RowShape.Image(
        vector: block.vector(row), dot: block.dot(row), stamp: block.stamps[row],
        values: block.alive[row] ? applier.values(of: row) : nil, contributions: block.contributions[row] ?? [],
        columnVersions: block.columnVersions[row] ?? [])
    }
    let stored = rows.map { row in
      versions[row].map {
        RowShape.Image(
          vector: $0.vector, dot: $0.dot, stamp: $0.stamp, values: values[row],
          contributions: $0.details.contributions, columnVersions: $0.details.columnVersions)
      }
    }
    let incoming = try applier.states(arriving, shape)
    let local = try applier.states(stored, shape)
    var merged: [Merged] = []
    for (number, row) in rows.enumerated() {
      guard let theirs = incoming[number] else { continue }
      let mine = local[number]
      let asked = Asked(ConflictFunction(applier: applier), values[row], arriving[number].values)
      let outcome = merge(
        local: mine, incoming: theirs, policy: policy, arbiter: isHead ? Arbiter(dot: fresh[number], now: now) : nil,
        function: { shape.decision(asked.answer(), on: $0) })
      if let refusal = try asked.refusal() {
        plan.refused.append((row, refusal))
        continue
      }
      let mark = FeedMark.of(outcome, local: mine, incoming: theirs, atHead: isHead)
      switch outcome {
      case .keepLocal: break
      case .takeIncoming:
        plan.writes.append(
          write(row, exists[row], block.dot(row), block.vectors[row], hasVersion: versions[row] != nil))
      case .held: plan.held.append(row)
      case .merged(let outcome):
        if outcome.isRestamped { plan.restamped += 1 }
        let out = outcome.row
        let shown = shape.values(of: out, like: values[row] ?? applier.values(of: row))
        plan.decided += outcome.decided.map {
          DecidedRow(
            row: row, conflict: $0, dot: isHead ? fresh[number] : out.alive.dot, local: values[row],
            incoming: arriving[number].values,
            answer: $0.winner == nil ? shown : nil)
        }
        merged.append(
          Merged(
            write: PlannedWrite(
              row: row, content: .none, values: shown, isAlive: out.isAlive, dot: out.alive.dot,
              stamp: out.alive.stamp.rawValue, vector: out.vector == VersionVector(out.alive.dot) ? nil : out.vector,
              contributions: shape.contributions(of: out), columnVersions: shape.columnVersions(of: out),
              hasVersion: versions[row] != nil, echo: mark == .echo),
            row: out, shown: [values[row], arriving[number].values]))
      }
    }
    let amounts = try applier.shown(
      merged.map { ($0.row, copies: $0.shown) }, shape)
    for (number, shown) in amounts {
      for (at, amount) in shown { merged[number].write.values?[at] = amount }
    }
    plan.writes += merged.map { merged in
      var write = merged.write
      let here = values[write.row]
      let unchanged = write.isAlive == (here != nil) && (!write.isAlive || write.values == here)
      if !unchanged {
        write.content = write.isAlive ? (exists[write.row] ? .update : .insert) : (exists[write.row] ? .delete : .none)
      }
      return write
    }
  }

  private struct Merged {
    var write: PlannedWrite
    var row: RowState<RowValues>
    /// The two copies as they were.
    var shown: [RowValues?]
  }

  private var policy: Policy {
    let options = applier.table.options
    let conflict = options.conflictFunction != nil ? .function : ConflictPolicy(rawValue: options.onConflict) ?? .latest
    return Policy(
      conflict: conflict, granularity: Granularity(rawValue: options.merge) ?? .row,
      onDelete: DeletePolicy(rawValue: options.onDelete) ?? .update)
  }

  /// One fresh dot of head's own a row.
  private func freshDots(_ count: Int) throws -> [Dot] {
    let rows = try applier.session.query(
      "SELECT hub.current_actor(), nextval('hub.dot') FROM generate_series(1, \(count)::int)")
    return (0..<rows.count).map { Dot(actor: ActorID(rawValue: rows.int64($0, 0)), n: rows.int64($0, 1)) }
  }
}

/// The table's function, asked at most once a row; what it threw is kept, because merging does not throw.
private final class Asked {
  private let function: ConflictFunction
  private let local: RowValues
  private let incoming: RowValues
  private var outcome: Result<RowValues, any Error>?

  init(_ function: ConflictFunction, _ local: RowValues?, _ incoming: RowValues?) {
    self.function = function
    self.local = local ?? []
    self.incoming = incoming ?? []
  }

  func answer() -> RowValues {
    if outcome == nil { outcome = Result { try function.answer(local: local, incoming: incoming) } }
    guard case .success(let row) = outcome else { return local }
    return row
  }

  /// Why the row cannot be settled; throws what concerns more than this row.
  func refusal() throws -> Refusal? {
    guard case .failure(let error) = outcome else { return nil }
    guard let refused = error as? ConflictFunction.Refused else { throw error }
    return refused.refusal
  }
}
