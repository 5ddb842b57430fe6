import HubEngine
import SyncCore

/// A row that could not be applied, and why.
struct RefusedRow {
  var block: RowBlock
  var sqlstate: String
  var error: String
}

/// Applies blocks inside the caller's transaction: lock, merge, write set by set, check foreign keys.
///
/// First as one: any refusal ends the attempt. Then carefully: under savepoints, halving what was refused until the
/// rows in question stand alone; those are refused one by one and the rest is applied.
final class BatchApplier {
  private let session: Session
  private let tables: [String: TableInfo]
  private let isHead: Bool
  private let peer: String
  private let isCareful: Bool
  /// Rows that do not get written without an error are refused: tried often enough.
  private let refusesMissing: Bool
  /// Rows that an earlier, careful attempt found to break a foreign key.
  private var excluded: [RowName: String]
  private let now: Stamp

  private(set) var counts = AppliedCounts()
  private(set) var refused: [RefusedRow] = []
  private var written: [String: TouchedRows] = [:]
  private var deleted: [String: TouchedRows] = [:]

  /// Foreign keys are broken by these rows: try again without them.
  struct Orphans: Error {
    var rows: [RowName: String]
  }

  /// Something in the batch was refused: try again carefully.
  struct NeedsCare: Error {
    var cause: PostgresError
  }

  init(
    session: Session, tables: [String: TableInfo], isHead: Bool, peer: String, isCareful: Bool,
    refusesMissing: Bool = false, excluded: [RowName: String] = [:]
  ) throws {
    self.session = session
    self.tables = tables
    self.isHead = isHead
    self.peer = peer
    self.isCareful = isCareful
    self.refusesMissing = refusesMissing
    self.excluded = excluded
    now = Stamp(
      rawValue: try session.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").int64(0, 0))
  }

  func apply(_ block: RowBlock) throws {
    guard block.count > 0 else { return }
    guard let table = tables[block.table] else {
      return try refuseAll(block, "42P01", "table \(block.table) is not tracked here")
    }
    let isAllowed =
      switch table.options.direction {
      case "down": !isHead
      case "up": isHead
      default: true
      }
    guard isAllowed else {
      return try refuseAll(
        block, "25006", "table \(block.table) has direction \(table.options.direction): \(peer) may not write it")
    }
    let rest = excluded.isEmpty ? block : withoutExcluded(block)
    guard rest.count > 0 else { return }
    if isCareful { try session.script("SAVEPOINT hub_block") }
    do {
      try applyWhole(
        TableApplier(session: session, table: table, block: rest, refusesMissing: refusesMissing))
      if isCareful { try session.script("RELEASE SAVEPOINT hub_block") }
    } catch let error as PostgresError where error.isAboutRows {
      guard isCareful else { throw NeedsCare(cause: error) }
      try session.script("ROLLBACK TO SAVEPOINT hub_block")
      try refuseAll(rest, error.sqlstate ?? "", error.description)
    }
  }

  private func applyWhole(_ applier: TableApplier) throws {
    let plan = try RowPlanner(applier: applier, isHead: isHead, now: now).plan()
    counts.held += plan.held.count
    counts.restamped += plan.restamped
    counts.skipped += applier.block.count - plan.writes.count - plan.held.count
    if !plan.held.isEmpty { try applier.touchVersions(of: plan.held) }
    if isCareful {
      try writeCarefully(applier, plan.writes)
    } else {
      try write(applier, plan.writes)
    }
    if !plan.decided.isEmpty { try logConflicts(applier, plan.decided) }
  }

  private func write(_ applier: TableApplier, _ writes: [PlannedWrite]) throws {
    guard !writes.isEmpty else { return }
    try applier.writeRows(writes, replacing: false)
    try finish(applier, writes)
  }

  private func finish(_ applier: TableApplier, _ writes: [PlannedWrite]) throws {
    try applier.writeVersions(writes)
    counts.written += writes.count
    let table = applier.table
    let isChild = !table.references.isEmpty
    let isParent = !table.referencedBy.isEmpty
    guard isChild || isParent else { return }
    if isChild {
      let rows = writes.filter { $0.content == .insert || $0.content == .update }.map(\.row)
      written[table.name, default: TouchedRows(table)].append(applier.block, rows)
    }
    if isParent {
      let rows = writes.filter { $0.content == .delete }.map(\.row)
      deleted[table.name, default: TouchedRows(table)].append(applier.block, rows)
    }
  }

  /// Under a savepoint; on a refusal by replacing rows (unique values may have been swapped), then by halves.
  private func writeCarefully(_ applier: TableApplier, _ writes: [PlannedWrite]) throws {
    guard !writes.isEmpty else { return }
    var last = PostgresError(sqlstate: "XX000", message: "refused")
    for replacing in [false, true] {
      try session.script("SAVEPOINT hub_rows")
      do {
        try applier.writeRows(writes, replacing: replacing)
        try session.script("RELEASE SAVEPOINT hub_rows")
        return try finish(applier, writes)
      } catch let error as PostgresError where error.isAboutRows {
        try session.script("ROLLBACK TO SAVEPOINT hub_rows")
        last = error
        if error.sqlstate != "23505" { break }
      }
    }
    guard writes.count > 1 else {
      return refuse(applier.block.row(writes[0].row), last.sqlstate ?? "", last.description)
    }
    let middle = writes.count / 2
    try writeCarefully(applier, Array(writes[..<middle]))
    try writeCarefully(applier, Array(writes[middle...]))
  }

  /// After all blocks: throws `Orphans` (or `NeedsCare`) when a foreign key would not hold.
  func checkForeignKeys() throws {
    let check = ForeignKeyCheck(session: session, tables: tables)
    var orphans: [RowName: String] = [:]
    func note(_ found: [ForeignKeyCheck.Orphan], _ rows: TouchedRows) {
      guard !found.isEmpty else { return }
      let names = rows.names
      for orphan in found { orphans[names[orphan.number]] = orphan.detail }
    }
    for rows in written.values { note(try check.orphans(among: rows), rows) }
    for rows in deleted.values { note(try check.parents(missedAmong: rows), rows) }
    if !orphans.isEmpty { throw Orphans(rows: orphans) }
    written = [:]
    deleted = [:]
  }

  private func withoutExcluded(_ block: RowBlock) -> RowBlock {
    var kept: [Int] = []
    for (row, name) in RowName.all(table: block.table, keys: block.columns[..<block.keyCount]).enumerated() {
      if let detail = excluded[name] {
        refuse(block.row(row), "23503", detail)
      } else {
        kept.append(row)
      }
    }
    return kept.count == block.count ? block : block.picking(kept)
  }

  private func refuseAll(_ block: RowBlock, _ sqlstate: String, _ error: String) throws {
    guard isCareful else { throw NeedsCare(cause: PostgresError(sqlstate: sqlstate, message: error)) }
    for row in 0..<block.count { refuse(block.row(row), sqlstate, error) }
  }

  private func refuse(_ row: RowBlock, _ sqlstate: String, _ error: String) {
    refused.append(RefusedRow(block: row, sqlstate: sqlstate, error: error))
  }

  private func logConflicts(
    _ applier: TableApplier, _ decided: [(row: Int, conflict: DecidedConflict<RowValues>)]
  ) throws {
    counts.conflicts += decided.count
    for (row, one) in decided {
      let block = applier.block
      let names = block.columnNames
      let key = JSONValue.row(
        Array(names.prefix(block.keyCount)), block.columns.prefix(block.keyCount).map { $0.value(row) })
      func side(_ side: Side) -> String {
        let state = one.conflict.row(of: side)
        return JSONValue.fields([
          "office": .string(side == .local ? "head" : peer),
          "row": state.registers[0].map { .row(names, $0.value) } ?? .null,
          "vector": .object(
            state.vector.dots.map { JSONValue.Member(String($0.actor.rawValue), .integer($0.n)) }),
          "stamp": .integer(one.conflict.version(of: side).stamp.rawValue),
        ]).description
      }
      let winner = one.winner ?? .local
      try session.query(
        """
        INSERT INTO hub.conflict (table_name, key, type, policy, reason, winner, loser)
        VALUES (\(block.table), \(key.description)::jsonb, \(one.conflict.kind.rawValue), \(applier.table.options.onConflict),
          \(one.reason.rawValue), \(side(winner))::jsonb, \(side(winner.other))::jsonb)
        """)
    }
  }
}

extension RowBlock {
  /// A block of some of the rows.
  func picking(_ rows: [Int]) -> RowBlock {
    var out = RowBlock(table: table, columnNames: columnNames, keyCount: keyCount)
    out.actors = rows.map { actors[$0] }
    out.counters = rows.map { counters[$0] }
    out.stamps = rows.map { stamps[$0] }
    out.alive = rows.map { alive[$0] }
    for (number, row) in rows.enumerated() { out.vectors[number] = vectors[row] }
    out.columns = columns.map { $0.picking(rows) }
    return out
  }

  func row(_ row: Int) -> RowBlock { picking([row]) }
}
