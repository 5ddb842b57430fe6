import Logging
import SyncCore
import SyncWire

/// Databases that went back in time, and copies of them: what an office does about itself, and head about a branch.
extension OfficeService {
  /// Whether the database is the one that this office had; nothing is sent before this is known.
  func judgeLineage() async throws(HubError) {
    if try await store.isValid() {
      // No server started since: neither did the database go back. What head knows of a branch that did before is not
      // recorded here until head has a batch of this incarnation.
      lineage = identity.recovers && !isHead ? .forked : .continued
      return
    }
    let record = hostFile?.read()
    lineage = .atStart(
      record: record, incarnation: ActorID(rawValue: identity.incarnation),
      knowsLast: try await store.knowsBatch(record?.last ?? .origin), shown: try await store.shownCount(),
      boot: HostFile.boot, isHead: isHead)
    try await take(lineage)
    guard lineage == .forked else { return }
    logger.warning(
      "this database went back in time, is a copy, or was never served from this host: it is brought in step",
      metadata: ["hub.office": "\(identity.name)"])
  }

  private func take(_ lineage: Lineage, isNew: Bool = false) async throws(HubError) {
    try await store.take(lineage, isNew: isNew)
    identity = try await store.office()
  }

  /// In memory is nothing that the database did not say.
  func forget() {
    peers = [:]
    greeting.forgot()
    pulls = []
    headRecovers = false
    owes = false
    hasCaughtUp = false
  }

  /// Before what it speaks of is sent. Of a database that is not proven yet nothing is sent, and what proves it must
  /// stay.
  func writeHostFile(_ last: BatchReference) async throws(HubError) {
    guard let hostFile, lineage != .unproven else { return }
    try hostFile.write(
      HostRecord(
        incarnation: ActorID(rawValue: identity.incarnation), last: last, shown: try await store.shownCount(),
        boot: HostFile.boot))
  }

  /// What was read just now is about to be shown to another office, outside of a batch.
  func countShown() async throws(HubError) {
    _ = try await store.countShown()
    try await writeHostFile(outbound.last)
  }

  /// The catalogue's number must not name two catalogues.
  func show(_ catalogue: Catalogue, to destination: Destination) async throws {
    try await countShown()
    try await send(.catalogue(catalogue), to: destination)
  }

  // MARK: branch

  /// Head said where it stands. False: that shows that this database went back; it greets as another incarnation.
  func isOfThisLineage(_ welcome: Welcome, _ head: Peer) async throws -> Bool {
    let next = lineage.welcomed(
      knowsHave: try await store.knowsBatch(welcome.have), headWentBack: welcome.recovers, have: welcome.have,
      acknowledged: outbound.acknowledged[identity.head] ?? .origin)
    guard next != lineage else { return true }
    if next == .forked {
      try await fork()
      return false
    }
    lineage = next
    try await take(next)
    try await writeHostFile(outbound.last)
    return true
  }

  /// From now on another incarnation: greets anew.
  private func fork() async throws {
    logger.warning(
      "head has more of this office than its database: it went back in time, and is brought in step",
      metadata: ["hub.office": "\(identity.name)"])
    let hadNoStart = lineage == .continued
    lineage = .forked
    try await take(.forked, isNew: hadNoStart)
    try await writeHostFile(outbound.last)
    greeting.forgot()
    try await sayHello()
  }

  /// Head does not welcome this database.
  func refused(_ refusal: Refused) async throws {
    guard greeting.awaited?.nonce.rawValue == refusal.nonce else { return }
    guard refusal.isFinal else {
      facts.note = refusal.reason
      logger.warning("not welcome", metadata: ["hub.error": "\(refusal.reason)"])
      // The other one may be gone in a moment.
      greetingReminder.answered()
      greetingReminder.asked(at: uptime)
      return
    }
    if lineage.replaced == .forked { return try await fork() }
    failure = HubError(
      .refused, refusal.reason,
      hint: "stop this hub; if this database is the one to keep: hub remove \(identity.name) and hub invite "
        + "\(identity.name) at head, hub leave --force here, then hub join TOKEN --existing merge (replace: head's rows "
        + "alone)")
    throw CancellationError()
  }

  /// A catch-up has ended, or head has a batch of this branch: both are needed before this is an office like others.
  func recoveredFromHead(hasCaughtUp: Bool) async throws(HubError) {
    guard identity.recovers, !isHead else { return }
    if hasCaughtUp { self.hasCaughtUp = true }
    let acknowledged = outbound.acknowledged[identity.head] ?? .origin
    guard self.hasCaughtUp, try await store.knowsBatch(acknowledged) else { return }
    try await store.recovered()
    identity.recovers = false
    lineage = .continued
    logger.notice("what this database had lost is back", metadata: ["hub.office": "\(identity.name)"])
  }

  // MARK: head

  /// Whether this incarnation of a branch is the office; tells it if not.
  func isAdmitted(_ hello: Hello, _ office: String, _ incarnation: Int64) async throws -> Bool {
    guard let peer = peers[office] else { return false }
    let admission = Admission.of(
      ActorID(rawValue: incarnation), current: peer.record.incarnation.map { ActorID(rawValue: $0) },
      isFormer: try await store.wasIncarnation(incarnation, of: office),
      silence: peer.lastSeen.map { $0.duration(to: .now) })
    let reason: String
    switch admission {
    case .welcome: return true
    case .occupied: reason = "office \(office) is served by another copy of this database right now"
    case .replaced: reason = "office \(office) is served by another copy of this database, which took its place"
    }
    logger.warning("a copy of an office greets", metadata: ["hub.office": "\(office)", "hub.reason": "\(reason)"])
    try await send(
      .refused(Refused(nonce: hello.nonce, reason: reason, isFinal: admission == .replaced)), to: .office(office))
    return false
  }

  /// A whole batch of a branch was applied.
  func recovered(_ office: String) async throws(HubError) {
    guard reception.applied(from: office) else { return }
    try await store.saveRecovery(of: office, nil)
    logger.notice("what this database had lost of an office is back", metadata: ["hub.office": "\(office)"])
    if !reception.recovery.isRecovering { try await store.recovered() }
  }
}

extension RecoveryMachine {
  init(of records: [PeerRecord]) {
    self.init(
      offices: Dictionary(
        records.compactMap { record in record.recovery.map { (record.office, $0) } }, uniquingKeysWith: { $1 }))
  }
}
