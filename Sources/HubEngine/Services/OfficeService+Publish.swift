import Logging
import SyncCore
import SyncWire

/// The loop that makes batches: the only one that looks at the feed.
extension OfficeService {
  func publishLoop() async throws {
    while !Task.isCancelled {
      let began = ContinuousClock.now
      let look = try await store.look()
      try await noticed(look)
      var didWork = false
      var waits = false
      if !identity.isPaused && mayPublish {
        if outbound.resendFrom != nil {
          didWork = try await publishBatch()
        } else if look.snapshot != lastSnapshot {
          let isAwaited = synchronisations > 0 || passes > 0 || !answers.isEmpty
          waits = !isAwaited && !pace.mayPublish(at: uptime, unacknowledged: outbound.unacknowledged)
          if !waits {
            lastSnapshot = look.snapshot
            didWork = try await publishBatch()
          }
        }
        if !waits { feedReadAt = began }
        // A beat says that nothing is unsent.
        if !didWork && !waits { try await quiet(since: began) }
      }
      try await Task.sleep(for: pace.waitAfterLook(found: didWork, at: uptime))
    }
  }

  private var mayPublish: Bool {
    isHead
      || (identity.isJoined && outbound.session != nil && (isWelcomed || uptime >= connectedAt + Limits.welcomeWithin))
  }

  /// What a look found besides rows.
  private func noticed(_ look: FeedState) async throws {
    if look.isPaused != identity.isPaused {
      identity.isPaused = look.isPaused
      logger.info("exchange \(look.isPaused ? "paused" : "resumed")")
    }
    if look.catalogueVersion != identity.catalogueVersion && isHead {
      try await reloadTables()
      catalogueCache = nil
      identity.catalogueVersion = look.catalogueVersion
      lastSnapshot = ""
      try await show(try await currentCatalogue(), to: .branches)
    }
    if look.hasRequests { try await serveRequests() }
  }

  func currentCatalogue() async throws(HubError) -> Catalogue {
    if let catalogueCache { return catalogueCache }
    let catalogue = try await store.catalogue()
    catalogueCache = catalogue
    return catalogue
  }

  /// Reads, records and sends what changed since the last batch, or since where the receiver stands if it asked.
  /// Returns whether there was anything.
  @discardableResult
  func publishBatch() async throws -> Bool {
    try await takeFeed()
    defer { isFeedTaken = false }
    // Fixed before the rows are read: a request or an acknowledgement that comes meanwhile is for the next batch.
    let source = try await source()
    var since: BatchReference?
    if source.isResend { since = try await store.knowsBatch(source.base) ? source.base : .origin }
    // What is sent again includes rows that came from the receiver: it may have lost them.
    let opening = try await store.openFeed(
      since: since, echoes: source.isResend, returns: source.givesBack, slices: source.isSliced,
      staged: source.staged, catalogueVersion: identity.catalogueVersion)
    switch opening {
    case .stale:
      try await reloadTables()
      lastSnapshot = ""
    case .rows(let part):
      emptyLookAt = nil
      CrashPoint.feedRead.passed()
      try await send(part, of: source)
    case .nothing:
      // A batch that sends again is sent without rows too: it leads from where the receiver stands to the last one.
      guard source.isResend else { return false }
      try await send(.empty, of: source)
    }
    return true
  }

  /// A batch without rows: tells head how far this branch has applied, at most once a minute.
  private func publishEmptyBatch() async throws {
    try await takeFeed()
    defer { isFeedTaken = false }
    // Who asked meanwhile gets the rows: an empty batch would lead past them.
    guard outbound.resendFrom == nil else { return }
    let source = try await source()
    guard source.applied != nil else { return pace.postponedEmptyBatch(at: uptime) }
    try await send(.empty, of: source)
  }

  /// What a batch is read from, and what this office had applied by then. A later position of `applied` would tell
  /// head to forget deletes that rows written here before, and not yet read, have not met.
  private struct Source {
    var base: BatchReference
    var adoptions: Int
    var isResend: Bool
    /// What a head that went back gets first from a branch is taken for all that it lost.
    var isSliced: Bool
    /// Of a branch to a head that went back.
    var givesBack: Bool
    /// What the receiver has of a batch that was cut.
    var staged: StagedParts?
    var applied: StreamPosition?
  }

  private func source() async throws(HubError) -> Source {
    let isResend = outbound.resendFrom != nil
    let isSliced = isHead || !isResend || isGreeted && !headRecovers
    var source = Source(
      base: outbound.base, adoptions: outbound.adoptions, isResend: isResend, isSliced: isSliced,
      givesBack: isResend && headRecovers,
      staged: isResend && isSliced ? stagedAtHead : nil, applied: isHead ? nil : applied(of: identity.head))
    // Asked after that: a delete that came before and waits is seen, whatever happens meanwhile.
    if source.applied != nil {
      source.applied = Horizon.told(source.applied, deletesWait: try await store.deletesWait(from: identity.head))
    }
    return source
  }

  /// One batch, or several: of too much for one part every rank of tables is one.
  private func send(_ first: FeedPart, of source: Source) async throws {
    var (part, source) = (first, source)
    do {
      while let header = try await record(part, source) {
        if isHead && peers.isEmpty { break }
        let hasMore = try await sendParts(from: part, of: header, source)
        guard hasMore, outbound.goesOn(after: header.reference, adoptions: source.adoptions) else { break }
        part = try await store.nextFeedPart()
        if part.rows == 0 && part.isLast && !part.goesOn { break }
        source.base = header.reference
      }
      await store.closeFeed()
    } catch {
      await store.closeFeed()
      throw error
    }
  }

  private func record(_ part: FeedPart, _ source: Source) async throws -> BatchHeader? {
    guard
      let header = outbound.nextHeader(
        id: .random(in: 1...Int64.max), after: source.base, adoptions: source.adoptions, isSlice: !part.isWhole)
    else { return nil }
    let applied = Slicing.told(source.applied?.reference, isWhole: part.isWhole)
    try await store.record(header, applied: applied?.number, startsSession: owes)
    owes = false
    CrashPoint.batchRecorded.passed()
    outbound.recorded(header)
    pace.recordedBatch(at: uptime, applied: applied)
    try await writeHostFile(header.reference)
    CrashPoint.batchNoted.passed()
    return header
  }

  /// Returns whether another batch may follow.
  private func sendParts(from first: FeedPart, of header: BatchHeader, _ source: Source) async throws -> Bool {
    let snapshotAt = SystemClock.now
    let applied = Slicing.told(source.applied, isWhole: first.isWhole)
    let resumes = first.keepsStaged ? source.staged?.batch : nil
    // It goes on after the parts that are there, or anew.
    if !first.keepsStaged || first.goesOn { stagedAtHead = nil }
    var part = first
    let resumedParts = first.goesOn ? source.staged?.count ?? 0 : 0
    var index = resumedParts
    var rows: Int64 = 0
    facts.outgoing.began(at: uptime)
    // What head sent and this database refuses may be here alone, if head went back.
    var refused = source.givesBack ? try await store.refusedRows(from: identity.head)[...] : []
    while true {
      let isLast = part.isLast && refused.isEmpty
      let message = BatchPart(
        header: header, catalogueVersion: identity.catalogueVersion, part: index, isLast: isLast,
        snapshotAt: snapshotAt, applied: applied, rowsBefore: rows, blocks: part.blocks,
        purged: isHead ? identity.purged : 0, cursor: part.cursor, resumes: resumes,
        resumedParts: resumedParts)
      let size = try await send(.batch(message), to: isHead ? .branches : .head)
      CrashPoint.partSent.passed()
      sent(part: part.rows, bytes: size, of: header.reference.number)
      rows += Int64(part.rows)
      if isLast { break }
      if part.isLast, let blocks = refused.popFirst() {
        part.blocks = blocks
        part.rows = blocks.reduce(0) { $0 + $1.count }
        part.cursor = []
      } else {
        part = try await store.nextFeedPart()
      }
      index += 1
    }
    CrashPoint.batchSent.passed()
    facts.outgoing.handedOver()
    pace.published(at: uptime)
    return part.more
  }

  /// Nothing is unsent: answer who asked, and show the last batch now and then.
  private func quiet(since look: ContinuousClock.Instant) async throws {
    emptyLookAt = look
    // A question that came during the look waits for the next: the look may have missed what it is about.
    let due = answers.filter { $0.at < look }
    answers.removeAll { $0.at < look }
    for answer in due {
      try await send(.beat(beat(for: answer.office, answerTo: answer.nonce)), toPeer: answer.office)
    }
    guard !peers.isEmpty else { return }
    let applied = isHead ? nil : applied(of: identity.head)?.reference
    // An office that is away is not asked again and again.
    let present = peers.filter { !isHead || $0.value.lastSeen.map { $0 + .seconds(60) > .now } ?? false }
    let isAcknowledged = present.keys.allSatisfy { outbound.isAcknowledged(by: $0) }
    switch pace.foundNothing(at: uptime, applied: applied, isAcknowledged: isAcknowledged) {
    case .emptyBatch: try await publishEmptyBatch()
    case .beat(let asks):
      let nonce = asks ? Int64.random(in: 1...Int64.max) : 0
      try await send(
        .beat(beat(for: isHead ? nil : identity.head, nonce: nonce)), to: isHead ? .branches : .head)
    case nil: break
    }
  }

  func beat(for office: String?, nonce: Int64 = 0, answerTo: Int64 = 0) -> Beat {
    Beat(
      session: outbound.session ?? SessionID(rawValue: 0), last: outbound.last,
      applied: office.flatMap { applied(of: $0) }, nonce: nonce, answerTo: answerTo, isPaused: identity.isPaused,
      conflicts: isHead ? 0 : headPeer?.record.conflictsAt ?? 0, conflictsFrom: isHead ? conflictsFrom : 0,
      purged: isHead ? identity.purged : 0)
  }
}
