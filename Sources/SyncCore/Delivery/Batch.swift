/// The position in an office's stream that a batch leads to. Number and random id: a number alone does not
/// show an office that was restored and then wrote more than it had lost.
package struct BatchReference: Hashable, Sendable {
  package var number: Int64
  package var id: Int64

  package init(number: Int64, id: Int64) {
    self.number = number
    self.id = id
  }

  /// Where every stream begins: nothing was sent.
  package static let origin = BatchReference(number: 0, id: 0)

  /// A number further on; saturates, because a reference from the network may have any number.
  package func following(by distance: Int64) -> Int64 {
    let (sum, overflow) = number.addingReportingOverflow(distance)
    return overflow ? Int64.max : sum
  }
}

extension BatchReference: Comparable {
  package static func < (a: BatchReference, b: BatchReference) -> Bool { (a.number, a.id) < (b.number, b.id) }
}

/// Names one handshake. Batches of an earlier session are dropped.
package struct SessionID: Hashable, Sendable, RawRepresentable {
  package let rawValue: Int64
  package init(rawValue: Int64) { self.rawValue = rawValue }
}

/// Names one request for a catch-up window, so that a late answer to an earlier request is not taken for it.
package struct PullToken: Hashable, Sendable, RawRepresentable {
  package let rawValue: Int64
  package init(rawValue: Int64) { self.rawValue = rawValue }
}

/// What a batch says of itself: it is applied only where `previous` is where the receiver stands.
package struct BatchHeader: Hashable, Sendable {
  package var session: SessionID
  package var reference: BatchReference
  package var previous: BatchReference
  /// Rows that were there when it was read follow in a later batch.
  package var isSlice: Bool

  package init(session: SessionID, reference: BatchReference, previous: BatchReference, isSlice: Bool = false) {
    self.isSlice = isSlice
    self.session = session
    self.reference = reference
    self.previous = previous
  }
}

/// What a catch-up window says of itself.
package struct WindowHeader: Hashable, Sendable {
  package var session: SessionID
  package var token: PullToken
  /// One request is answered by parts 0, 1, … each applied on its own; `isLastPart` ends the answer.
  package var part: Int
  package var isLastPart: Bool
  /// The position that the catch-up started from.
  package var from: BatchReference
  /// Where the rows after this part begin; opaque to the receiver, which stores it and sends it back.
  package var cursor: [UInt8]
  /// Rows are left after this part: unless it ends the whole catch-up.
  package var more: Bool
  /// The receiver stood behind the purge horizon: this is a full copy, rows that it lacks are to be dropped.
  package var full: Bool
  /// The sender's last batch when the window was read: after the last window the receiver stands there.
  package var target: BatchReference
  /// The first batch after the target that was certainly read after this window: batches of one scan of the feed are
  /// read together.
  package var settlesAfter: Int64

  package init(
    session: SessionID, token: PullToken, part: Int, isLastPart: Bool, from: BatchReference, cursor: [UInt8],
    more: Bool, full: Bool, target: BatchReference, settlesAfter: Int64 = 2
  ) {
    self.settlesAfter = settlesAfter
    self.session = session
    self.token = token
    self.part = part
    self.isLastPart = isLastPart
    self.from = from
    self.cursor = cursor
    self.more = more
    self.full = full
    self.target = target
  }
}
