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
    let since = ((isResend ? nil : process.lookedAt) ?? database.position(of: base)).under(database.ranks.order)
    var rows = database.read(since: since, echoes: isResend || since.echoes)
    if !isHead, isResend, process.headRecovers != false {
      // What head sent and this database refuses may be here alone.
      rows += database.inbox.quarantine[Broker.headQueue, default: [:]].sorted { $0.key < $1.key }.map(\.value.row)
        .filter {
          // What is in conflict with a write of this office's is not put aside for it.
          $0.state.vector.dominates(database.rows[$0.key]?.state.vector ?? VersionVector())
        }
    }
    if !rows.isEmpty && !isResend {
      let unacknowledged = process.outbound.unacknowledged
      guard process.pace.mayPublish(at: world.now, unacknowledged: unacknowledged) else { return false }
    }
    if !rows.isEmpty || isResend {
      let slices = slices(of: rows, since: since, base: base, isResend: isResend, world)
      let next = scan(base, slices)
      self.process?.scan = next
      return true
    }
    self.process?.lookedAt = RankedPosition(position)
    return foundNothing(position, world)
  }

  private func scan(_ base: BatchReference, _ slices: [Slice]) -> Scan {
    Scan(
      base: base, adoptions: process?.outbound.adoptions ?? 0, slices: slices,
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
      let next = scan(process.outbound.base, [Slice(position, [])])
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
    guard var scan = process?.scan, let slice = scan.slices.first, let outbound = process?.outbound else { return }
    process?.scan = nil
    if scan.isUnderWay, !outbound.goesOn(after: scan.base, adoptions: scan.adoptions) { return }
    let id = world.random.identifier()
    guard
      let header = outbound.nextHeader(
        id: id, after: scan.base, adoptions: scan.adoptions, isSlice: !slice.position.isWhole)
    else { return }
    let applied = Slicing.told(scan.applied, isWhole: slice.position.isWhole)
    mark(applied, after: scan.base)
    database.chain[header.reference] = slice.position
    database.records[header.reference] = (scan.base, slice.readAt)
    database.last = header.reference
    if database.session == nil { database.session = header.session }
    process?.outbound.recorded(header)
    process?.lookedAt = nil
    process?.pace.recordedBatch(at: world.now, applied: applied?.reference)
    world.note("\(name) records \(header.text), \(slice.rows.count) rows")
    if dies(at: .recordedNotPublished, world) { return }
    writeHostRecord()
    if slice.cut == nil || slice.stored > 0 { process?.stagedAtHead = nil }
    if header.isSlice { world.slicesSent += 1 }
    if slice.stored > 0 { world.resumed += 1 }
    let parts = slice.rows.parts(of: world.scenario.partRows)
    process?.publication = Publication(
      header: header, parts: parts, applied: applied, stored: slice.stored, cut: slice.cut, cursor: slice.cursor)
    scan.slices.removeFirst()
    (scan.base, scan.isUnderWay) = (header.reference, true)
    if !scan.slices.isEmpty { process?.scan = scan }
  }

  private func publishPart(_ world: World) {
    guard var publication = process?.publication else { return }
    let isLast = publication.next == publication.parts.count - 1
    let rows = publication.parts[publication.next]
    // Rows that come again are behind the cursor; deletes are no part of it.
    let last = rows.filter(\.state.isAlive).map(\.key).max() ?? -1
    publication.cursor = publication.cursor.map { max($0, last + 1) }
    let cursor = publication.cursor.map { [database.ranks.code, UInt8($0)] } ?? []
    send(
      .batch(
        publication.header, part: publication.stored + publication.next, isLast: isLast, rows: rows,
        applied: publication.applied, Resuming(cursor: cursor, cut: publication.cut, stored: publication.stored)), world
    )
    if dies(at: .publishedInPart, world) { return }
    publication.next += 1
    process?.publication = isLast ? nil : publication
    if isLast { process?.pace.published(at: world.now) }
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
    let rows = database.read(since: database.position(of: from), echoes: true).filter { $0.key >= after }
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
            cursor: [after], more: !isLast || given.count < rows.count, full: false, target: database.last,
            settlesAfter: Int64(world.scenario.batchesOfScan) + 1),
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
