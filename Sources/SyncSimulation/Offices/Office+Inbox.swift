import SyncCore

/// What waits for people: rows in quarantine, tried again, and the conflict log on its way to the branches.
extension Office {
  /// What the daemon does every second.
  func tendInbox(_ world: World) {
    guard process != nil else { return }
    if isHead {
      sendConflicts(world)
    } else {
      askAgain(world)
    }
    guard process?.quarantine.isWorthALook(at: world.now) ?? false else { return }
    retryQuarantine(world)
  }

  // MARK: quarantine

  func retryQuarantine(_ world: World) {
    let isEmpty = database.inbox.quarantined.isEmpty
    guard process?.quarantine.looked(isEmpty ? nil : "as ever", at: world.now) ?? false else { return }
    var released = 0
    for (peer, rows) in database.inbox.quarantine.sorted(by: { $0.key < $1.key }) where !rows.isEmpty {
      let before = database.inbox.quarantine
      database.inbox.quarantine[peer] = nil
      guard apply(rows.sorted { $0.key < $1.key }.map(\.value.row), from: peer, retrying: true, world) else {
        database.inbox.quarantine = before
        continue
      }
      released += rows.count - (database.inbox.quarantine[peer]?.count ?? 0)
    }
    if released > 0 { world.note("\(name): \(released) rows leave quarantine") }
    process?.quarantine.tried(released: released, from: world.now, to: world.now)
  }

  /// A person lets go of a refused row. Head restates its own; a branch asks head for its present one.
  func discard(_ key: Int, from peer: String, _ world: World) {
    guard let refused = database.inbox.quarantine[peer]?[key]?.row, !database.isLocked(key) else { return }
    world.note("\(name) discards key \(key) of \(peer)")
    database.inbox.quarantine[peer]?[key] = nil
    if isHead {
      absorb(refused, isDiscarded: true, world)
    } else {
      database.inbox.requests += 1
      database.inbox.restates[database.inbox.requests] = key
    }
  }

  /// A person writes a refused row with other values.
  func edit(_ key: Int, from peer: String, _ world: World) {
    guard let refused = database.inbox.quarantine[peer]?[key]?.row, let constraints = world.scenario.constraints,
      !database.isLocked(key), let image = refused.state.image
    else { return discard(key, from: peer, world) }
    world.note("\(name) edits key \(key) of \(peer)")
    database.inbox.quarantine[peer]?[key] = nil
    absorb(refused, isDiscarded: false, world)
    let edited = RowImage(values: constraints.harmless(image.values), shown: image.shown)
    begin()
    write(key, as: edited, in: database.open.count - 1, world)
    end(database.open.count - 1, commits: true, world)
    process?.quarantine.rowsApplied()
  }

  private func absorb(_ refused: TravellingRow, isDiscarded: Bool, _ world: World) {
    let (key, local) = (refused.key, database.rows[refused.key])
    let arbiter = Arbiter(dot: database.nextDot(server: server), now: clock(world))
    guard
      let row = arbiter.absorbed(
        refused.state, over: local?.state, granularity: world.scenario.policy.granularity)
    else { return }
    var truth = local?.truth ?? WriteSet()
    truth.formUnion(refused.truth)
    world.ledger.absorbed(row, local: local, refused: refused, dot: arbiter.dot, isDiscarded: isDiscarded, &truth)
    let transaction = database.beginHubTransaction()
    replace(key, Copy(state: row, truth: truth, transaction: transaction, isEcho: false))
    if database.held[key]?.isSubset(of: truth) ?? false { database.held[key] = nil }
    world.note("\(name) key \(key) stands: \(row.text)")
  }

  // MARK: asking head again

  private func askAgain(_ world: World) {
    guard isOnline, let due = process?.restates.due(database.inbox.restates.keys.sorted(), at: world.now) else {
      return
    }
    for request in due {
      if let key = database.inbox.restates[request] { send(.restate(request, key: key), world) }
    }
  }

  /// Head: the row goes out again.
  func restate(_ request: Int64, key: Int, _ office: String, _ world: World) -> Fate {
    guard !database.isLocked(key) else { return .givenWay }
    let transaction = database.beginHubTransaction()
    database.rows[key]?.transaction = transaction
    database.rows[key]?.isEcho = false
    send(.restated(request), to: office, world)
    return .done
  }

  func restated(_ request: Int64) {
    database.inbox.restates[request] = nil
    process?.restates.answered(request)
  }

  // MARK: conflict log

  private func sendConflicts(_ world: World) {
    var offices: Set<String> = []
    for id in database.inbox.log.indices {
      for (office, number) in database.inbox.log[id].notices.sorted(by: { $0.key < $1.key }) where number == nil {
        database.inbox.number += 1
        database.inbox.log[id].notices[office] = database.inbox.number
        offices.insert(office)
      }
    }
    for office in offices.sorted() {
      if let after = process?.conflicts[office, default: ConflictDelivery()].logged() {
        sendConflicts(after: after, to: office, world)
      }
    }
  }

  /// A branch said which entry is its last.
  func conflictsArrived(_ number: Int64, at office: String, greeting: Bool, _ world: World) {
    if greeting { process?.conflicts[office] = ConflictDelivery() }
    if let after = process?.conflicts[office, default: ConflictDelivery()].arrived(number, at: world.now) {
      sendConflicts(after: after, to: office, world)
    }
  }

  private func sendConflicts(after: Int64, to office: String, _ world: World) {
    let lacking = database.inbox.log.enumerated().compactMap { id, entry -> (id: Int, number: Int64, revision: Int)? in
      guard let number = entry.notices[office] ?? nil, number > after else { return nil }
      return (id, number, entry.revision)
    }.sorted { $0.number < $1.number }
    let given = lacking.prefix(world.scenario.windowRows)
    guard let last = given.last else { return }
    process?.conflicts[office]?.sent(through: last.number, at: world.now)
    let entries = ConflictEntries(
      after: after, last: last.number, more: given.count < lacking.count,
      entries: given.map { "\($0.id) \($0.revision)" })
    send(.conflicts(entries), to: office, world)
  }

  func conflictsCame(_ entries: ConflictEntries, _ world: World) {
    guard entries.follows(database.inbox.entriesAt) else { return }
    for entry in entries.entries {
      let numbers = entry.split(separator: " ").compactMap { Int($0) }
      database.inbox.entries[numbers[0]] = numbers[1]
    }
    database.inbox.entriesAt = entries.last
    if entries.more { process?.pace.beatWanted(at: world.now) }
  }

  // MARK: reversing a decision

  /// A person at head says which side stands; what it came to.
  @discardableResult
  func resolve(_ id: Int, keep side: Side, force: Bool, _ world: World) -> Reversal {
    let entry = database.inbox.log[id]
    let key = entry.key
    let column = entry.conflict.conflict.column
    guard !database.isLocked(key) else { return .refused }
    let row = database.rows[key]?.state
    let kept = entry.conflict.conflict.row(of: side).image
    let wanted = wantedImage(kept, row?.image, column)
    let reversal = Reversal(
      isAsDecided: row?.write(at: column) == entry.decided,
      stands: side == entry.kept ?? entry.conflict.winner ?? .local,
      isThere: wanted == row?.image, force: force)
    world.note("head is to keep \(side) of conflict \(id): \(reversal)")
    guard reversal != .refused else { return reversal }
    if reversal == .write {
      begin()
      let isWritten = write(key, as: wanted, in: database.open.count - 1, world)
      end(database.open.count - 1, commits: isWritten, world)
      // A constraint does not let it.
      guard isWritten, let dot = database.rows[key]?.state.write(at: column) else { return .refused }
      database.inbox.log[id].decided = dot
    }
    database.inbox.log[id].kept = side
    database.inbox.log[id].revision += 1
    for office in entry.notices.keys { database.inbox.log[id].notices[office] = .some(nil) }
    return reversal
  }

  /// A conflict of one column is about no other, and counters were never in conflict: they go on counting.
  private func wantedImage(_ kept: RowImage<Int>?, _ present: RowImage<Int>?, _ column: Int?) -> RowImage<Int>? {
    guard let kept, var image = present else { return kept }
    for (name, value) in kept.values where column == nil || column == name { image.values[name] = value }
    return image
  }
}

extension World {
  /// The branch whose incarnation this is.
  func writer(of actor: ActorID) -> String? { branches.first { $0.database.actor == actor }?.name }
}
