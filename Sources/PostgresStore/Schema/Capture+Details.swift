/// What an UPDATE of a table with counters, or merged by column, leaves in the version rows: not that the row was
/// written, but what was: which counters by how much, which columns. Other tables pay nothing for it.
extension Capture {
  /// The version table's columns for it. NULL in the rows where nothing was added and no column written on its own.
  static func addDetails(_ session: Session, _ table: TableInfo) throws {
    if !table.counters.isEmpty {
      try session.script("ALTER TABLE \(table.versions) ADD COLUMN IF NOT EXISTS contributions numeric[]")
    }
    if table.isMergedByColumn {
      try session.script("ALTER TABLE \(table.versions) ADD COLUMN IF NOT EXISTS column_versions bigint[]")
    }
  }

  /// Rows that live under the key that they had. Of several images of a row in one statement the differences add up to
  /// the last less the first. `*<>` compares images: it takes every type, and 1.0 and 1.00 differ. An update that
  /// changed nothing is no write.
  static func comparing(_ table: TableInfo, _ office: String) -> String {
    let counters = table.counters
    let keys = table.keyColumns.enumerated().map { "s.\(quotedName($1.name)) AS k\($0 + 1)" }.joined(separator: ", ")
    let old = table.keyColumns.map { "o.\(quotedName($0.name))" }.joined(separator: ", ")
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    let pairs = table.keyJoin({ "o.\(quotedName($1.name))" }, { "s.\(quotedName($1.name))" })
    let here = table.keyJoin({ index, _ in "p.k\(index + 1)" }, { index, _ in "d.k\(index + 1)" })
    let versions = table.keyJoin({ index, _ in "v.k\(index + 1)" }, { index, _ in "u.k\(index + 1)" })
    func amounts(_ alias: String, _ sign: String) -> String {
      counters.enumerated()
        .map { ", \(sign)coalesce(\(alias).\(quotedName($1.name)), 0)::numeric AS d\($0 + 1)" }.joined()
    }
    let sums = counters.indices.map { ", sum(d\($0 + 1)) AS d\($0 + 1)" }.joined()
    let added = counters.indices.map { "u.d\($0 + 1)" }.joined(separator: ", ")
    let isAdded = counters.indices.map { " OR d.d\($0 + 1) <> 0" }.joined()
    let differences =
      counters.isEmpty
      ? ""
      : """
      JOIN (SELECT \(names)\(sums) FROM (
          SELECT \(keys)\(amounts("s", "")) FROM new_rows s UNION ALL SELECT \(old)\(amounts("o", "-")) FROM old_rows o
        ) AS e GROUP BY \(names)) AS d ON \(here)
      """
    let contributions =
      counters.isEmpty
      ? ""
      : """
      , contributions = hub.contributions_with(v.contributions, u.own, u.n,
          ARRAY[\(counters.map { String($0.number) }.joined(separator: ", "))], ARRAY[\(added)])
      """
    let columns = counters.indices.map { ", d.d\($0 + 1)" }.joined()
    return """
      UPDATE \(table.versions) AS v SET \(registers(table)), xid = u.xact, echo = false\(contributions)
      FROM (
        SELECT p.*\(columns), c.own, c.clock, c.xact, nextval('hub.dot') AS n FROM (
          SELECT \(keys), \(changes(table)) AS changed FROM new_rows s JOIN old_rows o ON \(pairs)
          GROUP BY \((1...table.keyCount).map(String.init).joined(separator: ", "))
        ) AS p \(differences), \(office)
        WHERE \(table.isMergedByColumn ? "p.changed <> '{}'" : "p.changed")\(isAdded) OFFSET 0
      ) AS u
      WHERE v.alive AND \(versions);
      """
  }

  /// Rows that `comparing` leaves: moved to a key that had no live row.
  static func unknown(_ table: TableInfo) -> String {
    let join = table.keyJoin({ index, _ in "w.k\(index + 1)" }, { "s.\(quotedName($1.name))" })
    return " WHERE NOT EXISTS (SELECT FROM \(table.versions) w WHERE w.alive AND \(join))"
  }

  /// Whether a column that is no counter changed; merged by column: the numbers of those that did.
  private static func changes(_ table: TableInfo) -> String {
    func differ(_ columns: [TableInfo.Column]) -> String {
      let (old, new) = ("o", "s")
      func row(_ alias: String) -> String {
        "ROW(" + columns.map { "\(alias).\(quotedName($0.name))" }.joined(separator: ", ") + ")::record"
      }
      return "bool_or(\(row(old)) OPERATOR(pg_catalog.*<>) \(row(new)))"
    }
    let columns = table.registers
    guard table.isMergedByColumn else { return columns.isEmpty ? "false" : differ(columns) }
    let numbers = columns.map { "CASE WHEN \(differ([$0])) THEN \($0.number) END" }.joined(separator: ", ")
    return "array_remove(ARRAY[\(numbers)]::bigint[], NULL)"
  }

  /// A counter's increment does not move the row's own register, so that it meets no other write in conflict.
  private static func registers(_ table: TableInfo) -> String {
    let vector = "hub.vector_with(v.vector, v.actor, v.n, u.own, u.n)"
    guard !table.isMergedByColumn else {
      return """
        vector = \(vector), column_versions = hub.column_versions_with(
          v.column_versions, u.own, u.n, greatest(u.clock, v.stamp + 1), u.changed)
        """
    }
    return """
      vector = CASE WHEN u.changed AND v.actor = u.own AND v.vector IS NULL THEN NULL ELSE \(vector) END,
        actor = CASE WHEN u.changed THEN u.own ELSE v.actor END, n = CASE WHEN u.changed THEN u.n ELSE v.n END,
        stamp = CASE WHEN u.changed THEN greatest(u.clock, v.stamp + 1) ELSE v.stamp END
      """
  }
}
