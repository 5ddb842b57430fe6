/// Numbers and chains the batches of one office's stream, and knows how far each receiver has acknowledged.
///
/// Pure: the driver records a batch (its reference and the feed positions it spans) durably before it is sent.
package struct OutboundStream: Sendable {
  /// What a sender does when a receiver asks for what it misses.
  package enum PullAction: Hashable, Sendable {
    /// Read again from there and send it as a new batch: `nextHeader` says so until it is recorded.
    case resend
    /// It has the last batch, or has moved on since: say what the last one is.
    case beat
    /// It stands at a position that is not known here: shake hands.
    case greet
  }

  /// A branch's session is given by head's welcome; head draws its own when it starts.
  package private(set) var session: SessionID?
  /// The last batch recorded.
  package private(set) var last: BatchReference
  /// By receiving office: the position it has stored durably, with all rows up to it.
  package private(set) var acknowledged: [String: BatchReference]
  /// The next batch to be read goes on top of this instead of `last`, and is read from its position, with the rows that once
  /// came from the receiver: what the receiver misses. It is sent even if it has no rows.
  package private(set) var resendFrom: BatchReference?
  /// Handshakes so far. What was read before one that asks to send again does not answer it, even if it begins at the
  /// same batch: it lacks what came from the receiver.
  package private(set) var adoptions = 0

  package init(
    session: SessionID?, last: BatchReference, acknowledged: [String: BatchReference]
  ) {
    self.session = session
    self.last = last
    self.acknowledged = acknowledged
  }

  /// The header of a new batch. `base`: the batch from whose position its rows were read, as `base` said before the
  /// reading began: a request that comes meanwhile is not what this batch answers. A number is never used twice, also
  /// not for what is sent again. nil before a session is agreed on, or when a handshake since `adoptions` asks for more.
  package func nextHeader(
    id: Int64, after base: BatchReference, adoptions: Int? = nil, isSlice: Bool = false
  ) -> BatchHeader? {
    guard let session, resendFrom == nil || adoptions ?? self.adoptions == self.adoptions else { return nil }
    return BatchHeader(
      session: session, reference: BatchReference(number: last.following(by: 1), id: id),
      previous: base, isSlice: isSlice)
  }

  /// Whether the scan that the batch `reference` was a slice of goes on: a request for what is missing, or a handshake,
  /// decides what comes next instead.
  package func goesOn(after reference: BatchReference, adoptions: Int) -> Bool {
    last == reference && resendFrom == nil && adoptions == self.adoptions
  }

  /// What the next batch builds on: read its rows from this batch's position.
  package var base: BatchReference { resendFrom ?? last }

  /// The batch's record is durable.
  package mutating func recorded(_ reference: BatchReference) { last = reference }

  /// The batch's record is durable; it may be the one that sends again.
  package mutating func recorded(_ header: BatchHeader) {
    last = header.reference
    if header.previous == resendFrom { resendFrom = nil }
  }

  /// The only receiver misses what follows `at`. `known`: the position that this batch led to is recorded here.
  package mutating func pullArrived(at: BatchReference, from office: String, known: Bool) -> PullAction {
    guard at != last else { return .beat }
    guard at.number >= (acknowledged[office] ?? .origin).number else { return .beat }
    guard known else { return .greet }
    resendFrom = at
    return .resend
  }

  /// Whether an acknowledgement counts: for the current session, not beyond what was sent, not backwards.
  package func accepts(_ reference: BatchReference, session: SessionID, from office: String) -> Bool {
    session == self.session && reference.number <= last.number
      && reference.number > (acknowledged[office] ?? .origin).number
  }

  package mutating func acknowledge(_ reference: BatchReference, from office: String) {
    acknowledged[office] = reference
    if let from = resendFrom, reference.number > from.number { resendFrom = nil }
  }

  /// A handshake may move an acknowledged position back.
  package mutating func welcomed(
    session: SessionID?, receiver office: String, standsAt reference: BatchReference, last: BatchReference
  ) {
    self.session = session
    self.last = last
    acknowledged[office] = reference
  }

  /// Branch: head stands at `have`; what it misses is sent again from there. A batch that was recorded while the
  /// adoption was being stored is not forgotten: its number is taken.
  package mutating func adopted(_ adoption: Handshake.Adoption, receiver office: String) {
    welcomed(
      session: adoption.session, receiver: office, standsAt: adoption.acknowledged, last: max(last, adoption.last))
    resendFrom = adoption.resendFrom
    adoptions += 1
  }

  /// Batches that not even the quickest receiver has acknowledged; 0 without receivers.
  package var unacknowledged: Int64 {
    acknowledged.values.map(\.number).max().map { last.number - $0 } ?? 0
  }

  package mutating func left(_ office: String) { acknowledged[office] = nil }

  package func isAcknowledged(by office: String) -> Bool { acknowledged[office] == last }
}
