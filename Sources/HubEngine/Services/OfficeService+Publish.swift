import Logging
import SyncCore
import SyncWire

/// The loop that makes batches: the only one that looks at the feed.
extension OfficeService {
  func publishLoop() async throws {
    var wait = Duration.milliseconds(2)
    while !Task.isCancelled {
      let look = try await store.look()
      try await noticed(look)
      var didWork = false
      if !identity.isPaused && mayPublish {
        if let standsAt = resendFrom {
          resendFrom = nil
          try await publishBatch(after: standsAt)
          didWork = true
        } else if look.snapshot != lastSnapshot {
          lastSnapshot = look.snapshot
          didWork = try await publishBatch(after: nil)
        }
        if !didWork { try await quiet() }
      }
      wait = didWork ? .milliseconds(2) : min(wait * 3 / 2, options.lookInterval)
      try await Task.sleep(for: wait)
    }
  }

  private var mayPublish: Bool {
    isHead || (identity.isJoined && outbound.session != nil)
  }

  /// What a look found besides rows.
  private func noticed(_ look: FeedState) async throws {
    if look.isPaused != identity.isPaused {
      identity.isPaused = look.isPaused
      logger.info("exchange \(look.isPaused ? "paused" : "resumed")")
    }
    if look.catalogueVersion != identity.catalogueVersion && isHead {
      identity.catalogueVersion = look.catalogueVersion
      try await store.reload()
      catalogueCache = nil
      lastSnapshot = ""
      try await send(.catalogue(try await currentCatalogue()), to: .branches)
    }
    if look.hasRequests { try await serveRequests() }
  }

  func currentCatalogue() async throws(HubError) -> Catalogue {
    if let catalogueCache { return catalogueCache }
    let catalogue = try await store.catalogue()
    catalogueCache = catalogue
    return catalogue
  }

  /// Reads, records and sends what changed since `standsAt` (nil: since the last batch). Returns whether there was
  /// anything.
  @discardableResult
  func publishBatch(after standsAt: BatchReference?) async throws -> Bool {
    var since = standsAt
    var echoes = false
    if let standsAt, try await !store.knowsBatch(standsAt) {
      since = .origin
      echoes = true
    }
    let opened = try await store.openFeed(since: since, echoes: echoes)
    isFeedEmpty = opened == nil
    // What the other side is to build on has to lead to the last batch, also when there is nothing to send.
    if opened == nil && (standsAt == nil || standsAt == outbound.last) { return false }
    try await send(
      opened ?? FeedPart(blocks: [], rows: 0, cursor: [], isLast: true), after: standsAt, isEmpty: opened == nil)
    return true
  }

  /// A batch without rows: tells head how far this branch has applied, at most once a minute.
  private func publishEmptyBatch() async throws {
    try await send(FeedPart(blocks: [], rows: 0, cursor: [], isLast: true), after: nil, isEmpty: true)
  }

  private func send(_ first: FeedPart, after standsAt: BatchReference?, isEmpty: Bool) async throws {
    guard let header = outbound.nextHeader(id: .random(in: 1...Int64.max), after: standsAt) else {
      await store.closeFeed()
      return
    }
    do {
      if isEmpty { try await store.recordEmpty(header) } else { try await store.record(header) }
      outbound.recorded(header.reference)
      try writeHostFile(header.reference)
      if isHead && peers.isEmpty { return await store.closeFeed() }
      let snapshotAt = SystemClock.now
      var part = first
      var index = 0
      var rows: Int64 = 0
      let applied = isHead ? nil : applied(of: identity.head)
      while true {
        let message = BatchPart(
          header: header, catalogueVersion: identity.catalogueVersion, part: index, isLast: part.isLast,
          snapshotAt: snapshotAt, applied: applied, rowsBefore: rows, blocks: part.blocks)
        try await send(.batch(message), to: isHead ? .branches : .head)
        rows += Int64(part.rows)
        if part.isLast { break }
        part = try await store.nextFeedPart()
        index += 1
      }
      await store.closeFeed()
      facts.rowsSent += rows
      if let applied {
        appliedSent = applied.reference
        appliedSentAt = .now
      }
      lastSentAt = .now
      quietBeats = 0
    } catch {
      await store.closeFeed()
      throw error
    }
  }

  /// Nothing is unsent: answer who asked, and show the last batch now and then.
  private func quiet() async throws {
    isFeedEmpty = true
    for answer in answers {
      try await send(.beat(beat(for: answer.office, answerTo: answer.nonce)), toPeer: answer.office)
    }
    answers = []
    if !isHead, let applied = applied(of: identity.head), applied.reference != appliedSent,
      appliedSentAt + .seconds(60) < .now
    {
      return try await publishEmptyBatch()
    }
    let allAcknowledged = peers.keys.allSatisfy { outbound.isAcknowledged(by: $0) }
    let base = allAcknowledged ? options.beatInterval : options.unacknowledgedBeatInterval
    // An other side that does not answer is away: no heap of beats waits for it.
    let interval = base * (allAcknowledged ? 1 : 1 << min(quietBeats / 3, 4))
    guard !peers.isEmpty, lastSentAt + interval < .now else { return }
    quietBeats += 1
    lastSentAt = .now
    if isHead {
      try await send(.beat(beat(for: nil, answerTo: 0)), to: .branches)
    } else {
      try await send(.beat(beat(for: identity.head, answerTo: 0)), to: .head)
    }
  }

  func beat(for office: String?, nonce: Int64 = 0, answerTo: Int64 = 0) -> Beat {
    Beat(
      session: outbound.session ?? SessionID(rawValue: 0), last: outbound.last,
      applied: office.flatMap { applied(of: $0) }, nonce: nonce, answerTo: answerTo, isPaused: identity.isPaused)
  }
}
