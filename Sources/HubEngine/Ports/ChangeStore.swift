package import SyncCore

/// Who this office is.
package struct OfficeIdentity: Sendable, Equatable {
  package enum Role: String, Sendable { case head, branch }

  package var name: String
  package var role: Role
  /// The head office's name; its own at head.
  package var head: String
  package var incarnation: Int64
  package var residue: Int
  /// A branch's session with head, as the last welcome gave it.
  package var session: SessionID?
  package var catalogueVersion: Int64
  package var isJoined: Bool
  package var isPaused: Bool
  /// The database went back, and has not got back from head yet what it lost (branch).
  package var recovers = false
  /// Head: behind this batch tombstones are going, or gone. Such a position is no position any more.
  package var purging: Int64 = 0
  /// Behind this batch of head's its tombstones are gone.
  package var purged: Int64 = 0

  package init(
    name: String, role: Role, head: String, incarnation: Int64, residue: Int, session: SessionID?,
    catalogueVersion: Int64, isJoined: Bool, isPaused: Bool
  ) {
    self.name = name
    self.role = role
    self.head = head
    self.incarnation = incarnation
    self.residue = residue
    self.session = session
    self.catalogueVersion = catalogueVersion
    self.isJoined = isJoined
    self.isPaused = isPaused
  }
}

/// Another office, as this one knows it.
package struct PeerRecord: Sendable, Equatable {
  package enum State: String, Sendable { case invited, joining, active, removed }

  package var office: String
  package var state: State
  package var residue: Int
  package var inbound: InboundPosition
  package var acknowledged: BatchReference
  package var incarnation: Int64?
  /// Of head, at a branch: the last entry of the conflict log that came from it.
  package var conflictsAt: Int64 = 0
  /// Of a branch, at head: the number of the batch of head's that its own batches, applied here, said it had applied.
  package var applied: Int64 = 0
  /// Of a branch, at a head that went back: what it has not given back yet.
  package var recovery: RecoveryMachine.Progress?

  package init(
    office: String, state: State, residue: Int, inbound: InboundPosition, acknowledged: BatchReference,
    incarnation: Int64?
  ) {
    self.office = office
    self.state = state
    self.residue = residue
    self.inbound = inbound
    self.acknowledged = acknowledged
    self.incarnation = incarnation
  }
}

/// What a look at the database came to; cheap enough to be asked a hundred times a second.
package struct FeedState: Sendable, Equatable {
  /// Whole, as text: its greatest number does not move when an older transaction commits.
  package var snapshot: String
  package var catalogueVersion: Int64
  package var isPaused: Bool
  package var hasRequests: Bool

  package init(snapshot: String, catalogueVersion: Int64, isPaused: Bool, hasRequests: Bool) {
    self.snapshot = snapshot
    self.catalogueVersion = catalogueVersion
    self.isPaused = isPaused
    self.hasRequests = hasRequests
  }
}

/// Rows of the feed: a part of a batch or of a catch-up window.
package struct FeedPart: Sendable {
  package var blocks: [RowBlock]
  package var rows: Int
  /// Where the rows after this part begin; empty: nowhere to go on from.
  package var cursor: [UInt8]
  /// Of its batch or window.
  package var isLast: Bool
  /// Of the feed: after its batch another may follow, of tables that pass later.
  package var more = false
  /// Of the feed: the batch leaves nothing that was there when it was read.
  package var isWhole = true
  /// Of the feed: what the receiver has of the batch that was cut is of use; `goesOn`: this batch goes on with it.
  package var keepsStaged = false
  package var goesOn = false

  package init(blocks: [RowBlock], rows: Int, cursor: [UInt8], isLast: Bool, more: Bool = false) {
    self.blocks = blocks
    self.rows = rows
    self.cursor = cursor
    self.isLast = isLast
    self.more = more
  }

  /// All of a scan that found nothing.
  package static let empty = FeedPart(blocks: [], rows: 0, cursor: [], isLast: true)
}

/// What the beginning of a scan found.
package enum FeedOpening: Sendable {
  case rows(FeedPart)
  case nothing
  /// The snapshot shows another catalogue, or other tables, than were loaded: rows would be passed over, or sent as of a
  /// catalogue that the receiver does not have yet. `reload`, then again.
  case stale
}

/// What applying came to.
package struct AppliedCounts: Sendable, Equatable {
  package var written = 0
  package var skipped = 0
  package var held = 0
  package var conflicts = 0
  package var quarantined = 0
  package var restamped = 0

  package init() {}

  package static func += (a: inout AppliedCounts, b: AppliedCounts) {
    a.written += b.written
    a.skipped += b.skipped
    a.held += b.held
    a.conflicts += b.conflicts
    a.quarantined += b.quarantined
    a.restamped += b.restamped
  }
}

/// Where applied rows come from: memory, or the parts staged before.
package enum AppliedRows: Sendable {
  case blocks([RowBlock])
  /// All parts of this batch, as many as given.
  case staged(BatchReference, parts: Int)
}

/// Work that a command left for whoever serves the office.
package struct CommandRequest: Sendable, Equatable {
  package var id: Int64
  package var kind: String
  package var argument: String

  package init(id: Int64, kind: String, argument: String) {
    self.id = id
    self.kind = kind
    self.argument = argument
  }
}

/// What a branch asked with when it enrolled.
package enum EnrolOutcome: Sendable, Equatable {
  case accepted(residue: Int)
  case refused(String)
}

/// What the daemon tells of itself.
package struct DaemonFacts: Sendable, Equatable {
  package var state: String
  package var isConnected: Bool
  package var isBlocked: Bool
  package var brokerError: String?
  package var lagSeconds: Double?
  package var note: String?
  package var rowsSent: Int64
  package var rowsApplied: Int64
  /// Rows and bytes of messages, and how many a second.
  package var outgoing = TrafficMeter()
  package var incoming = TrafficMeter()
  /// Head: what each branch acknowledges.
  package var lines: [String: TrafficMeter] = [:]
  /// Rows that a catch-up has yet to bring, as head said; nil: unknown.
  package var incomingLeft: Int64?
  /// All that was found is handed over to the broker.
  package var isAllSent = false
  /// Of the hours in which this office connects.
  package var windowCloses: String?

  package init(state: String) {
    self.state = state
    isConnected = false
    isBlocked = false
    rowsSent = 0
    rowsApplied = 0
  }

  /// As it is stored for status.
  package var traffic: JSONValue {
    let branches = lines.sorted { $0.key < $1.key }.map { JSONValue.Member($0.key, $0.value.json) }
    return .fields([
      "out": outgoing.json, "in": incoming.json, "in_left": JSONValue(incomingLeft), "all_sent": .bool(isAllSent),
      "branches": .object(branches), "window_closes": JSONValue(windowCloses),
    ])
  }
}

extension TrafficMeter {
  fileprivate var json: JSONValue {
    .fields([
      "under_way": .integer(underWay), "unconfirmed": .integer(unfinished),
      "rows_per_second": rowsPerSecond.map { .number($0) } ?? .null,
      "bytes_per_second": bytesPerSecond.map { .number($0) } ?? .null,
    ])
  }
}

/// An office's database, as the engine needs it. Every call is one transaction, or part of a scan.
package protocol ChangeStore: VerifyStore {
  func office() async throws(HubError) -> OfficeIdentity
  /// One hub an office: false while another holds the lock. Held until the connection ends.
  func lockOffice() async throws(HubError) -> Bool
  /// Ends every connection: whichever server answers next is the database's, and all that follow are to it.
  func startOver() async
  /// Identifies the very database: server and database, as far as PostgreSQL tells.
  func databaseIdentity() async throws(HubError) -> String
  /// Whether the actor names writes: the server, and the files of the database, are the ones that it was made valid
  /// for.
  func isValid() async throws(HubError) -> Bool
  /// After a start of the server: makes the actor valid (`continued`), or the one derived since the start the actor for
  /// good (`forked`), from which follows what of the stored positions still holds. `isNew`: there was no start, yet the
  /// database went back; a new actor is drawn.
  func take(_ lineage: Lineage, isNew: Bool) async throws(HubError)
  /// How often rows were shown to another office outside of batches.
  func shownCount() async throws(HubError) -> Int64
  /// Counts, durably, that rows read before this call are about to be shown; returns the count.
  func countShown() async throws(HubError) -> Int64
  /// Branch: what was lost has come back from head.
  func recovered() async throws(HubError)
  /// Head: what a branch has to give back, or nil: it has.
  func saveRecovery(of peer: String, _ progress: RecoveryMachine.Progress?) async throws(HubError)
  /// Head: whether this incarnation of an office greeted once.
  func wasIncarnation(_ incarnation: Int64, of peer: String) async throws(HubError) -> Bool

  func peers() async throws(HubError) -> [PeerRecord]
  /// Head: offices with a token that is still good.
  func invited() async throws(HubError) -> [String]
  func lastBatch() async throws(HubError) -> BatchReference
  /// Whether the position that a batch led to is still known.
  func knowsBatch(_ reference: BatchReference) async throws(HubError) -> Bool

  /// Looks without writing.
  func look() async throws(HubError) -> FeedState
  /// Opens a scan of what changed since the position of `previous` (nil: since the last scan of this process that
  /// found nothing, or else the last batch) and reads its first part. `catalogueVersion`: what the rows will be sent under.
  /// `returns`: also the tables that only head writes, for a head that went back. `slices`: what is too much for one part
  /// may become several batches. `staged`: what the receiver, which stands at `previous`, has of a batch that was cut.
  func openFeed(
    since previous: BatchReference?, echoes: Bool, returns: Bool, slices: Bool, staged: StagedParts?,
    catalogueVersion: Int64
  ) async throws(HubError) -> FeedOpening
  /// After the last part of a batch with `more`: the first one of the next, or a last one without rows.
  func nextFeedPart() async throws(HubError) -> FeedPart
  /// Batches that one scan can become.
  func batchesOfScan() async -> Int
  func closeFeed() async
  /// Records the batch that the scan's last part began, durably, before it is sent; an empty one too. `applied`: of a
  /// branch, the number of head's batch that it says it has applied.
  /// `startsSession`: the header's session is stored with it.
  func record(_ header: BatchHeader, applied: Int64?, startsSession: Bool) async throws(HubError)
  /// Branch: whether deletes of head's are in quarantine, or were discarded and head has not stated their rows anew yet.
  func deletesWait(from head: String) async throws(HubError) -> Bool

  /// Opens a catch-up window: rows since `from`'s position (origin: all) after `cursor`, by key. `returning`: also what
  /// this office once sent of the tables that only branches write; its database went back.
  func openWindow(
    from: BatchReference, cursor: [UInt8], returning: String?, catalogueVersion: Int64
  ) async throws(HubError) -> FeedOpening
  func nextWindowPart(rowsMax: Int) async throws(HubError) -> FeedPart
  func closeWindow() async
  /// Rows that a catch-up from here will bring, for progress.
  func countWindow(from: BatchReference) async throws(HubError) -> Int64

  /// Stores a part of a batch; `cursor`: where the sender goes on after it.
  func stage(
    _ body: [UInt8], of batch: BatchReference, part: Int, rows: Int, cursor: [UInt8], from peer: String, reset: Bool)
    async throws(HubError)
  /// Parts stored of the unfinished batch of a peer, contiguous from 0.
  func stagedParts(from peer: String) async throws(HubError) -> StagedParts?
  /// A new batch goes on with the first `count` parts of one that was cut.
  func adoptStaged(_ count: Int, as batch: BatchReference, from peer: String) async throws(HubError)
  func dropStaged(from peer: String) async throws(HubError)
  /// Applies rows and stores the position with them. Tries again while applications are in the way. `returns`: rows
  /// against a table's direction are taken, because the database went back and they were here before.
  func apply(
    _ rows: AppliedRows, from peer: String, position: InboundPosition, snapshotAt: Int64, returns: Bool
  ) async throws(HubError) -> AppliedCounts
  func savePosition(_ position: InboundPosition, of peer: String) async throws(HubError)
  func saveSession(_ session: SessionID?, head: InboundPosition, acknowledged: BatchReference) async throws(HubError)
  func saveAcknowledged(_ reference: BatchReference, by peer: String) async throws(HubError)
  func saveHandshake(
    of peer: String, inbound: InboundPosition, acknowledged: BatchReference, incarnation: Int64,
    hubVersion: String, conflicts: Int64, recovery: RecoveryMachine.Progress?, applied: Int64) async throws(HubError)
  func savePurgePosition(_ reference: BatchReference, of peer: String) async throws(HubError)
  /// Head: notes that the horizon has come so far, and lets go of some of the tombstones behind where it was `keeping`
  /// ago. Returns behind which batch they are going, and all are gone.
  func purge(reached: Int64, keeping: Duration) async throws(HubError) -> (purging: Int64, purged: Int64)
  /// Branch: head's tombstones are gone behind this batch; lets go of some of its own.
  func purge(behind purged: Int64) async throws(HubError)
  func saveSeen(_ offices: [String]) async throws(HubError)
  /// Gives rows that a TRUNCATE of this table removed unseen their tombstones. false: an application holds one of them.
  func settleTruncated(_ table: String) async throws(HubError) -> Bool
  /// Tries the quarantined rows again, or one; returns how many went in.
  func retryQuarantine(only id: Int64?) async throws(HubError) -> Int
  /// nil: nothing is quarantined that could be tried again. Else what the tracked tables and their constraints look
  /// like: another text means that rows may go in now.
  func quarantineCause() async throws(HubError) -> String?

  // conflict log
  /// Head: gives new and reviewed entries their numbers; the branches that they are for.
  func numberConflicts() async throws(HubError) -> [String]
  /// Head: what follows entry `after` for a branch; nil: nothing.
  func conflicts(for office: String, after: Int64) async throws(HubError) -> ConflictEntries?
  /// Branch: keeps what head sent.
  func save(_ entries: ConflictEntries) async throws(HubError)
  /// Head: entries that are too old, or too many, go. The oldest id that is kept; 0: all are.
  func pruneConflicts() async throws(HubError) -> Int64
  /// Branch: entries with lower ids go.
  func dropConflicts(before id: Int64) async throws(HubError)
  /// Head: rows of which a branch wants to have the present state again.
  func restate(_ blocks: [RowBlock]) async throws(HubError)
  /// Branch: requests for the present state of rows that head has not answered.
  func restates() async throws(HubError) -> [Int64]
  /// The rows of a request, keys alone; nil: it is answered.
  func restate(_ request: Int64) async throws(HubError) -> [RowBlock]?
  func finishRestate(_ request: Int64) async throws(HubError)

  /// The first catch-up ended: this office is a member.
  func joined() async throws(HubError)
  func saveResidue(_ residue: Int) async throws(HubError)
  /// Batch records that no office needs any more go.
  func pruneBatches() async throws(HubError)

  func requests() async throws(HubError) -> [CommandRequest]
  func finishRequest(_ id: Int64, failed: Bool, outcome: String) async throws(HubError)
  func setPaused(_ paused: Bool) async throws(HubError)
  func publish(_ facts: DaemonFacts) async throws(HubError)

  // membership
  func enrol(office: String, secret: [UInt8], nonce: Int64, incarnation: Int64) async throws(HubError)
    -> EnrolOutcome
  func removePeer(_ office: String) async throws(HubError)
  /// Head: whether an office of that name was a member once, and is none now.
  func wasRemoved(_ office: String) async throws(HubError) -> Bool
  /// Rows that an office sent upon what is here, and this database refuses: as they came, in parts that a message can take.
  func refusedRows(from office: String) async throws(HubError) -> [[RowBlock]]
  /// Forgets head: this office left, or was removed.
  func leave() async throws(HubError)

  // catalogue
  func catalogue() async throws(HubError) -> Catalogue
  /// Creates missing tables, starts or stops tracking; branch only. One transaction.
  func install(_ catalogue: Catalogue) async throws(HubError)
  /// The tracked tables changed: read them again. Returns what somebody did to one, for a person.
  @discardableResult
  func reload() async throws(HubError) -> [String]
}
