import SyncCore

/// A position in a feed as PostgreSQL's snapshots give it: what is new since then is exact, whatever was open.
struct FeedPosition: Hashable {
  var next: Int
  var inProgress: [Int]

  static let zero = FeedPosition(next: 0, inProgress: [])

  func isNew(_ transaction: Int) -> Bool { transaction >= next || inProgress.contains(transaction) }
}

/// Which rows pass first: those below `firstKeys`. Deletes of rows that others may refer to pass with the last of these.
struct Ranks: Hashable {
  private var firstKeys = 0
  private var deletesLast = false

  init() {}

  init(_ scenario: Scenario, _ firstKeys: Int?) {
    self.firstKeys = firstKeys ?? 0
    deletesLast = scenario.constraints?.hasReferences ?? false
  }

  func rank(_ key: Int, isAlive: Bool) -> Int { key < firstKeys && (isAlive || !deletesLast) ? 1 : 0 }

  /// Falling.
  var all: [Int] { firstKeys > 0 ? [1, 0] : [0] }
  var order: String { "\(firstKeys)" }
  var code: UInt8 { UInt8(firstKeys) }
}

/// One office's stored copy of a row.
struct Copy {
  var state: RowState<Int>
  var truth: WriteSet
  /// The transaction that touched it last.
  var transaction: Int
  /// Head has this very version.
  var isEcho: Bool
}

/// An application's transaction that has not ended.
struct Transaction {
  var id: Int
  var rows: [Int: (state: RowState<Int>, truth: WriteSet)] = [:]
  var writes: [Int] = []
  /// Deleted rows as they last lived.
  var images: [Int: Copy] = [:]
  /// Rows whose delete is under way.
  var cascading: Set<Int> = []
}

/// An office's PostgreSQL: what a commit makes durable, and the transactions that are open.
struct Database {
  /// Names writes while the server runs that `token` says; under another one a derived actor does.
  var actor: ActorID
  var token = 0
  var n: Int64 = 0
  var nextTransaction = 1
  var open: [Transaction] = []
  var rows: [Copy?]
  /// Rows in conflict at a branch: they keep this office's version until one comes that has seen what is held.
  var held: [Int: WriteSet] = [:]
  var inbox = Inbox()

  /// The positions that batches led to.
  var chain: [BatchReference: RankedPosition<FeedPosition>] = [.origin: RankedPosition(.zero)]
  /// Of each batch: on top of which one, and when its first part was read.
  var records: [BatchReference: (previous: BatchReference, readAt: FeedPosition)] = [:]
  var ranks = Ranks()
  var last: BatchReference = .origin
  var shown: Int64 = 0
  var session: SessionID?
  var inbound: [String: InboundPosition] = [:]
  var acknowledged: [String: BatchReference] = [:]
  /// Head: the incarnation of each branch that greeted last, and who has to give back what head lost.
  var incarnations: [String: ActorID] = [:]
  var recovery = RecoveryMachine()
  /// Head: what the batches of each branch, applied here, said that it had applied of head's.
  var applied: [String: Int64] = [:]
  /// Behind this batch of head's tombstones are gone there.
  var purged: Int64 = 0
  /// Branch: its positions when it first said that it had applied so much.
  var marks: [(applied: Int64, position: FeedPosition)] = []
  var told: Int64 = 0
  /// The oracle's: what the tombstones that went had seen.
  var forgotten: [Int: WriteSet] = [:]
  /// Parts of unfinished batches, and where their sender goes on after each; an unlogged table, emptied by a crash of the
  /// server.
  var staged: [String: (batch: BatchReference, parts: [[TravellingRow]], cursors: [[UInt8]])] = [:]

  init(actor: ActorID, keys: Int) {
    self.actor = actor
    rows = Array(repeating: nil, count: keys)
  }

  var snapshot: FeedPosition { FeedPosition(next: nextTransaction, inProgress: open.map(\.id)) }

  func isLocked(_ key: Int) -> Bool { open.contains { $0.rows[key] != nil } }

  /// The feed: rows touched since `position`, whole states.
  func read(since position: RankedPosition<FeedPosition>, echoes: Bool) -> [TravellingRow] {
    let position = position.under(ranks.order)
    return rows.indices.compactMap { key in
      guard let copy = rows[key] else { return nil }
      let since = position.of(rank: ranks.rank(key, isAlive: copy.state.isAlive))
      guard since.isNew(copy.transaction), echoes || !copy.isEcho else { return nil }
      return TravellingRow(key: key, state: copy.state, truth: copy.truth)
    }
  }

  /// The position that a batch led to; of one that is not known any more, the beginning.
  func position(of reference: BatchReference) -> RankedPosition<FeedPosition> {
    chain[reference] ?? RankedPosition(.zero)
  }

  mutating func beginHubTransaction() -> Int {
    nextTransaction += 1
    return nextTransaction - 1
  }

  /// What names a write made while server `start` runs.
  mutating func nextDot(server start: Int) -> Dot {
    n += 1
    return Dot(actor: writer(server: start), n: n)
  }

  func writer(server start: Int) -> ActorID {
    guard token != start else { return actor }
    var derived = SplitMix64(seed: Int(truncatingIfNeeded: actor.rawValue) &+ start &* 7919)
    return ActorID(rawValue: derived.identifier())
  }

  /// Batch records that no receiver needs any more go.
  mutating func prune(offices: [String]) {
    let low = offices.map { min(acknowledged[$0]?.number ?? 0, applied[$0] ?? .max) }.min() ?? 0
    chain = chain.filter { $0.key.number >= low || $0.key == .origin || $0.key == last }
    records = records.filter { chain[$0.key] != nil }
  }

  mutating func crash() {
    open = []
    staged = [:]
  }
}
