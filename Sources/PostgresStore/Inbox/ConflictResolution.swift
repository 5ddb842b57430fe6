import HubEngine
import SyncCore

/// A person's word on a decided conflict. Reversing a decision is one more write of head, which replicates as any other.
package enum ConflictResolution {
  /// Which row is to stand.
  package enum Kept: Sendable {
    /// The copy that head held when the other arrived, or the one that arrived; whoever wrote it.
    case head, branch
    /// A row of the person's own, as JSON; null deletes.
    case row(String)

    var name: String {
      switch self {
      case .head: "head"
      case .branch: "branch"
      case .row: "row"
      }
    }
  }

  package enum Outcome: String, Sendable {
    case written
    /// The row looks like that already.
    case unchanged
    /// That copy won, and somebody changed the row since: the change stays.
    case changedSince = "changed_since"
  }

  /// Head, inside the caller's transaction. A row that changed since the conflict was decided is not overwritten
  /// unless `force`.
  package static func resolve(_ session: Session, _ id: Int64, keep: Kept, force: Bool) throws -> Outcome {
    let entry = try ConflictEntry.find(session, id, locking: true)
    guard let table = try TableInfo.loadAll(session).first(where: { $0.name == entry.table }) else {
      throw HubError(
        .refused, "table \(entry.table) is not tracked any more", hint: "hub track it again, or write the row by hand")
    }
    let row: [String: String?]?
    switch keep {
    case .head: row = entry.headCopy.row
    case .branch: row = entry.branchCopy.row
    case .row(let json): row = try whole(try JSONRow.read(session, json), table)
    }
    let key = try JSONRow.read(session, entry.keyJSON) ?? [:]
    try session.script("SET LOCAL lock_timeout = '10s'")
    var write = try PlainWrite(session, table, key: key, row: row)
    let (exists, version) = try write.lock()
    let isAsDecided = entry.decided != nil && entry.write(in: version, write) == entry.decided
    if exists, let copy = row, keep.name != "row" {
      // A conflict of one column is about no other; and counters were never in conflict, they go on counting.
      let kept = copy.filter { name, _ in entry.column.map { $0 == name } ?? !table.options.counters.contains(name) }
      write = try PlainWrite(session, table, key: key, row: kept)
    }
    // Whoever says that the decision was right need not undo what came after it.
    let stands = keep.name == entry.kept ?? (entry.headWon ? "head" : "branch") && keep.name != "row"
    let outcome: Outcome
    switch Reversal(isAsDecided: isAsDecided, stands: stands, isThere: try write.isThere(exists), force: force) {
    case .refused: throw changed(entry, version)
    case .changedSince: outcome = .changedSince
    case .unchanged: outcome = .unchanged
    case .write:
      try write.write(exists: exists)
      outcome = .written
    }
    let dot = outcome == .written ? try entry.write(in: write.applier.lockVersions()[0], write) : entry.decided
    try session.query(
      """
      UPDATE hub.conflict SET kept = \(keep.name), reviewed_at = now(), resolved = true,
        decided_actor = \(dot?.actor.rawValue), decided_n = \(dot?.n) WHERE id = \(id)
      """)
    try session.query("UPDATE hub.conflict_notice SET number = NULL WHERE conflict = \(id)")
    return outcome
  }

  /// A row from a file has every column: what it leaves out would be a matter of guessing.
  private static func whole(_ row: [String: String?]?, _ table: TableInfo) throws -> [String: String?]? {
    guard let row else { return nil }
    let missing = table.columns.dropFirst(table.keyCount).map(\.name).filter { row[$0] == nil }
    let unknown = row.keys.filter { name in !table.columns.contains { $0.name == name } }.sorted()
    guard missing.isEmpty, unknown.isEmpty else {
      let lacks = missing.isEmpty ? nil : "lacks \(missing.joined(separator: ", "))"
      let has = unknown.isEmpty ? nil : "has \(unknown.joined(separator: ", "))"
      throw HubError(
        .refused,
        "the row does not fit table \(table.name): it \([lacks, has].compactMap { $0 }.joined(separator: " and "))",
        hint: "give every column of the table; the key may be left out")
    }
    return row
  }

  private static func changed(_ entry: ConflictEntry, _ version: TableApplier.LocalVersion?) -> HubError {
    let later = version == nil ? "the row is gone" : "the row was written again"
    return HubError(
      .refused, "\(later) since conflict \(entry.id) was decided, and that write would be lost",
      hint: "look at the row, then give --force to overwrite it")
  }
}

extension ConflictEntry {
  /// The write that stands where the conflict was: the row's, or the column's.
  fileprivate func write(in version: TableApplier.LocalVersion?, _ write: PlainWrite) -> Dot? {
    let at = column.flatMap { write.applier.block.columnNames.firstIndex(of: $0) }
    return version?.details.columnVersions.first { $0.column == at }?.dot ?? version?.dot
  }
}
