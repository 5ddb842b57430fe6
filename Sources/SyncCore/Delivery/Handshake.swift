/// Names one attempt to shake hands; a repeated hello bears the same, so that a late welcome still fits.
package struct Nonce: Hashable, Sendable, RawRepresentable {
  package let rawValue: Int64
  package init(rawValue: Int64) { self.rawValue = rawValue }
}

/// What a handshake is made of.
package enum Handshake {
  /// A branch tells head where it stands in both streams.
  package struct Hello: Hashable, Sendable {
    package var nonce: Nonce
    /// Of the branch's stream, as the last welcome gave it.
    package var session: SessionID?
    /// In head's stream.
    package var at: BatchReference
    /// The last batch of its own.
    package var last: BatchReference

    package init(nonce: Nonce, session: SessionID?, at: BatchReference, last: BatchReference) {
      self.nonce = nonce
      self.session = session
      self.at = at
      self.last = last
    }
  }

  /// Head's answer: the sessions from now on, and where both stand.
  package struct Welcome: Hashable, Sendable {
    package var nonce: Nonce
    /// Of the branch's stream.
    package var session: SessionID
    /// Where head stands in the branch's stream.
    package var have: BatchReference
    /// Of head's stream.
    package var headSession: SessionID
    /// Where the branch stands in head's stream: what it said if head knows it, else the origin.
    package var start: BatchReference
    /// Head's last batch.
    package var last: BatchReference
    /// Head went back, and does not have again yet what it once got from, or gave to, this branch.
    package var recovers: Bool

    package init(
      nonce: Nonce, session: SessionID, have: BatchReference, headSession: SessionID, start: BatchReference,
      last: BatchReference, recovers: Bool = false
    ) {
      self.nonce = nonce
      self.session = session
      self.have = have
      self.headSession = headSession
      self.start = start
      self.last = last
      self.recovers = recovers
    }
  }

  /// What a welcome means for a branch: stored in one transaction, then taken over by both streams.
  package struct Adoption: Hashable, Sendable {
    package var session: SessionID
    package var inbound: InboundPosition
    package var last: BatchReference
    package var acknowledged: BatchReference
    /// Head misses what follows this; nil when it has all that it can have by now.
    package var resendFrom: BatchReference?
    /// Something is to be fetched from head.
    package var pulls: Bool
    /// Head went back: the batch from `resendFrom` gives back what it lost.
    package var owes = false

    /// The session to store. An office that owes head what it lost has none before that batch is recorded: starting anew
    /// meanwhile, it would go on under a session whose first batch head takes for all that it had lost.
    package var storedSession: SessionID? { owes ? nil : session }
  }
}

/// Branch: the handshake with head, at every connection and whenever a session turns out not to hold.
///
/// Exchange goes on under the stored sessions meanwhile: a welcome that confirms them disturbs nothing on its way.
package struct GreetingMachine: Sendable {
  package enum Action: Hashable, Sendable {
    case hello(Handshake.Hello)
    /// Store the adoption in one transaction, then tell both streams and call `adopted`.
    case adopt(Handshake.Adoption)
    case ignore
  }

  /// The hello whose welcome is awaited.
  package private(set) var awaited: Handshake.Hello?

  package init() {}

  /// The broker is connected, or something showed that the session does not hold (`.greet`).
  package mutating func greetingNeeded(
    nonce: Nonce, inbound: InboundStream, outbound: OutboundStream
  ) -> Action {
    guard awaited == nil else { return .ignore }
    let hello = Handshake.Hello(
      nonce: nonce, session: outbound.session, at: inbound.position.at, last: outbound.last)
    awaited = hello
    return .hello(hello)
  }

  /// Head refused a message of `session`.
  package mutating func rehelloArrived(
    _ session: SessionID, nonce: Nonce, inbound: InboundStream, outbound: OutboundStream
  ) -> Action {
    guard outbound.session == nil || outbound.session == session else { return .ignore }
    return greetingNeeded(nonce: nonce, inbound: inbound, outbound: outbound)
  }

  /// The welcome is overdue: the same hello again.
  package func answerTimedOut() -> Action { awaited.map { .hello($0) } ?? .ignore }

  /// What was sent before the hello has reached head by now or is lost; what was sent after it is behind it. A
  /// number is never used twice, also when head knows of a higher one.
  ///
  /// A head that went back gets what came from it, too: whatever this office had applied before it made the batch where
  /// head stands, head had before it applied that batch; so all that head lost is new here since then.
  package func welcomeArrived(
    _ welcome: Handshake.Welcome, inbound: InboundStream, outbound: OutboundStream
  ) -> Action {
    guard let hello = awaited, hello.nonce == welcome.nonce else { return .ignore }
    // Head knows where this office stood, so it knows where the office has come since, unless it has begun anew: then
    // it may have gone back to just where this office stood.
    let knowsNow = welcome.start == hello.at && welcome.headSession == inbound.position.session
    let at = knowsNow ? inbound.position.at : welcome.start
    let position = inbound.welcomed(session: welcome.headSession, at: at)
    let goesOn = welcome.session == outbound.session && welcome.have == hello.last
    let hasAll = !welcome.recovers && (goesOn || welcome.have == outbound.last)
    return .adopt(
      Handshake.Adoption(
        session: welcome.session, inbound: position, last: max(outbound.last, welcome.have),
        acknowledged: welcome.have,
        resendFrom: hasAll ? nil : welcome.have,
        pulls: position.catchUp != nil || position.at < welcome.last, owes: welcome.recovers))
  }

  package mutating func adopted() { awaited = nil }

  /// The database is another one now: what was said of it does not hold.
  package mutating func forgot() { awaited = nil }
}

/// Head: answers hellos. A session goes on where head stands inside that very session's stream; and a hello that
/// arrives twice gets one session, or its copy would end the first.
package struct ReceptionMachine: Sendable {
  private var answered: [String: (nonce: Nonce, session: SessionID)] = [:]
  /// Stored whenever it changes.
  package private(set) var recovery: RecoveryMachine

  package init(recovery: RecoveryMachine = RecoveryMachine()) { self.recovery = recovery }

  /// A whole batch was applied. Returns whether that was what head had lost.
  package mutating func applied(from office: String) -> Bool { recovery.applied(from: office) }

  /// The welcome, and the position to store before it is sent.
  ///
  /// - Parameters:
  ///   - known: the branch's position is recorded here.
  ///   - isSame: the branch is the incarnation that greeted before. What another one sent under the session, and is on
  ///     its way, belongs to a stream that this one does not know.
  package mutating func helloArrived(
    _ hello: Handshake.Hello, from office: String, known: Bool, inbound: InboundPosition,
    last: BatchReference,
    headSession: SessionID, fresh: SessionID, isSame: Bool = true
  ) -> (welcome: Handshake.Welcome, inbound: InboundPosition) {
    recovery.greeted(office, knowsPosition: known)
    let isSame = isSame && !recovery.needsNewSession(office)
    var session = fresh
    if let given = answered[office], given.nonce == hello.nonce {
      session = given.session
    } else if isSame, let theirs = hello.session, theirs == inbound.session, hello.last >= inbound.at {
      session = theirs
    }
    answered[office] = (hello.nonce, session)
    var position = inbound
    position.session = session
    let welcome = Handshake.Welcome(
      nonce: hello.nonce, session: session, have: inbound.at, headSession: headSession,
      start: known ? hello.at : .origin, last: last, recovers: recovery.needsNewSession(office))
    return (welcome, position)
  }

  package mutating func left(_ office: String) {
    answered[office] = nil
    recovery.left(office)
  }
}
