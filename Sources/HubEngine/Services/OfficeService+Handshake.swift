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

  /// A branch greets head; again only after a while, answers may be on their way.
  func sayHello(isFirst: Bool = false) async throws {
    if !isFirst, let at = helloAt, at + .seconds(5) > .now { return }
    helloAt = .now
    helloNonce = .random(in: 1...Int64.max)
    helloLast = outbound.last
    try await send(
      .hello(
        Hello(
          nonce: helloNonce, session: outbound.session, at: headPeer?.inbound.position.at ?? .origin,
          last: outbound.last, catalogueVersion: identity.catalogueVersion, hubVersion: hubVersion)), to: .head)
  }

  /// Head answers a greeting. The branch's session goes on when head stands inside that very session's stream.
  func greeted(_ hello: Hello, _ office: String, _ incarnation: Int64) async throws {
    guard let peer = peers[office], let headSession = outbound.session else { return }
    var inbound = peer.inbound.position
    let goesOn =
      hello.session != nil && hello.session == inbound.session && hello.last.number >= inbound.at.number
    let session = goesOn ? hello.session : SessionID(rawValue: .random(in: 1...Int64.max))
    inbound.session = session
    let start = try await store.knowsBatch(hello.at) ? hello.at : .origin
    try await store.saveHandshake(
      of: office, inbound: inbound, acknowledged: start, incarnation: incarnation, hubVersion: hello.hubVersion)
    peers[office]?.inbound = InboundStream(position: inbound)
    peers[office]?.record.incarnation = incarnation
    outbound.welcomed(session: headSession, receiver: office, standsAt: start, last: outbound.last)
    guard let session else { return }
    try await send(
      .welcome(
        Welcome(
          nonce: hello.nonce, session: session, have: inbound.at, headSession: headSession, start: start,
          last: outbound.last, catalogueVersion: identity.catalogueVersion, hubVersion: hubVersion)),
      to: .office(office))
  }

  /// A branch takes head's answer: sends again what head lacks, asks for what is missing here.
  func welcomed(_ welcome: Welcome) async throws {
    guard welcome.nonce == helloNonce, let peer = headPeer else { return }
    helloAt = nil
    let name = identity.head
    let sameStream = welcome.session == outbound.session
    var position = peer.inbound.position
    if position.at == welcome.start {
      position.session = welcome.headSession
    } else {
      position = peer.inbound.welcomed(session: welcome.headSession, at: welcome.start)
    }
    try await store.saveSession(welcome.session, head: position, acknowledged: welcome.have)
    peers[name]?.inbound.committed(position)
    if peer.inbound.position.session != welcome.headSession { peers[name]?.assembly.reset() }
    identity.session = welcome.session
    outbound.welcomed(session: welcome.session, receiver: name, standsAt: welcome.have, last: outbound.last)
    // What went out after the greeting is behind it in head's queue; what head lacked then was lost.
    if !sameStream || welcome.have != helloLast { resendFrom = welcome.have }
    isGreeted = true
    if welcome.start != welcome.last || welcome.catalogueVersion != identity.catalogueVersion || !identity.isJoined {
      peers[name]?.progressAt = nil
      try await pull(from: name)
    } else {
      try await acknowledge(name)
    }
  }
}
