import Testing

@testable import SyncCore

struct InboundStreamTests {
  let session = SessionID(rawValue: 7)

  private func stream(at number: Int64, catchUp: CatchUp? = nil, unsettledUntil: Int64? = nil)
    -> InboundStream
  {
    InboundStream(
      position: InboundPosition(
        session: session, at: reference(number), catchUp: catchUp, unsettledUntil: unsettledUntil))
  }

  private func batch(_ number: Int64, on previous: Int64) -> BatchHeader {
    BatchHeader(session: session, reference: reference(number), previous: reference(previous))
  }

  private func window(
    _ token: Int64, part: Int = 0, last: Bool = true, more: Bool, target: Int64, from: Int64 = 1,
    cursor: UInt8 = 5
  ) -> WindowHeader {
    WindowHeader(
      session: session, token: PullToken(rawValue: token), part: part, isLastPart: last,
      from: reference(from),
      cursor: [cursor], more: more, full: false, target: reference(target))
  }

  @Test func aBatchIsAppliedOnlyWhereTheReceiverStands() {
    let stream = stream(at: 3)
    #expect(
      stream.batchArrived(batch(4, on: 3)) == .apply(InboundPosition(session: session, at: reference(4))))
    #expect(stream.batchArrived(batch(5, on: 4)) == .pull)
    #expect(stream.batchArrived(batch(3, on: 2)) == .acknowledge)
    #expect(stream.batchArrived(batch(2, on: 1)) == .ignore)
  }

  @Test func aBatchOfTheSameNumberButAnotherIdIsNotTheOneApplied() {
    let other = BatchHeader(session: session, reference: reference(3, 1), previous: reference(2))
    #expect(stream(at: 3).batchArrived(other) == .ignore)
  }

  @Test func anEarlierSessionIsGreeted() {
    var header = batch(4, on: 3)
    header.session = SessionID(rawValue: 6)
    #expect(stream(at: 3).batchArrived(header) == .greet)
    #expect(stream(at: 3).beatArrived(session: header.session, last: reference(3)) == .greet)
  }

  @Test func aGapIsAskedForOnceUntilTheAnswerIsOverdue() {
    var stream = stream(at: 3)
    stream.asked(PullToken(rawValue: 1))
    #expect(stream.batchArrived(batch(6, on: 5)) == .ignore)
    #expect(stream.beatArrived(session: session, last: reference(6)) == .ignore)
    stream.answerTimedOut()
    #expect(stream.batchArrived(batch(7, on: 6)) == .pull)
  }

  @Test func aBeatShowsAMissingTail() {
    #expect(stream(at: 3).beatArrived(session: session, last: reference(4)) == .pull)
    #expect(stream(at: 3).beatArrived(session: session, last: reference(2)) == .ignore)
    #expect(stream(at: 3).beatArrived(session: session, last: reference(3), asks: true) == .acknowledge)
    #expect(stream(at: 3).beatArrived(session: session, last: reference(3), asks: false) == .ignore)
  }

  @Test func aWindowInOnePieceIsConsistentAtOnce() {
    var stream = stream(at: 1)
    stream.asked(PullToken(rawValue: 1))
    let expected = InboundPosition(session: session, at: reference(8))
    #expect(stream.windowArrived(window(1, more: false, target: 8)) == .apply(expected))
  }

  @Test func aCatchUpInPiecesIsSettledByTheSecondBatchAfterItsTarget() {
    // Believed: the batch after the target has passed the last window. Wrong: it may have been read before that
    // window and recorded after it (found by the simulation's rule settle-next-batch).
    var stream = stream(at: 1)
    stream.asked(PullToken(rawValue: 1))
    guard case .apply(let first) = stream.windowArrived(window(1, more: true, target: 8)) else { return }
    stream.committed(first, part: window(1, more: true, target: 8))
    #expect(stream.needsPull && first.at == reference(1))
    stream.asked(PullToken(rawValue: 2))
    guard case .apply(let second) = stream.windowArrived(window(2, more: false, target: 9)) else {
      Issue.record("not applied")
      return
    }
    stream.committed(second, part: window(2, more: false, target: 9))
    #expect(second.at == reference(8) && second.unsettledUntil == 11)
    for (number, settled) in [(9, false), (10, false), (11, true)] as [(Int64, Bool)] {
      guard case .apply(let next) = stream.batchArrived(batch(number, on: number - 1)) else {
        Issue.record("batch \(number) not applied")
        return
      }
      stream.committed(next)
      #expect(stream.position.isCatchingUp == !settled)
    }
  }

  @Test func aBeatSettlesToo() {
    let stream = stream(at: 8, unsettledUntil: 11)
    #expect(
      stream.beatArrived(session: session, last: reference(8))
        == .apply(InboundPosition(session: session, at: reference(8))))
  }

  @Test func liveBatchesPassByDuringACatchUp() {
    // Believed: applying them keeps the catch-up's end close. Wrong: one transaction each, they came faster than they
    // were applied, with the windows behind them in the queue (a join ended only when the traffic did).
    let catchUp = CatchUp(from: reference(1), cursor: [5], full: false, target: reference(8))
    var stream = stream(at: 1, catchUp: catchUp)
    #expect(stream.batchArrived(batch(9, on: 8)) == .pull)
    stream.asked(PullToken(rawValue: 4))
    #expect(stream.batchArrived(batch(9, on: 8)) == .ignore)
    stream.answerTimedOut()
    #expect(stream.needsPull)
  }

  @Test func aCatchUpThatEndsBehindTheSenderAsksForTheRest() {
    let catchUp = CatchUp(from: reference(1), cursor: [5], full: false, target: reference(8))
    for (target, isBehind) in [(Int64(8), false), (12, true)] {
      var stream = stream(at: 1, catchUp: catchUp)
      stream.asked(PullToken(rawValue: 4))
      let last = window(4, more: false, target: target)
      guard case .apply(let next) = stream.windowArrived(last) else {
        Issue.record("not applied")
        return
      }
      stream.committed(next, part: last)
      #expect(next.at == reference(8) && stream.needsPull == isBehind)
      stream.asked(PullToken(rawValue: 5))
      // In one window: consistent as it is, whatever was unsettled before.
      let rest = window(5, more: false, target: 12, from: 8)
      #expect(stream.windowArrived(rest) == .apply(InboundPosition(session: session, at: reference(12))))
    }
  }

  @Test func aLateOrRepeatedPartOfAWindowIsIgnored() {
    var stream = stream(at: 1)
    stream.asked(PullToken(rawValue: 2))
    #expect(stream.windowArrived(window(1, more: false, target: 8)) == .ignore)
    #expect(stream.windowArrived(window(2, part: 1, more: false, target: 8)) == .ignore)
  }

  @Test func aHandshakeDoesNotUndoACatchUp() {
    // Believed: a handshake begins anew. Wrong: a restarted head would have every load of a branch begin at zero.
    let catchUp = CatchUp(from: reference(1), cursor: [5], full: false, target: reference(8))
    let stream = stream(at: 1, catchUp: catchUp)
    let next = stream.welcomed(session: SessionID(rawValue: 9), at: reference(1))
    #expect(next.catchUp == catchUp && next.session == SessionID(rawValue: 9))
    #expect(stream.welcomed(session: session, at: .origin).catchUp == nil)
    #expect(stream.welcomed(session: session, at: .origin).isCatchingUp)
  }

  @Test func aCatchUpBeginsAgainWhereTheSenderSaysItDoes() {
    // Believed: a window always continues what is stored. Wrong: a sender that does not know `from` any more answers
    // from the origin, and the next request, still naming the old `from`, would begin there again, for ever.
    let catchUp = CatchUp(from: reference(1), cursor: [5], full: false, target: reference(8))
    var stream = stream(at: 1, catchUp: catchUp)
    stream.asked(PullToken(rawValue: 2))
    guard case .apply(let next) = stream.windowArrived(window(2, more: true, target: 20, from: 0, cursor: 2))
    else {
      Issue.record("not applied")
      return
    }
    #expect(next.catchUp == CatchUp(from: reference(0), cursor: [2], full: false, target: reference(20)))
  }

  @Test func aNumberFromTheNetworkOverflowsNothing() {
    let catchUp = CatchUp(from: reference(1), cursor: [5], full: false, target: reference(8))
    var stream = stream(at: 1, catchUp: catchUp)
    stream.asked(PullToken(rawValue: 1))
    var header = window(1, more: false, target: 8)
    header.target = reference(Int64.max, 1)
    guard case .apply(let next) = stream.windowArrived(header) else { return }
    #expect(next.unsettledUntil == Int64.max)
  }
}
