import Logging
import SyncCore
import SyncWire

/// Offices that come and go.
extension OfficeService {
  /// A branch asks to be a member (head). The same question twice has the same answer, in a queue of the question's
  /// own: the one of the office that is asked for may belong to another.
  func enrolled(_ enrol: Enrol, incarnation: Int64) async throws {
    let outcome = try await store.enrol(
      office: enrol.office, secret: enrol.secret, nonce: enrol.nonce, incarnation: incarnation)
    var answer = Enrolled(
      nonce: enrol.nonce, refusal: nil, head: identity.name, residue: 0, hubVersion: hubVersion)
    switch outcome {
    case .refused(let reason): answer.refusal = reason
    case .accepted(let residue):
      answer.residue = residue
      queuesToDelete.removeAll { $0.office == enrol.office }
      let isNew = peers[enrol.office]?.record.incarnation != incarnation
      // What waits there was meant for the office that had the name before.
      if isNew { try await session?.deleteOffice(enrol.office) }
      try await session?.declareOffice(enrol.office)
      if isNew {
        for record in try await store.peers() where record.office == enrol.office { adopt(record) }
        logger.info("office enrolled", metadata: ["hub.office": "\(enrol.office)"])
      }
    }
    try await session?.declareNewcomer(enrol.nonce)
    try await send(.enrolled(answer), to: .newcomer(enrol.nonce))
  }

  /// Head answered (branch).
  func enrolmentAnswered(_ answer: Enrolled) async throws {
    guard let enrolment, answer.nonce == enrolment.nonce else { return }
    if let refusal = answer.refusal {
      failure = HubError(
        .refused, "head refused the token: \(refusal)",
        hint: "ask head for another (hub invite), or choose another name with --name")
      throw CancellationError()
    }
    self.enrolment = nil
    identity.residue = answer.residue
    try await store.saveResidue(answer.residue)
    throw BecameMember()
  }

  /// A branch departs by itself; everything that it sent before is applied by now.
  func left(_ office: String, nonce: Int64) async throws {
    // What head lost may be there alone.
    guard reception.recovery.offices[office] == nil else { return }
    try await remove(office, reason: "left", nonce: nonce)
  }

  func remove(_ office: String, reason: String, nonce: Int64 = 0) async throws {
    try await store.removePeer(office)
    peers[office] = nil
    outbound.left(office)
    let wasRecovering = reception.recovery.isRecovering
    reception.left(office)
    if wasRecovering, !reception.recovery.isRecovering { try await store.recovered() }
    pulls.removeAll { $0.office == office }
    try await tellRemoved(office, reason: reason, nonce: nonce)
    logger.info("office removed", metadata: ["hub.office": "\(office)", "hub.reason": "\(reason)"])
  }

  private func tellRemoved(_ office: String, reason: String, nonce: Int64 = 0) async throws {
    try await send(.removed(nonce: nonce, reason: reason), to: .office(office))
    try await session?.confirmed()
    // It has to read that it was removed before its queue goes.
    queuesToDelete.removeAll { $0.office == office }
    queuesToDelete.append((office, uptime + Limits.removedWithin))
  }

  /// A branch that head let go, and that never read so: it was away until its queue went, or the broker lost it.
  func strangerSpoke(_ envelope: Envelope) async throws {
    let office = envelope.office
    guard isHead, case .hello = envelope.message, try await store.wasRemoved(office) else {
      return logger.warning("message of an unknown office", metadata: ["hub.office": "\(office)"])
    }
    try await session?.declareOffice(office)
    try await tellRemoved(office, reason: "removed by head")
    logger.info("told again that it was removed", metadata: ["hub.office": "\(office)"])
  }

  /// Head does not count this office any more (branch).
  func removedByHead(_ reason: String) async throws {
    departed = true
    failure = HubError(
      .refused, "head has removed this office", hint: "hub leave takes hub out of this database; its rows stay")
    throw CancellationError()
  }

  // MARK: commands

  func serveRequests() async throws {
    for request in try await store.requests() {
      do {
        switch request.kind {
        case "declare":
          queuesToDelete.removeAll { $0.office == request.argument }
          try await session?.declareOffice(request.argument)
        case "remove": try await remove(request.argument, reason: "removed by head")
        case "leave":
          try await send(.leave(nonce: request.id), to: .head)
          try await session?.confirmed()
        case "retry":
          let released = try await store.retryQuarantine(only: Int64(request.argument))
          let outcome = JSONValue.fields(["released": JSONValue(released)])
          try await store.finishRequest(request.id, failed: false, outcome: outcome.description)
          continue
        case "truncated":
          guard try await store.settleTruncated(request.argument) else { continue }
        case "verify":
          guard let run = VerifyRun(request) else { throw HubError(.usage, "nothing is said of what to verify") }
          if !verifications.contains(where: { $0.id == request.id }) {
            verifications.append(run)
            verifyBell.ring()
          }
          continue
        case "sync":
          guard !syncs.contains(where: { $0.id == request.id }) else { continue }
          syncs.append((request.id, .now + .seconds(Int64(request.argument) ?? 60)))
          syncBell.ring()
          continue
        default: throw HubError(.unsupported, "\(request.kind): not in this version")
        }
        try await store.finishRequest(request.id, failed: false, outcome: "{}")
      } catch let error as HubError {
        let outcome = JSONValue.fields(["error": .string("\(error)")])
        try await store.finishRequest(request.id, failed: true, outcome: outcome.description)
      }
    }
  }
}

extension OfficeService {
  /// What ended the service, if something did.
  package var failed: HubError? { failure }
  /// Head has taken this office off its list.
  package var hasDeparted: Bool { departed }
  /// Head has not taken this branch's enrolment, or not greeted back, yet.
  package var waitsForHead: Bool { enrolment != nil || !isGreeted }

  /// Tells head that this branch departs; `hasDeparted` becomes true when head has confirmed.
  package func sayLeave() async throws {
    try await send(.leave(nonce: .random(in: 1...Int64.max)), to: .head)
  }
}
