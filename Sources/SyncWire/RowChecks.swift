import SyncCore

/// The invariants of `RowBlock`, which everything behind the wire relies on without looking again.
enum RowChecks {
  static func counts(_ blocks: [RowBlock]) throws(WireError) {
    guard blocks.count <= Limits.tablesMax else { throw .malformed("too many tables in one message") }
    var rows = 0
    for block in blocks {
      let (sum, overflow) = rows.addingReportingOverflow(block.count)
      guard !overflow, sum <= Limits.messageRowsMax else { throw .malformed("too many rows in one message") }
      rows = sum
    }
  }

  static func check(_ block: RowBlock) throws(WireError) {
    try names(block)
    let count = block.count
    guard block.counters.count == count, block.stamps.count == count, block.alive.count == count else {
      throw .malformed("rows without version, or versions without row")
    }
    try dots(block)
    try vectors(block)
    try contributions(block)
    try columnVersions(block)
    for (index, column) in block.columns.enumerated() {
      try values(column, count: count, isKey: index < block.keyCount, alive: block.alive)
    }
  }

  private static func names(_ block: RowBlock) throws(WireError) {
    try Checks.text(block.table, "a table's name", max: Limits.tableNameBytesMax)
    guard (1...Limits.columnsMax).contains(block.columnNames.count),
      block.columns.count == block.columnNames.count
    else { throw .malformed("a table has no columns, too many, or not as many names as columns") }
    guard block.keyCount >= 1, block.keyCount <= min(Limits.keyColumnsMax, block.columnNames.count) else {
      throw .malformed("a table's key has no columns, or too many")
    }
    for name in block.columnNames { try Checks.text(name, "a column's name", max: Limits.columnNameBytesMax) }
    guard Set(block.columnNames).count == block.columnNames.count else {
      throw .malformed("a table has two columns of one name")
    }
  }

  private static func dots(_ block: RowBlock) throws(WireError) {
    guard block.actors.allSatisfy({ $0 > 0 }) else { throw .malformed("a row without an actor") }
    guard block.counters.allSatisfy({ $0 > 0 && $0 <= Limits.numberMax }) else {
      throw .malformed("a row's counter is out of range")
    }
    guard block.stamps.allSatisfy({ $0 >= 0 && $0 <= Limits.numberMax }) else {
      throw .malformed("a row's stamp is out of range")
    }
  }

  private static func vectors(_ block: RowBlock) throws(WireError) {
    for (row, vector) in block.vectors {
      guard row >= 0, row < block.count else { throw .malformed("a vector without a row") }
      guard vector.dots.count <= Limits.messageVectorEntriesMax else {
        throw .malformed("a vector is too long")
      }
      guard vector.dots.allSatisfy({ $0.actor.rawValue > 0 && $0.n > 0 && $0.n <= Limits.numberMax }) else {
        throw .malformed("a vector's entry is out of range")
      }
      guard vector.contains(block.dot(row)) else { throw .malformed("a vector without the row's own dot") }
    }
  }

  private static func contributions(_ block: RowBlock) throws(WireError) {
    for (row, entries) in block.contributions {
      guard row >= 0, row < block.count else { throw .malformed("a contribution without a row") }
      var last: (column: Int, actor: Int64) = (0, 0)
      for entry in entries {
        let here = (entry.column, entry.dot.actor.rawValue)
        guard here > last else { throw .malformed("contributions are not in their order") }
        last = here
        try register(entry.column, entry.dot, row, block)
        guard isNumber(entry.sum) else { throw .malformed("a contribution is not a number") }
      }
    }
  }

  private static func columnVersions(_ block: RowBlock) throws(WireError) {
    for (row, entries) in block.columnVersions {
      guard row >= 0, row < block.count, block.alive[row] else {
        throw .malformed("a column's version without a row")
      }
      guard zip(entries, entries.dropFirst()).allSatisfy({ $0.column < $1.column }) else {
        throw .malformed("columns' versions are not in their order")
      }
      for entry in entries {
        try register(entry.column, entry.dot, row, block)
        guard entry.stamp >= 0, entry.stamp <= Limits.numberMax else {
          throw .malformed("a column's stamp is out of range")
        }
      }
    }
  }

  private static func register(_ column: Int, _ dot: Dot, _ row: Int, _ block: RowBlock) throws(WireError) {
    guard column >= block.keyCount, column < block.columns.count else {
      throw .malformed("a column's write is of a column that is not there")
    }
    guard dot.actor.rawValue > 0, dot.n > 0, block.vector(row).contains(dot) else {
      throw .malformed("a column's write is not in the row's vector")
    }
  }

  /// What PostgreSQL's numeric writes.
  private static func isNumber(_ text: [UInt8]) -> Bool {
    let unsigned = text.first == UInt8(ascii: "-") ? text.dropFirst() : text[...]
    guard unsigned.count <= Limits.numberBytesMax else { return false }
    if ["NaN", "Infinity"].contains(where: { unsigned.elementsEqual($0.utf8) }) { return true }
    let parts = unsigned.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    return (1...2).contains(parts.count)
      && parts.allSatisfy { !$0.isEmpty && $0.allSatisfy { (48...57).contains($0) } }
  }

  private static func values(_ column: ColumnBytes, count: Int, isKey: Bool, alive: [Bool]) throws(WireError) {
    guard column.lengths.count == count else {
      throw .malformed("a column has not as many values as there are rows")
    }
    var sum = 0
    for (row, length) in column.lengths.enumerated() {
      if length < 0 {
        guard length == -1 else { throw .malformed("a value's length is negative") }
        guard !isKey else { throw .malformed("a key is NULL") }
        continue
      }
      guard length <= Limits.valueBytesMax else { throw .malformed("a value is longer than 64 MiB") }
      guard isKey || alive[row] else { throw .malformed("a deleted row has values besides its key") }
      // Fewer than 2^26 rows (`messageNumbersMax`) of at most 2^26 bytes: no overflow.
      sum += Int(length)
    }
    guard sum == column.blob.count else { throw .malformed("values' lengths do not sum up to their bytes") }
  }
}
