import SyncCore

/// The oracle: every write by its true name, with what it had seen; hub knows none of it.
struct Ledger {
  /// The register of being there, and the column that is a counter.
  static let alive = -1
  static let counter = 9

  struct Write {
    var key: Int
    var columns: [Int]
    /// The writes that the writer's copy had seen.
    var context: WriteSet
    var increment = 0
    /// An insert or a delete: it writes every register.
    var isWhole = false
    /// Head's own decision: it excuses nothing that it overwrites.
    var isArbitration = false
    var isCommitted = false
    /// A database that went back was the only one that had it.
    var isLost = false
  }

  struct RegisterName: Hashable {
    var dot: Dot
    var column: Int
  }

  struct ColumnWrite: Hashable {
    var write: Int
    var column: Int
  }

  var writes: [Write] = []
  private(set) var owner: [RegisterName: Int] = [:]
  /// What a row was inserted with, by the dot of its `alive`.
  var inserted: [Dot: Int] = [:]
  var logged: Set<ColumnWrite> = []
  /// What people let go of.
  var discarded: Set<ColumnWrite> = []
  /// Writes that a database refused, once at least: they go in later than others of their transaction.
  var refusedOnce = WriteSet()
  /// What was exercised.
  var refusals = 0
  var revived = 0
  var verdicts = 0
  /// The same value written twice: one write stands for the other.
  private(set) var aliases: [ColumnWrite: [Int]] = [:]
  /// By transaction, the last write of each key.
  var transactions: [[(key: Int, write: Int)]] = []
  private(set) var violation: Violation?
  private(set) var conflicts = 0

  mutating func fail(_ promise: Violation.Promise, _ detail: String) {
    if violation == nil { violation = Violation(promise: promise, detail: detail) }
  }

  /// An application wrote; it counts once its transaction has committed.
  mutating func wrote(_ edit: Edit, key: Int, context: WriteSet) -> Int {
    let write = writes.count
    if edit.looksOlder { fail(.stamps, "write \(write) of key \(key) looks older than what it replaces") }
    writes.append(
      Write(
        key: key, columns: edit.columns, context: context, increment: edit.increment,
        isWhole: edit.isInsert || edit.isDelete))
    for column in edit.columns { owner[RegisterName(dot: edit.dot, column: column)] = write }
    if edit.row.alive.dot == edit.dot {
      inserted[edit.dot] = edit.inserted ?? edit.row.counters[Self.counter]?.inserted
    }
    return write
  }

  /// - Parameter together: rows with the same answer arrive together.
  mutating func committed(_ ended: [Int], together: (Int) -> [Int]) {
    var last: [Int: Int] = [:]
    for write in ended {
      writes[write].isCommitted = true
      last[writes[write].key] = write
    }
    var rest = last.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    while let first = rest.first {
      let group = rest.filter { together($0.0) == together(first.0) }
      rest.removeAll { together($0.0) == together(first.0) }
      if group.count > 1 { transactions.append(group) }
    }
  }

  func owner(_ row: RowState<Int>, _ column: Int) -> Int? {
    let dot = column == Self.alive ? row.alive.dot : row.registers[column]?.dot
    return dot.flatMap { owner[RegisterName(dot: $0, column: column)] }
  }

  /// A vector that dominates must belong to a copy that has really seen all of it.
  mutating func checkDots(
    _ outcome: MergeOutcome<Int>, local: Copy?, incoming: TravellingRow, at office: String
  ) {
    let mine = local?.truth ?? WriteSet()
    if case .keepLocal = outcome, !incoming.truth.isSubset(of: mine) {
      fail(.dots, "\(office) key \(incoming.key): an arriving row holds unseen writes under seen dots")
    }
    if case .takeIncoming = outcome, !mine.isSubset(of: incoming.truth) {
      fail(.dots, "\(office) key \(incoming.key): a stored row holds unseen writes under seen dots")
    }
  }

  /// The winner is whom the table's rules name, worked out again from what each side wrote.
  mutating func checkPolicy(_ decided: DecidedConflict<Int>, _ policy: Policy, answer: Side?) {
    let conflict = decided.conflict
    let expected: Side?
    if conflict.local.isAlive != conflict.incoming.isAlive {
      expected = conflict.local.isAlive == (policy.onDelete == .update) ? .local : .incoming
    } else {
      switch policy.conflict {
      case .latest:
        expected = isLater(conflict.local, conflict.incoming, conflict.column) ? .local : .incoming
      case .head: expected = .local
      case .branch: expected = .incoming
      case .function: expected = answer
      }
    }
    if decided.winner != expected { fail(.policy, "\(policy) gave the row to \(decided.reason)") }
  }

  private func isLater(_ mine: RowState<Int>, _ theirs: RowState<Int>, _ column: Int?) -> Bool {
    func latest(_ row: RowState<Int>) -> Version {
      if let register = column.flatMap({ row.registers[$0] }) { return register.version }
      return row.registers.values.map(\.version).max().map { max($0, row.alive.version) } ?? row.alive.version
    }
    return latest(mine) > latest(theirs)
  }

  /// A row was made of two copies: head's decisions are new writes, what is equal stands for each other.
  mutating func merged(
    _ merged: MergedRow<Int>, local: Copy?, incoming: TravellingRow, key: Int, arbiter: Arbiter?,
    truth: inout WriteSet
  ) {
    let result = merged.row
    let sides = [local?.state, incoming.state].compactMap { $0 }
    let columns = [Self.alive] + result.registers.keys.sorted()
    if let dot = arbiter?.dot, result.vector.contains(dot) {
      let made = columns.filter {
        $0 == Self.alive ? result.alive.dot == dot : result.registers[$0]?.dot == dot
      }
      let write = writes.count
      writes.append(
        Write(key: key, columns: made, context: truth, isArbitration: true, isCommitted: true))
      truth.insert(write)
      for column in made { owner[RegisterName(dot: dot, column: column)] = write }
      if result.alive.dot == dot { inserted[dot] = insertedAmount(merged, sides) }
    }
    for decided in merged.decided {
      log(decided)
      if !merged.isRestamped { checkStamp(decided, result) }
    }
    for column in columns { noteAliases(result, column, sides) }
  }

  /// Whoever wins, wins as of when it was written: else the order of arrival would choose among three.
  private mutating func checkStamp(_ decided: DecidedConflict<Int>, _ result: RowState<Int>) {
    let written = max(decided.conflict.version(of: .local).stamp, decided.conflict.version(of: .incoming).stamp)
    let stamp = decided.conflict.column.map { result.registers[$0]?.stamp } ?? result.alive.stamp
    if stamp != Stamp(rawValue: written.rawValue + 1) { fail(.policy, "a decision is stamped \(stamp as Any)") }
  }

  private func insertedAmount(_ merged: MergedRow<Int>, _ sides: [RowState<Int>]) -> Int? {
    if let whole = merged.decided.first(where: { $0.conflict.column == nil }) {
      return inserted[whole.conflict.row(of: whole.winner ?? .local).alive.dot]
    }
    let amount = merged.row.counters[Self.counter]?.inserted
    return sides.map { inserted[$0.alive.dot] }.first { $0 == amount } ?? nil
  }

  private mutating func log(_ decided: DecidedConflict<Int>) {
    conflicts += 1
    let conflict = decided.conflict
    for side in [conflict.local, conflict.incoming] {
      let columns = conflict.column.map { [$0] } ?? [Self.alive] + side.registers.keys.sorted()
      for column in columns {
        if let write = owner(side, column) { logged.insert(ColumnWrite(write: write, column: column)) }
      }
    }
  }

  private mutating func noteAliases(_ result: RowState<Int>, _ column: Int, _ sides: [RowState<Int>]) {
    guard let winner = owner(result, column) else { return }
    let isAlive = column == Self.alive
    for side in sides where isAlive ? side.isAlive == result.isAlive : true {
      guard isAlive || side.registers[column]?.value == result.registers[column]?.value,
        let write = owner(side, column), write != winner
      else { continue }
      aliases[ColumnWrite(write: write, column: column), default: []].append(winner)
    }
  }
}
