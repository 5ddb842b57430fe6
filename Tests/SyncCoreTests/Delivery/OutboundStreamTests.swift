import Testing

@testable import SyncCore

struct OutboundStreamTests {
  let session = SessionID(rawValue: 7)

  private func stream(last: Int64, acknowledged: Int64 = 0) -> OutboundStream {
    OutboundStream(
      session: session, last: reference(last),
      acknowledged: ["head": acknowledged == 0 ? .origin : reference(acknowledged)])
  }

  @Test func batchesFormAChain() {
    var stream = stream(last: 3)
    let header = stream.nextHeader(id: 400, after: stream.base)
    #expect(header == BatchHeader(session: session, reference: reference(4), previous: reference(3)))
    stream.recorded(reference(4))
    #expect(stream.nextHeader(id: 500, after: stream.base)?.previous == reference(4))
  }

  @Test func aBatchRecordedWhileAWelcomeIsStoredKeepsItsNumber() {
    // Believed: a welcome's adoption knows the last batch. Wrong: storing it takes a while, and a batch recorded
    // meanwhile had its number drawn again ("duplicate key value violates unique constraint batch_pkey").
    var stream = stream(last: 5)
    let adoption = Handshake.Adoption(
      session: session, inbound: InboundPosition(), last: reference(5), acknowledged: reference(5), resendFrom: nil,
      pulls: false)
    stream.recorded(reference(6))
    stream.adopted(adoption, receiver: "head")
    #expect(stream.nextHeader(id: 700, after: stream.base)?.reference.number == 7)
  }

  @Test func nothingIsSentBeforeASessionIsAgreedOn() {
    let stream = OutboundStream(session: nil, last: .origin, acknowledged: [:])
    #expect(stream.nextHeader(id: 1, after: stream.base) == nil)
  }

  @Test func whatIsSentAgainHasANewNumberOnTopOfTheReceiversPosition() {
    var stream = stream(last: 5, acknowledged: 2)
    #expect(stream.pullArrived(at: reference(2), from: "head", known: true) == .resend)
    let header = stream.nextHeader(id: 600, after: stream.base)
    #expect(header?.previous == reference(2) && header?.reference.number == 6)
    if let header { stream.recorded(header) }
    #expect(stream.nextHeader(id: 700, after: stream.base)?.previous == reference(6, 600))
  }

  /// Believed: what builds on the batch that the handshake asks for answers it. What was read before the handshake lacks
  /// the rows that came from a head which has lost them; it happened to begin at the same batch.
  @Test func whatWasReadBeforeAHandshakeDoesNotAnswerIt() {
    var stream = stream(last: 5, acknowledged: 5)
    let before = stream.adoptions
    stream.adopted(
      Handshake.Adoption(
        session: SessionID(rawValue: 9), inbound: InboundPosition(), last: reference(5), acknowledged: reference(5),
        resendFrom: reference(5), pulls: false), receiver: "head")
    #expect(stream.nextHeader(id: 600, after: reference(5), adoptions: before) == nil)
    #expect(stream.nextHeader(id: 600, after: stream.base, adoptions: stream.adoptions)?.previous == reference(5))
  }

  @Test func aBatchReadBeforeTheRequestDoesNotAnswerIt() {
    // Believed: recording any batch fulfils the request. Wrong: one that was being read when the request came builds on
    // the last batch, not on where the receiver stands.
    var stream = stream(last: 5, acknowledged: 2)
    // The product once fell back to the request when it was not told what it had read from: the rows between were lost.
    let base = stream.base
    _ = stream.pullArrived(at: reference(2), from: "head", known: true)
    let reading = stream.nextHeader(id: 600, after: base)
    #expect(reading?.previous == reference(5))
    if let reading { stream.recorded(reading) }
    #expect(stream.resendFrom == reference(2))
  }

  @Test func aStaleRequestIsAnsweredByABeat() {
    var stream = stream(last: 5, acknowledged: 4)
    #expect(stream.pullArrived(at: reference(5), from: "head", known: true) == .beat)
    #expect(stream.pullArrived(at: reference(2), from: "head", known: true) == .beat)
    #expect(stream.pullArrived(at: reference(4, 1), from: "head", known: false) == .greet)
    #expect(stream.resendFrom == nil)
  }

  @Test func anAcknowledgementCountsForwardWithinWhatWasSent() {
    let stream = stream(last: 5, acknowledged: 3)
    #expect(stream.accepts(reference(4), session: session, from: "head"))
    #expect(!stream.accepts(reference(3), session: session, from: "head"))
    #expect(!stream.accepts(reference(6), session: session, from: "head"))
    #expect(!stream.accepts(reference(4), session: SessionID(rawValue: 1), from: "head"))
  }
}
