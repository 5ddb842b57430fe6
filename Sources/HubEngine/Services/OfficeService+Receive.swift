import Logging
import SyncCore
import SyncWire

/// The loop that takes deliveries, one after the other.
extension OfficeService {
  func receiveLoop(_ session: any TransportSession) async throws {
    while true {
      let delivery = try await session.next()
      // Looked at now: the wait for this delivery may have begun before the pause.
      while identity.isPaused { try await Task.sleep(for: .milliseconds(100)) }
      let envelope: Envelope
      do {
        envelope = try Wire.decode(delivery.body, contentEncoding: delivery.contentEncoding)
      } catch {
        logger.warning("message refused", metadata: ["hub.error": "\(error)"])
        facts.note = "a message was refused: \(error)"
        try await session.reject(delivery.tag)
        continue
      }
      CrashPoint.received.passed()
      count(envelope, bytes: delivery.body.count)
      try await handlePatiently(envelope)
      try await session.acknowledge(delivery.tag)
      CrashPoint.deliveryAcknowledged.passed()
    }
  }

  /// A delivery is given up only with a connection: what the database refuses now it may take later. A lost connection
  /// to the database took the office's lock with it, so everything begins anew.
  private func handlePatiently(_ envelope: Envelope) async throws {
    var delay = Duration.milliseconds(200)
    var told: String?
    while true {
      do {
        try await handle(envelope)
        if let told, facts.note == told { facts.note = nil }
        return
      } catch let error as HubError where !Task.isCancelled {
        if error.isDisconnect || error.code == .conflict { throw error }
        logger.error("cannot take in a message", metadata: ["hub.error": "\(error)"])
        told = "\(error)"
        facts.note = told
        if !error.isTransient { try await reread() }
        try await Task.sleep(for: delay)
        delay = min(delay * 2, .seconds(10))
      }
    }
  }

  /// Whatever went wrong: the stored positions tell what was committed.
  private func reread() async throws {
    guard let records = try? await store.peers() else { return }
    for record in records where peers[record.office] != nil {
      peers[record.office]?.record = record
      peers[record.office]?.inbound = InboundStream(position: record.inbound)
      peers[record.office]?.reminder.answered()
    }
  }

  func handle(_ envelope: Envelope) async throws {
    if case .enrol(let enrol) = envelope.message {
      if isHead { try await enrolled(enrol, incarnation: envelope.incarnation) }
      return
    }
    if case .enrolled(let answer) = envelope.message { return try await enrolmentAnswered(answer) }
    guard peers[envelope.office] != nil else { return try await strangerSpoke(envelope) }
    let office = envelope.office
    if isHead, let known = peers[office]?.record.incarnation, known != envelope.incarnation {
      // Another incarnation of the office than the one that greeted: it has to greet first.
      if case .hello(let hello) = envelope.message { return try await greeted(hello, office, envelope.incarnation) }
      if let session = envelope.message.session { try await greet(office, refusing: session) }
      return
    }
    if !isHead || peers[office]?.record.incarnation == envelope.incarnation { peers[office]?.lastSeen = .now }
    switch envelope.message {
    case .hello(let hello) where isHead: try await greeted(hello, office, envelope.incarnation)
    case .welcome(let welcome) where !isHead: try await welcomed(welcome)
    case .refused(let refusal) where !isHead: try await refused(refusal)
    case .rehello(let session):
      if !isHead { try await refused(session) }
    case .batch(let part): try await batchArrived(part, office)
    case .window(let part) where !isHead: try await windowArrived(part)
    case .acknowledgement(let acknowledgement):
      try await acknowledged(acknowledgement.session, acknowledgement.reference, office)
    case .beat(let beat): try await beatArrived(beat, office)
    case .pull(let pull): try await pulled(pull, office)
    case .catalogue(let catalogue) where !isHead: try await catalogueArrived(catalogue)
    case .conflicts(let entries) where !isHead: try await conflictsCame(entries)
    case .verifyQuestion(let token, let request) where !isHead: verifyAsked(token, request)
    case .verifyAnswer(let token, let reply) where isHead: verifyAnswered(token, reply, by: office)
    case .restate(let blocks, let request) where isHead:
      try await store.restate(blocks)
      try await send(.restated(request), to: .office(office))
    case .restated(let request) where !isHead:
      try await store.finishRestate(request)
      restates.answered(request)
    case .leave(let nonce) where isHead: try await left(office, nonce: nonce)
    case .removed(_, let reason) where !isHead: try await removedByHead(reason)
    default: break
    }
  }

  // MARK: batches

  private func batchArrived(_ part: BatchPart, _ office: String) async throws {
    guard var peer = peers[office] else { return }
    if !isHead && part.catalogueVersion > identity.catalogueVersion {
      // Its tables are not known here yet: the catalogue first, then the rows by a pull.
      return try await pull(from: office)
    }
    let reference = part.header.reference
    let answer = peer.inbound.batchArrived(part.header)
    if answer != .greet { notePurged(part.purged) }
    switch answer {
    case .greet: try await greet(office, refusing: part.header.session)
    case .acknowledge: if part.isLast { try await acknowledge(office) }
    case .ignore: break
    case .pull: try await pull(from: office)
    case .apply(let next):
      peers[office]?.reminder.progressed(at: uptime)
      if let resumed = part.resumes, peer.assembly.continues(resumed, after: part.resumedParts, at: part.part) {
        try await store.adoptStaged(part.part, as: reference, from: office)
        peer.assembly.adopted(reference, count: part.part)
        peers[office]?.assembly = peer.assembly
      }
      switch peer.assembly.partArrived(of: reference, index: part.part, isLast: part.isLast) {
      case .single: try await apply(.blocks(part.blocks), part, next, office)
      case .stage(let reset):
        try await stage(part, office, reset: reset)
        peer.assembly.staged(reference, index: part.part)
        peers[office]?.assembly = peer.assembly
      case .complete(let parts), .applyStored(let parts):
        if part.part == parts - 1, peer.assembly.stored < parts { try await stage(part, office, reset: false) }
        do {
          try await apply(.staged(reference, parts: parts), part, next, office)
        } catch let error as HubError where error.code == .damaged {
          // The server crashed since and emptied the unlogged table.
          peers[office]?.assembly.reset()
          try await pull(from: office)
        }
      case .duplicate: break
      case .gap: try await pull(from: office)
      }
    }
  }

  private func stage(_ part: BatchPart, _ office: String, reset: Bool) async throws {
    try await store.stage(
      try Wire.encode(rows: part.blocks), of: part.header.reference, part: part.part,
      rows: part.blocks.reduce(0) { $0 + $1.count }, cursor: part.cursor, from: office, reset: reset)
    CrashPoint.staged.passed()
  }

  private func apply(
    _ rows: AppliedRows, _ part: BatchPart, _ next: InboundPosition, _ office: String
  ) async throws {
    let counts = try await store.apply(
      rows, from: office, position: next, snapshotAt: part.snapshotAt,
      returns: isHead && reception.recovery.offices[office] == .greeted)
    committed(next, office, counts)
    if isHead { try await recovered(office) }
    try await doneWith(part, office)
    if isHead, let applied = part.applied { try await purgeable(applied, office) }
    if isHead || identity.isJoined {
      try await acknowledge(office)
    } else {
      // Head's chain from its beginning: nothing is left for the load that was asked for meanwhile.
      progress.rows += Int64(counts.written)
      try await caughtUp(office)
      onProgress?(progress)
    }
    if isHead, counts.conflicts > 0 { try await sendConflicts() }
  }

  /// A batch is applied. What is stored of another one is kept if the sender goes on with it.
  private func doneWith(_ part: BatchPart, _ office: String) async throws {
    guard let assembly = peers[office]?.assembly, let batch = assembly.batch,
      !assembly.outlives(part.header.reference, resumes: part.resumes)
    else { return }
    if batch != part.header.reference { try await store.dropStaged(from: office) }
    peers[office]?.assembly.reset()
  }

  private func committed(_ next: InboundPosition, _ office: String, _ counts: AppliedCounts) {
    peers[office]?.inbound.committed(next)
    if peers[office]?.inbound.awaited == nil { peers[office]?.reminder.answered() }
    note(counts, office)
  }

  private func note(_ counts: AppliedCounts, _ office: String) {
    facts.rowsApplied += Int64(counts.written)
    if counts.written > 0 || counts.quarantined > 0 { quarantine.rowsApplied() }
    if counts.quarantined > 0 {
      logger.warning(
        "rows quarantined", metadata: ["hub.office": "\(office)", "hub.rows": "\(counts.quarantined)"])
    }
    if counts.restamped > 0 {
      logger.warning(
        "stamps from a clock that runs ahead", metadata: ["hub.office": "\(office)", "hub.rows": "\(counts.restamped)"])
      facts.note = "the clock of \(office) runs ahead: \(counts.restamped) rows were stamped again"
    }
  }

  /// The acknowledgement that lets tombstones go: counts because the batch that carried it is applied.
  private func purgeable(_ applied: StreamPosition, _ office: String) async throws {
    guard applied.session == outbound.session, applied.reference.number <= outbound.last.number else { return }
    try await store.savePurgePosition(applied.reference, of: office)
    peers[office]?.record.applied = applied.reference.number
    try await acknowledged(applied.session, applied.reference, office)
  }

  func acknowledged(_ session: SessionID, _ reference: BatchReference, _ office: String) async throws {
    if session == outbound.session { measureAcknowledged(reference, office) }
    guard outbound.accepts(reference, session: session, from: office), try await store.knowsBatch(reference) else {
      // A branch that joined when there was nothing to send acknowledges just that.
      if peers[office]?.record.state == .joining, session == outbound.session, reference == outbound.last {
        try await store.saveAcknowledged(reference, by: office)
        peers[office]?.record.state = .active
      }
      return
    }
    outbound.acknowledge(reference, from: office)
    if reference == outbound.last || peers[office]?.record.state == .joining {
      try await store.saveAcknowledged(reference, by: office)
      CrashPoint.acknowledgementSaved.passed()
      peers[office]?.record.state = .active
      peers[office]?.isAcknowledgementUnsaved = false
    } else {
      peers[office]?.isAcknowledgementUnsaved = true
    }
    try await recoveredFromHead(hasCaughtUp: false)
  }

  private func beatArrived(_ beat: Beat, _ office: String) async throws {
    guard let peer = peers[office] else { return }
    if let applied = beat.applied { try await acknowledged(applied.session, applied.reference, office) }
    if isHead {
      try await conflictsArrived(beat.conflicts, at: office)
    } else {
      try await dropConflicts(before: beat.conflictsFrom)
    }
    if beat.answerTo != 0 { answered[office] = (beat.answerTo, beat.last, .now) }
    let answer = peer.inbound.beatArrived(session: beat.session, last: beat.last, asks: false)
    if answer != .greet { notePurged(beat.purged) }
    switch answer {
    case .greet: try await greet(office, refusing: beat.session)
    case .pull: try await pull(from: office)
    case .apply(let next):
      try await store.savePosition(next, of: office)
      peers[office]?.inbound.committed(next)
      try await acknowledge(office)
    case .acknowledge, .ignore: break
    }
    if beat.nonce != 0 { answers.append((office, beat.nonce, .now)) }
  }

  // MARK: what is missing

  /// Asks for what is missing, unless an answer is awaited.
  func pull(from office: String) async throws {
    guard let peer = peers[office], peer.inbound.awaited == nil else { return }
    let position = peer.inbound.position
    let token = PullToken(rawValue: .random(in: 1...Int64.max))
    peers[office]?.inbound.asked(token)
    peers[office]?.reminder.asked(at: uptime)
    facts.incoming.began(at: uptime)
    try await send(
      .pull(
        Pull(
          token: token, at: position.at,
          resumption: position.catchUp.map { Resumption(from: $0.from, cursor: $0.cursor, full: $0.full) },
          catalogueVersion: identity.catalogueVersion, rowsMax: Int64(Limits.windowRowsMax),
          bytesMax: Int64(Limits.windowBytesMax), recovers: identity.recovers)), toPeer: office)
    CrashPoint.pullSent.passed()
  }

  private func pulled(_ pull: Pull, _ office: String) async throws {
    if isHead {
      measurePull(by: office)
      pulls.removeAll { $0.office == office }
      pulls.append((office, pull))
      pullBell.ring()
      return
    }
    // A branch that starts anew does not know it from the welcome yet.
    if pull.recovers { headRecovers = true }
    // What head said that it has may be what it misses now.
    stagedAtHead = nil
    switch outbound.pullArrived(at: pull.at, from: office, known: try await store.knowsBatch(pull.at)) {
    case .resend: break
    case .beat: pace.beatWanted(at: uptime)
    case .greet: try await sayHello()
    }
  }

  private func windowArrived(_ part: WindowPart) async throws {
    let office = identity.head
    guard let peer = peers[office] else { return }
    if part.catalogueVersion > identity.catalogueVersion { return }
    switch peer.inbound.windowArrived(part.header) {
    case .greet: try await greet(office, refusing: part.header.session)
    case .apply(let next):
      let counts = try await store.apply(
        .blocks(part.blocks), from: office, position: next, snapshotAt: part.snapshotAt, returns: identity.recovers)
      CrashPoint.windowApplied.passed()
      peers[office]?.inbound.committed(next, part: part.header)
      peers[office]?.reminder.progressed(at: uptime)
      if part.header.isLastPart { peers[office]?.reminder.answered() }
      measureWindow(part)
      note(counts, office)
      progress.rows += Int64(part.blocks.reduce(0) { $0 + $1.count })
      if part.rowsTotal > 0 { progress.total = max(part.rowsTotal, progress.total) }
      if !part.header.more { try await caughtUp(office) }
      onProgress?(progress)
      if peers[office]?.inbound.needsPull ?? false { try await pull(from: office) }
    case .acknowledge, .ignore, .pull: break
    }
  }

  private func caughtUp(_ office: String) async throws {
    progress.isDone = true
    try await retryQuarantine()
    try await recoveredFromHead(hasCaughtUp: true)
    if !identity.isJoined {
      try await store.joined()
      identity.isJoined = true
    }
    try await acknowledge(office)
  }

  private func catalogueArrived(_ catalogue: Catalogue) async throws {
    guard catalogue.version != identity.catalogueVersion else { return }
    do {
      try await store.install(catalogue)
      identity.catalogueVersion = catalogue.version
      facts.note = nil
    } catch {
      guard !error.isTransient else { throw error }
      if !identity.isJoined {
        // Head has enrolled this office: it is told, so that its name is free for the next try.
        if error.code == .refused {
          _ = try? await send(.leave(nonce: .random(in: 1...Int64.max)), to: .head)
          try? await session?.confirmed()
        }
        failure = error
        throw CancellationError()
      }
      // Said in status and tried again when head's next sign of life shows that something is missing.
      facts.note = "\(error)"
      logger.error("cannot take head's catalogue", metadata: ["hub.error": "\(error)"])
    }
  }
}
