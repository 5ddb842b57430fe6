import SyncCore

/// A row that an office's database refused, as another office sent it.
struct Quarantined {
  var row: TravellingRow
}

/// An entry of the conflict log.
struct LogEntry {
  var key: Int
  var conflict: DecidedConflict<Int>
  /// The write by which the row became what was decided last.
  var decided: Dot
  /// The branches concerned, with the number under which the entry goes there; nil: it has none yet.
  var notices: [String: Int64?]
  /// What a person kept.
  var kept: Side?
  /// How often it was reviewed.
  var revision = 0
}

/// What waits for people, and what head needs for its verdicts; durable.
struct Inbox {
  /// By sender and key.
  var quarantine: [String: [Int: Quarantined]] = [:]
  /// Head: rows as they last lived.
  var images: [Int: Copy] = [:]
  /// Head: the whole log, by number.
  var log: [LogEntry] = []
  /// Head: the last number given to an entry for a branch.
  var number: Int64 = 0
  /// Branch: entries that came, with their revisions, and the last one's number.
  var entries: [Int: Int] = [:]
  var entriesAt: Int64 = 0
  /// Branch: keys of which head is asked for the present state, by request.
  var restates: [Int64: Int] = [:]
  var requests: Int64 = 0

  func isQuarantined(_ key: Int) -> Bool { quarantine.values.contains { $0[key] != nil } }

  var quarantined: [(peer: String, row: TravellingRow)] {
    quarantine.sorted { $0.key < $1.key }.flatMap { peer, rows in
      rows.sorted { $0.key < $1.key }.map { (peer, $0.value.row) }
    }
  }
}
