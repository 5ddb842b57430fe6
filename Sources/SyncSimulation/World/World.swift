import SyncCore

/// A head office, its branches and a broker, all driven by one seed.
final class World {
  let scenario: Scenario
  var random: SplitMix64
  var disasters: SplitMix64
  /// Which rows pass first.
  var ranking: SplitMix64
  var broker: Broker
  var ledger = Ledger()
  var now: Duration = .zero
  let head: Office
  private(set) var branches: [Office] = []
  private var names = 0
  var starts = 0
  /// Databases that were put back.
  var restores = 0
  var tombstonesPurged = 0
  /// Batches that left rows for a later one, and that went on with one that was cut.
  var slicesSent = 0
  var resumed = 0
  /// Batches of head up to this number were made while it recovered: of a transaction that one branch gave back in part,
  /// because it held a row, the rest may come from another.
  var recoveredThrough: Int64 = -1
  /// The process that reaches this point dies there.
  var crashPoint: CrashPoint?
  var trace: [String]?

  init(seed: Int, traces: Bool) {
    random = SplitMix64(seed: seed)
    var scenario = Scenario(&random)
    // Of generators of their own: a schedule without restored databases is what it was before there were any.
    disasters = SplitMix64(seed: seed &* 31 &+ 17)
    var refusing = SplitMix64(seed: seed &* 71 &+ 97)
    let refusesNothing = scenario.constraints == nil && !scenario.hasPeople
    if refusesNothing ? disasters.chance(90) : refusing.chance(30) { scenario.faults.append(.restore) }
    scenario.purges = disasters.chance(50)
    ranking = SplitMix64(seed: seed &* 53 &+ 29)
    scenario.rank(&ranking)
    self.scenario = scenario
    broker = Broker(messagesMax: scenario.queueMessagesMax)
    if traces { trace = ["\(scenario)"] }
    head = Office(
      name: Broker.headQueue, isHead: true, actor: ActorID(rawValue: random.identifier()),
      keys: scenario.keys,
      clockError: .zero)
    head.database.ranks = Ranks(scenario, scenario.firstKeys.first)
    head.start(self)
    for _ in 0..<scenario.branches { join() }
  }

  var offices: [Office] { [head] + branches }

  func note(_ event: @autoclosure () -> String) {
    if trace != nil { trace?.append("\(now) \(event())") }
  }

  func isMember(_ office: String) -> Bool { branches.contains { $0.name == office } }

  // MARK: members

  func join() {
    names += 1
    let isWrong = scenario.clocksAreWrong && random.chance(50)
    let branch = Office(
      name: "branch-\(names)", isHead: false, actor: ActorID(rawValue: random.identifier()),
      keys: scenario.keys,
      clockError: isWrong ? .seconds(3600) : .milliseconds(random.int(-2000...2000)))
    broker.declare(branch.name)
    head.database.acknowledged[branch.name] = .origin
    head.database.applied[branch.name] = 0
    // From now on it holds the horizon; what is forgotten has no copy anywhere.
    branch.database.forgotten = head.database.forgotten
    branch.database.ranks = head.database.ranks
    branches.append(branch)
    note("\(branch.name) joins")
    branch.start(self)
  }

  /// A branch departs once head has everything that it wrote.
  func leaveIfDone(_ branch: Office) {
    guard branch.isLeaving, branch.hasSentEverything, branch.database.open.isEmpty, mayLeave(branch) else { return }
    note("\(branch.name) leaves")
    branches.removeAll { $0 === branch }
    broker.delete(branch.name)
    head.database.acknowledged[branch.name] = nil
    head.database.applied[branch.name] = nil
    head.database.inbound[branch.name] = nil
    head.database.staged[branch.name] = nil
    head.database.recovery.left(branch.name)
    head.process?.outbound.left(branch.name)
    head.process?.reception.left(branch.name)
    head.process?.inbound[branch.name] = nil
    head.process?.pulls[branch.name] = nil
  }

  // MARK: deliveries

  /// The first message of an office's queue, if hub runs there and is connected.
  func deliver(to office: Office) {
    guard office.isRunning, office.isOnline, let message = broker.first(office.queue) else { return }
    let faults = scenario.faults
    let dice = isHealed ? 50 : random.int(0...99)
    if faults.contains(.loss), dice < 8 {
      note("\(office.name) loses \(message.payload.summary)")
      broker.removeFirst(office.queue)
      return
    }
    if faults.contains(.crash), dice > 94 { crashPoint = random.pick(CrashPoint.allCases) }
    note("\(office.name) receives \(message.payload.summary) of \(message.sender)")
    let fate = office.receive(message, self)
    crashPoint = nil
    guard fate == .done, office.isRunning else { return }
    broker.removeFirst(office.queue)
    if faults.contains(.duplication), dice >= 80, dice < 92 {
      broker.redeliver(message, to: office.queue, at: random.int(0...broker.count(office.queue)))
    }
  }

  // MARK: checks

  var isHealed = false

  func checkWhole(_ office: Office) {
    let isCatchingUp = office.database.inbound.values.contains(where: \.isCatchingUp)
    guard office.isHead || !isCatchingUp, !isRecovering(office) else { return }
    if let half = ledger.half(in: office.database) { ledger.fail(.whole, "\(office.name): \(half)") }
  }
}

extension Office {
  /// Head is known to have every row of this branch.
  var hasSentEverything: Bool {
    guard let process, process.outbound.isAcknowledged(by: Broker.headQueue), process.publication == nil,
      process.scan == nil, process.outbound.resendFrom == nil
    else { return false }
    return database.read(since: database.position(of: database.last), echoes: false).isEmpty
  }
}
