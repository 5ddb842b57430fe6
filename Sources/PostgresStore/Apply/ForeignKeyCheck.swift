import SyncCore

/// A row by its table and its key's text.
struct RowName: Hashable {
  var table: String
  var key: [[UInt8]?]
}

/// Rows of one table that a transaction touched, by key.
struct TouchedRows {
  var table: TableInfo
  var keys: [ColumnBytes]

  init(_ table: TableInfo) {
    self.table = table
    keys = Array(repeating: ColumnBytes(), count: table.keyCount)
  }

  mutating func append(_ block: RowBlock, _ rows: [Int]) {
    for k in 0..<table.keyCount {
      let picked = block.columns[k].picking(rows)
      keys[k].blob += picked.blob
      keys[k].lengths += picked.lengths
    }
  }

  var names: [RowName] { RowName.all(table: table.name, keys: keys[...]) }

  var source: String {
    let parameters = (1...table.keyCount).map { "$\($0)::text[]" }.joined(separator: ", ")
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    return "unnest(\(parameters)) WITH ORDINALITY AS u(\(names), i)"
  }

  var parameters: [SQLValue] { keys.map { .column($0) } }

  func join(_ alias: String) -> String {
    table.keyJoin({ "\(alias).\(quotedName($1.name))" }, { "u.k\($0 + 1)::\($1.castType)" })
  }
}

extension RowName {
  static func all(table: String, keys: ArraySlice<ColumnBytes>) -> [RowName] {
    let columns = keys.map { $0.values() }
    return (columns.first ?? []).indices.map { row in RowName(table: table, key: columns.map { $0[row] }) }
  }
}

/// Foreign keys, checked set by set: `session_replication_role = replica` silences PostgreSQL's own checks.
struct ForeignKeyCheck {
  let session: Session

  /// A row that is in the way, by its number among the touched ones, and why.
  typealias Orphan = (number: Int, detail: String)

  /// Written rows whose parent is missing. Parents that are there are locked against deletion until the commit, as
  /// PostgreSQL's own check does.
  func orphans(among written: TouchedRows) throws -> [Orphan] {
    var found: [Orphan] = []
    for key in written.table.references {
      let match = zip(zip(key.parentColumns, key.childColumns), key.operators)
        .map { "p.\(quotedName($0.0)) \($1) c.\(quotedName($0.1))" }.joined(separator: " AND ")
      let filled = key.childColumns.map { "c.\(quotedName($0)) IS NOT NULL" }.joined(separator: " AND ")
      let child = "\(written.source) JOIN \(written.table.quoted) c ON \(written.join("c"))"
      if key.locksParent {
        let locked = "SELECT FROM \(child) JOIN \(key.quotedParent) p ON \(match) FOR KEY SHARE OF p"
        try session.hot(SQL(unsafe: "SELECT count(*) FROM (\(locked)) AS locked", written.parameters))
      }
      let rows = try session.hot(
        SQL(
          unsafe: """
            SELECT u.i FROM \(child) WHERE \(filled)
              AND NOT EXISTS (SELECT FROM \(key.quotedParent) p WHERE \(match))
            """, written.parameters))
      for i in 0..<rows.count {
        found.append(
          (
            rows.int(i, 0) - 1,
            "foreign key \(key.name): the row of \(key.parent) that it refers to is missing"
          ))
      }
    }
    return found
  }

  /// Written rows that a DEFERRABLE unique or exclusion constraint does not allow beside another row.
  func duplicates(among written: TouchedRows) throws -> [Orphan] {
    var found: [Orphan] = []
    for constraint in written.table.deferred {
      let same = zip(constraint.columns, constraint.operators).map { name, equality in
        let column = quotedName(name)
        let equal = "o.\(column) \(equality) t.\(column)"
        return constraint.nullsAreEqual ? "(\(equal) OR o.\(column) IS NULL AND t.\(column) IS NULL)" : equal
      }.joined(separator: " AND ")
      let rows = try session.hot(
        SQL(
          unsafe: """
            SELECT u.i FROM \(written.source) JOIN \(written.table.quoted) t ON \(written.join("t"))
            WHERE EXISTS (SELECT FROM \(written.table.quoted) o WHERE o.ctid <> t.ctid AND \(same))
            """, written.parameters))
      for i in 0..<rows.count {
        found.append(
          (rows.int(i, 0) - 1, "another row has the same values under constraint \(constraint.name)"))
      }
    }
    return found
  }

  /// Deleted rows that others still refer to.
  func parents(missedAmong deleted: TouchedRows) throws -> [Orphan] {
    var found: [Orphan] = []
    for key in deleted.table.referencedBy {
      let keyNames = deleted.table.keyColumns.map(\.name)
      let positions = key.parentColumns.map { name in keyNames.firstIndex(of: name) }
      let detail = "foreign key \(key.name): rows of \(key.child) refer to it"
      if positions.contains(nil) {
        let match = zip(zip(key.parentColumns, key.childColumns), key.operators)
          .map { "p.\(quotedName($0.0)) \($1) c.\(quotedName($0.1))" }.joined(separator: " AND ")
        let filled = key.childColumns.map { "c.\(quotedName($0)) IS NOT NULL" }.joined(separator: " AND ")
        let orphaned = try session.script(
          """
          SELECT EXISTS (SELECT FROM \(key.quotedChild) c WHERE \(filled)
            AND NOT EXISTS (SELECT FROM \(deleted.table.quoted) p WHERE \(match)))
          """)
        guard orphaned.bool(0, 0) else { continue }
        found += (0..<deleted.keys[0].lengths.count).map { ($0, detail) }
        continue
      }
      let match = zip(zip(positions, key.childColumns), key.operators).map { pair, equality in
        let position = pair.0 ?? 0
        let type = deleted.table.columns[position].castType
        return "u.k\(position + 1)::\(type) \(equality) c.\(quotedName(pair.1))"
      }.joined(separator: " AND ")
      let rows = try session.hot(
        SQL(
          unsafe: """
            SELECT u.i FROM \(deleted.source) WHERE EXISTS (SELECT FROM \(key.quotedChild) c WHERE \(match))
              AND NOT EXISTS (SELECT FROM \(deleted.table.quoted) t WHERE \(deleted.join("t")))
            """, deleted.parameters))
      for i in 0..<rows.count { found.append((rows.int(i, 0) - 1, detail)) }
    }
    return found
  }
}
