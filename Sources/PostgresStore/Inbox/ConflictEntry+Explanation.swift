package import SyncCore

/// What a person reads about an entry.
extension ConflictEntry {
  /// What happened, by PostgreSQL's name for it.
  package var happened: String {
    switch kind {
    case _ where reason == Reason.referenced.rawValue:
      "the row was deleted while another office, not knowing of it, wrote rows that refer to it"
    case _ where reason == Reason.repaired.rawValue:
      "the offices' rows were not the same, although nobody had written them"
    case .insertExists: "both offices inserted a row with this key"
    case .updateOriginDiffers: "both offices changed the row, and neither knew of the other's change"
    case .updateDeleted: "the row that arrived changed had been deleted at head, and neither knew of the other"
    case .deleteOriginDiffers: "the row that arrived deleted had been changed at head, and neither knew of the other"
    case nil: "two offices wrote the row, and neither knew of the other"
    }
  }

  /// Why it was decided so, in a sentence.
  package var explanation: String {
    switch Reason(rawValue: reason) {
    case .latest where winner.stamp == loser.stamp:
      "Both were written in the same microsecond; \(winner.office)'s copy won by the order of actors (latest)."
    case .latest:
      "\(winner.office)'s copy was written \(Self.difference(winner.stamp, loser.stamp)) later, and the later write wins (latest)."
    case .head: "The copy that head held when the other arrived wins (head)."
    case .branch: "The copy that arrived wins over the one that head held (branch)."
    case .function: "The table's function decided (\(policy))."
    case .updateWins: "A row that was changed wins over a delete that had not seen the change (--on-delete update)."
    case .deleteWins: "A delete wins also over a change that it had not seen (--on-delete delete)."
    case .referenced: "Rows that refer to it are alive, so the row came back (foreign key)."
    case .repaired: "hub verify --repair let \(winner.office)'s row stand, and keeps the other one here."
    case nil: "Decided by \(reason)."
    }
  }

  private static func difference(_ later: Stamp, _ earlier: Stamp) -> String {
    let microseconds = later.rawValue - earlier.rawValue
    return switch microseconds {
    case ..<1000: "\(microseconds) µs"
    case ..<1_000_000: "\(microseconds / 1000) ms"
    case ..<180_000_000: "\(microseconds / 1_000_000) s"
    case ..<10_800_000_000: "\(microseconds / 60_000_000) minutes"
    default: "\(microseconds / 3_600_000_000) hours"
    }
  }

  /// Both copies' columns, in the table's order, then any that it no longer has.
  package func columns(of table: TableInfo?) -> [String] {
    let names = Set((winner.row ?? [:]).keys).union((loser.row ?? [:]).keys)
    let known = (table?.columnNames ?? []).filter(names.contains)
    return known + names.subtracting(known).sorted()
  }
}

/// Who wrote what, for people: actors by their offices' names.
package struct ActorNames {
  private var names: [ActorID: String] = [:]

  package init(_ session: Session) throws {
    let rows = try session.query("SELECT actor, office FROM hub.actor UNION SELECT actor, name FROM hub.office")
    for i in 0..<rows.count { names[ActorID(rawValue: rows.int64(i, 0))] = rows.text(i, 1) }
  }

  package subscript(_ actor: ActorID) -> String? { names[actor] }

  package func text(_ vector: VersionVector) -> String {
    vector.dots.map { dot in
      "\(names[dot.actor] ?? "actor \(String(dot.actor.rawValue, radix: 36).prefix(6))"):\(dot.n)"
    }.joined(separator: " ")
  }
}
