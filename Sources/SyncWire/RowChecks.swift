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
