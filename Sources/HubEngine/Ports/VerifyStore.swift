package import SyncCore

/// What the last comparison of head with one branch came to.
package struct VerifyCertificate: Sendable, Equatable {
  package var office: String
  /// Differences that count.
  package var differences: Int
  /// Writes that a table allows against its direction.
  package var local: Int
  /// Rows that were written again and again while they were looked at.
  package var moving: Int
  package var repaired: Int
  package var tables: Int
  package var rows: Int64
  /// Over head's rows and versions, 16 hexadecimal digits.
  package var digest: String
  /// How far each side had applied the other's stream at the end.
  package var headBatch: BatchReference
  package var branchBatch: BatchReference
  package var notes: [String]

  package init(
    office: String, differences: Int, local: Int, moving: Int, repaired: Int, tables: Int, rows: Int64, digest: String,
    headBatch: BatchReference, branchBatch: BatchReference, notes: [String]
  ) {
    self.office = office
    self.differences = differences
    self.local = local
    self.moving = moving
    self.repaired = repaired
    self.tables = tables
    self.rows = rows
    self.digest = digest
    self.headBatch = headBatch
    self.branchBatch = branchBatch
    self.notes = notes
  }

  package var isEqual: Bool { differences == 0 }
}

/// A row that is about to be overwritten, for the conflict log.
package struct OverwrittenCopy: Sendable, Equatable {
  package var key: RowKey
  /// A JSON object.
  package var json: String
  package var vector: VersionVector?
  package var kind: Difference.Kind
  /// The row that stands, where that is the branch's.
  package var standing: String
  package var standingVector: VersionVector?

  package init(
    key: RowKey, json: String, vector: VersionVector?, kind: Difference.Kind, standing: String = "",
    standingVector: VersionVector? = nil
  ) {
    self.key = key
    self.json = json
    self.vector = vector
    self.kind = kind
    self.standing = standing
    self.standingVector = standingVector
  }
}

/// What verifying asks of an office's database; on a connection of its own, because it reads whole tables.
package protocol VerifyStore: Sendable {
  /// - Parameter office: at head, the branch that is compared with.
  func verify(_ question: VerifyQuestion, with office: String?) async throws(HubError) -> VerifyAnswer
  /// What the first of these rows hold, as JSON objects; empty: not there, or too large to keep in the conflict log.
  func contents(_ scope: VerifyScope, _ keys: [RowKey]) async throws(HubError) -> [String]
  /// Gives rows, as they are, a version of this office's own. Rows that changed since are left alone. `overwritten`,
  /// at head: the branch's copies of some, logged with those that were written.
  func restate(_ rows: [RestatedRow], of table: String, overwritten: [OverwrittenCopy], from office: String)
    async throws(HubError) -> Int
  /// Head: its own copies of rows that a branch writes again.
  func logOverwritten(_ copies: [OverwrittenCopy], of table: String, by office: String) async throws(HubError)
  /// Keeps the outcome, in the place of the one before.
  func save(_ certificate: VerifyCertificate, _ differences: [Difference]) async throws(HubError)
  /// Says how far a request has come; false: nobody waits for it any more.
  func report(_ progress: String, on request: Int64) async throws(HubError) -> Bool
  /// The connection goes until the next comparison.
  func endVerifying() async
}
