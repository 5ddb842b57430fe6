/// When a request without an answer is overdue: after a while, then after twice as long, up to a bound.
///
/// Times are of a monotonic clock.
package struct Reminder: Hashable, Sendable {
  private var due: Duration?
  private var patience: Duration
  private let patienceMin: Duration
  private let patienceMax: Duration

  package init(
    after patience: Duration = Limits.answerWithin, atMost patienceMax: Duration = Limits.answerWithinMax
  ) {
    self.patience = patience
    patienceMin = patience
    self.patienceMax = patienceMax
  }

  package func isDue(at now: Duration) -> Bool { due.map { now >= $0 } ?? false }

  /// The request was sent, for the first time or again.
  package mutating func asked(at now: Duration) {
    if due != nil { patience = min(patience * 2, patienceMax) }
    due = now + patience
  }

  /// A part of the answer came: the rest may take as long again.
  package mutating func progressed(at now: Duration) {
    guard due != nil else { return }
    patience = patienceMin
    due = now + patience
  }

  package mutating func answered() {
    due = nil
    patience = patienceMin
  }
}

/// How often an office makes batches, and what it says when it has nothing to send.
///
/// An exchange that is quiet stays quiet: no batch, and one beat an office in `Limits.beatEvery`.
package struct PaceMachine: Sendable {
  package enum Action: Hashable, Sendable {
    /// Say what the last batch is; `asks`: and have it acknowledged.
    case beat(asks: Bool)
    /// Record and send a batch without rows: it carries the acknowledgement that lets tombstones go.
    case emptyBatch
  }

  private var beatAt: Duration
  private var batchAt: Duration
  /// What of the other side's stream the last batch said was applied here.
  private var told: BatchReference?
  /// A receiver has come back: what waits for it goes at once.
  private var isAwaited = false
  private var lookWait = Limits.lookEveryMin
  /// When a look last found something to send.
  private var foundAt: Duration

  package init(now: Duration) {
    beatAt = now
    batchAt = now
    foundAt = now
  }

  /// How long the next look may wait after one that found something to send, or did not: longer and longer, because each
  /// costs the database a moment, but never so long that somebody who waits for a row notices.
  package mutating func waitAfterLook(found: Bool, at now: Duration) -> Duration {
    if found { foundAt = now }
    let longest = now < foundAt + Limits.quietAfter ? Limits.lookEvery : Limits.lookEveryMax
    lookWait = found ? Limits.lookEveryMin : min(lookWait * 3 / 2, longest)
    return lookWait
  }

  /// The office looked and found nothing unsent. `applied`: where it stands in the stream of its only sender, nil
  /// at head, whose batches acknowledge nothing. `isAcknowledged`: every receiver has the last batch.
  package mutating func foundNothing(at now: Duration, applied: BatchReference?, isAcknowledged: Bool)
    -> Action?
  {
    if let applied, applied != told ?? .origin, now >= batchAt + Limits.emptyBatchEvery { return .emptyBatch }
    guard now >= beatAt else { return nil }
    beatAt = now + Limits.beatEvery
    return .beat(asks: !isAcknowledged)
  }

  /// Whether what changed may be made into a batch now: always while a receiver keeps up. Each further batch that
  /// nobody has acknowledged doubles the wait, so that rows which change again meanwhile cross once, and what asks for
  /// a catch-up does not wait behind a long queue.
  package func mayPublish(at now: Duration, unacknowledged: Int64) -> Bool {
    guard !isAwaited, unacknowledged > Limits.unacknowledgedBatches else { return true }
    let doublings = min(unacknowledged - Limits.unacknowledgedBatches, 20)
    return now >= batchAt + min(.milliseconds(10 << doublings), Limits.batchEveryMax)
  }

  /// A receiver greeted.
  package mutating func receiverCame() { isAwaited = true }

  /// A batch was recorded; it says that `applied` was applied here.
  package mutating func recordedBatch(at now: Duration, applied: BatchReference?) {
    batchAt = now
    told = applied
    isAwaited = false
  }

  /// An empty batch would say nothing: not yet.
  package mutating func postponedEmptyBatch(at now: Duration) { batchAt = now }

  /// Somebody asked what the last batch is.
  package mutating func beatWanted(at now: Duration) { beatAt = min(beatAt, now) }

  /// After a batch the next beat may wait: the batch says what the last one is.
  package mutating func published(at now: Duration) { beatAt = now + Limits.beatEvery }
}
