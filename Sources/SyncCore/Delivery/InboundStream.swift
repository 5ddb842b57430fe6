/// A catch-up under way: rows since `from`, read window by window. Live batches pass by meanwhile: what changed since
/// `target` is asked for afterwards, each row once.
package struct CatchUp: Hashable, Sendable {
  package var from: BatchReference
  package var cursor: [UInt8]
  package var full: Bool
  package var target: BatchReference

  package init(from: BatchReference, cursor: [UInt8], full: Bool, target: BatchReference) {
    self.from = from
    self.cursor = cursor
    self.full = full
    self.target = target
  }
}

/// Where a receiver stands in one sender's stream; stored in the same transaction as the rows applied.
package struct InboundPosition: Hashable, Sendable {
  /// The sender's session that the last handshake agreed on; nil before the first.
  package var session: SessionID?
  package var at: BatchReference
  package var catchUp: CatchUp?
  /// A catch-up of several windows is transaction-consistent only once the live feed has passed the last one:
  /// with the first batch of at least this number that leaves nothing, or a beat that says that nothing is unsent.
  package var unsettledUntil: Int64?

  package init(
    session: SessionID? = nil, at: BatchReference = .origin, catchUp: CatchUp? = nil,
    unsettledUntil: Int64? = nil
  ) {
    self.session = session
    self.at = at
    self.catchUp = catchUp
    self.unsettledUntil = unsettledUntil
  }

  package var isCatchingUp: Bool { catchUp != nil || unsettledUntil != nil }
}

/// Decides what a receiver does with what a sender's stream brings.
///
/// Pure: the driver applies rows and stores the position of `.apply` in one transaction, then calls `committed`
/// and looks at `needsPull`. `.pull` means: draw a token, `asked(token)`, send. A pull is repeated only when its
/// answer is overdue (`answerTimedOut`) and the sender shows that it is there, or else an absent sender would
/// come back to a pile of requests.
package struct InboundStream: Sendable {
  package enum Action: Hashable, Sendable {
    /// Apply the rows and store this position with them, in one transaction.
    case apply(InboundPosition)
    /// A duplicate of what was applied: acknowledge again, the first acknowledgement may be lost.
    case acknowledge
    /// Nothing to do: late, or being repaired already.
    case ignore
    /// Something is missing: ask for it from where the receiver stands.
    case pull
    /// The sender's session is not the one agreed on: shake hands again.
    case greet
  }

  package private(set) var position: InboundPosition
  /// The request whose answer is awaited; lost in a crash, which is why a beat asks again.
  package private(set) var awaited: PullToken?
  private var expectedPart = 0
  /// The sender was further already when it read the last window of a catch-up.
  private var isBehind = false

  package init(position: InboundPosition) { self.position = position }

  /// A catch-up waits for its next window, after a start, a handshake, or a window that was not the last; or it has
  /// ended where the sender is no more.
  package var needsPull: Bool { (position.catchUp != nil || isBehind) && awaited == nil }

  package func batchArrived(_ header: BatchHeader) -> Action {
    guard header.session == position.session else { return .greet }
    // Applied one by one they would take longer than they come, and the windows wait behind them in the queue.
    guard position.catchUp == nil else { return awaited == nil ? .pull : .ignore }
    if header.reference == position.at { return .acknowledge }
    guard header.previous == position.at else {
      let late = header.reference.number <= position.at.number
      return late || awaited != nil ? .ignore : .pull
    }
    var next = position
    next.at = header.reference
    if let until = next.unsettledUntil, header.reference.number >= until, !header.isSlice { next.unsettledUntil = nil }
    return .apply(next)
  }

  /// The sender looked, found nothing unsent, and says what its last batch is. Shows a missing tail, and a
  /// request or an answer that was lost. `asks`: the sender misses an acknowledgement.
  package func beatArrived(session: SessionID, last: BatchReference, asks: Bool = true) -> Action {
    guard session == position.session else { return .greet }
    guard awaited == nil else { return .ignore }
    if position.catchUp != nil { return .pull }
    guard position.at == last else { return last.number < position.at.number ? .ignore : .pull }
    guard position.unsettledUntil != nil else { return asks ? .acknowledge : .ignore }
    var next = position
    next.unsettledUntil = nil
    return .apply(next)
  }

  package func windowArrived(_ window: WindowHeader) -> Action {
    guard window.token == awaited, window.part == expectedPart else { return .ignore }
    guard window.session == position.session else { return .greet }
    var next = position
    var catchUp =
      position.catchUp
      ?? CatchUp(from: window.from, cursor: window.cursor, full: window.full, target: window.target)
    if catchUp.from != window.from || catchUp.full != window.full {
      // The sender does not know any more where this catch-up began: it has begun another.
      catchUp.from = window.from
      catchUp.full = window.full
      catchUp.target = window.target
    }
    catchUp.cursor = window.cursor
    if window.more {
      next.catchUp = catchUp
    } else {
      next.catchUp = nil
      next.at = catchUp.target
      // A catch-up in one piece is consistent as it is. Else the batches after the target may have been read, though
      // not yet recorded, before the last window was: only the one after them has passed it for certain.
      next.unsettledUntil =
        position.catchUp == nil ? nil : max(window.target, catchUp.target).following(by: window.settlesAfter)
    }
    return .apply(next)
  }

  /// A handshake agreed on where the receiver stands. A catch-up goes on if it began there; half a one that does
  /// not is not consistent before the next one ends.
  package func welcomed(session: SessionID, at: BatchReference) -> InboundPosition {
    var next = position
    next.session = session
    if at != position.at {
      next.at = at
      next.catchUp = nil
      next.unsettledUntil = Int64.max
    }
    return next
  }

  package mutating func asked(_ token: PullToken) {
    awaited = token
    expectedPart = 0
    isBehind = false
  }

  /// The answer is overdue: the next sign of the sender asks again, under another token.
  package mutating func answerTimedOut() { awaited = nil }

  /// The transaction that stored `next` committed: a batch, a beat or a handshake.
  package mutating func committed(_ next: InboundPosition) {
    if next.session != position.session || next.at != position.at { awaited = nil }
    position = next
    isBehind = false
  }

  /// The transaction that applied a window's part committed.
  package mutating func committed(_ next: InboundPosition, part window: WindowHeader) {
    position = next
    expectedPart = window.part + 1
    isBehind = next.catchUp == nil && next.at != window.target
    if window.isLastPart { awaited = nil }
  }
}
