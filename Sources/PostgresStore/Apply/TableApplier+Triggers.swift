import HubEngine

extension TableApplier {
  /// Compares rows just written with what was sent: a trigger that fires on replicas may have changed them, and then the
  /// offices differ under equal versions. It is the user's to mend; hub says so in `hub doctor`.
  func noteAltered(_ writes: [PlannedWrite]) throws(PostgresError) {
    let compared = shared.indices.filter { !shared[$0].column.isGenerated }
    guard !writes.isEmpty, compared.count > table.keyCount else { return }
    let differs = compared.map { at in
      let column = shared[at].column
      let name = quotedLiteral(column.name)
      let sent = "u.c\(at)::\(column.castType)"
      return
        "CASE WHEN t.\(quotedName(column.name))::text IS DISTINCT FROM (\(sent))::text THEN \(name) END"
    }
    let key = table.keyColumns.map { "\(quotedLiteral($0.name)), t.\(quotedName($0.name))::text" }
    let join = table.keyJoin({ "t.\(quotedName($1.name))" }, { "u.c\($0)::\($1.castType)" })
    try session.hot(
      SQL(
        unsafe: """
          INSERT INTO hub.altered_row (table_name, key, columns, rows)
          SELECT \(quotedLiteral(table.name)), jsonb_build_object(\(key.joined(separator: ", "))), d.columns, count(*) OVER ()
          FROM \(valueSource()) JOIN \(table.quoted) t ON \(join)
          CROSS JOIN LATERAL (SELECT concat_ws(', ', \(differs.joined(separator: ", ")))) AS d (columns)
          WHERE d.columns <> '' LIMIT 1
          ON CONFLICT (table_name) DO UPDATE SET key = EXCLUDED.key, columns = EXCLUDED.columns,
            rows = hub.altered_row.rows + EXCLUDED.rows, at = now()
          """, picked(writes, keysOnly: false)))
  }
}
