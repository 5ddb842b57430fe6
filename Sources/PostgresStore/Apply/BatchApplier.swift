import HubEngine
import SyncCore

/// A row that could not be applied, and why.
struct RefusedRow {
  var block: RowBlock
  var refusal: Refusal
}

struct Refusal {
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
  /// This database went back: rows against their table's direction were here before.
  private let returns: Bool
  /// Rows that do not get written without an error are refused: tried often enough.
  private let refusesMissing: Bool
  /// Rows that an earlier, careful attempt found to break a foreign key.
  private let excluded: [RowName: Refusal]
  private let now: Stamp

  /// Branch: whether any row waits for head's decision; nil: not looked at.
  private var holdsRows: Bool?
  private(set) var counts = AppliedCounts()
  private(set) var refused: [RefusedRow] = []
  private var writers: [ActorID: String?] = [:]
  private var noted: Set<Int64> = []
  private var written: [String: TouchedRows] = [:]
  private var deleted: [String: TouchedRows] = [:]
  /// Rows whose unique values others still held; a later row of the batch may let go of them.
  private var waiting: [RefusedRow] = []

  /// Foreign keys are broken by these rows: try again without them.
  struct Orphans: Error {
    var rows: [RowName: Refusal]
  }

  /// Something in the batch was refused: try again carefully.
  struct NeedsCare: Error {
    var cause: PostgresError
  }

  init(
    session: Session, tables: [String: TableInfo], isHead: Bool, peer: String, isCareful: Bool, returns: Bool = false,
    refusesMissing: Bool = false, excluded: [RowName: Refusal] = [:]
  ) throws {
    self.session = session
    self.tables = tables
    self.isHead = isHead
    self.peer = peer
    self.isCareful = isCareful
    self.returns = returns
    self.refusesMissing = refusesMissing
    self.excluded = excluded
    now = Stamp(
      rawValue: try session.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").int64(
        0, 0))
  }

  func apply(_ block: RowBlock) throws {
    guard block.count > 0 else { return }
    guard let table = tables[block.table] else {
      return try refuseAll(block, "42P01", "table \(block.table) is not tracked here")
    }
    let isAllowed =
      switch table.options.direction {
      case "down": !isHead || returns
      case "up": isHead || returns
      default: true
      }
    guard isAllowed else {
      // What comes back to a database that was put back may come twice.
      if try RowPlanner(
        applier: TableApplier(session: session, table: table, block: block, refusesMissing: refusesMissing),
        isHead: isHead, now: now
      ).plan().isNothing {
        counts.skipped += block.count
        return
      }
      return try refuseAll(
        block, "25006",
        "table \(block.table) has direction \(table.options.direction): \(peer) may not write it")
    }
    if isHead, table.options.direction == "up" { try noteActors(of: block) }
    let rest = excluded.isEmpty ? block : withoutExcluded(block)
    guard rest.count > 0 else { return }
    let before = (refused, waiting)
    if isCareful { try session.script("SAVEPOINT hub_block") }
    do {
      try applyWhole(
        TableApplier(session: session, table: table, block: rest, refusesMissing: refusesMissing))
      if isCareful { try session.script("RELEASE SAVEPOINT hub_block") }
    } catch let error as PostgresError where error.isAboutRows {
      guard isCareful else { throw NeedsCare(cause: error) }
      try session.script("ROLLBACK TO SAVEPOINT hub_block; RELEASE SAVEPOINT hub_block")
      (refused, waiting) = before
      try refuseAll(rest, error.sqlstate ?? "", error.description)
    }
  }

  /// Head: whose writes these are, for when that office has lost them. The actor may be one that never greets: derived
  /// from a start of the server, it named the writes made before a hub looked.
  private func noteActors(of block: RowBlock) throws {
    let new = Set(block.actors).subtracting(noted)
    guard !new.isEmpty else { return }
    for actor in new {
      try session.hot("INSERT INTO hub.actor VALUES (\(actor)::bigint, \(peer)) ON CONFLICT DO NOTHING")
    }
    noted.formUnion(new)
  }

  private func applyWhole(_ applier: TableApplier) throws {
    let plan = try RowPlanner(applier: applier, isHead: isHead, now: now).plan()
    if !plan.held.isEmpty { try applier.touchVersions(of: plan.held) }
    if !plan.confirmed.isEmpty { try applier.confirmTombstones(of: plan.confirmed) }
    refused += plan.refused.map { RefusedRow(block: applier.block.row($0.row), refusal: $0.refusal) }
    let left = isCareful ? try writeCarefully(applier, plan.writes[...]) : []
    if !isCareful, !plan.writes.isEmpty {
      try applier.writeRows(plan.writes, replacing: false)
      try applier.writeVersions(plan.writes)
    }
    if !isHead { try noteHeld(applier, plan, left) }
    let decided = plan.decided.filter { !left.contains($0.row) }
    if !decided.isEmpty { try logConflicts(applier, decided) }
    note(applier, left.isEmpty ? plan.writes : plan.writes.filter { !left.contains($0.row) })
    counts.held += plan.held.count
    counts.restamped += plan.restamped
    counts.skipped += applier.block.count - plan.writes.count - plan.held.count - plan.refused.count
  }

  /// Branch: which rows wait for head's decision, for people who ask (`hub trace`).
  private func noteHeld(_ applier: TableApplier, _ plan: BlockPlan, _ left: Set<Int>) throws {
    let block = applier.block
    func key(_ row: Int) -> String {
      JSONValue.row(
        Array(block.columnNames.prefix(block.keyCount)), block.columns.prefix(block.keyCount).map { $0.value(row) }
      ).description
    }
    let written = plan.writes.map(\.row).filter { !left.contains($0) }
    if !written.isEmpty {
      let holds = try holdsRows ?? session.hot("SELECT EXISTS (SELECT FROM hub.held)").bool(0, 0)
      holdsRows = holds
      if holds {
        let keys = "[" + written.map(key).joined(separator: ",") + "]"
        try session.hot(
          """
          DELETE FROM hub.held WHERE table_name = \(block.table)
            AND key IN (SELECT jsonb_array_elements(\(keys)::jsonb))
          """)
      }
    }
    for row in plan.held {
      holdsRows = true
      try session.hot(
        """
        INSERT INTO hub.held (table_name, key, vector)
        VALUES (\(block.table), \(key(row))::jsonb, \(block.vector(row).postgres)::bigint[])
        ON CONFLICT (table_name, jsonb_hash_extended(key, 0), jsonb_hash_extended(key, 1))
          DO UPDATE SET vector = EXCLUDED.vector
        """)
    }
  }

  /// Remembers what the checks at the end have to look at.
  private func note(_ applier: TableApplier, _ writes: [PlannedWrite]) {
    let table = applier.table
    counts.written += writes.count
    if !table.references.isEmpty || !table.deferred.isEmpty {
      let rows = writes.filter { $0.content == .insert || $0.content == .update }.map(\.row)
      written[table.name, default: TouchedRows(table)].append(applier.block, rows)
    }
    if !table.referencedBy.isEmpty {
      let rows = writes.filter { $0.content == .delete }.map(\.row)
      deleted[table.name, default: TouchedRows(table)].append(applier.block, rows)
    }
  }

  /// Under a savepoint; on a refusal by replacing rows (unique values may have been swapped), then by halves.
  /// Returns the rows that stay unwritten.
  private func writeCarefully(_ applier: TableApplier, _ writes: ArraySlice<PlannedWrite>) throws -> Set<Int> {
    guard !writes.isEmpty else { return [] }
    var refusal = Refusal(sqlstate: "XX000", error: "refused")
    for replacing in applier.canReplace ? [false, true] : [false] {
      try session.script("SAVEPOINT hub_rows")
      do {
        try applier.writeRows(Array(writes), replacing: replacing)
        try applier.writeVersions(Array(writes))
        try session.script("RELEASE SAVEPOINT hub_rows")
        return []
      } catch let error as PostgresError where error.isAboutRows {
        try session.script("ROLLBACK TO SAVEPOINT hub_rows; RELEASE SAVEPOINT hub_rows")
        refusal = Refusal(sqlstate: error.sqlstate ?? "", error: error.description)
        if !refusal.isAboutUniqueness { break }
      }
    }
    guard writes.count > 1 else {
      return Set(
        writes.map { write in
          let row = RefusedRow(block: applier.block.row(write.row), refusal: refusal)
          if refusal.isAboutUniqueness { waiting.append(row) } else { refused.append(row) }
          return write.row
        })
    }
    let middle = writes.startIndex + writes.count / 2
    return try writeCarefully(applier, writes[..<middle]).union(writeCarefully(applier, writes[middle...]))
  }

  /// After all blocks: tries rows again that waited for a unique value, then throws `Orphans` when a foreign key that
  /// head does not repair, or a deferrable constraint, would not hold.
  func finish() throws {
    try writeWaiting()
    try checkConstraints()
  }

  private func writeWaiting() throws {
    var before = Int.max
    while !waiting.isEmpty, waiting.count < before {
      before = waiting.count
      let rows = waiting
      waiting = []
      for (_, group) in Dictionary(grouping: rows.indices, by: { rows[$0].block.table }).sorted(by: {
        $0.key < $1.key
      }) {
        guard let table = tables[rows[group[0]].block.table] else { continue }
        for block in RowBlock.joining(group.map { rows[$0].block }) {
          let skipped = counts.skipped
          try applyWhole(
            TableApplier(session: session, table: table, block: block, refusesMissing: refusesMissing))
          counts.skipped = skipped
        }
      }
    }
    refused += waiting
    waiting = []
  }

  private func checkConstraints() throws {
    var orphans = try findOrphans()
    if isHead, !orphans.isEmpty, try repairForeignKeys() { orphans = try findOrphans() }
    guard orphans.isEmpty else { throw Orphans(rows: orphans) }
    written = [:]
    deleted = [:]
  }

  /// Level by level: a parent that came back may miss its own. Says whether any did.
  private func repairForeignKeys() throws -> Bool {
    let refused = refused.flatMap { RowName.all(table: $0.block.table, keys: $0.block.columns[..<$0.block.keyCount]) }
    var repair = ForeignKeyRepair(
      session: session, tables: tables, now: now, deletedNow: Set(deleted.values.flatMap(\.names)),
      lost: Set(excluded.keys).union(refused))
    var (children, parents) = (Array(written.values), Array(deleted.values))
    var isAnyBack = false
    while case let revived = try repair.revive(written: children, deleted: parents), !revived.isEmpty {
      isAnyBack = true
      (children, parents) = ([], [])
      for rows in revived {
        let (table, block) = (rows.applier.table, rows.applier.block)
        var touched = TouchedRows(table)
        touched.append(block, Array(0..<block.count))
        children.append(touched)
        written[table.name, default: TouchedRows(table)].append(block, Array(0..<block.count))
        counts.written += block.count
        try logConflicts(rows.applier, rows.decided)
      }
    }
    return isAnyBack
  }

  private func findOrphans() throws -> [RowName: Refusal] {
    let check = ForeignKeyCheck(session: session)
    var orphans: [RowName: Refusal] = [:]
    func note(_ found: [ForeignKeyCheck.Orphan], _ rows: TouchedRows, _ sqlstate: String) {
      guard !found.isEmpty else { return }
      let names = rows.names
      for orphan in found {
        orphans[names[orphan.number]] = Refusal(sqlstate: sqlstate, error: orphan.detail)
      }
    }
    for rows in written.values {
      note(try check.duplicates(among: rows), rows, "23505")
      note(try check.orphans(among: rows), rows, "23503")
    }
    for rows in deleted.values { note(try check.parents(missedAmong: rows), rows, "23503") }
    return orphans
  }

  private func withoutExcluded(_ block: RowBlock) -> RowBlock {
    var kept: [Int] = []
    for (row, name) in RowName.all(table: block.table, keys: block.columns[..<block.keyCount]).enumerated() {
      if let refusal = excluded[name] {
        refused.append(RefusedRow(block: block.row(row), refusal: refusal))
      } else {
        kept.append(row)
      }
    }
    return kept.count == block.count ? block : block.picking(kept)
  }

  private func refuseAll(_ block: RowBlock, _ sqlstate: String, _ error: String) throws {
    guard isCareful else { throw NeedsCare(cause: PostgresError(sqlstate: sqlstate, message: error)) }
    let refusal = Refusal(sqlstate: sqlstate, error: error)
    refused += block.rows().map { RefusedRow(block: $0, refusal: refusal) }
  }

  /// The branch whose incarnation this is; nil: head's, or one that never introduced itself.
  private func writer(of actor: ActorID) throws -> String? {
    if let known = writers[actor] { return known }
    let found = try session.query("SELECT office FROM hub.actor WHERE actor = \(actor.rawValue)")
    let office = found.count > 0 ? found.text(0, 0) : nil
    writers[actor] = .some(office)
    return office
  }

  /// Each entry with the dot of the row that came of it, and notices for the branches that wrote one of the copies.
  private func logConflicts(
    _ applier: TableApplier, _ decided: [DecidedRow]
  ) throws {
    counts.conflicts += decided.count
    let head = try session.query("SELECT name FROM hub.office").text(0, 0)
    for decided in decided {
      let one = decided.conflict
      let block = applier.block
      let names = block.columnNames
      let key = JSONValue.row(
        Array(names.prefix(block.keyCount)), block.columns.prefix(block.keyCount).map { $0.value(decided.row) })
      func office(_ side: Side) throws -> String {
        try one.office(of: side, head: head, peer: peer, writer: writer)
      }
      func side(_ side: Side) throws -> JSONValue {
        let state = one.conflict.row(of: side)
        return .fields([
          "office": .string(try office(side)),
          "actor": .string(String(one.conflict.version(of: side).dot.actor.rawValue)),
          "row": (side == .local ? decided.local : decided.incoming).map { .row(names, $0) } ?? .null,
          "vector": .object(
            state.vector.dots.map { JSONValue.Member(String($0.actor.rawValue), .integer($0.n)) }),
          "stamp": .integer(one.conflict.version(of: side).stamp.rawValue),
        ])
      }
      let column: JSONValue = one.conflict.column.map { .fields(["column": .string(names[$0])]) } ?? .object([])
      let winner = one.winner ?? .local
      // A row of the function's own: both lost to it.
      let answer: JSONValue = decided.answer.map { .fields(["answer": .row(names, $0)]) } ?? .object([])
      try session.query(
        """
        WITH entry AS (
          INSERT INTO hub.conflict (table_name, key, type, policy, reason, winner, loser, head_copy, decided_actor, decided_n)
          VALUES (\(block.table), \(key.description)::jsonb, \(one.conflict.kind.rawValue),
            \(applier.table.options.onConflict), \(one.reason.rawValue),
            \(try side(winner).description)::jsonb || \(answer.description)::jsonb || \(column.description)::jsonb,
            \(try side(winner.other).description)::jsonb || \(column.description)::jsonb,
            \(winner == .local ? "winner" : "loser"), \(decided.dot.actor.rawValue), \(decided.dot.n))
          RETURNING id)
        INSERT INTO hub.conflict_notice (office, conflict)
        SELECT DISTINCT office, id FROM entry, unnest(ARRAY[\(try office(.local)), \(try office(.incoming))]) AS office
        WHERE office <> \(head)
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
    for (number, row) in rows.enumerated() {
      out.vectors[number] = vectors[row]
      out.contributions[number] = contributions[row]
      out.columnVersions[number] = columnVersions[row]
    }
    out.columns = columns.map { $0.picking(rows) }
    return out
  }

  func row(_ row: Int) -> RowBlock { picking([row]) }

  /// Each row as a block of its own.
  func rows() -> [RowBlock] {
    let values = columns.map { $0.values() }
    return (0..<count).map { row in
      var out = RowBlock(table: table, columnNames: columnNames, keyCount: keyCount)
      out.appendVersion(of: self, row)
      for column in values.indices { out.columns[column].append(values[column][row]) }
      return out
    }
  }

  /// Blocks of one table put together; those with other columns stay apart, and a row that is there already: of a batch
  /// that was cut it may come again, and the later one has to meet what the earlier one wrote.
  static func joining(_ blocks: [RowBlock]) -> [RowBlock] {
    var joined: [RowBlock] = []
    var names: Set<RowName> = []
    for block in blocks {
      let more = RowName.all(table: block.table, keys: block.columns[..<block.keyCount])
      guard let last = joined.indices.last, joined[last].columnNames == block.columnNames, names.isDisjoint(with: more)
      else {
        joined.append(block)
        names = Set(more)
        continue
      }
      names.formUnion(more)
      for row in 0..<block.count { joined[last].appendVersion(of: block, row) }
      for column in block.columns.indices {
        joined[last].columns[column].blob += block.columns[column].blob
        joined[last].columns[column].lengths += block.columns[column].lengths
      }
    }
    return joined
  }

  private mutating func appendVersion(of other: RowBlock, _ row: Int) {
    if let vector = other.vectors[row] { vectors[count] = vector }
    if let entries = other.contributions[row] { contributions[count] = entries }
    if let entries = other.columnVersions[row] { columnVersions[count] = entries }
    actors.append(other.actors[row])
    counters.append(other.counters[row])
    stamps.append(other.stamps[row])
    alive.append(other.alive[row])
  }
}

extension Refusal {
  /// Another row holds the value: it may let go of it.
  var isAboutUniqueness: Bool { sqlstate == "23505" || sqlstate == "23P01" }
}
