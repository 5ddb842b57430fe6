import SyncCore

/// The applications of an office: transactions that write rows, recorded by the rules of capture.
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
      if isHead, let image = transaction.images[key] { database.inbox.images[key] = image }
      database.rows[key] = Copy(
        state: row.state, truth: row.truth, transaction: transaction.id, isEcho: false)
    }
    world.ledger.committed(transaction.writes, together: world.scenario.company)
    world.note("\(name) commits \(transaction.id): writes \(transaction.writes)")
    world.checkConstraints(self)
  }

  /// One statement in the open transaction at `index`; waits for nobody: a locked row is left alone.
  func write(_ key: Int, in index: Int, _ world: World) {
    guard isFree(key, in: index) else { return }
    let parents = self.parents(of: key, in: index, world)
    let statement = Statement(view(index)[key], parents: parents, world)
    write(key, as: statement.images, in: index, world)
  }

  /// Writes what an application would; nil deletes. False: a constraint does not let it.
  @discardableResult
  func write(_ key: Int, as image: RowImage<Int>?, in index: Int, _ world: World) -> Bool {
    guard isFree(key, in: index) else { return false }
    return write(key, as: image.map { [$0] } ?? [], in: index, world)
  }

  @discardableResult
  private func write(_ key: Int, as images: [RowImage<Int>], in index: Int, _ world: World) -> Bool {
    let known = database.open[index].rows[key] ?? database.rows[key].map { ($0.state, $0.truth) }
    var truth = known?.1 ?? database.forgotten[key] ?? WriteSet()
    let (dot, now) = (database.nextDot(server: server), clock(world))
    let before = known?.0
    let row: RowState<Int>?
    switch (before?.isAlive ?? false, images.last) {
    case (true, nil): row = before?.deleted(dot: dot, now: now)
    case (true, _): row = before?.updated(images, dot: dot, now: now, granularity: world.scenario.policy.granularity)
    case (false, let image?): row = .inserted(image, over: before, dot: dot, now: now)
    case (false, nil): row = nil
    }
    // What changes nothing is no write.
    guard let row else { return true }
    guard isAllowed(row, key, in: index, world) else { return false }
    let edit = Edit(before: before, row: row, shown: images.last?.shown[Ledger.counter], dot: dot)
    let write = world.ledger.wrote(edit, key: key, context: truth)
    truth.insert(write)
    if !row.isAlive, let known {
      database.open[index].images[key] = Copy(state: known.0, truth: known.1, transaction: 0, isEcho: false)
    }
    database.open[index].rows[key] = (row, truth)
    database.open[index].writes.append(write)
    world.note("\(name) write \(write) key \(key) \(edit.summary) \(dot.text): \(row.text)")
    return true
  }

  // MARK: what the application's own database does

  /// What the transaction at `index` sees.
  private func view(_ index: Int) -> [RowState<Int>?] {
    var rows = database.rows.map { $0?.state }
    for (key, row) in database.open[index].rows { rows[key] = row.state }
    return rows
  }

  private func isFree(_ key: Int, in index: Int) -> Bool {
    database.open[index].rows[key] != nil || !database.isLocked(key)
  }

  /// Rows that this one may refer to; without any in sight, no row.
  private func parents(of key: Int, in index: Int, _ world: World) -> [Int] {
    guard let constraints = world.scenario.constraints, constraints.hasReferences else { return [] }
    let rows = view(index)
    return rows.indices.filter { $0 != key && (constraints.hasCircles || $0 < key) && rows[$0]?.isAlive ?? false }
  }

  /// Constraints, checked at once; what another transaction is about to decide would be waited for.
  private func isAllowed(_ row: RowState<Int>, _ key: Int, in index: Int, _ world: World) -> Bool {
    guard let constraints = world.scenario.constraints else { return true }
    let rows = view(index)
    let others = database.open.indices.filter { $0 != index }.flatMap {
      database.open[$0].rows.map { ($0.key, $0.value.state) }
    }
    if !row.isAlive {
      let children = rows.indices.filter { $0 != key && constraints.parent(rows[$0]) == key }
      guard !others.contains(where: { constraints.parent($0.1) == key }) else { return false }
      guard !children.isEmpty else { return true }
      guard constraints.cascades, children.allSatisfy({ isFree($0, in: index) }) else { return false }
      return cascade(children, from: key, in: index, world)
    }
    if let parent = constraints.parent(row), parent != key {
      guard rows[parent]?.isAlive ?? false, !others.contains(where: { $0.0 == parent && !$0.1.isAlive }) else {
        return false
      }
    }
    guard let value = constraints.unique(row) else { return true }
    let isTaken = rows.indices.contains { $0 != key && constraints.unique(rows[$0]) == value }
    return !isTaken
      && !others.contains {
        constraints.unique($0.1) == value || constraints.unique(database.rows[$0.0]?.state) == value
      }
  }

  /// Children first; those in a circle with the row itself go with it. All or none: it is one statement.
  private func cascade(_ children: [Int], from key: Int, in index: Int, _ world: World) -> Bool {
    let before = database.open[index]
    database.open[index].cascading.insert(key)
    let isDone = children.allSatisfy { child in
      database.open[index].cascading.contains(child) || write(child, as: nil, in: index, world)
    }
    if isDone {
      database.open[index].cascading.remove(key)
    } else {
      database.open[index] = before
    }
    return isDone
  }
}

/// What an application says of one row.
struct Statement {
  /// The images that it makes of the row, in order; none: it deletes it.
  private(set) var images: [RowImage<Int>] = []
  private let parents: [Int]
  private let rules: Scenario

  init(_ row: RowState<Int>?, parents: [Int], _ world: World) {
    self.parents = parents
    rules = world.scenario
    guard let image = row?.image else {
      images = [RowImage(values: values(&world.random), shown: [Ledger.counter: world.random.int(0...9)])]
      return
    }
    let dice = world.random.int(0...99)
    guard dice >= 20 else { return }
    // A cascade or a trigger may have the statement update the row twice.
    for _ in 0..<(world.random.chance(8) ? 2 : 1) {
      var next = images.last ?? image
      if dice < (rules.purges ? 23 : 50) {
        next.shown[Ledger.counter] = amount(next.shown[Ledger.counter] ?? 0, &world.random)
      }
      if dice >= 42 { update(&next, &world.random) }
      images.append(next)
    }
  }

  /// `SET n = n + 3`, or a plain assignment.
  private func amount(_ shown: Int, _ random: inout SplitMix64) -> Int {
    random.chance(70) ? shown + random.int(-5...5) : random.int(-20...20)
  }

  private func values(_ random: inout SplitMix64) -> [Int: Int] {
    if let constraints = rules.constraints { return constraints.values(rules, parents: parents, &random) }
    return Dictionary(
      uniqueKeysWithValues: (0..<rules.registers).map {
        ($0, rules.valuesAreFew ? random.int(0...2) : random.int(0...1_000_000))
      })
  }

  private func update(_ image: inout RowImage<Int>, _ random: inout SplitMix64) {
    let all = values(&random)
    let first = random.int(0...rules.registers - 1)
    for column in 0..<rules.registers where column == first || random.chance(30) { image.values[column] = all[column] }
  }
}

/// One statement's effect on one row.
struct Edit {
  let row: RowState<Int>
  let dot: Dot
  /// Registers written; `Ledger.alive` for insert and delete.
  let columns: [Int]
  /// What the statement itself says: worked out without the rules of capture.
  private(set) var increment = 0
  private(set) var inserted: Int?
  let looksOlder: Bool
  let isInsert: Bool
  let isDelete: Bool

  /// - Parameter shown: what the statement made of the counter; nil: it deleted the row.
  init(before: RowState<Int>?, row: RowState<Int>, shown: Int?, dot: Dot) {
    self.row = row
    self.dot = dot
    let isCounted = row.latest == before?.latest
    looksOlder = !isCounted && before.map { row.latest.stamp <= $0.latest.stamp } ?? false
    let wasAlive = before?.isAlive ?? false
    isInsert = row.isAlive && !wasAlive
    isDelete = !row.isAlive
    columns =
      row.registers.keys.sorted().filter { row.registers[$0]?.dot == dot }
      + (row.alive.dot == dot ? [Ledger.alive] : [])
    let counter = before?.counters[Ledger.counter]
    let added = counter?.contributions.values.reduce(0) { $0 + $1.sum } ?? 0
    guard let shown else { return }
    if isInsert {
      inserted = shown - added
    } else {
      increment = shown - added - (counter?.inserted ?? 0)
    }
  }

  var summary: String {
    isInsert ? "insert" : isDelete ? "delete" : "update \(columns) +\(increment)"
  }
}
