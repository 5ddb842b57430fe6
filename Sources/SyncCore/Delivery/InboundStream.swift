/// A catch-up under way: rows since `from`, read window by window, while live batches move the target.
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
  /// A catch-up of several windows is transaction-consistent only once the live feed has passed the last one.
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

/// Decides what a receiver does with what a sender's stream brings. Pure: the driver applies rows and stores
/// the position of `.apply` in one transaction, then calls `committed`.
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

  package init(position: InboundPosition) { self.position = position }

  package func batchArrived(_ header: BatchHeader) -> Action {
    guard header.session == position.session else { return .greet }
    let goal = position.catchUp?.target ?? position.at
    if header.reference == goal { return position.catchUp == nil ? .acknowledge : .ignore }
    guard header.previous == goal else {
      let late = header.reference.number <= goal.number
      return late || awaited != nil || position.catchUp != nil ? .ignore : .pull
    }
    var next = position
    if next.catchUp != nil {
      next.catchUp?.target = header.reference
    } else {
      next.at = header.reference
      if let until = next.unsettledUntil, header.reference.number >= until { next.unsettledUntil = nil }
    }
    return .apply(next)
  }

  /// The sender looked, found nothing unsent, and says what its last batch is. Shows a missing tail, and a
  /// request or an answer that was lost.
  package func beatArrived(session: SessionID, last: BatchReference) -> Action {
    guard session == position.session else { return .greet }
    if position.catchUp != nil || position.at != last { return .pull }
    guard position.unsettledUntil != nil else { return .acknowledge }
    var next = position
    next.unsettledUntil = nil
    return .apply(next)
  }

  package func windowArrived(_ window: WindowHeader) -> Action {
    guard window.session == position.session else { return .greet }
    guard window.token == awaited, window.part == expectedPart else { return .ignore }
    var next = position
    var catchUp =
      position.catchUp
      ?? CatchUp(from: window.from, cursor: window.cursor, full: window.full, target: window.target)
    catchUp.cursor = window.cursor
    if window.more {
      next.catchUp = catchUp
    } else {
      next.catchUp = nil
      next.at = catchUp.target
      if position.isCatchingUp {
        next.unsettledUntil = max(window.target.number, catchUp.target.number) + 1
      }
    }
    return .apply(next)
  }

  /// A handshake agreed on where the receiver stands. Half a catch-up is not consistent before the next one ends.
  package func welcomed(session: SessionID, at: BatchReference) -> InboundPosition {
    InboundPosition(
      session: session, at: at, catchUp: nil, unsettledUntil: position.isCatchingUp ? Int64.max : nil)
  }

  package mutating func asked(_ token: PullToken) {
    awaited = token
    expectedPart = 0
  }

  /// The transaction that stored `next` committed: a batch, a beat or a handshake.
  package mutating func committed(_ next: InboundPosition) {
    if next.session != position.session || next.at != position.at { awaited = nil }
    position = next
  }

  /// The transaction that applied a window's part committed.
  package mutating func committed(_ next: InboundPosition, part window: WindowHeader) {
    position = next
    expectedPart = window.part + 1
    if window.isLastPart { awaited = nil }
  }
}
