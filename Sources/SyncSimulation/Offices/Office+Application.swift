import SyncCore

/// The applications of an office: transactions that write rows, as the capture triggers record them.
extension Office {
  func begin() {
    database.open.append(Transaction(id: database.nextTransaction))
    database.nextTransaction += 1
  }

  /// Ends the transaction at `index` of the open ones.
  func end(_ index: Int, commits: Bool, _ world: World) {
    let transaction = database.open.remove(at: index)
    guard commits else { return }
    for (key, row) in transaction.rows {
      database.rows[key] = Copy(
        state: row.state, truth: row.truth, transaction: transaction.id, isEcho: false)
    }
    world.ledger.committed(transaction.writes)
    world.note("\(name) commits \(transaction.id): writes \(transaction.writes)")
  }

  /// One statement in the open transaction at `index`; waits for nobody: a locked row is left alone.
  func write(_ key: Int, in index: Int, _ world: World) {
    let isOwn = database.open[index].rows[key] != nil
    guard isOwn || !database.isLocked(key) else { return }
    let known = database.open[index].rows[key] ?? database.rows[key].map { ($0.state, $0.truth) }
    var truth = known?.1 ?? WriteSet()
    let dot = database.nextDot()
    var edit = Edit(
      state: known?.0, dot: dot, stamp: Stamp.next(now: clock(world), after: known?.0.latest.stamp),
      rules: world.scenario)
    edit.run(&world.random)
    let write = world.ledger.wrote(edit, key: key, context: truth)
    truth.insert(write)
    database.open[index].rows[key] = (edit.row, truth)
    database.open[index].writes.append(write)
    world.note("\(name) write \(write) key \(key) \(edit.summary) \(dot.text)")
  }
}

/// One statement's effect on one row.
struct Edit {
  let before: RowState<Int>?
  let dot: Dot
  let stamp: Stamp
  let rules: Scenario
  private(set) var row: RowState<Int>
  /// Registers written; `Ledger.alive` for insert and delete.
  private(set) var columns: [Int] = []
  private(set) var increment = 0
  private(set) var isInsert = false
  private(set) var isDelete = false

  init(state: RowState<Int>?, dot: Dot, stamp: Stamp, rules: Scenario) {
    before = state
    self.dot = dot
    self.stamp = stamp
    self.rules = rules
    row =
      state
      ?? RowState(
        vector: VersionVector(), alive: Register(value: false, dot: dot, stamp: stamp),
        counters: [Ledger.counter: Counter(inserted: 0)])
  }

  var summary: String {
    isInsert ? "insert" : isDelete ? "delete" : "update \(columns) +\(increment)"
  }

  mutating func run(_ random: inout SplitMix64) {
    let dice = random.int(0...99)
    if !row.isAlive {
      insert(&random)
    } else if dice < 20 {
      isDelete = true
      setAlive(false)
      row.registers = [:]
    } else {
      if dice < 50 { add(random.int(-5...5)) }
      if dice >= 42 { update(&random) }
    }
    row.vector.insert(dot)
  }

  private mutating func insert(_ random: inout SplitMix64) {
    isInsert = true
    setAlive(true)
    for column in 0..<rules.registers { set(column, &random) }
    let contributions = row.counters[Ledger.counter]?.contributions ?? [:]
    let amount = random.int(0...9)
    row.counters[Ledger.counter] = Counter(
      inserted: amount - contributions.values.reduce(0) { $0 + $1.sum }, contributions: contributions)
  }

  private mutating func update(_ random: inout SplitMix64) {
    let first = random.int(0...rules.registers - 1)
    for column in 0..<rules.registers where column == first || random.chance(30) { set(column, &random) }
    if rules.policy.granularity == .row { setAlive(true) }
  }

  private mutating func add(_ delta: Int) {
    increment = delta
    let sum = row.counters[Ledger.counter]?.contributions[dot.actor]?.sum ?? 0
    row.counters[Ledger.counter]?.contributions[dot.actor] = .init(sum: sum + delta, n: dot.n)
  }

  private mutating func set(_ column: Int, _ random: inout SplitMix64) {
    let value = rules.valuesAreFew ? random.int(0...2) : random.int(0...1_000_000)
    row.registers[column] = Register(value: value, dot: dot, stamp: stamp)
    columns.append(column)
  }

  private mutating func setAlive(_ value: Bool) {
    row.alive = Register(value: value, dot: dot, stamp: stamp)
    columns.append(Ledger.alive)
  }
}
