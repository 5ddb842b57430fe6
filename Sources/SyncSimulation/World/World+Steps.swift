import SyncCore

/// The schedule: random steps with faults, then a healed world that has to come to rest.
extension World {
  func run() -> Violation? {
    for _ in 0..<scenario.steps where ledger.violation == nil { step() }
    if scenario.purges {
      takeABreath()
      for _ in 0..<scenario.steps where ledger.violation == nil { step() }
    }
    if ledger.violation == nil { quiesce() }
    return ledger.violation
  }

  private func step() {
    let office = random.chance(25) ? head : random.pick(offices)
    now += .milliseconds(random.int(1...300))
    if random.chance(6) { now += .milliseconds(random.int(1000...8000)) }
    if random.chance(1) { now += .seconds(70) }
    for office in offices {
      office.checkReminders(self)
      office.tendInbox(self)
    }
    switch random.int(0...999) {
    case 0..<270: applicationWrites(office)
    case 270..<400: applicationEnds(office)
    case 400..<560: publish(office)
    case 560..<640: _ = head.servePull(self)
    case 640..<770: deliverSome(to: head)
    case 770..<930: deliverSome(to: random.pick(branches))
    case let dice: misfortune(dice - 930, office)
    }
    if scenario.hasPeople, random.chance(5) { personActs(office) }
    if scenario.faults.contains(.restore) { disaster() }
    if scenario.firstKeys.count > 1, ranking.chance(3) { rankAnew(office) }
    if scenario.purges, disasters.chance(30) { (disasters.chance(50) ? head : disasters.pick(offices)).purge(self) }
    for branch in branches where branch.isLeaving { leaveIfDone(branch) }
  }

  private func applicationWrites(_ office: Office) {
    guard !office.isLeaving else { return }
    if office.database.open.isEmpty || random.chance(40) && office.database.open.count < 3 { office.begin() }
    let index = random.int(0...office.database.open.count - 1)
    for _ in 0..<random.int(1...2) { office.write(random.int(0...scenario.keys - 1), in: index, self) }
    if !scenario.faults.contains(.locks) { office.end(index, commits: random.chance(85), self) }
  }

  /// Other rows pass first from now on; each office hears of it when it does.
  private func rankAnew(_ office: Office) {
    office.database.ranks = Ranks(scenario, ranking.pick(scenario.firstKeys))
    note("\(office.name) ranks \(office.database.ranks)")
  }

  private func deliverSome(to office: Office) {
    for _ in 0..<random.int(1...4) { deliver(to: office) }
  }

  private func applicationEnds(_ office: Office) {
    guard !office.database.open.isEmpty else { return }
    office.end(random.int(0...office.database.open.count - 1), commits: random.chance(85), self)
  }

  private func publish(_ office: Office) {
    if scenario.faults.contains(.crash), random.chance(6) { crashPoint = random.pick(CrashPoint.allCases) }
    for _ in 0..<random.pick([1, 1, 1, 2, 4, 6]) where office.isRunning { office.publishStep(self) }
    crashPoint = nil
  }

  private func misfortune(_ dice: Int, _ office: Office) {
    let faults = scenario.faults
    switch dice {
    case 0..<8 where faults.contains(.wipe):
      note("queues are wiped")
      for queue in random.chance(50) ? offices.map(\.queue) : [office.queue] { broker.wipe(queue) }
    case 8..<18 where faults.contains(.crash):
      if random.chance(30) { office.crashServer(self) } else { office.crash(server: random.chance(50), self) }
    case 18..<36:
      for office in offices where !office.isRunning { office.start(self) }
    case 36..<42 where faults.contains(.outage):
      office.isOnline = false
      office.process?.publication = nil
      office.process?.scan = nil
      note("\(office.name) is offline")
    case 42..<52: reconnect(office)
    case 52..<58 where faults.contains(.members):
      if branches.count < 4, random.chance(60) {
        join()
      } else if branches.count(where: { !$0.isLeaving }) > 1 {
        office.isLeaving = !office.isHead
      }
    case 58..<62: office.database.prune(offices: office.isHead ? branches.map(\.name) : [Broker.headQueue])
    default: break
    }
  }

  private func reconnect(_ office: Office) {
    guard !office.isOnline else { return }
    office.isOnline = true
    office.process?.conflicts = [:]
    office.process?.restates.disconnected()
    note("\(office.name) is online")
    if random.chance(70) { office.greet(self) }
  }
}
