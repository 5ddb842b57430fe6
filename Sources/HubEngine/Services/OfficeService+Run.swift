import Logging
import SyncCore
package import SyncWire

/// Being connected, and not.
extension OfficeService {
  /// Serves the office until the task is cancelled, or something that does not pass by itself goes wrong.
  /// The caller holds the office's lock and has called `prepare`.
  package func serve() async throws(HubError) {
    var delay = Limits.reconnectAfter
    while !Task.isCancelled && failure == nil {
      let began = ContinuousClock.now
      do {
        try await waitForWindow()
        try await serveConnection()
      } catch is WindowClosed {
        delay = Limits.reconnectAfter
        facts.isConnected = false
      } catch let error as TransportError {
        if !Task.isCancelled { disconnected(error.kind == .queueInUse ? occupied : error.message) }
        if case .refused = error.kind { delay = max(delay, .seconds(2)) }
        if case .queueMissing = error.kind { await knock() }
      } catch is BecameMember {
        delay = Limits.reconnectAfter
      } catch let error as HubError {
        disconnected("\(error)")
        isPrepared = false
        if !error.isTransient && error.code != .database {
          failure = error
        }
        await store.startOver()
      } catch {
        if failure == nil && !Task.isCancelled { disconnected("\(error)") }
      }
      await session?.close()
      session = nil
      interrupted()
      if Task.isCancelled || failure != nil { break }
      try? await publishFacts()
      // A connection that lasted longer than one waited for it was worth it: the next outage is another one.
      if began + max(.seconds(2), delay) < .now { delay = Limits.reconnectAfter }
      let jitter = Duration.milliseconds(Int64.random(in: 0...max(1, delay.wholeMilliseconds / 2)))
      _ = try? await Task.sleep(for: delay / 2 + jitter)
      delay = min(delay * 2, options.reconnectDelayMax)
    }
    await session?.close()
    session = nil
    facts.state = "stopped"
    facts.isConnected = false
    try? await publishFacts()
    if let failure { throw failure }
  }

  private struct WindowClosed: Error {}

  /// Outside its daily hours the office keeps its lock and a proven actor, and does nothing else.
  private func waitForWindow() async throws {
    while let opens = DailyWindow.opensNext(options.windows, minute: SystemClock.minuteOfDay) {
      guard try await store.lockOffice() else {
        throw HubError(.conflict, "another hub serves this office now", hint: "only one hub run an office is active")
      }
      if !isPrepared { try await prepare() }
      let why = "the window opens at \(opens)"
      if facts.brokerError != why { logger.notice("outside the window", metadata: ["hub.opens": "\(opens)"]) }
      (facts.state, facts.isConnected, facts.brokerError, facts.windowCloses) = ("offline", false, why, nil)
      try await publishFacts()
      try await Task.sleep(for: .seconds(1))
    }
  }

  /// Ends with the window.
  private func windowLoop() async throws {
    while DailyWindow.opensNext(options.windows, minute: SystemClock.minuteOfDay) == nil {
      facts.windowCloses = DailyWindow.closesNext(options.windows, minute: SystemClock.minuteOfDay)
      try await Task.sleep(for: .seconds(1))
    }
    logger.info("the window closes")
    throw WindowClosed()
  }

  /// The broker lets one consumer take an office's queue.
  private var occupied: String {
    "another hub of office \(identity.name) is connected: the one before this, for half a minute, or a hub on a copy "
      + "of this database"
  }

  private func disconnected(_ why: String) {
    if facts.brokerError != why { logger.warning("not connected", metadata: ["hub.error": "\(why)"]) }
    facts.brokerError = why
    facts.isConnected = false
    facts.state = "offline"
  }

  private func serveConnection() async throws {
    guard try await store.lockOffice() else {
      throw HubError(.conflict, "another hub serves this office now", hint: "only one hub run an office is active")
    }
    // The database was away, and may be another server or an older copy now: its writes need a proven actor again.
    if !isPrepared { try await prepare() }
    try await refreshPeers()
    let session = try await transport.open(try await role())
    self.session = session
    connectedAt = uptime
    facts.isConnected = true
    facts.brokerError = nil
    facts.state = "running"
    lastSnapshot = ""
    isWelcomed = false
    (pullBell, syncBell, verifyBell) = (Doorbell(), Doorbell(), Doorbell())
    for office in peers.keys {
      // What was asked for over the earlier connection is in the queue, or overdue soon.
      peers[office]?.reminder.answered()
      if peers[office]?.inbound.awaited != nil { peers[office]?.reminder.asked(at: uptime) }
      peers[office]?.conflicts.disconnected()
    }
    restates.disconnected()
    logger.info("connected")
    if isHead {
      try await send(.beat(beat(for: nil)), to: .branches)
    } else if let enrolment {
      try await send(.enrol(enrolment), to: .head)
    } else {
      try await sayHelloAgain()
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.receiveLoop(session) }
      group.addTask { try await self.publishLoop() }
      group.addTask { try await self.tickLoop() }
      group.addTask { try await self.syncLoop() }
      group.addTask { try await self.windowLoop() }
      if isHead { group.addTask { try await self.catchUpLoop() } }
      let head = isHead
      group.addTask { try await head ? self.verifyLoop() : self.verifyAnswerLoop() }
      defer { group.cancelAll() }
      try await group.next()
    }
  }

  /// Branch: it has no queue. Head declares it at its next look, but not that of a branch that it let go: a hello, which
  /// needs no queue, tells head that this one does not know so yet.
  private func knock() async {
    guard !isHead, enrolment == nil, !Task.isCancelled else { return }
    if let knockedAt, uptime < knockedAt + Limits.knockEvery { return }
    knockedAt = uptime
    do {
      let session = try await transport.open(.newcomer(nonce: .random(in: 1...Int64.max)))
      self.session = session
      try await sayHelloAgain()
      try await session.confirmed()
    } catch {
      logger.debug("head was not told that there is no queue", metadata: ["hub.error": "\(error)"])
    }
  }

  private func role() async throws -> TransportRole {
    if isHead { return .head(offices: Array(peers.keys) + (try await store.invited())) }
    return enrolment.map { .newcomer(nonce: $0.nonce) } ?? .branch(office: identity.name, empties: hasStaleAnswer)
  }

  /// Branch: the rest of an answer that was asked for under a token that nobody knows any more.
  private var hasStaleAnswer: Bool {
    guard let inbound = headPeer?.inbound else { return false }
    return inbound.position.catchUp != nil && inbound.awaited == nil
  }

  /// What another process changed: invitations, removals.
  private func refreshPeers() async throws {
    for record in try await store.peers() where peers[record.office] == nil { adopt(record) }
    // A connection to the database that broke at COMMIT may have left a batch recorded all the same.
    let last = try await store.lastBatch()
    if last > outbound.last { outbound.recorded(last) }
  }

  // MARK: every second

  private func tickLoop() async throws {
    var count = 0
    while !Task.isCancelled {
      try await Task.sleep(for: .seconds(1))
      count += 1
      if await session?.isBlocked ?? false {
        facts.isBlocked = true
      } else {
        facts.isBlocked = false
      }
      for (office, peer) in peers where peer.isAcknowledgementUnsaved {
        if let reference = outbound.acknowledged[office] {
          try await store.saveAcknowledged(reference, by: office)
          CrashPoint.acknowledgementSaved.passed()
        }
        peers[office]?.isAcknowledgementUnsaved = false
      }
      let seen = peers.filter { $0.value.lastSeen.map { $0 + .seconds(5) > .now } ?? false }.map(\.key)
      if count % 5 == 1, !seen.isEmpty { try await store.saveSeen(seen) }
      if count % 5 == 0 {
        if try await !store.lockOffice() { throw HubError(.conflict, "another hub serves this office now") }
        // Else every such rewrite would leave one more actor in the rows that are written after it. Of a branch that is not
        // proven yet the actor is not valid until head answers.
        if lineage != .unproven, try await !store.isValid() {
          throw HubError(
            .database, "hub's own table was rewritten (VACUUM FULL, another tablespace)", isTransient: true)
        }
      }
      if !identity.isPaused {
        if isHead { try await sendConflicts() } else { try await askAgain() }
        if quarantine.isWorthALook(at: uptime) { try await retryQuarantine() }
      }
      if count % 60 == 0 { try await store.pruneBatches() }
      if count % 60 == 30, tablesNeedALook { try await reloadTables() }
      if count % 10 == 5 { try await purge() }
      await closeIdleVerifier()
      if isHead, count % 60 == 1 { conflictsFrom = try await store.pruneConflicts() }
      if enrolment != nil, count % 5 == 0, let enrolment { try await send(.enrol(enrolment), to: .head) }
      // On a thin line one message may take longer than an answer.
      if !isHead, await session?.isReceiving ?? false { peers[identity.head]?.reminder.progressed(at: uptime) }
      for (office, peer) in peers where peer.reminder.isDue(at: uptime) { peers[office]?.inbound.answerTimedOut() }
      if !isHead, enrolment == nil, greetingReminder.isDue(at: uptime) { try await sayHelloAgain() }
      if isHead, count % 15 == 0 { try await tendQueuesOfTheSilent() }
      while let due = queuesToDelete.first, due.at <= uptime {
        try await session?.deleteOffice(due.office)
        queuesToDelete.removeAll { $0.office == due.office }
      }
      await measure()
      try await publishFacts()
    }
  }

  /// An office whose queue somebody deleted cannot connect, so it is not heard of: branches declare nothing. Nor can one
  /// that was invited join. What waits for one that is away does not grow for weeks.
  private func tendQueuesOfTheSilent() async throws {
    for office in try await store.invited() where peers[office] == nil { try await session?.declareOffice(office) }
    for (office, peer) in peers {
      let silence = peer.lastSeen?.duration(to: .now) ?? uptime - connectedAt
      if peer.lastSeen == nil || silence > .seconds(10) { try await session?.declareOffice(office) }
      if silence > Limits.absentAfter { try await session?.shortenQueue(of: office) }
    }
  }

  func publishFacts() async throws {
    if identity.isPaused && facts.isConnected { facts.state = "paused" }
    if !identity.isPaused && facts.isConnected { facts.state = "running" }
    if facts == factsSaved.facts, factsSaved.at + .seconds(10) > .now { return }
    try await store.publish(facts)
    factsSaved = (facts, .now)
  }

  // MARK: joining and one shot

  /// Asks head to be a member when connected.
  package func enrol(_ enrolment: Enrol, onProgress: @escaping @Sendable (CatchUpProgress) -> Void) {
    self.enrolment = enrolment
    self.onProgress = onProgress
  }

  package func resume(onProgress: @escaping @Sendable (CatchUpProgress) -> Void) { self.onProgress = onProgress }

  package var isConnected: Bool { facts.isConnected }
  package var isJoined: Bool { identity.isJoined }
  package var brokerError: String? { facts.brokerError }
  package var counters: (sent: Int64, applied: Int64) { (facts.rowsSent, facts.rowsApplied) }
}

/// Head took this office's enrolment: the next connection is that of a member, with its own queue.
struct BecameMember: Error {}

extension Duration {
  var wholeMilliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
