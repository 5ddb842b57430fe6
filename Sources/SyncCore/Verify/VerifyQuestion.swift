/// The key of one row: its values as PostgreSQL writes them, in the key's order.
package struct RowKey: Hashable, Sendable {
  package var values: [[UInt8]]

  package init(_ values: [[UInt8]]) { self.values = values }
}

/// What of a table is compared.
package struct VerifyScope: Hashable, Sendable {
  /// `schema.name`, a key into the receiver's own catalogue.
  package var table: String
  /// The columns that both offices have, by name, in the order of their bytes.
  package var columns: [String]
  /// Whether the version is part of a row's digest; not of tables that only branches write: head may have stamped
  /// such a row again, and the branch is not told.
  package var comparesVersions: Bool
  /// At head, of a table that only branches write: the rows of these actors alone. It does not travel.
  package var actors: [Int64]?

  package init(table: String, columns: [String], comparesVersions: Bool, actors: [Int64]? = nil) {
    self.table = table
    self.columns = columns
    self.comparesVersions = comparesVersions
    self.actors = actors
  }
}

/// Rows by the first `bits` bits of their keys' hashes; each bucket has `1 << step` children.
package struct BucketSet: Hashable, Sendable {
  package var bits: Int
  package var step: Int
  package var buckets: [Int64]

  package init(bits: Int, step: Int, buckets: [Int64]) {
    self.bits = bits
    self.step = step
    self.buckets = buckets
  }

  package static func root(step: Int) -> BucketSet { BucketSet(bits: 0, step: step, buckets: [0]) }

  /// How many digests answer it.
  package var childCount: Int { buckets.count << step }
}

/// What head asks of a branch and of its own database alike: the answers are compared.
package enum VerifyQuestion: Hashable, Sendable {
  /// Which tables there are, and their columns.
  case describe
  /// Of each child bucket the number of rows and the sum of their digests.
  case digests(VerifyScope, BucketSet)
  /// Of each row in the buckets its key and its digest.
  case keys(VerifyScope, BucketSet)
  /// How these rows are now.
  case rows(VerifyScope, [RowKey])
}

/// One table as an office has it.
package struct VerifyTable: Hashable, Sendable {
  package var name: String
  package var keyColumns: [String]
  /// All columns that are not generated.
  package var columns: [String]
  /// An estimate.
  package var rows: Int64
  /// Of a table that only branches write, at a branch: who wrote it.
  package var actors: [Int64]

  package init(name: String, keyColumns: [String], columns: [String], rows: Int64, actors: [Int64] = []) {
    self.name = name
    self.keyColumns = keyColumns
    self.columns = columns
    self.rows = rows
    self.actors = actors
  }
}

package struct BucketDigest: Hashable, Sendable {
  package var rows: Int64
  /// Exclusive or of the rows' digests.
  package var sum: Int64

  package init(rows: Int64, sum: Int64) {
    self.rows = rows
    self.sum = sum
  }

  package static let empty = BucketDigest(rows: 0, sum: 0)
}

/// One row as an office has it at a moment.
package struct RowLook: Hashable, Sendable {
  package var isThere: Bool
  /// Of the version kept for the key; nil: none.
  package var vector: VersionVector?
  package var isVersionAlive: Bool
  /// A state of this row waits in quarantine there.
  package var isQuarantined: Bool
  /// Digest of the values; 0 where the row is not there.
  package var hash: Int64

  package init(
    isThere: Bool, vector: VersionVector?, isVersionAlive: Bool, isQuarantined: Bool = false, hash: Int64 = 0
  ) {
    self.isThere = isThere
    self.vector = vector
    self.isVersionAlive = isVersionAlive
    self.isQuarantined = isQuarantined
    self.hash = hash
  }

  /// The version, if it speaks of what is there: one that says that a missing row lives was left by a delete that
  /// nobody captured.
  package var spoken: VersionVector? { isVersionAlive == isThere ? vector : nil }
}

package enum VerifyAnswer: Hashable, Sendable {
  /// `probe`: the hash of a fixed text, which shows whether both servers calculate alike.
  case tables([VerifyTable], catalogueVersion: Int64, probe: Int64)
  case digests([BucketDigest])
  /// `isCut`: there were more than one answer may hold.
  case keys([RowKey: Int64], isCut: Bool)
  /// One a key asked for, in that order.
  case rows([RowLook])
}
