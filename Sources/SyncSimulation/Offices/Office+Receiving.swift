import SyncCore

/// What an office does with a delivery. Durable first, then the acknowledgement.
extension Office {
  func receive(_ message: Message, _ world: World) -> Fate {
    let office = message.sender
    guard process != nil, !isHead || world.isMember(office) else { return .done }
    if database.inbound[office] == nil { meet(office) }
    if isHead, let known = database.incarnations[office], known != message.incarnation {
      // Another incarnation than the one that greeted: it has to greet first.
      guard case .hello = message.payload else {
        if let session = message.session { refuse(session, office, world) }
        return .done
      }
    }
    switch message.payload {
    case .hello(let hello):
      welcome(hello, office, message.incarnation, world)
      conflictsArrived(message.entriesAt, at: office, greeting: true, world)
    case .welcome(let welcome, let staged): welcomed(welcome, staged: staged, world)
    case .rehello(let session): rehello(session, world)
    case .batch(let header, let part, let isLast, let rows, let applied, let resuming):
      return batch(header, part, isLast, rows, applied, resuming, message.purged, office, world)
    case .acknowledgement(let position): acknowledged(position, office)
    case .beat(let session, let last, let applied, let asks):
      if let applied { acknowledged(applied, office) }
      if isHead { conflictsArrived(message.entriesAt, at: office, greeting: false, world) }
      beat(session, last, asks, message.purged, office, world)
    case .conflicts(let entries): conflictsCame(entries, world)
    case .restate(let request, let key): return restate(request, key: key, office, world)
    case .restated(let request): restated(request)
    case .pull(let pull): pulled(pull, office, world)
    case .window(let header, let rows): return window(header, rows, office, world)
    }
    return .done
  }

  private func meet(_ office: String) {
    database.inbound[office] = InboundPosition()
    process?.inbound[office] = InboundStream(position: InboundPosition())
  }

  private func batch(
    _ header: BatchHeader, _ part: Int, _ isLast: Bool, _ rows: [TravellingRow], _ applied: AppliedPosition?,
    _ resuming: Resuming, _ purged: Int64, _ office: String, _ world: World
  ) -> Fate {
    guard let stream = process?.inbound[office] else { return .done }
    let answer = stream.batchArrived(header)
    if answer != .greet { purgedArrived(purged) }
    switch answer {
    case .greet: refuse(header.session, office, world)
    case .acknowledge: if isLast { acknowledge(office, world) }
    case .ignore: break
    case .pull: pull(office, world)
    case .apply(let next):
      goOn(header.reference, resuming, at: part, office)
      let assembly = process?.assemblies[office] ?? PartAssembly()
      switch assembly.partArrived(of: header.reference, index: part, isLast: isLast) {
      case .single: return apply(rows, next, applied, resuming.cut, office, world)
      case .stage(let reset): stage(rows, header.reference, part, reset: reset, resuming.cursor, office)
      case .complete:
        stage(rows, header.reference, part, reset: false, resuming.cursor, office)
        if dies(at: .stagedNotApplied, world) { return .crashed }
        return applyStaged(part + 1, next, applied, resuming.cut, office, world)
      case .applyStored(let parts): return applyStaged(parts, next, applied, resuming.cut, office, world)
      case .duplicate: break
      case .gap: if stream.awaited == nil { pull(office, world) }
      }
    }
    return .done
  }

  /// A new batch takes over what is stored of one that was cut.
  private func goOn(_ batch: BatchReference, _ resuming: Resuming, at part: Int, _ office: String) {
    guard let cut = resuming.cut,
      process?.assemblies[office]?.continues(cut, after: resuming.stored, at: part) ?? false
    else { return }
    process?.assemblies[office]?.adopted(batch, count: part)
    guard let staged = database.staged[office] else { return }
    database.staged[office] = (batch, Array(staged.parts.prefix(part)), Array(staged.cursors.prefix(part)))
  }

  private func stage(
    _ rows: [TravellingRow], _ batch: BatchReference, _ part: Int, reset: Bool, _ cursor: [UInt8], _ office: String
  ) {
    if reset { database.staged[office] = (batch, [], []) }
    database.staged[office]?.parts.append(rows)
    database.staged[office]?.cursors.append(cursor)
    process?.assemblies[office, default: PartAssembly()].staged(batch, index: part)
  }

  /// A crash of the server empties the staging table, also while hub lives on.
  private func applyStaged(
    _ parts: Int, _ next: InboundPosition, _ applied: AppliedPosition?, _ cut: BatchReference?, _ office: String,
    _ world: World
  ) -> Fate {
    guard let staged = database.staged[office], staged.parts.count == parts else {
      process?.assemblies[office]?.reset()
      pull(office, world)
      return .done
    }
    return apply(staged.parts.flatMap { $0 }, next, applied, cut, office, world)
  }

  private func apply(
    _ rows: [TravellingRow], _ next: InboundPosition, _ applied: AppliedPosition?, _ cut: BatchReference?,
    _ office: String, _ world: World
  ) -> Fate {
    guard apply(rows, from: office, world) else { return .givenWay }
    let keepsStaged = process?.assemblies[office]?.outlives(next.at, resumes: cut) ?? false
    database.inbound[office] = next
    if !keepsStaged { database.staged[office] = nil }
    world.checkWhole(self)
    if dies(at: .appliedNotAcknowledged, world) { return .crashed }
    process?.inbound[office]?.committed(next)
    if process?.reception.applied(from: office) ?? false { recovered(office, world) }
    forgetAnswered(office)
    if !keepsStaged { process?.assemblies[office]?.reset() }
    if isHead, let applied {
      acknowledged(applied, office)
      noteApplied(applied, office)
    }
    acknowledge(office, world)
    return .done
  }

  private func window(
    _ header: WindowHeader, _ rows: [TravellingRow], _ office: String, _ world: World
  ) -> Fate {
    guard let stream = process?.inbound[office] else { return .done }
    switch stream.windowArrived(header) {
    case .greet: refuse(header.session, office, world)
    case .apply(let next):
      guard apply(rows, from: office, world) else { return .givenWay }
      checkProgress(from: stream.position, to: next, world)
      database.inbound[office] = next
      world.checkWhole(self)
      if dies(at: .appliedNotAcknowledged, world) { return .crashed }
      process?.inbound[office]?.committed(next, part: header)
      process?.pullReminders[office]?.progressed(at: world.now)
      forgetAnswered(office)
      if !header.more { retryQuarantine(world) }
      if process?.inbound[office]?.needsPull ?? false { pull(office, world) }
      if next.catchUp == nil { acknowledge(office, world) }
    case .acknowledge, .ignore, .pull: break
    }
    return .done
  }

  private func forgetAnswered(_ office: String) {
    if process?.inbound[office]?.awaited == nil { process?.pullReminders[office]?.answered() }
  }

  private func beat(
    _ session: SessionID, _ last: BatchReference, _ asks: Bool, _ purged: Int64, _ office: String, _ world: World
  ) {
    guard let stream = process?.inbound[office] else { return }
    let answer = stream.beatArrived(session: session, last: last, asks: asks)
    if answer != .greet { purgedArrived(purged) }
    switch answer {
    case .greet: refuse(session, office, world)
    case .pull: pull(office, world)
    case .apply(let next):
      database.inbound[office] = next
      process?.inbound[office]?.committed(next)
      acknowledge(office, world)
      world.checkWhole(self)
    case .acknowledge: acknowledge(office, world)
    case .ignore: break
    }
  }

  private func acknowledged(_ position: AppliedPosition, _ office: String) {
    guard let process, process.outbound.accepts(position.reference, session: position.session, from: office),
      database.chain[position.reference] != nil
    else { return }
    self.process?.outbound.acknowledge(position.reference, from: office)
    database.acknowledged[office] = position.reference
  }

  private func pulled(_ pull: Pull, _ office: String, _ world: World) {
    if isHead {
      process?.pulls[office] = pull
      return
    }
    // What head said that it has may be what it misses now.
    process?.stagedAtHead = nil
    let isKnown = database.chain[pull.at] != nil
    switch process?.outbound.pullArrived(at: pull.at, from: office, known: isKnown) {
    case .beat: process?.pace.beatWanted(at: world.now)
    case .greet: greet(world)
    case .resend, nil: break
    }
  }
}
