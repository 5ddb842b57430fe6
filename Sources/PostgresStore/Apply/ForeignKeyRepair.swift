import HubEngine
import SyncCore

/// Head's repair of foreign keys that a batch would break: parents that are deleted, by this batch or before, while
/// living rows refer to them come back from their last image, under a dot of head's own that dominates the delete.
///
/// Branches never do this: head's answer reaches them.
struct ForeignKeyRepair {
  let session: Session
  let tables: [String: TableInfo]
  let now: Stamp
  /// Rows that this batch deleted; other tombstones were here before it.
  let deletedNow: Set<RowName>
  /// Rows that are refused, or that would break a constraint themselves: they stay away, and their children with them.
  private(set) var lost: Set<RowName>

  /// Rows of one table that came back.
  struct Revived {
    var applier: TableApplier
    var decided: [DecidedRow]
  }

  /// A tombstone with what its row looked like.
  private struct Candidate {
    var name: RowName
    var columns: [(name: String, value: [UInt8]?)]
    /// The version under which the row last lived; its contributions by the column's place in the table.
    var version: TableApplier.LocalVersion
  }

  /// Puts back what the touched rows miss; nothing: nothing can be done about it. Those that came back may miss parents
  /// of their own.
  mutating func revive(written: [TouchedRows], deleted: [TouchedRows]) throws -> [Revived] {
    var wanted: [RowName: Candidate] = [:]
    for rows in deleted {
      for candidate in try referred(among: rows) { wanted[candidate.name] = candidate }
    }
    for rows in written {
      for key in rows.table.references {
        for candidate in try parents(of: rows, by: key) where wanted[candidate.name] == nil {
          wanted[candidate.name] = candidate
        }
      }
    }
    var revived: [Revived] = []
    for (name, group) in Dictionary(grouping: wanted.values, by: \.name.table).sorted(by: { $0.key < $1.key }) {
      guard let table = tables[name] else { continue }
      for same in Dictionary(grouping: group, by: { $0.columns.map(\.name) }).values {
        try write(same[...], table, &revived)
      }
    }
    return revived
  }

  // MARK: finding

  /// Rows deleted by this batch that living rows of tracked tables refer to.
  private func referred(among deleted: TouchedRows) throws -> [Candidate] {
    let parent = deleted.table
    guard try hasImages(parent) else { return [] }
    let keys = parent.keyJoin({ index, _ in "i.k\(index + 1)" }, { "u.k\($0 + 1)::\($1.castType)" })
    let children = parent.referencedBy.compactMap { key in
      tables[key.child].map { "EXISTS (SELECT FROM \($0.quoted) c WHERE \(isMissing(key, parent)))" }
    }
    guard !children.isEmpty else { return [] }
    return try candidates(
      parent, "\(deleted.source) JOIN \(LastImages.name(parent)) i ON \(keys)",
      "(\(children.joined(separator: " OR ")))", deleted.parameters)
  }

  /// Tombstones that written rows refer to. Of several that had the value of a key other than the primary one, the
  /// one that lived last.
  private func parents(of written: TouchedRows, by key: TableInfo.ForeignKey) throws -> [Candidate] {
    guard let parent = tables[key.parent], try hasImages(parent) else { return [] }
    let child = "\(written.source) JOIN \(written.table.quoted) c ON \(written.join("c"))"
    return try candidates(
      parent, "\(child) JOIN \(LastImages.name(parent)) i ON \(matching(key, parent))", isMissing(key, parent),
      written.parameters)
  }

  private func hasImages(_ table: TableInfo) throws -> Bool {
    guard LastImages.areKept(table) else { return false }
    return try session.query("SELECT to_regclass(\(LastImages.name(table))) IS NOT NULL").bool(0, 0)
  }

  /// The child `c` refers to the image `i`, and to no row that is there.
  private func isMissing(_ key: TableInfo.ForeignKey, _ parent: TableInfo) -> String {
    let match = zip(zip(key.parentColumns, key.childColumns), key.operators)
      .map { "p.\(quotedName($0.0)) \($1) c.\(quotedName($0.1))" }.joined(separator: " AND ")
    return "\(matching(key, parent)) AND NOT EXISTS (SELECT FROM \(parent.quoted) p WHERE \(match))"
  }

  /// Columns outside the primary key are read out of the image, where the table still has the columns that it had.
  private func matching(_ key: TableInfo.ForeignKey, _ parent: TableInfo) -> String {
    let keyNames = parent.keyColumns.map(\.name)
    let present = """
      (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = \(parent.relationID)::oid AND attnum > 0 AND NOT attisdropped)
      """
    return zip(zip(key.parentColumns, key.childColumns), key.operators).map { names, equality in
      let mine =
        keyNames.firstIndex(of: names.0).map { "i.k\($0 + 1)" }
        ?? "(CASE WHEN i.columns = \(present) THEN (i.image::\(parent.quoted)).\(quotedName(names.0)) END)"
      return "\(mine) \(equality) c.\(quotedName(names.1))"
    }.joined(separator: " AND ")
  }

  /// Dead rows only, and none of which a later state waits in quarantine: that one may be what the child refers to.
  private func candidates(
    _ table: TableInfo, _ source: String, _ condition: String, _ parameters: [SQLValue]
  ) throws -> [Candidate] {
    let count = table.keyCount
    let same = table.keyJoin({ index, _ in "v.k\(index + 1)" }, { index, _ in "i.k\(index + 1)" })
    let keys = (1...count).map { "i.k\($0)" }.joined(separator: ", ")
    let key = table.keyColumns.enumerated().map { "\(quotedLiteral($1.name)), i.k\($0 + 1)::text" }
    let rows = try session.query(
      SQL(
        unsafe: """
          SELECT u.i, \(keys), array_to_string(i.columns, chr(10)), i.image, i.actor, i.n, i.stamp, i.vector,
            i.contributions, NULL
          FROM \(source) JOIN \(table.versions) v ON \(same)
          WHERE NOT v.alive AND \(condition) AND NOT EXISTS (SELECT FROM hub.quarantine q
            WHERE q.table_name = \(quotedLiteral(table.name))
              AND q.key = jsonb_build_object(\(key.joined(separator: ", "))))
          ORDER BY u.i, i.stamp DESC
          """, parameters))
    var found: [Candidate] = []
    var last = 0
    for i in 0..<rows.count where rows.int(i, 0) != last {
      let name = RowName(table: table.name, key: (1...count).map { rows.bytes(i, $0).map(Array.init) })
      guard !lost.contains(name), let image = rows.bytes(i, count + 2) else { continue }
      last = rows.int(i, 0)
      let dot = Dot(actor: ActorID(rawValue: rows.int64(i, count + 3)), n: rows.int64(i, count + 4))
      let names = rows.text(i, count + 1).split(separator: "\n").map(String.init)
      found.append(
        Candidate(
          name: name, columns: Array(zip(names, rowValues(text: image))),
          version: TableApplier.LocalVersion(
            dot: dot, stamp: rows.int64(i, count + 5),
            vector: rows.string(i, count + 6).map { VersionVector(postgres: $0) } ?? VersionVector(dot),
            details: RowDetails(rows, i, from: count + 7, table, at: { $0 }))))
    }
    return found
  }

  // MARK: writing

  /// Under a savepoint, by halves: a row that may not come back, because another holds its unique value by now, keeps
  /// no other away.
  private mutating func write(_ group: ArraySlice<Candidate>, _ table: TableInfo, _ out: inout [Revived]) throws {
    try session.script("SAVEPOINT hub_repair")
    do {
      let revived = try write(group, table)
      try session.script("RELEASE SAVEPOINT hub_repair")
      out.append(revived)
      return
    } catch let error as PostgresError where error.isAboutRows {
      try session.script("ROLLBACK TO SAVEPOINT hub_repair; RELEASE SAVEPOINT hub_repair")
    }
    guard group.count > 1 else {
      lost.formUnion(group.map(\.name))
      return
    }
    let middle = group.startIndex + group.count / 2
    try write(group[..<middle], table, &out)
    try write(group[middle...], table, &out)
  }

  /// The rows first, then their versions: an application that is faster is waited for, or makes the batch start again.
  private func write(_ group: ArraySlice<Candidate>, _ table: TableInfo) throws -> Revived {
    let applier = try TableApplier(
      session: session, table: table, block: Self.block(group, table), refusesMissing: false)
    let rows = Array(group.indices.map { $0 - group.startIndex })
    let shape = RowShape(applier)
    let images = zip(rows, group).map { row, candidate in
      Self.image(candidate, applier.values(of: row), table, applier.block)
    }
    try applier.writeRows(
      rows.map {
        PlannedWrite(
          row: $0, content: .insert, isAlive: true, dot: images[$0].dot, stamp: images[$0].stamp, hasVersion: true,
          echo: false)
      }, replacing: false)
    let tombstones = try applier.lockVersions()
    let dots = try session.query(
      "SELECT hub.current_actor(), nextval('hub.dot') FROM generate_series(1, \(rows.count)::int)")
    let states = try applier.states(images, shape)
    let dead = try applier.states(
      tombstones.map { version in
        version.map {
          RowShape.Image(
            vector: $0.vector, dot: $0.dot, stamp: $0.stamp, values: nil, contributions: $0.details.contributions,
            columnVersions: [])
        }
      }, shape)
    var writes: [PlannedWrite] = []
    var decided: [DecidedRow] = []
    var revived: [(state: RowState<RowValues>, copies: [RowValues?])] = []
    for (row, candidate) in zip(rows, group) {
      guard let image = states[row], let tombstone = dead[row] else { throw Raced(table: table.name) }
      let dot = Dot(actor: ActorID(rawValue: dots.int64(row, 0)), n: dots.int64(row, 1))
      // What head held when the other arrived: the row, when it is its delete that arrived.
      let isDeletedNow = deletedNow.contains(candidate.name)
      let back = Arbiter(dot: dot, now: now).revived(image, over: tombstone, deletedNow: isDeletedNow)
      let state = back.row
      writes.append(
        PlannedWrite(
          row: row, content: .update, isAlive: true, dot: dot, stamp: state.alive.stamp.rawValue,
          vector: state.vector.dots.count > 1 ? state.vector : nil, contributions: shape.contributions(of: state),
          hasVersion: true, echo: false))
      let values = applier.values(of: row)
      revived.append((state, [values]))
      decided += back.decided.map {
        DecidedRow(
          row: row, conflict: $0, dot: dot, local: isDeletedNow ? values : nil, incoming: isDeletedNow ? nil : values)
      }
    }
    // What was added while the row was away.
    for (row, amounts) in try applier.shown(revived, shape) {
      var values = applier.values(of: row)
      for (at, amount) in amounts { values[at] = amount }
      if values != applier.values(of: row) { writes[row].values = values }
    }
    try applier.writeRows(writes.filter { $0.values != nil }, replacing: false)
    try applier.writeVersions(writes)
    var touched = TouchedRows(table)
    touched.append(applier.block, rows)
    if let duplicate = try ForeignKeyCheck(session: session).duplicates(among: touched).first {
      throw PostgresError(sqlstate: "23505", message: duplicate.detail)
    }
    return Revived(applier: applier, decided: decided)
  }

  private static func image(
    _ candidate: Candidate, _ values: RowValues, _ table: TableInfo, _ block: RowBlock
  ) -> RowShape.Image {
    let shares = candidate.version.details.contributions.compactMap { share in
      block.columnNames.firstIndex(of: table.columns[share.column].name).map {
        RowContribution(column: $0, dot: share.dot, sum: share.sum)
      }
    }
    return RowShape.Image(
      vector: candidate.version.vector, dot: candidate.version.dot, stamp: candidate.version.stamp, values: values,
      contributions: shares, columnVersions: [])
  }

  /// Images with the same columns as one block; columns that the table has no more are left out.
  private static func block(_ group: ArraySlice<Candidate>, _ table: TableInfo) -> RowBlock {
    let present = group.first?.columns.map(\.name) ?? []
    let names = table.columnNames.filter { present.contains($0) }
    var block = RowBlock(table: table.name, columnNames: names, keyCount: table.keyCount)
    for candidate in group {
      block.actors.append(candidate.version.dot.actor.rawValue)
      block.counters.append(candidate.version.dot.n)
      block.stamps.append(candidate.version.stamp)
      block.alive.append(true)
      let values = Dictionary(candidate.columns.map { ($0.name, $0.value) }) { $1 }
      for (at, name) in names.enumerated() { block.columns[at].append(values[name] ?? nil) }
    }
    return block
  }
}
