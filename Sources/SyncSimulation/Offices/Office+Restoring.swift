import SyncCore

/// What an operator may put back: the database as it was, and the host's file as it was then.
struct Backup {
  var database: Database
  var hostRecord: HostRecord?
}

/// What is put back, and where.
enum Restoration: CaseIterable {
  /// The database alone: the host's file says what was sent since.
  case database
  /// The whole machine: the host's file goes back, too.
  case machine
  /// On another host, which has no file.
  case elsewhere
}

/// Servers that start, and databases that went back: who names writes, and what a handshake shows.
extension Office {
  func restartServer(_ world: World) {
    database.crash()
    if world.scenario.faults.contains(.restore) { server = world.drawStart() }
  }

  func writeHostRecord() {
    hostRecord = HostRecord(incarnation: database.actor, last: database.last, shown: database.shown, boot: "\(boot)")
  }

  /// hub takes the office: whether the database is the one that it was.
  func prepare(_ world: World) -> Lineage {
    let lineage: Lineage =
      database.token == server
      ? .continued
      : .atStart(
        record: hostRecord, incarnation: database.actor,
        knowsLast: hostRecord.map { database.chain[$0.last] != nil } ?? false, shown: database.shown, boot: "\(boot)",
        isHead: isHead)
    world.note("\(name) starts: \(lineage)")
    // What is on its way was made for a head that had more: a branch leaves out of it what came from that head.
    if isHead, database.token != server { for name in database.inbound.keys { database.inbound[name]?.session = nil } }
    take(lineage, world)
    return lineage
  }

  private func take(_ lineage: Lineage, _ world: World) {
    switch lineage {
    case .unproven: return
    case .continued:
      // Writes that were lost unseen have names that are given again now: a backup that has them is put back no more.
      if database.token != server {
        backups.removeAll { $0.database.actor == database.actor && $0.database.n > database.n }
      }
      database.token = server
    case .forked:
      guard database.token != server else { break }
      database.actor = database.writer(server: server)
      database.token = server
      database.session = nil
      // Who joined since is a stranger to such a head, and joins again; here all stay members.
      if isHead {
        database.recovery.began(with: world.branches.map(\.name))
        for name in database.applied.keys { database.applied[name] = 0 }
        let position = database.position(of: database.last).base
        database.last = database.last.afterFork(
          at: Int64(world.now / .milliseconds(1)), id: Int64(truncatingIfNeeded: database.actor.rawValue))
        database.chain[database.last] = RankedPosition(position)
      }
    }
    writeHostRecord()
  }

  /// The server restarted under a hub that lives on: it begins anew.
  func renew(_ world: World) {
    process = nil
    start(world)
  }

  /// A branch looks at where head stands in its stream; true: the database went back, it greets as another.
  func isForked(by welcome: Handshake.Welcome, _ world: World) -> Bool {
    guard let process else { return false }
    let lineage = process.lineage.welcomed(
      knowsHave: database.chain[welcome.have] != nil,
      headWentBack: welcome.recovers, have: welcome.have,
      acknowledged: database.acknowledged[Broker.headQueue] ?? .origin)
    guard lineage != process.lineage else { return false }
    world.note("\(name) is \(lineage)")
    self.process?.lineage = lineage
    take(lineage, world)
    guard lineage == .forked else { return false }
    self.process?.greeting.forgot()
    greet(world)
    return true
  }

  /// Head has got back from a branch what it had lost.
  func recovered(_ office: String, _ world: World) {
    world.note("\(name) has recovered from \(office)")
    if let recovery = process?.reception.recovery { database.recovery = recovery }
    world.recoveredThrough = database.last.following(by: Int64(world.scenario.batchesOfScan))
  }
}

extension World {
  /// Names one start of a server or a kernel.
  func drawStart() -> Int {
    starts += 1
    return starts
  }

  /// Now and then a backup is made or put back.
  func disaster() {
    let office = disasters.chance(30) ? head : disasters.pick(offices)
    switch disasters.int(0...99) {
    case 0..<3: backUp(office)
    case 3..<5: restore(office)
    default: break
    }
  }

  private func backUp(_ office: Office) {
    var database = office.database
    database.crash()
    if office.backups.count > 2 { office.backups.remove(at: disasters.int(0...office.backups.count - 1)) }
    office.backups.append(Backup(database: database, hostRecord: office.hostRecord))
    note("\(office.name) is backed up")
  }

  /// Head lacks something that only others have, or this branch has not passed what it made meanwhile.
  func isRecovering(_ office: Office) -> Bool {
    guard !head.database.recovery.isRecovering else { return true }
    return !office.isHead
      && office.database.inbound.values.contains { position in
        !head.database.chain.contains { batch, led in
          led.isWhole && batch.number > recoveredThrough && batch.number <= position.at.number
        }
      }
  }

  /// Puts a backup back, lets applications write before hub starts, or waits.
  private func restore(_ office: Office) {
    guard !office.backups.isEmpty, !office.isLeaving else { return }
    let backup = disasters.pick(office.backups)
    // A branch stood further back when this was made than it did before, because head forked: it would be refused.
    guard office.isHead || office.stands(backup.database) >= head.database.purged else { return }
    let what = disasters.pick(Restoration.allCases)
    let old = office.database
    office.process = nil
    office.database = backup.database
    // Who left since is removed again by a person.
    for gone in office.database.acknowledged.keys where office.isHead && !isMember(gone) {
      office.database.acknowledged[gone] = nil
      office.database.inbound[gone] = nil
      office.database.applied[gone] = nil
    }
    if what == .machine { office.hostRecord = backup.hostRecord }
    if what == .elsewhere { office.hostRecord = nil }
    if what != .database { office.boot = drawStart() }
    office.server = drawStart()
    restores += 1
    // What people let go of since the backup is there again.
    if office.isHead { ledger.discarded = [] }
    // A head from before a branch greeted believes what that one had told earlier. Deletes are remembered for longer than
    // it takes to greet anew.
    for other in office.isHead ? branches : [office] { other.isPutBack = true }
    note("\(office.name) goes back (\(what)) to \(backup.database.last)")
    noteLost(old, now: office.database)
    for _ in 0..<random.pick([0, 1, 3, 8]) {
      office.begin()
      for _ in 0..<random.int(1...2) {
        office.write(random.int(0...scenario.keys - 1), in: office.database.open.count - 1, self)
      }
      office.end(office.database.open.count - 1, commits: true, self)
    }
    if random.chance(50) { office.start(self) }
  }

  /// Writes that no database has any more cannot come back.
  private func noteLost(_ old: Database, now restored: Database) {
    var kept = WriteSet()
    for database in offices.map(\.database) {
      for copy in database.rows { if let copy { kept.formUnion(copy.truth) } }
      for truth in database.forgotten.values { kept.formUnion(truth) }
    }
    // What is only in quarantine elsewhere comes back unless it is in conflict there by then.
    for truth in old.rows.compactMap({ $0?.truth }) + old.inbox.quarantined.map(\.row.truth) {
      truth.visit { if !kept.contains($0) { ledger.lost($0) } }
    }
  }

  /// A head that went back does not let a branch go before it has everything again.
  func mayLeave(_ branch: Office) -> Bool {
    guard scenario.faults.contains(.restore) else { return true }
    return head.isRunning && head.database.recovery.offices[branch.name] == nil
      && head.database.inbound[branch.name]?.at == branch.database.last
  }
}

extension Ledger {
  /// Whether a copy that has seen `truth` has seen all of `held`: of what was lost nobody can show it any more.
  func covers(_ held: WriteSet, _ truth: WriteSet) -> Bool {
    if held.isSubset(of: truth) { return true }
    var isCovered = true
    held.visit { if !writes[$0].isLost && !truth.contains($0) { isCovered = false } }
    return isCovered
  }

  mutating func lost(_ write: Int) {
    writes[write].isLost = true
    transactions.removeAll { $0.contains { $0.write == write } }
  }
}
