import SyncCore

/// Handshakes, driven by the machines of SyncCore.
extension Office {
  /// A branch greets head.
  func greet(_ world: World) {
    guard !isHead, var process else { return }
    let action = process.greeting.greetingNeeded(
      nonce: Nonce(rawValue: world.random.identifier()), inbound: streamOfHead, outbound: process.outbound)
    self.process?.greeting = process.greeting
    perform(action, world)
  }

  var streamOfHead: InboundStream {
    process?.inbound[Broker.headQueue] ?? InboundStream(position: InboundPosition())
  }

  func perform(_ action: GreetingMachine.Action, _ world: World) {
    switch action {
    case .hello(let hello):
      process?.helloReminder.asked(at: world.now)
      send(.hello(hello), world)
    case .adopt(let adoption): adopt(adoption, world)
    case .ignore: break
    }
  }

  /// Something came under a session that was not agreed on.
  func refuse(_ session: SessionID, _ office: String, _ world: World) {
    if isHead { send(.rehello(session), to: office, world) } else { greet(world) }
  }

  func rehello(_ session: SessionID, _ world: World) {
    guard var process else { return }
    let action = process.greeting.rehelloArrived(
      session, nonce: Nonce(rawValue: world.random.identifier()), inbound: streamOfHead,
      outbound: process.outbound)
    self.process?.greeting = process.greeting
    perform(action, world)
  }

  /// Head's side.
  func welcome(_ hello: Handshake.Hello, _ office: String, _ incarnation: ActorID, _ world: World) {
    guard var process, let headSession = database.session, let stream = process.inbound[office] else {
      return
    }
    let isSame = database.incarnations[office] == incarnation
    let (welcome, position) = process.reception.helloArrived(
      hello, from: office, known: database.chain[hello.at] != nil, inbound: stream.position,
      last: database.last, headSession: headSession,
      fresh: SessionID(rawValue: world.random.identifier()), isSame: isSame)
    database.recovery = process.reception.recovery
    database.incarnations[office] = incarnation
    process.inbound[office]?.committed(position)
    process.outbound.welcomed(
      session: headSession, receiver: office, standsAt: welcome.start, last: database.last)
    process.pace.receiverCame()
    self.process = process
    forgetStaged(of: office, unlessIn: position.session)
    database.inbound[office] = position
    database.acknowledged[office] = welcome.start
    if let applied = database.applied[office] {
      // A hello that comes again, from before, is refused, and nobody listens.
      let branch = world.branches.first { $0.name == office && $0.process?.greeting.awaited?.nonce == hello.nonce }
      branch?.isPutBack = false
      if branch != nil, Horizon.isBehind(hello.at, isSame: isSame, applied: applied, purged: database.purged) {
        world.ledger.fail(.converged, "\(office) is behind the horizon \(database.purged)")
      }
      database.applied[office] = Horizon.greeted(applied: applied, start: welcome.start)
    }
    let staged = hello.session == welcome.session ? stagedParts(of: office) : nil
    send(.welcome(welcome, staged: staged), to: office, world)
  }

  /// What is stored of an unfinished batch.
  private func stagedParts(of office: String) -> StagedParts? {
    database.staged[office].map { StagedParts(batch: $0.batch, count: $0.parts.count, cursor: $0.cursors.last ?? []) }
  }

  /// Numbers of batches of another session say nothing of what is stored.
  private func forgetStaged(of office: String, unlessIn session: SessionID?) {
    guard database.inbound[office]?.session != session else { return }
    process?.assemblies[office] = nil
    database.staged[office] = nil
  }

  func welcomed(_ welcome: Handshake.Welcome, staged: StagedParts?, _ world: World) {
    guard let process, process.greeting.awaited?.nonce == welcome.nonce else { return }
    if isForked(by: welcome, world) { return }
    self.process?.stagedAtHead = staged
    self.process?.headRecovers = welcome.recovers
    perform(
      process.greeting.welcomeArrived(welcome, inbound: streamOfHead, outbound: process.outbound), world)
  }

  /// Neither a handshake nor a window takes back what a catch-up has brought, unless head forgot where it began.
  func checkProgress(from old: InboundPosition, to new: InboundPosition, _ world: World) {
    guard let before = old.catchUp, new.at == old.at, new.at != before.target else { return }
    guard let after = new.catchUp else {
      world.ledger.fail(.resumed, "\(name): a catch-up at \(before.cursor) was given up")
      return
    }
    if after.from == before.from, (after.cursor.first ?? 0) < (before.cursor.first ?? 0) {
      world.ledger.fail(.resumed, "\(name): a catch-up fell from \(before.cursor) to \(after.cursor)")
    }
  }

  private func adopt(_ adoption: Handshake.Adoption, _ world: World) {
    checkProgress(from: streamOfHead.position, to: adoption.inbound, world)
    if adoption.inbound.at < streamOfHead.position.at { (database.marks, database.told) = ([], 0) }
    forgetStaged(of: Broker.headQueue, unlessIn: adoption.inbound.session)
    database.session = adoption.storedSession
    database.inbound[Broker.headQueue] = adoption.inbound
    database.acknowledged[Broker.headQueue] = adoption.acknowledged
    database.last = adoption.last
    process?.inbound[Broker.headQueue]?.committed(adoption.inbound)
    process?.outbound.adopted(adoption, receiver: Broker.headQueue)
    process?.pace.receiverCame()
    process?.greeting.adopted()
    process?.helloReminder.answered()
    if streamOfHead.awaited == nil { process?.pullReminders[Broker.headQueue]?.answered() }
    if adoption.pulls { pull(Broker.headQueue, world) }
  }
}
