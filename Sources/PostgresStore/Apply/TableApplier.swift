import HubEngine
import SyncCore

/// The values of one row, column by column; nil is NULL.
typealias RowValues = [[UInt8]?]

/// A row of a block that is to be written, and how.
struct PlannedWrite {
  enum Content { case insert, update, delete, none }

  /// The row's number in its block.
  var row: Int
  var content: Content
  /// Values other than the block's: a function's answer.
  var values: RowValues?
  var isAlive: Bool
  var dot: Dot
  var stamp: Int64
  /// nil: the dot alone.
  var vector: VersionVector?
  var contributions: [RowContribution] = []
  var columnVersions: [ColumnVersion] = []
  /// A version row exists already.
  var hasVersion: Bool
  /// This row came from head as it stands: a branch need not send it.
  var echo: Bool
}

/// A conflict that was decided, and the rows as they were.
struct DecidedRow {
  var row: Int
  var conflict: DecidedConflict<RowValues>
  /// The decision's own write.
  var dot: Dot
  /// nil: deleted.
  var local: RowValues?
  var incoming: RowValues?
  /// What a function answered of its own.
  var answer: RowValues?
}

/// What reading the local copies of a block's rows and merging came to.
struct BlockPlan {
  var writes: [PlannedWrite] = []
  /// Rows that a branch holds: published again, as they are.
  var held: [Int] = []
  var decided: [DecidedRow] = []
  /// Rows that the table's function could not settle.
  var refused: [(row: Int, refusal: Refusal)] = []
  var restamped = 0
  /// Tombstones of a branch's own that head has sent back: it may let go of them when head has.
  var confirmed: [Int] = []

  /// All of it is here already.
  var isNothing: Bool { writes.isEmpty && held.isEmpty && refused.isEmpty }
}

/// The statements by which one table's rows are locked, read and written. Lock order: user rows, then version
/// rows, as applications take them.
struct TableApplier {
  let session: Session
  let table: TableInfo
  let block: RowBlock
  /// Columns that both the block and the table have, and where in the block they are.
  let shared: [(column: TableInfo.Column, at: Int)]

  private let refusesMissing: Bool

  /// Rows may be deleted and inserted again: the block has every column, none would fall back to its default.
  var canReplace: Bool { shared.count == table.columns.count }

  /// - Parameter refusesMissing: a row that does not get written, without an error, is refused instead of tried
  ///   again.
  init(session: Session, table: TableInfo, block: RowBlock, refusesMissing: Bool) throws(PostgresError) {
    self.session = session
    self.refusesMissing = refusesMissing
    self.table = table
    self.block = block
    var shared: [(TableInfo.Column, Int)] = []
    for (at, name) in block.columnNames.enumerated() {
      if let column = table.columns.first(where: { $0.name == name }) {
        shared.append((column, at))
      } else if block.columns[at].lengths.contains(where: { $0 >= 0 }) {
        throw PostgresError(
          sqlstate: "42703", message: "column \(name) of table \(table.name) is missing here")
      }
    }
    guard block.keyCount == table.keyCount,
      zip(table.keyColumns, block.columnNames).allSatisfy({ $0.name == $1 })
    else {
      throw PostgresError(sqlstate: "42P10", message: "the key of table \(table.name) differs here")
    }
    self.shared = shared
  }

  private var keyParameters: [SQLValue] { (0..<table.keyCount).map { .column(block.columns[$0]) } }

  /// `unnest($1, …) WITH ORDINALITY AS u(k1, …, i)` over the keys of all rows.
  private var keys: String {
    let parameters = (1...table.keyCount).map { "$\($0)::text[]" }.joined(separator: ", ")
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    return "unnest(\(parameters)) WITH ORDINALITY AS u(\(names), i)"
  }

  private func keyValue(_ index: Int, _ column: TableInfo.Column) -> String {
    "u.k\(index + 1)::\(column.castType)"
  }

  private var userJoin: String { table.keyJoin({ "t.\(quotedName($1.name))" }, keyValue) }
  private var versionJoin: String { table.keyJoin({ index, _ in "v.k\(index + 1)" }, keyValue) }

  /// Locks the rows that exist here; says which do.
  func lockRows() throws(PostgresError) -> [Bool] {
    var exists = [Bool](repeating: false, count: block.count)
    // The weaker lock lets applications go on referring to rows that are only updated.
    let strength = block.alive.contains(false) ? "UPDATE" : "NO KEY UPDATE"
    let rows = try session.patiently(
      SQL(
        unsafe: "SELECT u.i FROM \(keys) JOIN \(table.quoted) t ON \(userJoin) FOR \(strength) OF t",
        keyParameters))
    for i in 0..<rows.count { exists[rows.int(i, 0) - 1] = true }
    return exists
  }

  struct LocalVersion {
    var dot: Dot
    var stamp: Int64
    var vector: VersionVector
    var details: RowDetails
  }

  /// Locks and reads the version rows; a new statement, so that it sees what was committed before the rows' locks
  /// were granted.
  func lockVersions() throws(PostgresError) -> [LocalVersion?] { try versions("FOR UPDATE OF v") }

  /// The version rows as they are, without waiting for anybody.
  func readVersions() throws(PostgresError) -> [LocalVersion?] { try versions("") }

  private func versions(_ lock: String) throws(PostgresError) -> [LocalVersion?] {
    var versions = [LocalVersion?](repeating: nil, count: block.count)
    let rows = try session.patiently(
      SQL(
        unsafe: """
          SELECT u.i, v.actor, v.n, v.stamp, v.vector\(RowDetails.columns(of: table)) FROM \(keys) JOIN \(table.versions) v ON \(versionJoin)
          \(lock)
          """, keyParameters))
    for i in 0..<rows.count {
      let dot = Dot(actor: ActorID(rawValue: rows.int64(i, 1)), n: rows.int64(i, 2))
      versions[rows.int(i, 0) - 1] = LocalVersion(
        dot: dot, stamp: rows.int64(i, 3),
        vector: rows.string(i, 4).map { VersionVector(postgres: $0) } ?? VersionVector(dot),
        details: RowDetails(rows, i, from: 5, table, at: placeInBlock))
    }
    return versions
  }

  /// Where the block has a column of the table.
  private func placeInBlock(_ column: Int) -> Int? { block.columnNames.firstIndex(of: table.columns[column].name) }

  /// The local values of some rows, in the block's columns (NULL where the table has no such column).
  func localValues(of chosen: [Int]) throws(PostgresError) -> [Int: RowValues] {
    let columns = block.columnNames.map { name in
      table.columns.contains { $0.name == name } ? "t.\(quotedName(name))" : "NULL"
    }
    let picked = (0..<table.keyCount).map { SQLValue.column(block.columns[$0].picking(chosen)) }
    let rows = try session.hot(
      SQL(
        unsafe:
          "SELECT \(columns.joined(separator: ", ")), u.i FROM \(keys) JOIN \(table.quoted) t ON \(userJoin)",
        picked))
    var out: [Int: RowValues] = [:]
    for i in 0..<rows.count {
      out[chosen[rows.int(i, columns.count) - 1]] = (0..<columns.count).map {
        rows.bytes(i, $0).map(Array.init)
      }
    }
    return out
  }

  /// What counters were inserted with: what they show less the sum of all that was added. In PostgreSQL's numeric, and
  /// without trailing zeros: equal amounts are equal texts.
  func inserted(_ shown: [[UInt8]], less added: [[[UInt8]]]) throws(PostgresError) -> [[UInt8]] {
    try amounts("trim_scale(u.number - u.sum)", shown, added, added.map { _ in [] })
  }

  /// What counters show: the inserted amount and all that was added, with the decimal places that the copies showed.
  func shown(
    _ inserted: [[UInt8]], plus added: [[[UInt8]]], placesOf copies: [[[UInt8]]]
  ) throws(PostgresError) -> [[UInt8]] {
    let sum = "u.number + u.sum"
    return try amounts("coalesce(round(\(sum), greatest(scale(\(sum)), u.places)), \(sum))", inserted, added, copies)
  }

  private func amounts(
    _ expression: String, _ numbers: [[UInt8]], _ added: [[[UInt8]]], _ copies: [[[UInt8]]]
  ) throws(PostgresError) -> [[UInt8]] {
    guard !numbers.isEmpty else { return [] }
    func column(_ lists: [[[UInt8]]]) -> SQLValue {
      var out = ColumnBytes()
      for list in lists { out.append(Array(list.joined(separator: [UInt8(ascii: " ")]))) }
      return .column(out)
    }
    let rows = try session.hot(
      SQL(
        unsafe: """
          SELECT \(expression) FROM (
            SELECT i, number::numeric,
              coalesce((SELECT sum(e::numeric) FROM unnest(string_to_array(added, ' ')) AS e), 0) AS sum,
              (SELECT max(scale(e::numeric)) FROM unnest(string_to_array(copies, ' ')) AS e) AS places
            FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS n (number, added, copies, i)
          ) AS u ORDER BY u.i
          """, [column(numbers.map { [$0] }), column(added), column(copies)]))
    return (0..<rows.count).map { Array(rows.text($0, 0).utf8) }
  }

  /// The block's values of one row.
  func values(of row: Int) -> RowValues { block.columns.map { $0.value(row) } }

  // MARK: writing

  /// Writes user rows; `replacing`: rows that exist are deleted and inserted, so that values that are unique may
  /// be swapped. Throws `Raced` when a count differs: an application was faster.
  func writeRows(_ writes: [PlannedWrite], replacing: Bool) throws {
    let groups = Dictionary(grouping: writes, by: \.content)
    var inserts = groups[.insert] ?? []
    var updates = groups[.update] ?? []
    var deletes = groups[.delete] ?? []
    let replaced = replacing ? Set(updates.map(\.row)) : try renumbered(updates)
    if !replaced.isEmpty {
      let again = updates.filter { replaced.contains($0.row) }
      deletes += again
      inserts += again
      updates.removeAll { replaced.contains($0.row) }
    }
    if !deletes.isEmpty {
      let deleted = try session.patiently(
        SQL(
          unsafe: "DELETE FROM \(table.quoted) t USING \(keys) WHERE \(userJoin)",
          picked(deletes, keysOnly: true)))
      try expect(deleted.affected, deletes.count)
    }
    if !updates.isEmpty { try update(updates) }
    if !inserts.isEmpty { try insert(inserts) }
    if !table.replicaTriggers.isEmpty { try noteAltered(inserts + updates) }
  }

  /// Rows that exist with another number in a GENERATED ALWAYS identity column, which UPDATE cannot set and INSERT can.
  private func renumbered(_ updates: [PlannedWrite]) throws -> Set<Int> {
    let identities = shared.indices.filter { $0 >= table.keyCount && shared[$0].column.isIdentityAlways }
    guard !updates.isEmpty, !identities.isEmpty, canReplace else { return [] }
    let differs = identities.map {
      "t.\(quotedName(shared[$0].column.name)) IS DISTINCT FROM u.c\($0)::\(shared[$0].column.castType)"
    }
    let rows = try session.hot(
      SQL(
        unsafe: """
          SELECT u.i FROM \(valueSource(numbered: true)) JOIN \(table.quoted) t ON \(valueJoin)
          WHERE \(differs.joined(separator: " OR "))
          """, picked(updates, keysOnly: false)))
    return Set((0..<rows.count).map { updates[rows.int($0, 0) - 1].row })
  }

  private func insert(_ writes: [PlannedWrite]) throws {
    let given = shared.indices.filter { !shared[$0].column.isGenerated }
    let names = given.map { quotedName(shared[$0].column.name) }.joined(separator: ", ")
    let values = given.map { "u.c\($0)::\(shared[$0].column.castType)" }.joined(separator: ", ")
    let key = table.keyColumns.map { quotedName($0.name) }.joined(separator: ", ")
    let inserted = try session.patiently(
      SQL(
        unsafe: """
          INSERT INTO \(table.quoted) (\(names)) OVERRIDING SYSTEM VALUE
          SELECT \(values) FROM \(valueSource()) ON CONFLICT (\(key)) DO NOTHING
          """, picked(writes, keysOnly: false)))
    try expect(inserted.affected, writes.count)
  }

  private func update(_ writes: [PlannedWrite]) throws {
    let settable = shared.indices.filter {
      !shared[$0].column.isIdentityAlways && !shared[$0].column.isGenerated
    }
    guard !settable.isEmpty else { return }
    let set = settable.map {
      "\(quotedName(shared[$0].column.name)) = u.c\($0)::\(shared[$0].column.castType)"
    }
    let updated = try session.patiently(
      SQL(
        unsafe: """
          UPDATE \(table.quoted) t SET \(set.joined(separator: ", ")) FROM \(valueSource()) WHERE \(valueJoin)
          """, picked(writes, keysOnly: false)))
    try expect(updated.affected, writes.count)
  }

  /// `unnest($1, …) AS u(c0, …)` over the shared columns of picked rows; numbered: with their ordinality `i`.
  func valueSource(numbered: Bool = false) -> String {
    let parameters = shared.indices.map { "$\($0 + 1)::text[]" }.joined(separator: ", ")
    let names = shared.indices.map { "c\($0)" }.joined(separator: ", ")
    return numbered
      ? "unnest(\(parameters)) WITH ORDINALITY AS u(\(names), i)" : "unnest(\(parameters)) AS u(\(names))"
  }

  private var valueJoin: String {
    table.keyJoin({ "t.\(quotedName($1.name))" }, { "u.c\($0)::\($1.castType)" })
  }

  func picked(_ writes: [PlannedWrite], keysOnly: Bool) -> [SQLValue] {
    let rows = writes.map(\.row)
    let all = rows.count == block.count && zip(rows, rows.indices).allSatisfy { $0 == $1 }
    let changed = keysOnly ? [] : writes.indices.filter { writes[$0].values != nil }
    return (keysOnly ? Array(0..<table.keyCount) : shared.map(\.at)).map { at in
      guard changed.isEmpty else {
        var column = ColumnBytes()
        for write in writes { column.append(write.values?[at] ?? block.columns[at].value(write.row)) }
        return .column(column)
      }
      return .column(all ? block.columns[at] : block.columns[at].picking(rows))
    }
  }

  /// Writes the version rows. New ones by a plain INSERT: one that is there by now means that an application was
  /// faster.
  func writeVersions(_ writes: [PlannedWrite]) throws {
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    for (exists, group) in [(true, writes.filter(\.hasVersion)), (false, writes.filter { !$0.hasVersion })] {
      guard !group.isEmpty else { continue }
      var parameters = picked(group, keysOnly: true)
      parameters.append(.integers(group.map(\.dot.actor.rawValue)))
      parameters.append(.integers(group.map(\.dot.n)))
      parameters.append(.integers(group.map(\.stamp)))
      parameters.append(.integers(group.map { ($0.isAlive ? 1 : 0) + ($0.echo ? 2 : 0) }))
      var vectors = ColumnBytes()
      for write in group { vectors.append(write.vector.map { Array($0.postgres.utf8) }) }
      parameters.append(.column(vectors))
      let k = table.keyCount
      var details: [(name: String, type: String)] = []
      if !table.counters.isEmpty {
        details.append(("contributions", "numeric[]"))
        parameters.append(.column(ColumnBytes(texts: group.map { RowDetails.text($0.contributions, number(of:)) })))
      }
      if table.isMergedByColumn {
        details.append(("column_versions", "bigint[]"))
        parameters.append(.column(ColumnBytes(texts: group.map { RowDetails.text($0.columnVersions, number(of:)) })))
      }
      let detailNames = details.map { ", \($0.name)" }.joined()
      let detailValues = details.map { ", u.\($0.name)::\($0.type)" }.joined()
      let detailSets = details.map { ", \($0.name) = u.\($0.name)::\($0.type)" }.joined()
      let detailTexts = details.indices.map { ", $\(k + 6 + $0)::text[]" }.joined()
      let source = """
        unnest(\((1...k).map { "$\($0)::text[]" }.joined(separator: ", ")), $\(k + 1)::bigint[], $\(k + 2)::bigint[],
          $\(k + 3)::bigint[], $\(k + 4)::bigint[], $\(k + 5)::text[]\(detailTexts))
          AS u(\(names), actor, n, stamp, flags, vector\(detailNames))
        """
      let keyCasts = table.keyColumns.enumerated().map(keyValue).joined(separator: ", ")
      let statement =
        exists
        ? """
        UPDATE \(table.versions) v SET actor = u.actor, n = u.n, stamp = u.stamp, xid = pg_current_xact_id(),
          alive = u.flags & 1 = 1, echo = u.flags & 2 = 2, vector = u.vector::bigint[]\(detailSets)
        FROM \(source) WHERE \(versionJoin)
        """
        : """
        INSERT INTO \(table.versions) (\(names), actor, n, stamp, xid, alive, echo, vector\(detailNames))
        SELECT \(keyCasts), u.actor, u.n, u.stamp, pg_current_xact_id(), u.flags & 1 = 1, u.flags & 2 = 2,
          u.vector::bigint[]\(detailValues) FROM \(source)
        ON CONFLICT (\(names)) DO NOTHING
        """
      let written = try session.patiently(SQL(unsafe: statement, parameters))
      try expect(written.affected, group.count)
    }
  }

  /// The number in the table of a block's column.
  private func number(of column: Int) -> Int? { table.columns.first { $0.name == block.columnNames[column] }?.number }

  /// A branch publishes a held row again.
  func touchVersions(of rows: [Int]) throws(PostgresError) {
    let picked = (0..<table.keyCount).map { SQLValue.column(block.columns[$0].picking(rows)) }
    try session.patiently(
      SQL(
        unsafe:
          "UPDATE \(table.versions) v SET xid = pg_current_xact_id(), echo = false FROM \(keys) WHERE \(versionJoin)",
        picked))
  }

  /// Head has sent back tombstones of this branch's own: from now on they are known to be head's, too.
  func confirmTombstones(of rows: [Int]) throws(PostgresError) {
    let picked = (0..<table.keyCount).map { SQLValue.column(block.columns[$0].picking(rows)) }
    try session.patiently(
      SQL(
        unsafe: """
          UPDATE \(table.versions) v SET xid = pg_current_xact_id(), echo = true FROM \(keys)
          WHERE \(versionJoin) AND NOT v.alive AND NOT v.echo
          """, picked))
  }

  private func expect(_ count: Int, _ expected: Int) throws {
    guard count != expected else { return }
    guard refusesMissing else { throw Raced(table: table.name) }
    throw PostgresError(
      sqlstate: "HB001",
      message: "a trigger or row security policy of table \(table.name) does not let the row be written")
  }
}

/// An application wrote between hub's look and its write: the batch is tried again. Also what a trigger or policy
/// that swallows rows looks like.
struct Raced: Error {
  var table: String
}

extension ColumnBytes {
  init(texts: [String?]) {
    self.init()
    for text in texts { append(text.map { Array($0.utf8) }) }
  }

  mutating func append(_ value: [UInt8]?) {
    guard let value else {
      lengths.append(-1)
      return
    }
    blob.append(contentsOf: value)
    lengths.append(Int32(truncatingIfNeeded: value.count))
  }

  /// One value; linear in the row's number.
  func value(_ row: Int) -> [UInt8]? {
    guard lengths[row] >= 0 else { return nil }
    let start = lengths[..<row].reduce(0) { $0 + max(0, Int($1)) }
    return Array(blob[start..<start + Int(lengths[row])])
  }

  /// All values, row by row.
  func values() -> [[UInt8]?] {
    var position = 0
    return lengths.map { length in
      guard length >= 0 else { return nil }
      defer { position += Int(length) }
      return Array(blob[position..<position + Int(length)])
    }
  }

  /// The values of some rows; `rows` ascending is fastest but any order is right.
  func picking(_ rows: [Int]) -> ColumnBytes {
    var starts: [Int] = []
    starts.reserveCapacity(lengths.count)
    var position = 0
    for length in lengths {
      starts.append(position)
      position += max(0, Int(length))
    }
    var out = ColumnBytes()
    out.lengths.reserveCapacity(rows.count)
    for row in rows {
      let length = lengths[row]
      out.lengths.append(length)
      if length > 0 { out.blob.append(contentsOf: blob[starts[row]..<starts[row] + Int(length)]) }
    }
    return out
  }
}
