import SyncCore

/// A row on its way, with the oracle's knowledge of what its sender's copy had seen.
struct TravellingRow {
  var key: Int
  var state: RowState<Int>
  var truth: WriteSet
}

/// Where a receiver stands, said by itself.
struct AppliedPosition {
  var session: SessionID
  var reference: BatchReference
}

struct Pull {
  var token: PullToken
  var at: BatchReference
  var resumed: CatchUp?
}

/// How a batch is gone on with when it is cut.
struct Resuming {
  /// Where its sender goes on after this part; empty: nowhere.
  var cursor: [UInt8] = []
  /// What is stored of this batch is of use.
  var cut: BatchReference?
  /// So many parts of it are this batch's first ones.
  var stored = 0
}

/// The messages of `envelope.proto` that delivery consists of.
enum Payload {
  case hello(Handshake.Hello)
  case welcome(Handshake.Welcome, staged: StagedParts?)
  case rehello(SessionID)
  case batch(BatchHeader, part: Int, isLast: Bool, rows: [TravellingRow], applied: AppliedPosition?, Resuming)
  case acknowledgement(AppliedPosition)
  case beat(session: SessionID, last: BatchReference, applied: AppliedPosition?, asks: Bool)
  case pull(Pull)
  case window(WindowHeader, rows: [TravellingRow])
  case conflicts(ConflictEntries)
  case restate(Int64, key: Int)
  case restated(Int64)
}

struct Message {
  /// Tells copies of one message apart from other messages.
  var serial: Int
  var sender: String
  var incarnation: ActorID
  var payload: Payload
  /// Of a branch's hello and beat: the last entry of the conflict log that it has.
  var entriesAt: Int64
  /// Head's: behind this batch its tombstones are gone.
  var purged: Int64

  /// What it was sent under.
  var session: SessionID? {
    switch payload {
    case .hello, .welcome, .rehello, .pull, .conflicts, .restate, .restated: nil
    case .batch(let header, _, _, _, _, _): header.session
    case .acknowledgement(let position): position.session
    case .beat(let session, _, _, _): session
    case .window(let header, _): header.session
    }
  }
}

/// Queues that keep order but lose, repeat and forget.
struct Broker {
  static let headQueue = "head"

  private(set) var queues: [String: [Message]] = [headQueue: []]
  var messagesMax: Int
  private(set) var batchesSent = 0
  private(set) var batchesWithRowsSent = 0
  /// Control messages, by sender.
  private(set) var controlSent: [String: Int] = [:]
  private var serial = 0

  init(messagesMax: Int) { self.messagesMax = messagesMax }

  mutating func declare(_ queue: String) { queues[queue] = queues[queue] ?? [] }
  mutating func delete(_ queue: String) { queues[queue] = nil }

  /// To one queue, or to all of the branches; drop-head when a queue is full.
  mutating func publish(
    _ payload: Payload, from sender: String, _ incarnation: ActorID, to receivers: [String], entriesAt: Int64 = 0,
    purged: Int64 = 0
  ) {
    serial += 1
    if case .batch(_, _, _, let rows, _, _) = payload {
      batchesSent += 1
      if !rows.isEmpty { batchesWithRowsSent += 1 }
    } else {
      controlSent[sender, default: 0] += 1
    }
    for receiver in receivers where queues[receiver] != nil {
      queues[receiver]?.append(
        Message(
          serial: serial, sender: sender, incarnation: incarnation, payload: payload, entriesAt: entriesAt,
          purged: purged))
      if queues[receiver]?.count ?? 0 > messagesMax { queues[receiver]?.removeFirst() }
    }
  }

  func first(_ queue: String) -> Message? { queues[queue]?.first }

  mutating func removeFirst(_ queue: String) {
    if queues[queue]?.isEmpty == false { queues[queue]?.removeFirst() }
  }

  /// Delivered again later: behind others, as after a consumer that died.
  mutating func redeliver(_ message: Message, to queue: String, at index: Int) {
    let place = min(index, count(queue))
    queues[queue]?.insert(message, at: place)
  }

  mutating func wipe(_ queue: String) {
    if queues[queue] != nil { queues[queue] = [] }
  }

  func count(_ queue: String) -> Int { queues[queue]?.count ?? 0 }
  var isEmpty: Bool { queues.values.allSatisfy(\.isEmpty) }
}
