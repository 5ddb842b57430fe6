import SyncCore

/// One transaction that applies rows, as `BatchApplier` of the product does it: merge, write what the database lets
/// through, then look whether foreign keys hold; head repairs them.
final class ApplyAttempt {
  private let office: Office
  private let world: World
  private let peer: String
  private let constraints: Constraints?
  private let transaction: Int
  /// Rows that an earlier attempt found to break a foreign key.
  private let excluded: Set<Int>

  private var refused: [TravellingRow] = []
  /// Rows whose unique values others still held; a later row may let go of them.
  private var waiting: [TravellingRow] = []
  private var written: Set<Int> = []
  private var deleted: Set<Int> = []
  private var entries: [LogEntry] = []

  init(_ office: Office, _ world: World, peer: String, excluded: Set<Int>) {
    self.office = office
    self.world = world
    self.peer = peer
    self.excluded = excluded
    constraints = world.scenario.constraints
    transaction = office.database.beginHubTransaction()
  }

  /// Rows by which foreign keys would not hold.
  private(set) var orphans: Set<Int> = []

  func run(_ rows: [TravellingRow], retrying: Bool) {
    refused = rows.filter { excluded.contains($0.key) }
    let rest = rows.filter { !excluded.contains($0.key) }
    for block in retrying ? rest.map({ [$0] }) : blocks(rest) { write(block) }
    writeWaiting()
    refused += waiting
    orphans = findOrphans()
    if office.isHead, !orphans.isEmpty, repair() { orphans = findOrphans() }
  }

  /// A row of a batch that was cut may come again, as it is by now: the later one meets what the earlier one wrote.
  private func blocks(_ rows: [TravellingRow]) -> [[TravellingRow]] {
    var blocks: [[TravellingRow]] = [[]]
    for row in rows {
      if blocks[blocks.count - 1].contains(where: { $0.key == row.key }) { blocks.append([]) }
      blocks[blocks.count - 1].append(row)
    }
    return blocks
  }

  // MARK: writing

  private func write(_ rows: [TravellingRow]) {
    let planned = rows.map { office.plan($0, world) }
    refused += planned.filter(\.isRefused).map(\.row)
    for one in planned where one.result == nil { office.store(one, transaction, world) }
    write(planned.filter { $0.result != nil && !$0.isRefused }[...])
  }

  /// All at once, so that unique values may be swapped; refused, by halves.
  private func write(_ planned: ArraySlice<PlannedRow>) {
    guard !planned.isEmpty else { return }
    if fits(planned) {
      for one in planned { store(one) }
      return
    }
    guard planned.count > 1 else {
      waiting += planned.map(\.row)
      return
    }
    let middle = planned.startIndex + planned.count / 2
    write(planned[..<middle])
    write(planned[middle...])
  }

  private func store(_ planned: PlannedRow) {
    let key = planned.row.key
    office.store(planned, transaction, world)
    if let row = planned.result { touched(key, row) }
    if case .merged(let merged) = planned.outcome { log(merged, planned.arbiter, key) }
  }

  private func touched(_ key: Int, _ row: RowState<Int>) {
    if row.isAlive { written.insert(key) } else { deleted.insert(key) }
  }

  private func log(_ merged: MergedRow<Int>, _ arbiter: Arbiter?, _ key: Int) {
    for decided in merged.decided {
      guard let dot = arbiter?.dot else { continue }
      let offices = [Side.local, .incoming].map { side in
        decided.office(of: side, head: world.head.name, peer: peer, writer: world.writer)
      }
      entries.append(
        LogEntry(
          key: key, conflict: decided, decided: dot,
          notices: Dictionary(offices.filter { $0 != world.head.name }.map { ($0, nil) }) { first, _ in first }))
    }
  }

  private func fits(_ planned: ArraySlice<PlannedRow>) -> Bool {
    guard let constraints, constraints.hasUnique else { return true }
    var rows = office.database.rows.map { $0?.state }
    for one in planned { rows[one.row.key] = one.result }
    return planned.allSatisfy { one in
      guard let value = constraints.unique(rows[one.row.key]) else { return true }
      return !rows.indices.contains { $0 != one.row.key && constraints.unique(rows[$0]) == value }
    }
  }

  private func writeWaiting() {
    var before = Int.max
    while !waiting.isEmpty, waiting.count < before {
      before = waiting.count
      let rows = waiting
      waiting = []
      for block in blocks(rows) { write(block) }
    }
  }

  // MARK: foreign keys

  private func findOrphans() -> Set<Int> {
    guard let constraints, constraints.hasReferences else { return [] }
    let rows = office.database.rows
    func isThere(_ key: Int) -> Bool { rows[key]?.state.isAlive ?? false }
    var found = written.filter { key in constraints.parent(rows[key]?.state).map { !isThere($0) } ?? false }
    found.formUnion(
      deleted.filter { key in
        !isThere(key) && rows.contains { constraints.parent($0?.state) == key }
      })
    return found
  }

  /// Level by level: a row that came back may miss its own parent. Says whether any did.
  private func repair() -> Bool {
    guard let constraints else { return false }
    let deletedNow = deleted
    var lost = excluded.union(refused.map(\.key))
    var isAnyBack = false
    var (children, parents) = (written, deleted)
    while true {
      let rows = office.database.rows
      var wanted = parents.filter { key in rows.contains { constraints.parent($0?.state) == key } }
      wanted.formUnion(children.compactMap { constraints.parent(rows[$0]?.state) })
      var revived: Set<Int> = []
      for key in wanted.sorted() {
        guard !lost.contains(key), let dead = rows[key], !dead.state.isAlive, !office.database.inbox.isQuarantined(key),
          let image = office.database.inbox.images[key]
        else { continue }
        if revive(key, image, dead, deletedNow: deletedNow.contains(key)) {
          revived.insert(key)
        } else {
          lost.insert(key)
        }
      }
      guard !revived.isEmpty else { return isAnyBack }
      isAnyBack = true
      (children, parents) = (revived, [])
    }
  }

  private func revive(_ key: Int, _ image: Copy, _ dead: Copy, deletedNow: Bool) -> Bool {
    let arbiter = Arbiter(dot: office.database.nextDot(server: office.server), now: office.clock(world))
    let merged = arbiter.revived(image.state, over: dead.state, deletedNow: deletedNow)
    let planned = PlannedRow(
      row: TravellingRow(key: key, state: image.state, truth: image.truth), outcome: .merged(merged), arbiter: arbiter,
      answer: .local)
    guard fits([planned]) else { return false }
    var truth = dead.truth
    truth.formUnion(image.truth)
    world.note("\(office.name) key \(key) comes back: \(merged.row.text)")
    world.ledger.merged(
      merged, local: dead, incoming: planned.row, key: key, arbiter: arbiter, truth: &truth)
    office.replace(key, Copy(state: merged.row, truth: truth, transaction: transaction, isEcho: false))
    touched(key, merged.row)
    log(merged, arbiter, key)
    world.ledger.revived += 1
    return true
  }

  // MARK: the end

  /// An application is about to write what a constraint would see: hub waits for it, and gives way.
  var isBlocked: Bool {
    guard let constraints else { return false }
    let rows = office.database.rows
    return office.database.open.contains { open in
      open.rows.contains { key, pending in
        if written.contains(key) || deleted.contains(key) { return true }
        let values = [constraints.unique(pending.state), constraints.unique(rows[key]?.state)]
        return written.contains { mine in
          constraints.parent(rows[mine]?.state) == key && !pending.state.isAlive
            || constraints.unique(rows[mine]?.state).map { values.contains($0) } ?? false
        } || deleted.contains { constraints.parent(pending.state) == $0 }
      }
    }
  }

  func finish() {
    office.database.inbox.log += entries
    for row in last(of: refused) {
      world.note("\(office.name) key \(row.key): refused, goes to quarantine")
      world.ledger.refused(row, local: office.database.rows[row.key])
      office.database.inbox.quarantine[peer, default: [:]][row.key] = Quarantined(row: row)
    }
    refusedKeys = Set(refused.map(\.key))
    if !written.isEmpty || !deleted.isEmpty || !refused.isEmpty { office.process?.quarantine.rowsApplied() }
    world.checkConstraints(office)
  }

  /// Of a row that came twice the copy that has seen the other, else the first one.
  private func last(of rows: [TravellingRow]) -> [TravellingRow] {
    var kept: [Int: Int] = [:]
    for (index, row) in rows.enumerated() {
      if let other = kept[row.key], !row.state.vector.dominates(rows[other].state.vector) { continue }
      kept[row.key] = index
    }
    return kept.values.sorted().map { rows[$0] }
  }

  private(set) var refusedKeys: Set<Int> = []
}
