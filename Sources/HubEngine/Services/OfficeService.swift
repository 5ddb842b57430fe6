package import Logging
package import SyncCore
import SyncWire

/// How an office exchanges; the defaults serve, tests shorten them.
package struct ServiceOptions: Sendable {
  package var reconnectDelayMax: Duration = .seconds(15)
  package var stateDirectory: String?
  /// Head: how long a tombstone outlives the moment when every branch had it. No database is put back from an older
  /// backup.
  package var keepDeleted: Duration = .seconds(7 * 86_400)
  /// When it may be connected; none: always.
  package var windows: [DailyWindow] = []

  package init() {}
}

/// Progress of a catch-up, for people.
package struct CatchUpProgress: Sendable, Equatable {
  package var rows: Int64
  /// 0: unknown.
  package var total: Int64
  package var isDone: Bool
}

/// One office's exchange: drives the machines of SyncCore with a database and a broker.
///
/// Three loops share this actor's state: receiving (deliveries, one after the other), publishing (the only one
/// that makes batches) and serving catch-ups. A delivery is acknowledged to the broker after its work is durable.
/// A connection to the broker that fails ends all three; `serve` opens another.
package actor OfficeService {
  struct Peer {
    var record: PeerRecord
    var inbound: InboundStream
    var assembly = PartAssembly()
    var lastSeen: ContinuousClock.Instant?
    /// Of a pull that was sent.
    var reminder = Reminder()
    var isAcknowledgementUnsaved = false
    /// Head: what of the conflict log goes to this branch.
    var conflicts = ConflictDelivery()
  }

  let store: any ChangeStore
  let transport: any MessageTransport
  let options: ServiceOptions
  let logger: Logger
  let hubVersion: String
  private let born = ContinuousClock.now

  var identity: OfficeIdentity
  var outbound = OutboundStream(session: nil, last: .origin, acknowledged: [:])
  var peers: [String: Peer] = [:]
  var hostFile: HostFile?
  /// What is kept in memory is what the database says.
  var isPrepared = false
  /// Somebody did something to a tracked table, which may not have been settled.
  var tablesNeedALook = false
  /// Whether the database is the one that it was.
  var lineage = Lineage.continued
  /// Branch: head lacks also what once came from it.
  var headRecovers = false
  /// Branch: the batch that gives it back is not recorded yet, nor is the session stored under which it goes.
  var owes = false
  /// Branch: what head said that it has of a batch that was cut.
  var stagedAtHead: StagedParts?
  /// Branch: since this database went back, what it lost came from head.
  var hasCaughtUp = false
  var facts = DaemonFacts(state: "offline")
  var session: (any TransportSession)?
  /// When, by `uptime`.
  var connectedAt: Duration = .zero

  // publishing
  /// Who asked whether everything is sent, and when.
  var answers: [(office: String, nonce: Int64, at: ContinuousClock.Instant)] = []
  var lastSnapshot = ""
  /// A batch or a short window is being read and sent: their order in a queue is the order of their snapshots.
  var isFeedTaken = false
  var pace: PaceMachine
  /// When the last look began that found nothing unsent; nil: rows were found since.
  var emptyLookAt: ContinuousClock.Instant?

  // branch
  var greeting = GreetingMachine()
  var greetingReminder = Reminder()
  var isGreeted = false
  /// Over this connection.
  var isWelcomed = false
  var enrolment: Enrol?
  var progress = CatchUpProgress(rows: 0, total: 0, isDone: false)
  var onProgress: (@Sendable (CatchUpProgress) -> Void)?

  // head
  var reception = ReceptionMachine()
  var pulls: [(office: String, pull: Pull)] = []
  /// One a connection: a loop that was cancelled does not wait at a bell again.
  var pullBell = Doorbell()
  var syncBell = Doorbell()
  var catalogueCache: Catalogue?
  var queuesToDelete: [(office: String, at: Duration)] = []

  // sync
  var answered: [String: (nonce: Int64, last: BatchReference, at: ContinuousClock.Instant)] = [:]
  var syncs: [(id: Int64, deadline: ContinuousClock.Instant)] = []
  /// Under way: they wait for everything to be sent.
  var synchronisations = 0
  var quarantine = QuarantineMachine()

  // verify
  /// Head: asked for by commands; the first one is under way.
  var verifications: [VerifyRun] = []
  /// Head: the question under way, and its answer when it is there.
  var verifyAwaited: (office: String, token: Int64)?
  var verifyAnswers: [Int64: VerifyReply] = [:]
  var verifyReportedAt: ContinuousClock.Instant?
  /// Branch: the first one is being answered.
  var questions: [(token: Int64, request: VerifyRequest)] = []
  var verifiedAt: ContinuousClock.Instant?
  var verifyBell = Doorbell()
  /// When the last look began after which nothing was left to send.
  var feedReadAt: ContinuousClock.Instant?
  /// Under way: they wait for everything to be read for sending.
  var passes = 0

  /// Branch: what head is asked for again.
  var restates = RestateMachine()
  /// The oldest entry of the conflict log that head keeps; at a branch, that the entries here were last held against.
  var conflictsFrom: Int64 = 0
  /// Head: what the branches have of the batches.
  var ledger = SentLedger()
  var failure: HubError?
  /// Head has removed this office.
  var departed = false
  /// Branch: when it last said to head that it has no queue.
  var knockedAt: Duration?
  var factsSaved = (facts: DaemonFacts(state: ""), at: ContinuousClock.now)

  package init(
    store: any ChangeStore, transport: any MessageTransport, options: ServiceOptions, identity: OfficeIdentity,
    hubVersion: String, logger: Logger
  ) {
    self.store = store
    self.transport = transport
    self.options = options
    self.identity = identity
    self.hubVersion = hubVersion
    self.logger = logger
    pace = PaceMachine(now: .zero)
  }

  /// Since this service was made; monotonic.
  var uptime: Duration { born.duration(to: .now) }

  var isHead: Bool { identity.role == .head }

  /// Reads what is durable; the caller holds the office's lock.
  package func prepare() async throws(HubError) {
    identity = try await store.office()
    if let directory = options.stateDirectory {
      hostFile = try HostFile(directory: directory, database: try await store.databaseIdentity())
    }
    try await judgeLineage()
    let last = try await store.lastBatch()
    try await reloadTables()
    outbound = OutboundStream(
      session: isHead
        ? SessionID(rawValue: .random(in: 1...Int64.max)) : lineage.needsNewSession ? nil : identity.session,
      last: last, acknowledged: [:])
    try await writeHostFile(last)
    forget()
    let records = try await store.peers()
    for record in records { adopt(record) }
    reception = ReceptionMachine(recovery: RecoveryMachine(of: records))
    for name in peers.keys {
      if let staged = try await store.stagedParts(from: name) {
        peers[name]?.assembly = PartAssembly(batch: staged.batch, stored: staged.count)
      }
    }
    catalogueCache = nil
    isPrepared = true
  }

  /// Reads anew which tables are tracked, and how; says what somebody did to one.
  func reloadTables() async throws(HubError) {
    let notices = try await store.reload()
    tablesNeedALook = !notices.isEmpty
    for notice in notices {
      logger.warning("\(notice)")
      facts.note = notice
    }
  }

  func adopt(_ record: PeerRecord) {
    peers[record.office] = Peer(record: record, inbound: InboundStream(position: record.inbound))
    outbound.acknowledge(record.acknowledged, from: record.office)
  }

  /// The only peer of a branch.
  var headPeer: Peer? { peers[identity.head] }

  // MARK: sending

  /// Returns the size of the message.
  @discardableResult
  func send(_ message: Message, to destination: Destination) async throws -> Int {
    guard let session else { throw TransportError(.closed, "not connected") }
    let envelope = Envelope(
      office: identity.name, incarnation: identity.incarnation, sentAt: SystemClock.now, message: message)
    let body = try Wire.encode(envelope)
    try await session.publish(body, to: destination, messageID: String(Int64.random(in: 1...Int64.max), radix: 36))
    return body.count
  }

  /// To the other side: head at a branch, one branch at head.
  func send(_ message: Message, toPeer office: String) async throws {
    try await send(message, to: isHead ? .office(office) : .head)
  }

  func acknowledge(_ office: String) async throws {
    guard let position = peers[office]?.inbound.position, let session = position.session, position.catchUp == nil
    else { return }
    try await send(.acknowledgement(Acknowledgement(session: session, reference: position.at)), toPeer: office)
    CrashPoint.acknowledged.passed()
  }

  /// Where this office stands in the other's stream: travels inside batches and beats.
  func applied(of office: String) -> StreamPosition? {
    guard let position = peers[office]?.inbound.position, let session = position.session, position.catchUp == nil
    else { return nil }
    return StreamPosition(session: session, reference: position.at)
  }
}
