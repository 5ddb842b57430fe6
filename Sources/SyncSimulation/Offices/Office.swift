import SyncCore

/// Where a process may die between two durable steps.
enum CrashPoint: CaseIterable {
  case recordedNotPublished, publishedInPart, stagedNotApplied, appliedNotAcknowledged
}

/// What became of a delivery.
enum Fate {
  case done
  /// An application has a row locked: the delivery stays where it is.
  case givenWay
  case crashed
}

/// One office: a database, the applications that write it, and hub when it runs.
final class Office {
  let name: String
  let isHead: Bool
  /// How far this office's clock is from true time.
  let clockError: Duration
  var database: Database
  var process: Process?
  var isOnline = true
  /// Of the database server and of the host's kernel: drawn anew when they start.
  var server = 0
  var boot = 0
  /// The host's file beside the database.
  var hostRecord: HostRecord?
  var backups: [Backup] = []
  /// A branch that has not greeted since.
  var isPutBack = false
  /// Wants to leave: its applications write no more.
  var isLeaving = false

  init(name: String, isHead: Bool, actor: ActorID, keys: Int, clockError: Duration) {
    self.name = name
    self.isHead = isHead
    self.clockError = clockError
    database = Database(actor: actor, keys: keys)
  }

  var queue: String { isHead ? Broker.headQueue : name }
  var isRunning: Bool { process != nil }

  func clock(_ world: World) -> Stamp {
    Stamp(rawValue: 1_000_000_000 + (world.now + clockError).microseconds)
  }

  // MARK: starting and stopping

  /// hub starts from what is durable. Head may keep its session or draw another; a branch may resume its session
  /// without a handshake.
  func start(_ world: World) {
    let isSameServer = database.token == server
    let lineage = prepare(world)
    if isHead, database.session == nil || !isSameServer || world.random.chance(50) {
      database.session = SessionID(rawValue: world.random.identifier())
    }
    let session = lineage.needsNewSession ? isHead ? database.session : nil : database.session
    process = Process(database, session: session, lineage: lineage, now: world.now)
    if !isHead, session == nil || !isSameServer || world.random.chance(60) { greet(world) }
  }

  /// hub is killed; with the server, transactions that are open and unlogged tables are gone too.
  func crash(server: Bool, _ world: World) {
    world.note("\(name) \(server ? "server" : "hub") crashes")
    process = nil
    if server { restartServer(world) }
  }

  /// The server alone crashes: what was being read is lost, hub goes on with what it remembers.
  func crashServer(_ world: World) {
    world.note("\(name) server restarts")
    restartServer(world)
    process?.scan = nil
    process?.publication = nil
    if process != nil { renew(world) }
  }

  /// Dies here if the schedule says so.
  func dies(at point: CrashPoint, _ world: World) -> Bool {
    guard world.crashPoint == point else { return false }
    world.crashPoint = nil
    crash(server: world.random.chance(50), world)
    return true
  }

  // MARK: sending

  func send(_ payload: Payload, to receiver: String? = nil, _ world: World) {
    guard isOnline else { return }
    let receivers = isHead ? receiver.map { [$0] } ?? world.branches.map(\.name) : [Broker.headQueue]
    world.broker.publish(
      payload, from: name, database.actor, to: receivers, entriesAt: database.inbox.entriesAt, purged: database.purged)
    world.note("\(name) sends \(payload.summary) to \(receivers)")
  }

  /// Where this office stands in `office`'s stream, if it stands anywhere.
  func applied(of office: String) -> AppliedPosition? {
    guard let position = database.inbound[office], position.catchUp == nil, let session = position.session
    else { return nil }
    return AppliedPosition(session: session, reference: position.at)
  }

  func acknowledge(_ office: String, _ world: World) {
    guard let applied = applied(of: office) else { return }
    send(.acknowledgement(applied), to: office, world)
  }

  // MARK: time

  /// What is overdue is asked for again.
  func checkReminders(_ world: World) {
    guard process != nil, isOnline else { return }
    if process?.helloReminder.isDue(at: world.now) ?? false, let greeting = process?.greeting {
      perform(greeting.answerTimedOut(), world)
    }
    for (office, reminder) in process?.pullReminders ?? [:] where reminder.isDue(at: world.now) {
      process?.inbound[office]?.answerTimedOut()
    }
  }

  /// Asks `office` for what is missing.
  func pull(_ office: String, _ world: World) {
    guard let position = process?.inbound[office]?.position else { return }
    let token = PullToken(rawValue: world.random.identifier())
    process?.inbound[office]?.asked(token)
    process?.pullReminders[office, default: Reminder()].asked(at: world.now)
    send(.pull(Pull(token: token, at: position.at, resumed: position.catchUp)), to: office, world)
  }
}
