import Logging
import SyncCore
import SyncWire

/// Handshakes: which session, and where each side stands in the other's stream.
extension OfficeService {
  /// The session of what arrived is not the one agreed on.
  func greet(_ office: String, refusing session: SessionID) async throws {
    if isHead {
      try await send(.rehello(session), to: .office(office))
    } else {
      try await sayHello()
    }
  }

  /// A branch greets head, unless an answer is awaited.
  func sayHello() async throws {
    guard let head = headPeer else { return }
    try await act(
      on: greeting.greetingNeeded(nonce: Self.nonce(), inbound: head.inbound, outbound: outbound))
  }

  /// A new connection, or no answer for long: the hello that is awaited again, or a first one.
  func sayHelloAgain() async throws {
    if greeting.awaited == nil { return try await sayHello() }
    try await act(on: greeting.answerTimedOut())
  }

  /// Head refused a message of this session (branch).
  func refused(_ session: SessionID) async throws {
    guard let head = headPeer else { return }
    try await act(
      on: greeting.rehelloArrived(session, nonce: Self.nonce(), inbound: head.inbound, outbound: outbound))
  }

  private static func nonce() -> Nonce { Nonce(rawValue: .random(in: 1...Int64.max)) }

  private func act(on action: GreetingMachine.Action) async throws {
    guard case .hello(let hello) = action else { return }
    greetingReminder.asked(at: uptime)
    try await send(
      .hello(
        Hello(
          nonce: hello.nonce.rawValue, session: hello.session, at: hello.at, last: hello.last,
          catalogueVersion: identity.catalogueVersion, hubVersion: hubVersion,
          conflicts: headPeer?.record.conflictsAt ?? 0)), to: .head)
    CrashPoint.helloSent.passed()
  }

  /// Head answers a greeting.
  func greeted(_ hello: Hello, _ office: String, _ incarnation: Int64) async throws {
    guard let peer = peers[office], let headSession = outbound.session,
      try await isAdmitted(hello, office, incarnation)
    else { return }
    let isSame = peer.record.incarnation == incarnation
    let applied = peer.record.applied
    if Horizon.isBehind(hello.at, isSame: isSame, applied: applied, purged: identity.purging) {
      return try await refuseForgotten(hello, office)
    }
    let answer = reception.helloArrived(
      Handshake.Hello(
        nonce: Nonce(rawValue: hello.nonce), session: hello.session, at: hello.at, last: hello.last),
      from: office, known: try await store.knowsBatch(hello.at), inbound: peer.inbound.position,
      last: outbound.last, headSession: headSession, fresh: SessionID(rawValue: .random(in: 1...Int64.max)),
      isSame: isSame)
    let welcome = answer.welcome
    try await forgetStaged(of: office, unlessIn: answer.inbound.session)
    try await store.saveHandshake(
      of: office, inbound: answer.inbound, acknowledged: welcome.start, incarnation: incarnation,
      hubVersion: hello.hubVersion, conflicts: hello.conflicts, recovery: reception.recovery.offices[office],
      applied: Horizon.greeted(applied: applied, start: welcome.start))
    peers[office]?.record.applied = Horizon.greeted(applied: applied, start: welcome.start)
    CrashPoint.helloSaved.passed()
    peers[office]?.inbound.committed(answer.inbound)
    peers[office]?.record.incarnation = incarnation
    peers[office]?.lastSeen = .now
    outbound.welcomed(session: headSession, receiver: office, standsAt: welcome.start, last: outbound.last)
    pace.receiverCame()
    // Of another session it may be what that one's database had.
    let staged = hello.session == welcome.session ? try await store.stagedParts(from: office) : nil
    try await send(
      .welcome(
        Welcome(
          nonce: hello.nonce, session: welcome.session, have: welcome.have, headSession: headSession,
          start: welcome.start, last: welcome.last, catalogueVersion: identity.catalogueVersion,
          hubVersion: hubVersion, recovers: welcome.recovers, staged: staged)), to: .office(office))
    CrashPoint.welcomeSent.passed()
    peers[office]?.conflicts.disconnected()
    try await conflictsArrived(hello.conflicts, at: office)
  }

  /// Numbers of batches of another session say nothing of what is stored.
  private func forgetStaged(of office: String, unlessIn session: SessionID?) async throws(HubError) {
    guard peers[office]?.inbound.position.session != session else { return }
    try await store.dropStaged(from: office)
    peers[office]?.assembly.reset()
  }

  /// A branch takes head's answer: sends again what head lacks, asks for what is missing here.
  func welcomed(_ welcome: Welcome) async throws {
    guard let head = headPeer, greeting.awaited?.nonce.rawValue == welcome.nonce,
      try await isOfThisLineage(welcome, head)
    else { return }
    let action = greeting.welcomeArrived(
      Handshake.Welcome(
        nonce: Nonce(rawValue: welcome.nonce), session: welcome.session, have: welcome.have,
        headSession: welcome.headSession, start: welcome.start, last: welcome.last, recovers: welcome.recovers),
      inbound: head.inbound, outbound: outbound)
    guard case .adopt(let adoption) = action else { return }
    let name = identity.head
    try await forgetStaged(of: name, unlessIn: adoption.inbound.session)
    try await store.saveSession(
      adoption.storedSession, head: adoption.inbound, acknowledged: adoption.acknowledged)
    CrashPoint.welcomeSaved.passed()
    peers[name]?.inbound.committed(adoption.inbound)
    outbound.adopted(adoption, receiver: name)
    pace.receiverCame()
    identity.session = adoption.session
    greeting.adopted()
    greetingReminder.answered()
    isGreeted = true
    isWelcomed = true
    // Whatever kept it out is over.
    facts.note = nil
    headRecovers = welcome.recovers
    owes = adoption.owes
    stagedAtHead = welcome.staged
    let hasOtherCatalogue = welcome.catalogueVersion != identity.catalogueVersion
    if adoption.pulls || identity.recovers || hasOtherCatalogue || !identity.isJoined {
      try await pull(from: name)
    } else {
      try await acknowledge(name)
    }
  }
}
