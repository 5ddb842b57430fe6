/// Every bound of hub in one place. What comes from a network, a database or a file is held to these.
package enum Limits {
  // MARK: Versions

  /// Actors in one row's vector; head folds an office's old actors before this is reached.
  package static let vectorEntriesMax = 16
  /// A stamp further ahead of head's clock is replaced and reported.
  package static let clockSkewMax: Duration = .seconds(300)

  // MARK: Batches and windows

  /// Rows that one transaction at the receiver applies; a larger batch is not whole there.
  package static let batchRowsMax = 100_000
  /// Payload of one message before compression; RabbitMQ 4 refuses above 16 MiB, one row may be larger than this.
  package static let partBytesMax = 3_500_000
  /// Rows in one part, so that one part's arrays stay small when rows are tiny.
  package static let partRowsMax = 20_000
  /// Parts of one batch: bounds the staging table against a sender that never ends a batch.
  package static let partsMax = 100_000
  /// What a receiver asks for in one pull.
  package static let windowRowsMax = 20_000
  package static let windowBytesMax = 4 * 1024 * 1024
  /// What a sender gives in one answer, whatever was asked.
  package static let windowRowsGivenMax = 100_000
  package static let windowBytesGivenMax = 128 * 1024 * 1024
  /// A catch-up's cursor, opaque to its keeper.
  package static let cursorBytesMax = 64 * 1024

  // MARK: Rows

  /// A larger value quarantines its row.
  package static let valueBytesMax = 64 * 1024 * 1024
  /// PostgreSQL's own bound.
  package static let columnsMax = 1_600
  package static let keyColumnsMax = 32
  package static let tablesMax = 10_000
  /// Rows removed by one TRUNCATE that get a tombstone each; above, one range tombstone.
  package static let truncatedRowsMax = 1_000_000

  // MARK: Messages

  package static let messageBytesMax = 72 * 1024 * 1024
  package static let messageBytesDecompressedMax = 144 * 1024 * 1024
  /// Offices are `[a-z0-9-]{1,32}`.
  package static let officeNameBytesMax = 32
  /// `schema.name` of two PostgreSQL identifiers.
  package static let tableNameBytesMax = 2 * 63 + 1
  package static let columnNameBytesMax = 63
  package static let errorTextBytesMax = 2_000
  /// One entry of the conflict log on its way to a branch; of larger rows it holds the values' beginnings.
  package static let conflictEntryBytesMax = 8 * 1024 * 1024
  /// Entries, and bytes of entries, in one message.
  package static let conflictEntriesMax = 500
  package static let conflictBytesMax = 2 * 1024 * 1024
  package static let officesMax = 1_000
  package static let prefetchMax = 16
  package static let unconfirmedMessagesMax = 32
  package static let queueBytesMax = 1024 * 1024 * 1024

  // MARK: Verify

  /// Bucket digests in one answer.
  package static let verifyDigestsMax = 1 << 16
  /// Keys with their digests in one answer, and rows looked at by one question.
  package static let verifyKeysMax = 20_000
  package static let verifyRowsMax = 1_000
  /// Bytes of keys in one question.
  package static let verifyKeyBytesMax = 1 << 20
  /// Rows of one table that a comparison looks at one by one.
  package static let verifySuspectsMax = 100_000
  /// Actors that ever wrote a table at one branch.
  package static let verifyActorsMax = 4_096
  /// A question without an answer is repeated after this.
  package static let verifyRepeatAfter: Duration = .seconds(20)

  // MARK: Time

  /// Without a word from an office's incarnation for so long, another one may take its place.
  package static let incarnationSilence: Duration = .seconds(15)

  /// How often a branch without a queue says so to head.
  package static let knockEvery: Duration = .seconds(20)
  /// An office that departs reads within this that head let it go; then its queue goes.
  package static let removedWithin: Duration = .seconds(15)
  /// An office that was not heard of for so long finds a short queue when it comes back.
  package static let absentAfter: Duration = .seconds(60)
  package static let beatEvery: Duration = .seconds(5)
  /// A pull or a handshake without an answer is repeated after this, then after twice as long, up to the next.
  package static let answerWithin: Duration = .seconds(5)
  /// A branch that has connected waits so long for head's welcome before it sends: a batch on top of one that was cut
  /// would only be asked for again. Longer, and head is taken for away.
  package static let welcomeWithin: Duration = .seconds(3)
  package static let answerWithinMax: Duration = .seconds(60)
  /// An empty batch, which carries an acknowledgement that lets tombstones go, is sent at most this often.
  package static let emptyBatchEvery: Duration = .seconds(60)
  /// Batches on their way before their sender slows down, and how slow it gets.
  package static let unacknowledgedBatches: Int64 = 8
  package static let batchEveryMax: Duration = .seconds(30)
  /// Conflict entries that a branch does not report within this are sent again.
  package static let conflictEntriesWithin: Duration = .seconds(15)
  /// Rows in quarantine are tried at least this often, whether or not something changed.
  package static let quarantineEvery: Duration = .seconds(30)
  /// How often somebody looks whether the tables of quarantined rows were altered.
  package static let quarantineLookEvery: Duration = .seconds(5)
  /// An acknowledgement is sent at most this often while nothing waits for it.
  package static let acknowledgeEvery: Duration = .milliseconds(200)
  /// Below PostgreSQL's deadlock_timeout: hub gives way.
  package static let lockTimeout: Duration = .milliseconds(500)
  /// How long a table's own function may think about one conflict.
  package static let functionTimeout: Duration = .seconds(3)
  package static let reconnectAfter: Duration = .milliseconds(200)
  package static let reconnectAfterMax: Duration = .seconds(30)
  /// How often a database is looked at: after work, soon after, and when nothing was found for a while.
  package static let lookEveryMin: Duration = .milliseconds(2)
  package static let lookEvery: Duration = .milliseconds(20)
  package static let lookEveryMax: Duration = .milliseconds(50)
  package static let quietAfter: Duration = .seconds(10)
}
