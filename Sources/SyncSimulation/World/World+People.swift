import SyncCore

/// People at work: they look at what was refused and what was decided, now and then, and once everything is quiet.
extension World {
  /// Somebody at an office does something about what waits there.
  func personActs(_ office: Office) {
    guard office.isRunning else { return }
    ledger.verdicts += 1
    if office.isHead, !office.database.inbox.log.isEmpty, random.chance(40) {
      let id = random.int(0...office.database.inbox.log.count - 1)
      office.resolve(id, keep: random.chance(50) ? .local : .incoming, force: random.chance(30), self)
      return
    }
    let waiting = office.database.inbox.quarantined
    guard !waiting.isEmpty else { return }
    let (peer, row) = random.pick(waiting)
    // A head that goes back forgets that it answered, before the branch has the row.
    if !office.isHead, scenario.faults.contains(.restore) { return }
    if random.chance(40) {
      office.edit(row.key, from: peer, self)
    } else {
      office.discard(row.key, from: peer, self)
    }
  }

  /// Everything is quiet: head's people settle what is in quarantine, until nothing is.
  func settleQuarantine() {
    for _ in 0..<12 where ledger.violation == nil {
      let waiting = head.database.inbox.quarantined
      if waiting.isEmpty, branches.allSatisfy({ $0.database.inbox.quarantined.isEmpty }) { return }
      ledger.verdicts += waiting.count
      for (peer, row) in waiting {
        if random.chance(40) { head.edit(row.key, from: peer, self) } else { head.discard(row.key, from: peer, self) }
      }
      // What a head that went back had sent is no news to it; only the branch's own people end that.
      for branch in branches where restores > 0 {
        for (peer, row) in branch.database.inbox.quarantined { branch.discard(row.key, from: peer, self) }
      }
      rest()
    }
    if ledger.violation == nil {
      ledger.fail(
        .converged, "quarantine does not get empty: \(offices.map { $0.database.inbox.quarantined.map(\.row.key) })")
    }
  }

  /// Reversing a decision in a quiet world: the row stands everywhere as it was kept, and nothing new is in conflict.
  func reverseADecision() {
    let log = head.database.inbox.log
    guard ledger.violation == nil, !log.isEmpty else { return }
    let id = random.int(0...log.count - 1)
    let side: Side = random.chance(50) ? .local : .incoming
    // A delete that head has forgotten, and a branch not yet, meets the row that is kept as any other write would.
    let key = log[id].key
    if head.database.rows[key] == nil, branches.contains(where: { $0.database.rows[key] != nil }) { return }
    guard head.resolve(id, keep: side, force: true, self) != .refused else { return }
    let conflict = log[id].conflict.conflict
    let kept = conflict.row(of: side)
    rest()
    guard ledger.violation == nil else { return }
    if head.database.inbox.log.count != log.count {
      ledger.fail(.reversal, "reversing conflict \(id) made another one")
    }
    for office in offices {
      let row = office.database.rows[log[id].key]?.state
      let columns = conflict.column.map { [$0] } ?? Array(kept.registers.keys)
      let isKept = columns.allSatisfy { row?.registers[$0]?.value == kept.registers[$0]?.value }
      let isForgotten = row == nil && !kept.isAlive
      if !isForgotten, row?.isAlive != kept.isAlive || !isKept {
        ledger.fail(.reversal, "\(office.name) does not have what was kept of conflict \(id)")
      }
    }
  }
}
