import SyncCore

/// Bounds that only the wire knows: what one message may make a reader allocate, and numbers that leave room for
/// the arithmetic done on them. Above what hub's own senders make, so that none of their messages is refused.
extension Limits {
  /// Rows in one message.
  static let messageRowsMax = 1 << 18
  /// Numbers in the arrays of one message: a byte on the wire becomes up to eight in memory.
  static let messageNumbersMax = 36 << 20
  /// Strings, blobs and parts in one message: two bytes on the wire become a hundred in memory.
  static let messagePiecesMax = 1 << 20
  static let messageVectorEntriesMax = 256
  /// Counters, stamps, batch numbers and versions: adding to one never overflows.
  static let numberMax: Int64 = 1 << 62
  /// Sizes and counts that are summed up, and times whose difference is taken.
  static let sumMax: Int64 = 1 << 60
  /// A numeric's digits before and after the point, PostgreSQL's own bound.
  static let numberBytesMax = 131_072 + 16_383 + 1
  static let statementBytesMax = 1 << 20
  static let statementsMax = 200_000
  static let wordBytesMax = 64
  static let objectNameBytesMax = 3 * 63 + 2
  static let secretBytesMax = 256
  static let brokerURLBytesMax = 2_048
  static let authorityBytesMax = 64 * 1024
  static let tokenBytesMax = 128 * 1024
}
