/// Numbers and chains the batches of one office's stream, and knows how far each receiver has acknowledged.
///
/// Pure: the driver records a batch (its reference and the feed positions it spans) durably before it is sent.
package struct OutboundStream: Sendable {
  /// A branch's session is given by head's welcome; head draws its own when it starts.
  package private(set) var session: SessionID?
  /// The last batch recorded.
  package private(set) var last: BatchReference
  /// By receiving office: the position it has stored durably, with all rows up to it.
  package private(set) var acknowledged: [String: BatchReference]

  package init(session: SessionID?, last: BatchReference, acknowledged: [String: BatchReference]) {
    self.session = session
    self.last = last
    self.acknowledged = acknowledged
  }

  /// The header of a new batch on top of the last one, or, to send again, of `previous`: where the receiver
  /// stands. A number is never used twice, also not for what is sent again. nil before a session is agreed on.
  package func nextHeader(id: Int64, after previous: BatchReference? = nil) -> BatchHeader? {
    guard let session else { return nil }
    return BatchHeader(
      session: session, reference: BatchReference(number: last.number + 1, id: id), previous: previous ?? last)
  }

  /// The batch's record is durable.
  package mutating func recorded(_ reference: BatchReference) { last = reference }

  /// Whether an acknowledgement counts: for the current session, not beyond what was sent, not backwards.
  package func accepts(_ reference: BatchReference, session: SessionID, from office: String) -> Bool {
    session == self.session && reference.number <= last.number
      && reference.number > (acknowledged[office] ?? .origin).number
  }

  package mutating func acknowledge(_ reference: BatchReference, from office: String) {
    acknowledged[office] = reference
  }

  /// A handshake may move an acknowledged position back.
  package mutating func welcomed(
    session: SessionID?, receiver office: String, standsAt reference: BatchReference, last: BatchReference
  ) {
    self.session = session
    self.last = last
    acknowledged[office] = reference
  }

  package mutating func left(_ office: String) { acknowledged[office] = nil }

  package func isAcknowledged(by office: String) -> Bool { acknowledged[office] == last }
}
