import HubEngine
import SyncCore

/// Gives rows, as they are, or their absence, a version of this office's own that has seen the other office's: every
/// office takes it. Inside the caller's transaction; the rows' triggers stay silent, and capture passes.
struct RowRestatement {
  let session: Session
  let table: TableInfo

  /// Few rows of a large table, whatever the planner believes.
  static let byKey = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"

  /// Statements about these keys, with a place for each of the table's columns.
  static func applier(_ session: Session, _ table: TableInfo, _ keys: [RowKey]) throws -> TableApplier {
    guard keys.allSatisfy({ $0.values.count == table.keyCount }) else {
      throw HubError(.refused, "the key of table \(table.name) differs here")
    }
    var block = RowBlock(table: table.name, columnNames: table.columnNames, keyCount: table.keyCount)
    block.actors = keys.map { _ in 1 }
    block.counters = block.actors
    block.stamps = keys.map { _ in 0 }
    block.alive = keys.map { _ in false }
    for at in block.columns.indices {
      block.columns[at] =
        at < table.keyCount ? keys.column(at) : ColumnBytes(blob: [], lengths: keys.map { _ in -1 })
    }
    return try TableApplier(session: session, table: table, block: block, refusesMissing: true)
  }

  /// Returns how many were written. One that has another version than it had when it was compared is left alone.
  func run(_ rows: [RestatedRow], _ overwritten: [OverwrittenCopy], from office: String) throws -> Int {
    guard !rows.isEmpty else { return 0 }
    try ApplyTransaction.begin(session)
    try session.script(Self.byKey)
    let applier = try Self.applier(session, table, rows.map(\.key))
    let exists = try applier.lockRows()
    let versions = try applier.lockVersions()
    let facts = try session.query(
      """
      SELECT hub.current_actor(), nextval('hub.dot'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      FROM generate_series(1, \(rows.count)::int)
      """)
    let copies = Dictionary(overwritten.map { ($0.key, $0) }) { first, _ in first }
    let log = RepairLog(session: session, table: table)
    var writes: [PlannedWrite] = []
    for (at, row) in rows.enumerated() where versions[at]?.vector == row.expected {
      let dot = Dot(actor: ActorID(rawValue: facts.int64(at, 0)), n: facts.int64(at, 1))
      let local = versions[at]
      let stamp = Stamp.next(
        now: Stamp(rawValue: facts.int64(at, 2)), after: local.map { Stamp(rawValue: $0.stamp) })
      var vector = (local?.vector ?? VersionVector()).joined(with: row.seen ?? VersionVector())
      vector.insert(dot)
      writes.append(
        PlannedWrite(
          row: at, content: .none, isAlive: exists[at], dot: dot, stamp: stamp.rawValue,
          vector: vector.dots.count > 1 ? vector : nil, contributions: local?.details.contributions ?? [],
          columnVersions: exists[at] ? local?.details.columnVersions ?? [] : [], hasVersion: local != nil, echo: false))
      if let copy = copies[row.key] {
        let here = exists[at] ? try applier.localValues(of: [at])[at] : nil
        let json = here.map { JSONValue.row(applier.block.columnNames, $0) } ?? .null
        try log.write(
          copy, standing: .init(row: json, dot: dot, vector: vector, stamp: stamp), office: office)
      }
    }
    if !writes.isEmpty { try applier.writeVersions(writes) }
    return writes.count
  }
}

/// What a repair overwrites, as entries of the conflict log: nothing is lost silently.
struct RepairLog {
  struct Standing {
    var row: JSONValue
    var dot: Dot
    var vector: VersionVector
    var stamp: Stamp
  }

  let session: Session
  let table: TableInfo

  /// - Parameter standing: head's row as it is written; nil: the branch's stands, and `copy` is head's.
  func write(_ copy: OverwrittenCopy, standing: Standing?, office: String) throws {
    let head = try session.query("SELECT name FROM hub.office").text(0, 0)
    let key = JSONValue.row(table.keyColumns.map(\.name), copy.key.values.map { $0 })
    let now = try session.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").int64(0, 0)
    let stamp = standing?.stamp.rawValue ?? now
    let lost = side(
      standing == nil ? head : office, .raw(copy.json), copy.vector, actor: copy.vector?.dots.last?.actor, stamp)
    let winner =
      standing.map { side(head, $0.row, $0.vector, actor: $0.dot.actor, stamp) }
      ?? side(
        office, copy.standing.isEmpty ? .null : .raw(copy.standing), copy.standingVector,
        actor: copy.standingVector?.dots.last?.actor, stamp)
    let type = copy.kind == .missingAtHead ? ConflictKind.updateDeleted : .updateOriginDiffers
    try session.query(
      """
      WITH entry AS (
        INSERT INTO hub.conflict (table_name, key, type, policy, reason, winner, loser, head_copy, decided_actor, decided_n)
        VALUES (\(table.name), \(key.description)::jsonb, \(type.rawValue), \(table.options.onConflict),
          \(Reason.repaired.rawValue), \(winner.description)::jsonb, \(lost.description)::jsonb,
          \(standing == nil ? "loser" : "winner"), \(standing?.dot.actor.rawValue), \(standing?.dot.n))
        RETURNING id)
      INSERT INTO hub.conflict_notice (office, conflict) SELECT \(office), id FROM entry
      """)
  }

  private func side(_ office: String, _ row: JSONValue, _ vector: VersionVector?, actor: ActorID?, _ stamp: Int64)
    -> JSONValue
  {
    .fields([
      "office": .string(office), "actor": .string(String(actor?.rawValue ?? 0)), "row": row,
      "vector": .object((vector?.dots ?? []).map { JSONValue.Member(String($0.actor.rawValue), .integer($0.n)) }),
      "stamp": .integer(stamp),
    ])
  }
}
