import SyncCore

/// Making batches: look, record, send the parts; each a step of its own, so that a crash may fall between.
extension Office {
  /// Does the next step; false when there was nothing to do.
  @discardableResult
  func publishStep(_ world: World) -> Bool {
    guard process?.outbound.session != nil, isOnline else { return false }
    if process?.publication != nil {
      publishPart(world)
      return true
    }
    if process?.scan != nil {
      record(world)
      return true
    }
    return look(world)
  }

  private func look(_ world: World) -> Bool {
    guard let process else { return false }
    let position = database.snapshot
    let base = process.outbound.base
    let isResend = process.outbound.resendFrom != nil
    let since = (isResend ? nil : process.lookedAt) ?? database.chain[base] ?? .zero
    let rows = database.read(since: since, echoes: isResend)
    if !rows.isEmpty && !isResend {
      let unacknowledged = process.outbound.unacknowledged
      guard process.pace.mayPublish(at: world.now, unacknowledged: unacknowledged) else { return false }
    }
    if !rows.isEmpty || isResend {
      let next = scan(base, position, rows)
      self.process?.scan = next
      return true
    }
    self.process?.lookedAt = position
    return foundNothing(position, world)
  }

  private func scan(_ base: BatchReference, _ position: FeedPosition, _ rows: [TravellingRow]) -> Scan {
    Scan(
      base: base, adoptions: process?.outbound.adoptions ?? 0, position: position, rows: rows,
      applied: isHead ? nil : Horizon.told(applied(of: Broker.headQueue), deletesWait: deletesWait))
  }

  private func foundNothing(_ position: FeedPosition, _ world: World) -> Bool {
    guard var process else { return false }
    let head = applied(of: Broker.headQueue)
    let receivers = isHead ? world.branches.map(\.name) : [Broker.headQueue]
    let action = process.pace.foundNothing(
      at: world.now, applied: isHead ? nil : head?.reference,
      isAcknowledged: receivers.allSatisfy(process.outbound.isAcknowledged))
    self.process?.pace = process.pace
    switch action {
    case .beat(let asks): beat(asks: asks, world)
    case .emptyBatch:
      let next = scan(process.outbound.base, position, [])
      guard next.applied != nil else {
        self.process?.pace.postponedEmptyBatch(at: world.now)
        return false
      }
      self.process?.scan = next
      return true
    case nil: break
    }
    return false
  }

  private func beat(asks: Bool, _ world: World) {
    guard let process, let session = process.outbound.session else { return }
    let applied = isHead ? nil : applied(of: Broker.headQueue)
    send(.beat(session: session, last: process.outbound.last, applied: applied, asks: asks), world)
  }

  private func record(_ world: World) {
    guard let scan = process?.scan else { return }
    process?.scan = nil
    let id = world.random.identifier()
    guard let header = process?.outbound.nextHeader(id: id, after: scan.base, adoptions: scan.adoptions) else { return }
    mark(scan)
    database.chain[header.reference] = scan.position
    database.last = header.reference
    process?.outbound.recorded(header)
    process?.lookedAt = nil
    process?.pace.recordedBatch(at: world.now, applied: scan.applied?.reference)
    world.note("\(name) records \(header.text), \(scan.rows.count) rows")
    if dies(at: .recordedNotPublished, world) { return }
    writeHostRecord()
    let parts = scan.rows.parts(of: world.scenario.partRows)
    process?.publication = Publication(header: header, parts: parts, applied: scan.applied)
  }

  private func publishPart(_ world: World) {
    guard let publication = process?.publication else { return }
    let isLast = publication.next == publication.parts.count - 1
    send(
      .batch(
        publication.header, part: publication.next, isLast: isLast,
        rows: publication.parts[publication.next], applied: publication.applied), world)
    if dies(at: .publishedInPart, world) { return }
    process?.publication?.next += 1
    if isLast {
      process?.publication = nil
      process?.pace.published(at: world.now)
    }
  }

  // MARK: windows

  /// Head answers the newest request of one branch, all parts of one window from one snapshot.
  @discardableResult
  func servePull(_ world: World) -> Bool {
    guard isOnline, let session = database.session, let branch = process?.pulls.keys.min(),
      let pull = process?.pulls.removeValue(forKey: branch)
    else { return false }
    var from = pull.resumed?.from ?? pull.at
    var after = pull.resumed.flatMap { $0.cursor.first } ?? 0
    if database.chain[from] == nil { (from, after) = (.origin, 0) }
    let rows = database.read(since: database.chain[from] ?? .zero, echoes: true).filter { $0.key >= after }
    let given = Array(rows.prefix(world.scenario.windowRows))
    let parts = given.parts(of: world.scenario.windowPartRows)
    database.shown += 1
    writeHostRecord()
    for (index, part) in parts.enumerated() {
      let isLast = index == parts.count - 1
      after = part.last.map { UInt8($0.key + 1) } ?? after
      send(
        .window(
          WindowHeader(
            session: session, token: pull.token, part: index, isLastPart: isLast, from: from,
            cursor: [after], more: !isLast || given.count < rows.count, full: false, target: database.last),
          rows: part), to: branch, world)
    }
    return true
  }
}

extension Array {
  /// Slices of at most `size`; one empty slice of nothing.
  func parts(of size: Int) -> [[Element]] {
    guard !isEmpty else { return [[]] }
    return stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
  }
}
