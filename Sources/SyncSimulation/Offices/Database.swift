import SyncCore

/// A position in a feed as PostgreSQL's snapshots give it: what is new since then is exact, whatever was open.
struct FeedPosition: Hashable {
  var next: Int
  var inProgress: [Int]

  static let zero = FeedPosition(next: 0, inProgress: [])

  func isNew(_ transaction: Int) -> Bool { transaction >= next || inProgress.contains(transaction) }
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
  let actor: ActorID
  var n: Int64 = 0
  var nextTransaction = 1
  var open: [Transaction] = []
  var rows: [Copy?]
  /// Rows in conflict at a branch: they keep this office's version until one comes that has seen what is held.
  var held: [Int: WriteSet] = [:]
  var inbox = Inbox()

  /// The positions that batches led to.
  var chain: [BatchReference: FeedPosition] = [.origin: .zero]
  var last: BatchReference = .origin
  var session: SessionID?
  var inbound: [String: InboundPosition] = [:]
  var acknowledged: [String: BatchReference] = [:]
  /// Parts of unfinished batches; an unlogged table, emptied by a crash of the server.
  var staged: [String: (batch: BatchReference, parts: [[TravellingRow]])] = [:]

  init(actor: ActorID, keys: Int) {
    self.actor = actor
    rows = Array(repeating: nil, count: keys)
  }

  var snapshot: FeedPosition { FeedPosition(next: nextTransaction, inProgress: open.map(\.id)) }

  func isLocked(_ key: Int) -> Bool { open.contains { $0.rows[key] != nil } }

  /// The feed: rows touched since `position`, whole states.
  func read(since position: FeedPosition, echoes: Bool) -> [TravellingRow] {
    rows.indices.compactMap { key in
      guard let copy = rows[key], position.isNew(copy.transaction), echoes || !copy.isEcho else { return nil }
      return TravellingRow(key: key, state: copy.state, truth: copy.truth)
    }
  }

  mutating func beginHubTransaction() -> Int {
    nextTransaction += 1
    return nextTransaction - 1
  }

  mutating func nextDot() -> Dot {
    n += 1
    return Dot(actor: actor, n: n)
  }

  /// Batch records that no receiver needs any more go.
  mutating func prune(offices: [String]) {
    let low = offices.map { acknowledged[$0]?.number ?? 0 }.min() ?? 0
    chain = chain.filter { $0.key.number >= low || $0.key == .origin || $0.key == last }
  }

  mutating func crash() {
    open = []
    staged = [:]
  }
}
