import SyncCore

/// Tombstones go when nobody can contradict them any more.
extension Office {
  /// What hub does from time to time.
  func purge(_ world: World) {
    guard isRunning else { return }
    if isHead { purgeHead(world) } else { purgeBranch(world) }
  }

  private func purgeHead(_ world: World) {
    guard !database.recovery.isRecovering else { return }
    let horizon = Horizon.reached(applied: database.applied.values, last: database.last.number)
    guard horizon > database.purged, isRemembered(horizon, world),
      let position = database.chain.first(where: { $0.key.number == horizon })?.value
    else { return }
    database.purged = horizon
    forget(position.base, world)
    for office in world.offices { office.backups.removeAll { office.stands($0.database) < horizon } }
  }

  /// Tombstones are kept for as long as backups are: what is put back, and has not greeted yet, knows them.
  private func isRemembered(_ horizon: Int64, _ world: World) -> Bool {
    world.branches.allSatisfy { !$0.isPutBack || $0.stands($0.database) >= horizon }
  }

  func stands(_ database: Database) -> Int64 {
    (isHead ? database.last : database.inbound[Broker.headQueue]?.at ?? .origin).number
  }

  private func purgeBranch(_ world: World) {
    guard let mark = database.marks.last(where: { $0.applied <= database.purged }) else { return }
    forget(mark.position, world)
    database.marks.removeAll { $0.applied < mark.applied }
  }

  private func forget(_ position: FeedPosition, _ world: World) {
    for (key, copy) in database.rows.enumerated() {
      guard let copy, !copy.state.isAlive, !position.isNew(copy.transaction), isHead || copy.isEcho,
        copy.state.hasNoContributions, !database.isLocked(key), !database.inbox.isQuarantined(key)
      else { continue }
      world.note("\(name) forgets key \(key): \(copy.state.text)")
      world.tombstonesPurged += 1
      database.forgotten[key] = copy.truth
      database.rows[key] = nil
      database.inbox.images[key] = nil
    }
  }

  /// Branch: where it stood when it first says that it has applied so much. What head has of it is what the batch before
  /// told.
  func mark(_ applied: AppliedPosition?, after base: BatchReference) {
    guard !isHead, let applied = applied?.reference.number else { return }
    if Horizon.isMark(applied: applied, told: database.told) {
      database.marks.append((applied, database.position(of: base).base))
    }
    database.told = applied
  }

  /// Branch: whether deletes of head's are here that have not met what is written here.
  var deletesWait: Bool {
    !database.inbox.restates.isEmpty
      || database.inbox.quarantine[Broker.headQueue, default: [:]].values.contains { !$0.row.state.isAlive }
  }

  /// Head: the batch that says so is applied.
  func noteApplied(_ applied: AppliedPosition, _ office: String) {
    guard applied.session == database.session, database.chain[applied.reference] != nil else { return }
    database.applied[office] = max(database.applied[office] ?? 0, applied.reference.number)
  }

  /// Branch: head has purged so much.
  func purgedArrived(_ number: Int64) {
    if !isHead { database.purged = max(database.purged, number) }
  }
}

extension RowState<Int> {
  /// What was added to counters is not told again by a row that is inserted anew.
  fileprivate var hasNoContributions: Bool { counters.values.allSatisfy(\.contributions.isEmpty) }
}

extension Database {
  func hasSeen(_ write: Int, of key: Int) -> Bool {
    (rows[key]?.truth ?? forgotten[key])?.contains(write) ?? false
  }

  /// A tombstone here and none there is no difference where they go at different times.
  func remembered(_ key: Int, purges: Bool) -> Copy? {
    guard purges, let copy = rows[key], !copy.state.isAlive else { return rows[key] }
    return copy.state.counters.values.allSatisfy(\.contributions.isEmpty) ? nil : copy
  }
}
