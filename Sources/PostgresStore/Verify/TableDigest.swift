import SyncCore

/// The statements that hash one table's rows, so that equal rows have equal hashes in every office.
///
/// A row's text is that of a record of its columns by name: each value by its type's output function under the pinned
/// settings, NULL apart from the empty text. Its hash is PostgreSQL's `hashtextextended` under collation "C", the same
/// in all versions since 11; head and branch compare the hash of a fixed text before they rely on it. Buckets are the
/// first bits of the key's hash, never ranges: the order of texts is another one on every system.
struct TableDigest {
  let table: TableInfo
  let columns: [TableInfo.Column]
  let comparesVersions: Bool
  /// Rows of these alone.
  let actors: [Int64]?

  /// nil: the table has not all of these columns.
  init?(_ table: TableInfo, _ scope: VerifyScope) {
    self.table = table
    let known = Dictionary(uniqueKeysWithValues: table.columns.map { ($0.name, $0) })
    columns = scope.columns.compactMap { known[$0] }
    guard columns.count == scope.columns.count else { return nil }
    comparesVersions = scope.comparesVersions
    actors = scope.actors
  }

  static func hash(_ text: String) -> String { "hashtextextended(\(text) COLLATE \"C\", 0)" }

  private static func record(_ columns: some Sequence<TableInfo.Column>, _ alias: String) -> String {
    "(ROW(\(columns.map { "\(alias).\(quotedName($0.name))" }.joined(separator: ", ")))::text)"
  }

  /// Of a row `t`.
  var content: String { Self.record(columns, "t") }

  /// The version vector of a row `v` in the order of the actors: as it is stored its order is that of the writes.
  static let vector = """
    CASE WHEN v.actor IS NULL THEN '' WHEN v.vector IS NULL THEN v.actor || ',' || v.n
      WHEN cardinality(v.vector) = 2 THEN v.vector[1] || ',' || v.vector[2]
      WHEN cardinality(v.vector) = 4 AND v.vector[1] < v.vector[3] THEN
        v.vector[1] || ',' || v.vector[2] || ',' || v.vector[3] || ',' || v.vector[4]
      WHEN cardinality(v.vector) = 4 THEN
        v.vector[3] || ',' || v.vector[4] || ',' || v.vector[1] || ',' || v.vector[2]
      ELSE (SELECT string_agg(v.vector[i] || ',' || v.vector[i + 1], ',' ORDER BY v.vector[i])
        FROM generate_series(1, cardinality(v.vector), 2) AS i) END
    """

  /// Rows with `place`, the hash of the key, and `text`, what is hashed; `extra` of `t` besides.
  private func rows(_ extra: String = "") -> String {
    let text = comparesVersions ? "\(content) || \(Self.vector)" : content
    let join = table.keyJoin({ "t.\(quotedName($1.name))" }, { index, _ in "v.k\(index + 1)" })
    let from: String
    if actors != nil {
      from = """
        \(table.versions) v JOIN \(table.quoted) t ON \(join)
        WHERE v.actor = ANY ($2::bigint[]) OR v.vector && $2::bigint[]
        """
    } else if comparesVersions {
      // The version of a row that is gone does not speak of one that came without capture.
      from = "\(table.quoted) t LEFT JOIN \(table.versions) v ON \(join) AND v.alive"
    } else {
      from = "\(table.quoted) t"
    }
    return "SELECT \(Self.hash(Self.record(table.keyColumns, "t"))) AS place, \(text) AS text\(extra) FROM \(from)"
  }

  /// The first `bits` bits of `place`, as a number that is not negative.
  private static func bucket(_ bits: Int) -> String {
    bits == 0 ? "0::bigint" : "((place >> \(64 - bits)) & \((Int64(1) << Int64(bits)) - 1))"
  }

  private func parameters(_ set: BucketSet) -> [SQLValue] {
    [.integers(set.buckets)] + (actors.map { [.integers($0)] } ?? [])
  }

  private static func isAsked(_ set: BucketSet) -> String {
    set.bits == 0 ? "$1::bigint[] IS NOT NULL" : "\(bucket(set.bits)) = ANY ($1::bigint[])"
  }

  func digests(_ set: BucketSet) -> SQL {
    SQL(
      unsafe: """
        SELECT \(Self.bucket(set.bits + set.step)), count(*), bit_xor(\(Self.hash("text")))
        FROM (\(rows())) AS r WHERE \(Self.isAsked(set)) GROUP BY 1
        """, parameters(set))
  }

  /// One more than an answer may hold.
  func keys(_ set: BucketSet) -> SQL {
    let keys = table.keyColumns.enumerated().map { ", t.\(quotedName($1.name)) AS key\($0 + 1)" }.joined()
    let names = (1...table.keyCount).map { "key\($0)" }.joined(separator: ", ")
    return SQL(
      unsafe: """
        SELECT \(names), \(Self.hash("text")) FROM (\(rows(keys))) AS r WHERE \(Self.isAsked(set))
        LIMIT \(Limits.verifyKeysMax + 1)
        """, parameters(set))
  }

  func looks(_ keys: [RowKey]) -> SQL {
    let user = table.keyJoin({ "t.\(quotedName($1.name))" }, { "u.k\($0 + 1)::\($1.castType)" })
    let version = table.keyJoin({ index, _ in "v.k\(index + 1)" }, { "u.k\($0 + 1)::\($1.castType)" })
    let parameters = (1...table.keyCount).map { "$\($0)::text[]" }.joined(separator: ", ")
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    let key = table.keyColumns.enumerated().map { "\(quotedLiteral($1.name)), u.k\($0 + 1)" }.joined(separator: ", ")
    return SQL(
      unsafe: """
        SELECT u.i, t.tableoid IS NOT NULL, v.actor, v.n, v.vector, v.alive,
          CASE WHEN t.tableoid IS NULL THEN 0 ELSE \(Self.hash(content)) END,
          EXISTS (SELECT FROM hub.quarantine q WHERE q.table_name = \(quotedLiteral(table.name))
            AND q.key = jsonb_build_object(\(key)))
        FROM unnest(\(parameters)) WITH ORDINALITY AS u(\(names), i)
        LEFT JOIN \(table.quoted) t ON \(user) LEFT JOIN \(table.versions) v ON \(version)
        """, keys.columns(table.keyCount))
  }
}

extension [RowKey] {
  /// A column of the key each.
  func columns(_ count: Int) -> [SQLValue] { (0..<count).map { .column(column($0)) } }

  func column(_ index: Int) -> ColumnBytes {
    var column = ColumnBytes()
    for key in self { column.append(key.values[index]) }
    return column
  }
}
