package import HubEngine
import SyncCore

/// What a person reads of a trace first, and its JSON.
extension RowTrace {
  /// The state in a word, for programs.
  package enum State: String, Sendable {
    /// Refused here; the row waits in quarantine.
    case quarantined
    /// In conflict with what head sent: this office keeps its own until head decides.
    case held
    /// Written here, and in no batch yet.
    case unsent
    /// Sent; an office has not acknowledged it.
    case waiting
    /// Every office that it goes to has acknowledged it.
    case arrived
    /// It came from elsewhere, and this office has nobody to tell.
    case here
    /// A row without a version: written while capture was switched off.
    case unknown
  }

  package var state: State {
    if !quarantined.isEmpty { return .quarantined }
    guard let version else { return .unknown }
    if heldSince != nil { return .held }
    if peers.isEmpty { return .here }
    if peers.allSatisfy(\.hasIt) { return .arrived }
    return version.batch == nil ? .unsent : .waiting
  }

  /// The entry that the row as it is came of.
  package var decision: ConflictEntry? { conflicts.last { $0.decided == version?.dot && version != nil } }

  /// One sentence.
  package var answer: String {
    let answer =
      switch state {
      case .quarantined: quarantined.map { "quarantined at \(office.name): \($0.sqlstate) \($0.error)" }[0]
      case .held:
        "is in conflict since \(heldSince ?? ""): head has a write of this row that did not know of this one; "
          + "\(office.name) keeps its own until head has decided, and that "
          + (peers.allSatisfy(\.hasIt) ? "has arrived there" : "waits to arrive there")
      case .unsent: "is at \(office.name), waits to be sent to \(Self.list(peers.filter { !$0.hasIt }))"
      case .waiting, .arrived: delivery
      case .here: version?.isEcho == true ? "is here as head sent it" : "is here as \(version?.office ?? "") wrote it"
      case .unknown: "never seen by hub: it was written while capture was switched off, or refused"
      }
    let lost = decision.map { "; conflict \($0.id) decided it, \($0.loser.office)'s copy lost" } ?? ""
    return (version?.isAlive == false && state != .quarantined ? "deleted; the delete " : "") + answer + lost
  }

  private var delivery: String {
    let (there, waiting) = (peers.filter(\.hasIt), peers.filter { !$0.hasIt })
    let arrived = there.isEmpty ? nil : "arrived at \(Self.list(there))"
    let waits = waiting.map { peer in
      "waits for \(peer.office), last seen \(peer.lastSeen ?? "never")"
    }
    return ([arrived].compactMap { $0 } + waits).joined(separator: "; ")
  }

  private static func list(_ peers: [Peer]) -> String {
    let names = peers.map(\.office)
    guard names.count > 1, let last = names.last else { return names.first ?? "" }
    return names.dropLast().joined(separator: ", ") + " and " + last
  }

  package var json: JSONValue {
    .fields([
      "table": .string(table), "key": .raw(keyJSON), "office": .string(office.name), "state": .string(state.rawValue),
      "answer": .string(answer), "exists": .bool(isThere),
      "version": version.map { version in
        .fields([
          "office": .string(version.office), "actor": .string(String(version.dot.actor.rawValue)),
          "n": .integer(version.dot.n), "written_at": .string(version.writtenAt), "alive": .bool(version.isAlive),
          "vector": .string(version.vector), "from_head": .bool(version.isEcho), "batch": JSONValue(version.batch),
        ])
      } ?? .null,
      "peers": .array(
        peers.map {
          .fields([
            "id": .string($0.office), "arrived": .bool($0.hasIt), "unacknowledged_batches": .integer($0.unacknowledged),
            "last_seen": JSONValue($0.lastSeen),
          ])
        }),
      "held_since": JSONValue(heldSince), "quarantined": .array(quarantined.map(\.json)),
      "conflicts": .array(conflicts.map(\.json)),
    ])
  }
}
