import SyncCore

/// Faults end; time alone has to bring every office to the same rows, and then to silence.
extension World {
  /// Virtual time within which the world has to be at rest.
  static let restWithin: Duration = .seconds(600)
  static let tick: Duration = .seconds(5)

  func quiesce() {
    heal()
    rest()
    if scenario.hasPeople { settleQuarantine() }
    guard ledger.violation == nil else { return }
    ledger.checkHead(head.database)
    checkStamps()
    if scenario.hasPeople { reverseADecision() }
    if scenario.watchesSilence { checkSilence() }
  }

  private func heal() {
    isHealed = true
    broker.messagesMax = 100_000
    note("healed")
    for office in offices {
      for _ in office.database.open { office.end(0, commits: true, self) }
      if !office.isRunning { office.start(self) }
      office.isOnline = true
    }
  }

  /// Every office has told what it applied; then faults go on, and tombstones go meanwhile.
  func takeABreath() {
    guard ledger.violation == nil else { return }
    heal()
    rest()
    for _ in 0..<14 where ledger.violation == nil { tickOnce() }
    isHealed = false
    broker.messagesMax = scenario.queueMessagesMax
  }

  /// Time goes by until every office is equal and has nothing left to do, also when what is in quarantine has been
  /// tried again.
  func rest() {
    let deadline = now + Self.restWithin
    var isTried = false
    while ledger.violation == nil {
      let reason = unrest
      if reason == nil, isTried || offices.allSatisfy({ $0.database.inbox.quarantined.isEmpty }) { return }
      guard now < deadline else {
        ledger.fail(.converged, "not at rest: \(reason ?? "quarantine")")
        return
      }
      isTried = reason == nil
      for _ in 0..<(isTried ? 9 : 1) where ledger.violation == nil { tickOnce() }
    }
  }

  private func tickOnce() {
    now += Self.tick
    for branch in branches where branch.isLeaving { leaveIfDone(branch) }
    for office in offices {
      office.checkReminders(self)
      office.tendInbox(self)
    }
    var budget = 3000
    var isMoving = true
    while isMoving, budget > 0, ledger.violation == nil {
      budget -= 1
      isMoving = head.servePull(self)
      for office in offices {
        if office.publishStep(self) { isMoving = true }
        if broker.count(office.queue) > 0 {
          isMoving = true
          deliver(to: office)
        }
      }
    }
    if budget == 0 { ledger.fail(.quiet, "messages without end") }
  }

  /// Why the world is not at rest; nil: every office is equal and has nothing left to do.
  private var unrest: String? {
    for branch in branches {
      guard let process = branch.process, let position = branch.database.inbound[Broker.headQueue] else {
        return "\(branch.name) never met head"
      }
      if branch.isLeaving { return "\(branch.name) cannot leave" }
      if position.isCatchingUp { return "\(branch.name) is catching up" }
      if position.at != head.database.last {
        return "\(branch.name) stands at \(position.at), not at head's last"
      }
      if !branch.hasSentEverything { return "\(branch.name) has rows to send" }
      let held = branch.database.held.filter { key, writes in
        // What was lost meanwhile is waited for no more.
        !isVisiblyDifferent(key, branch) && !ledger.covers(writes, branch.database.rows[key]?.truth ?? WriteSet())
      }
      if !held.isEmpty { return "\(branch.name) holds \(held.keys.sorted())" }
      if !branch.database.inbox.restates.isEmpty { return "\(branch.name) waits for what it asked for again" }
      if let difference = logDifference(branch) { return difference }
      if process.greeting.awaited != nil { return "\(branch.name) waits for a welcome" }
      if let difference = difference(branch) { return difference }
    }
    let unread = head.database.read(
      since: head.database.position(of: head.database.last), echoes: false)
    return unread.isEmpty ? nil : "head has rows to send"
  }

  private func difference(_ branch: Office) -> String? {
    for key in 0..<scenario.keys where !isVisiblyDifferent(key, branch) {
      let theirs = head.database.remembered(key, purges: scenario.purges)
      let mine = branch.database.remembered(key, purges: scenario.purges)
      guard theirs?.state == mine?.state else {
        return
          "\(branch.name) key \(key) differs: \(mine?.state.text ?? "-") head \(theirs?.state.text ?? "-")"
      }
      if theirs?.truth != mine?.truth { return "\(branch.name) key \(key): equal rows, different histories" }
    }
    return nil
  }

  /// What was refused is listed at one of the two.
  private func isVisiblyDifferent(_ key: Int, _ branch: Office) -> Bool {
    let (here, there) = (branch.database.inbox, head.database.inbox)
    // What a head that went back had sent to the branch may wait at head as another branch's.
    return there.quarantine[branch.name]?[key] != nil || here.isQuarantined(key)
      || restores > 0 && there.isQuarantined(key)
  }

  private func checkStamps() {
    let latest = head.clock(self).advanced(byMicroseconds: Limits.clockSkewMax.microseconds + 1_000_000)
    for copy in head.database.rows {
      if let copy, copy.state.latest.stamp > latest { ledger.fail(.stamps, "\(copy.state.text) runs ahead") }
    }
  }

  /// Two minutes to say the last acknowledgements, then two in which no batch may pass.
  private func checkSilence() {
    for _ in 0..<26 where ledger.violation == nil { tickOnce() }
    let batches = broker.batchesSent
    let control = broker.controlSent
    for _ in 0..<24 where ledger.violation == nil { tickOnce() }
    if broker.batchesSent != batches { ledger.fail(.quiet, "batches are published without end") }
    for office in offices {
      let count = (broker.controlSent[office.name] ?? 0) - (control[office.name] ?? 0)
      if count > 25 { ledger.fail(.quiet, "\(office.name) sent \(count) control messages in two minutes") }
    }
    if let reason = unrest { ledger.fail(.quiet, "rest did not last: \(reason)") }
    if ledger.violation == nil { checkEchoes() }
  }

  /// A write at head is one batch; one at a branch is two: its own, and head's that answers and relays it.
  private func checkEchoes() {
    // A tombstone that is gone at head and not yet here is merged with what is inserted anew.
    guard !scenario.purges, offices.allSatisfy({ $0.database.inbox.quarantined.isEmpty }) else { return }
    for (office, batchesMax) in zip([head] + branches.prefix(1), [1, 2]) {
      for _ in 0..<26 where ledger.violation == nil { tickOnce() }
      let before = broker.batchesWithRowsSent
      office.begin()
      // No constraint has anything to do with it.
      var image = office.database.rows[0]?.state.image
      image?.shown[Ledger.counter, default: 0] += 1
      let values = Dictionary(uniqueKeysWithValues: (0..<scenario.registers).map { ($0, 0) })
      office.write(0, as: image ?? RowImage(values: values, shown: [Ledger.counter: 1]), in: 0, self)
      office.end(0, commits: true, self)
      for _ in 0..<3 where ledger.violation == nil { tickOnce() }
      let count = broker.batchesWithRowsSent - before
      if count > batchesMax { ledger.fail(.quiet, "a write at \(office.name) made \(count) batches") }
    }
  }
}
