import SyncCore

/// How a table's rows are made of registers and counters, and back.
///
/// Merged by row, register 0 holds all columns of a block but the counters (NULL there). Merged by column, each column
/// that is neither key nor counter is a register of one value. A counter's `inserted` is not stored anywhere: it is
/// what the row shows less the contributions, decimal text, calculated by PostgreSQL.
struct RowShape {
  private let keyCount: Int
  private let registers: [Int]
  private let isMergedByColumn: Bool
  /// The counters' places in the block.
  let counters: [Int]

  init(_ applier: TableApplier) {
    let table = applier.table
    keyCount = table.keyCount
    isMergedByColumn = table.isMergedByColumn
    let rest = applier.shared[keyCount...]
    counters = rest.filter { table.options.counters.contains($0.column.name) }.map(\.at)
    registers = rest.filter { !table.options.counters.contains($0.column.name) }.map(\.at)
  }

  /// A row's version and what it shows; nil: deleted.
  struct Image {
    var vector: VersionVector
    var dot: Dot
    var stamp: Int64
    var values: RowValues?
    var contributions: [RowContribution]
    var columnVersions: [ColumnVersion]
  }

  /// - Parameter inserted: of each counter, in the order of `counters`.
  func state(_ image: Image, inserted: [[UInt8]]) -> RowState<RowValues> {
    let stamp = Stamp(rawValue: image.stamp)
    var registers: [Int: Register<RowValues>] = [:]
    if let values = image.values {
      if isMergedByColumn {
        for at in self.registers { registers[at] = Register(value: [values[at]], dot: image.dot, stamp: stamp) }
        for version in image.columnVersions {
          registers[version.column]?.dot = version.dot
          registers[version.column]?.stamp = Stamp(rawValue: version.stamp)
        }
      } else {
        registers[0] = Register(value: withoutCounters(values), dot: image.dot, stamp: stamp)
      }
    }
    var counters: [Int: Counter<RowValues>] = [:]
    for (at, amount) in zip(self.counters, inserted) {
      counters[at] = Counter(inserted: [amount])
      for share in image.contributions where share.column == at {
        counters[at]?.contributions[share.dot.actor] = .init(sum: [share.sum], n: share.dot.n)
      }
    }
    return RowState(
      vector: image.vector, alive: Register(value: image.values != nil, dot: image.dot, stamp: stamp),
      registers: registers, counters: counters)
  }

  func withoutCounters(_ values: RowValues) -> RowValues {
    var values = values
    for at in counters { values[at] = nil }
    return values
  }

  /// The row's values, counters as in `like`; nil: deleted.
  func values(of row: RowState<RowValues>, like: RowValues) -> RowValues? {
    guard row.isAlive else { return nil }
    var values = like
    if isMergedByColumn {
      for (at, register) in row.registers { values[at] = register.value.first ?? nil }
    } else if let whole = row.registers[0]?.value {
      values = whole
      for at in counters { values[at] = like[at] }
    }
    return values
  }

  func contributions(of row: RowState<RowValues>) -> [RowContribution] {
    row.counters.flatMap { at, counter in
      counter.contributions.map { actor, share in
        RowContribution(column: at, dot: Dot(actor: actor, n: share.n), sum: (share.sum.first ?? nil) ?? [])
      }
    }.sorted { ($0.column, $0.dot.actor) < ($1.column, $1.dot.actor) }
  }

  func columnVersions(of row: RowState<RowValues>) -> [ColumnVersion] {
    guard isMergedByColumn else { return [] }
    return row.registers.filter { $0.value.version != row.alive.version }
      .map { ColumnVersion(column: $0.key, dot: $0.value.dot, stamp: $0.value.stamp.rawValue) }
      .sorted { $0.column < $1.column }
  }

  /// A function's answer to a conflict: one side where it says the same.
  func decision(_ answer: RowValues, on conflict: Conflict<RowValues>) -> Decision<RowValues> {
    let given: [Int: RowValues] =
      if let column = conflict.column {
        [column: [answer[column]]]
      } else if isMergedByColumn {
        Dictionary(uniqueKeysWithValues: registers.map { ($0, [answer[$0]]) })
      } else {
        [0: withoutCounters(answer)]
      }
    func says(_ side: RowState<RowValues>) -> Bool { given.allSatisfy { side.registers[$0]?.value == $1 } }
    return says(conflict.local) ? .local : says(conflict.incoming) ? .incoming : .values(given)
  }
}
