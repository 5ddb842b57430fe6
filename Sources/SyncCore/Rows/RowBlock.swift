/// One column of many rows: the values' bytes one after the other, and a length a row (-1 is NULL).
///
/// Values are PostgreSQL's text output; they pass from SELECT to unnest without becoming Swift strings.
package struct ColumnBytes: Hashable, Sendable {
  package var blob: [UInt8]
  package var lengths: [Int32]

  package init(blob: [UInt8] = [], lengths: [Int32] = []) {
    self.blob = blob
    self.lengths = lengths
  }

  package mutating func append(_ bytes: UnsafeRawBufferPointer?) {
    guard let bytes else {
      lengths.append(-1)
      return
    }
    blob.append(contentsOf: bytes)
    lengths.append(Int32(truncatingIfNeeded: bytes.count))
  }
}

/// What one actor added to a counter of a row since the row was inserted.
package struct RowContribution: Hashable, Sendable {
  /// The counter's number among the block's columns.
  package var column: Int
  /// The actor's last write that added.
  package var dot: Dot
  /// In all: a decimal number as PostgreSQL writes it.
  package var sum: [UInt8]

  package init(column: Int, dot: Dot, sum: [UInt8]) {
    self.column = column
    self.dot = dot
    self.sum = sum
  }
}

/// Who wrote a column of a row last, where that is not who wrote the row.
package struct ColumnVersion: Hashable, Sendable {
  /// The column's number among the block's columns.
  package var column: Int
  package var dot: Dot
  package var stamp: Int64

  package init(column: Int, dot: Dot, stamp: Int64) {
    self.column = column
    self.dot = dot
    self.stamp = stamp
  }
}

/// Row states of one table, columnar: for each row its version, then its values.
///
/// Invariants (checked where a block enters from outside): every array of `versions` and every column's
/// `lengths` has `count` entries; a column's non-negative lengths sum to its blob's size; the key columns
/// come first and are never NULL. A dead row (`alive` false) has its key alone, other columns NULL.
package struct RowBlock: Sendable, Equatable {
  /// The table's name in the catalogue, `schema.name`: a key into the receiver's own catalogue, never SQL.
  package var table: String
  package var columnNames: [String]
  /// How many of the leading columns are the primary key.
  package var keyCount: Int
  package var actors: [Int64]
  package var counters: [Int64]
  /// Hybrid clock, microseconds since 1970.
  package var stamps: [Int64]
  package var alive: [Bool]
  /// Full vectors, only of rows that a second actor wrote: by row number.
  package var vectors: [Int: VersionVector]
  /// Only of rows of which a counter was added to, in the order of column and actor: by row number. A deleted row keeps
  /// them.
  package var contributions: [Int: [RowContribution]] = [:]
  /// Only of rows of which columns were updated one by one since they were inserted, in the order of the columns.
  package var columnVersions: [Int: [ColumnVersion]] = [:]
  package var columns: [ColumnBytes]

  package var count: Int { actors.count }

  package init(table: String, columnNames: [String], keyCount: Int) {
    self.table = table
    self.columnNames = columnNames
    self.keyCount = keyCount
    actors = []
    counters = []
    stamps = []
    alive = []
    vectors = [:]
    columns = Array(repeating: ColumnBytes(), count: columnNames.count)
  }

  package func dot(_ row: Int) -> Dot { Dot(actor: ActorID(rawValue: actors[row]), n: counters[row]) }

  package func vector(_ row: Int) -> VersionVector { vectors[row] ?? VersionVector(dot(row)) }
}
