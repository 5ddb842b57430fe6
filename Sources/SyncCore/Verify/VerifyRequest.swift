/// A row that is to be written again under a new version, as it is.
package struct RestatedRow: Hashable, Sendable {
  package var key: RowKey
  /// The other office's version: the new one says that it was seen.
  package var seen: VersionVector?
  /// The version that the row had when it was compared; with another one it was written since and is left alone.
  package var expected: VersionVector?

  package init(key: RowKey, seen: VersionVector?, expected: VersionVector?) {
    self.key = key
    self.seen = seen
    self.expected = expected
  }
}

/// What head asks of a branch while it verifies.
package enum VerifyRequest: Hashable, Sendable {
  case compare(VerifyQuestion)
  /// What these rows hold, as JSON objects.
  case contents(VerifyScope, [RowKey])
  case restate(table: String, [RestatedRow])
  /// The last batch, once all that is in the database now was read for sending.
  case pass
}

package enum VerifyReply: Hashable, Sendable {
  case compared(VerifyAnswer)
  /// Of the first of the rows asked for; empty: no row, or one too large to be kept in the conflict log.
  case contents([String])
  case restated(Int)
  case passed(BatchReference)
  case refused(String)
}
