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

  /// Plans that look at version rows by their key, whatever a session planned first: a bulk update's plan is kept, and
  /// would read the whole version table for the single row that is updated next. Compiling such a plan would cost each
  /// of those statements 0.3 s.
  static let plans = "SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET jit = off"

  /// Rows that live under the key that they had. Of several images of a row in one statement the differences add up to
  /// the last less the first, and each image is compared with the one before it. `*<>` compares images: it takes every
  /// type, and 1.0 and 1.00 differ. An update that changed nothing is no write.
  static func comparing(_ table: TableInfo, _ office: String) -> String {
    let counters = table.counters
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    let versions = table.keyJoin({ index, _ in "v.k\(index + 1)" }, { index, _ in "u.k\(index + 1)" })
    let amounts = counters.indices.map { "d\($0 + 1)" }
    let images = images(table)
    func rows(_ alias: String, _ isNew: Bool) -> String {
      let keys = table.keyColumns.enumerated().map { "\(alias).\(quotedName($1.name)) AS k\($0 + 1)" }
      let values = zip(counters, amounts).map {
        "\(isNew ? "" : "-")coalesce(\(alias).\(quotedName($0.name)), 0)::numeric AS \($1)"
      }
      let records = images.map { image in
        "ROW(\(image.columns.map { "\(alias).\(quotedName($0.name))" }.joined(separator: ", ")))::record AS \(image.name)"
      }
      let list = (keys + ["\(isNew) AS is_new"] + values + records).joined(separator: ", ")
      return "SELECT \(list) FROM \(isNew ? "new_rows" : "old_rows") \(alias)"
    }
    let differences = images.map { ", \($0.name) OPERATOR(pg_catalog.*<>) lag(\($0.name)) OVER w AS \($0.name)" }
    let sums = amounts.map { ", sum(\($0)) AS \($0)" }.joined()
    let isAdded = amounts.map { " OR d.\($0) <> 0" }.joined()
    let contributions =
      counters.isEmpty
      ? ""
      : """
      , contributions = hub.contributions_with(v.contributions, u.own, u.n,
          ARRAY[\(counters.map { String($0.number) }.joined(separator: ", "))],
          ARRAY[\(amounts.map { "u." + $0 }.joined(separator: ", "))])
      """
    return """
      UPDATE \(table.versions) AS v SET \(registers(table)), xid = u.xact, echo = false\(contributions)
      FROM (
        SELECT d.*, c.own, c.clock, c.xact, nextval('hub.dot') AS n FROM (
          SELECT \(names)\(sums), \(changes(table)) AS changed FROM (
            SELECT \(names), is_new\(amounts.map { ", " + $0 }.joined())\(differences.joined()) FROM (
              \(rows("o", false)) UNION ALL \(rows("s", true))
            ) AS e WINDOW w AS (PARTITION BY \(names) ORDER BY is_new)
          ) AS f GROUP BY \(names) HAVING bool_or(is_new) AND NOT bool_and(is_new)
        ) AS d, \(office)
        WHERE \(table.isMergedByColumn ? "d.changed <> '{}'" : "d.changed")\(isAdded) OFFSET 0
      ) AS u
      WHERE v.alive AND \(versions);
      """
  }

  /// Rows that `comparing` leaves: moved to a key that had no live row.
  static func unknown(_ table: TableInfo) -> String {
    let join = table.keyJoin({ index, _ in "w.k\(index + 1)" }, { "s.\(quotedName($1.name))" })
    return " WHERE NOT EXISTS (SELECT FROM \(table.versions) w WHERE w.alive AND \(join))"
  }

  /// What is compared as one thing: all columns that are no counters, or each.
  private static func images(_ table: TableInfo) -> [(name: String, columns: [TableInfo.Column])] {
    let columns = table.registers
    if table.isMergedByColumn { return columns.map { ("r\($0.number)", [$0]) } }
    return columns.isEmpty ? [] : [("r0", columns)]
  }

  /// Whether a column that is no counter changed; merged by column: the numbers of those that did.
  private static func changes(_ table: TableInfo) -> String {
    guard table.isMergedByColumn else { return table.registers.isEmpty ? "false" : "coalesce(bool_or(r0), false)" }
    let numbers = table.registers.map { "CASE WHEN bool_or(r\($0.number)) THEN \($0.number) END" }
    return "array_remove(ARRAY[\(numbers.joined(separator: ", "))]::bigint[], NULL)"
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
