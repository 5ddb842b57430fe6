import Testing

@testable import SyncCore

struct HandshakeTests {
  let session = SessionID(rawValue: 7)
  let headSession = SessionID(rawValue: 8)
  let nonce = Nonce(rawValue: 1)

  private func inbound(at number: Int64, session: SessionID? = SessionID(rawValue: 8)) -> InboundStream {
    InboundStream(position: InboundPosition(session: session, at: number == 0 ? .origin : reference(number)))
  }

  private func outbound(last: Int64, session: SessionID? = SessionID(rawValue: 7)) -> OutboundStream {
    OutboundStream(session: session, last: last == 0 ? .origin : reference(last), acknowledged: [:])
  }

  private func welcome(have: Int64, start: Int64, last: Int64, session: SessionID? = nil) -> Handshake.Welcome {
    Handshake.Welcome(
      nonce: nonce, session: session ?? self.session, have: reference(have), headSession: headSession,
      start: start == 0 ? .origin : reference(start), last: reference(last))
  }

  private func greeted(inbound: InboundStream, outbound: OutboundStream) -> GreetingMachine {
    var greeting = GreetingMachine()
    _ = greeting.greetingNeeded(nonce: nonce, inbound: inbound, outbound: outbound)
    return greeting
  }

  @Test func oneHelloAtATimeAndTheSameAgainWhenItsAnswerIsOverdue() {
    var greeting = GreetingMachine()
    let first = greeting.greetingNeeded(nonce: nonce, inbound: inbound(at: 3), outbound: outbound(last: 2))
    let second = greeting.greetingNeeded(
      nonce: Nonce(rawValue: 2), inbound: inbound(at: 3), outbound: outbound(last: 2))
    #expect(second == .ignore)
    #expect(greeting.answerTimedOut() == first)
  }

  @Test func aWelcomeThatConfirmsEverythingDisturbsNothing() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 2))
    // Both streams went on meanwhile.
    let action = greeting.welcomeArrived(
      welcome(have: 2, start: 3, last: 5), inbound: inbound(at: 5), outbound: outbound(last: 4))
    guard case .adopt(let adoption) = action else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.resendFrom == nil && !adoption.pulls)
    #expect(adoption.inbound.at == reference(5) && adoption.last == reference(4))
  }

  /// Believed: that the session is stored with the welcome does no harm. A branch that ended before it had given back what
  /// head lost went on under that session when it started, and head took its next batch for all that it had lost.
  @Test func aSessionIsStoredWhenWhatHeadLostIsRecorded() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 2))
    for recovers in [false, true] {
      var answer = welcome(have: 2, start: 3, last: 3, session: SessionID(rawValue: 9))
      answer.recovers = recovers
      let action = greeting.welcomeArrived(answer, inbound: inbound(at: 3), outbound: outbound(last: 2))
      guard case .adopt(let adoption) = action else {
        Issue.record("not adopted")
        return
      }
      #expect(adoption.session == SessionID(rawValue: 9))
      #expect(adoption.storedSession == (recovers ? nil : SessionID(rawValue: 9)))
      #expect(adoption.resendFrom == (recovers ? reference(2) : nil))
    }
  }

  @Test func whatHeadLacksIsSentAgain() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 4))
    let action = greeting.welcomeArrived(
      welcome(have: 2, start: 3, last: 5), inbound: inbound(at: 3), outbound: outbound(last: 4))
    guard case .adopt(let adoption) = action else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.resendFrom == reference(2) && adoption.pulls)
  }

  @Test func underANewSessionWhatWasSentAfterTheHelloIsSentAgain() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 4))
    let action = greeting.welcomeArrived(
      welcome(have: 4, start: 3, last: 3, session: SessionID(rawValue: 99)), inbound: inbound(at: 3),
      outbound: outbound(last: 5))
    guard case .adopt(let adoption) = action else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.resendFrom == reference(4))
  }

  /// Believed: a head that knows where the branch stood at its hello knows where it came since. A head that was put back
  /// to just that batch does not: the branch stood still for ever at a batch that nobody had.
  @Test func aHeadThatBeganAnewDoesNotKnowWhereTheBranchCameSinceItsHello() {
    let greeting = greeted(inbound: inbound(at: 3, session: SessionID(rawValue: 80)), outbound: outbound(last: 2))
    let action = greeting.welcomeArrived(
      welcome(have: 2, start: 3, last: 3), inbound: inbound(at: 7, session: SessionID(rawValue: 80)),
      outbound: outbound(last: 2))
    guard case .adopt(let adoption) = action else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.inbound.at == reference(3))
  }

  @Test func aHeadThatWentBackIsSentAgainWhatFollowsAlsoIfThatIsNothingOfTheBranch() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 2))
    var recovers = welcome(have: 2, start: 3, last: 3)
    recovers.recovers = true
    guard
      case .adopt(let adoption) = greeting.welcomeArrived(
        recovers, inbound: inbound(at: 3), outbound: outbound(last: 2))
    else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.resendFrom == reference(2))
  }

  @Test func aWelcomeToAnotherHelloIsIgnored() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 4))
    var late = welcome(have: 4, start: 3, last: 3)
    late.nonce = Nonce(rawValue: 5)
    #expect(greeting.welcomeArrived(late, inbound: inbound(at: 3), outbound: outbound(last: 4)) == .ignore)
    #expect(
      GreetingMachine().welcomeArrived(
        welcome(have: 4, start: 3, last: 3), inbound: inbound(at: 3), outbound: outbound(last: 4)) == .ignore)
  }

  @Test func aNumberThatHeadKnowsIsNotUsedAgain() {
    let greeting = greeted(inbound: inbound(at: 3), outbound: outbound(last: 4))
    let action = greeting.welcomeArrived(
      welcome(have: 9, start: 3, last: 3), inbound: inbound(at: 3), outbound: outbound(last: 4))
    guard case .adopt(let adoption) = action else {
      Issue.record("not adopted")
      return
    }
    #expect(adoption.last == reference(9))
  }

  @Test func aRepeatedHelloGetsTheSameSession() {
    var reception = ReceptionMachine()
    let hello = Handshake.Hello(nonce: nonce, session: nil, at: .origin, last: .origin)
    func answer(_ fresh: Int64, _ reception: inout ReceptionMachine) -> SessionID {
      reception.helloArrived(
        hello, from: "a", known: true, inbound: InboundPosition(), last: .origin, headSession: headSession,
        fresh: SessionID(rawValue: fresh)
      ).welcome.session
    }
    #expect(answer(11, &reception) == SessionID(rawValue: 11))
    #expect(answer(12, &reception) == SessionID(rawValue: 11))
  }

  @Test func aSessionGoesOnWhereHeadStandsInsideIt() {
    var reception = ReceptionMachine()
    let position = InboundPosition(session: session, at: reference(4))
    func answer(last: Int64, nonce: Int64, known: Bool = true) -> Handshake.Welcome {
      reception.helloArrived(
        Handshake.Hello(
          nonce: Nonce(rawValue: nonce), session: session, at: reference(2), last: reference(last)),
        from: "a", known: known, inbound: position, last: reference(6), headSession: headSession,
        fresh: SessionID(rawValue: 11)
      ).welcome
    }
    #expect(answer(last: 4, nonce: 1).session == session)
    #expect(answer(last: 3, nonce: 2).session == SessionID(rawValue: 11))
    // The branch stands where head has never been, or does not remember to have been: head went back.
    let lost = answer(last: 4, nonce: 3, known: false)
    #expect(lost.start == .origin && lost.recovers && lost.session == SessionID(rawValue: 11))
  }
}
