import SyncCore

/// What rows of head looked like before they were deleted, for tables that other tracked tables refer to: a row that
/// has to come back for the sake of a child that another office wrote meanwhile comes back from here.
///
/// A table `hub.i1` beside the version table `hub.v1`, written by triggers of their own, so that tables that nobody
/// refers to pay nothing. The triggers also fire for what hub deletes, and before capture's (by their names): the
/// version kept with an image is the one under which the row last lived. An image is worth something only while the
/// row is dead; one of a row that lives again is overwritten by its next delete.
package enum LastImages {
  /// Rows that only branches write do not go from head to them: they cannot come back.
  static func areKept(_ table: TableInfo) -> Bool {
    table.referencedBy.contains(where: \.isWithinTracked) && table.options.direction != "up"
  }

  static func name(_ table: TableInfo) -> String { "hub.i\(table.id)" }

  /// Head: starts with the tables that are referred to by now, and stops with those that are no more.
  package static func install(_ session: Session, _ tables: [TableInfo]) throws {
    for table in tables {
      let isThere = try session.query("SELECT to_regclass(\(name(table))) IS NOT NULL").bool(0, 0)
      switch (isThere, areKept(table)) {
      case (false, false): break
      case (true, false): try remove(session, table)
      case (false, true): try install(session, table)
      // Its counters may be others by now.
      case (true, true): try defineFunction(session, table)
      }
    }
  }

  private static func install(_ session: Session, _ table: TableInfo) throws {
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    let function = "hub.archive_\(table.id)"
    try session.script(
      """
      CREATE TABLE \(name(table)) AS SELECT \(names), actor, n, stamp, vector FROM \(table.versions) WITH NO DATA;
      ALTER TABLE \(name(table)) ADD columns text[] NOT NULL, ADD image text NOT NULL, ADD contributions numeric[],
        ADD PRIMARY KEY (\(names));
      """)
    try defineFunction(session, table)
    let differs = table.keyColumns.map { "OLD.\(quotedName($0.name)) IS DISTINCT FROM NEW.\(quotedName($0.name))" }
    for (event, clause) in [
      ("DELETE", "AFTER DELETE ON \(table.quoted) REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT"),
      ("TRUNCATE", "BEFORE TRUNCATE ON \(table.quoted) FOR EACH STATEMENT"),
      ("KEY", "AFTER UPDATE ON \(table.quoted) FOR EACH ROW WHEN (\(differs.joined(separator: " OR ")))"),
    ] {
      let trigger = "hub_capture_archive_" + event.lowercased()
      try session.script(
        """
        CREATE TRIGGER \(trigger) \(clause) EXECUTE FUNCTION \(function)();
        ALTER TABLE \(table.quoted) ENABLE ALWAYS TRIGGER \(trigger);
        """)
    }
  }

  /// The same settings under which rows travel: a value's text means what it does there.
  private static func defineFunction(_ session: Session, _ table: TableInfo) throws {
    let function = "hub.archive_\(table.id)"
    try session.script(
      """
      CREATE OR REPLACE FUNCTION \(function)() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
      SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
      SET timezone = 'UTC' SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'
      SET xmloption = 'content' AS \(quotedLiteral(body(table)));
      REVOKE EXECUTE ON FUNCTION \(function)() FROM PUBLIC;
      """)
  }

  /// Leaves no trace of the images; without any there is nothing to do.
  static func remove(_ session: Session, _ table: TableInfo) throws {
    for event in ["delete", "truncate", "key"] {
      try session.script("DROP TRIGGER IF EXISTS hub_capture_archive_\(event) ON \(table.quoted)")
    }
    try session.script(
      "DROP FUNCTION IF EXISTS hub.archive_\(table.id)(); DROP TABLE IF EXISTS \(name(table))")
  }

  /// The row as text, whatever its columns are by now: columns may come and go, and the application's statement must
  /// not fail because of it.
  private static func body(_ table: TableInfo) -> String {
    let names = (1...table.keyCount).map { "k\($0)" }.joined(separator: ", ")
    let keys = (1...table.keyCount).map { "v.k\($0)" }.joined(separator: ", ")
    let join = table.keyJoin({ "s.\(quotedName($1.name))" }, { index, _ in "v.k\(index + 1)" })
    func keep(_ rows: String) -> String {
      """
      INSERT INTO \(name(table)) (\(names), actor, n, stamp, vector, columns, image, contributions)
      SELECT \(keys), v.actor, v.n, v.stamp, v.vector, archive.present, (s.*)::text,
        \(table.counters.isEmpty ? "NULL" : "v.contributions")
      FROM \(rows) AS s JOIN \(table.versions) AS v ON \(join)
      ON CONFLICT (\(names)) DO UPDATE SET actor = EXCLUDED.actor, n = EXCLUDED.n, stamp = EXCLUDED.stamp,
        vector = EXCLUDED.vector, columns = EXCLUDED.columns, image = EXCLUDED.image,
        contributions = EXCLUDED.contributions;
      """
    }
    return """
      <<archive>>
      DECLARE
        present text[] := ARRAY(SELECT attname::text FROM pg_attribute
          WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped ORDER BY attnum);
      BEGIN
        IF TG_OP = 'DELETE' THEN
          \(keep("old_rows"))
        ELSIF TG_OP = 'UPDATE' THEN
          \(keep("(SELECT OLD.*)"))
        ELSE
          \(keep(table.quoted))
        END IF;
        RETURN NULL;
      END
      """
  }
}

/// A row's text as PostgreSQL writes it, `(1,"a ""b""",)`: its values in the order of the columns, nil for NULL.
/// Source: PostgreSQL manual, 8.16.6.
func rowValues(text: some Sequence<UInt8>) -> [[UInt8]?] {
  var values: [[UInt8]?] = []
  var value: [UInt8]?
  var isQuoted = false
  var bytes = text.makeIterator()
  guard bytes.next() == UInt8(ascii: "("), var byte = bytes.next() else { return [] }
  while true {
    var following = bytes.next()
    switch byte {
    case UInt8(ascii: "\""):
      // Two of them inside quotes are one.
      if isQuoted, following == byte {
        value?.append(byte)
        following = bytes.next()
      } else {
        isQuoted.toggle()
        value = value ?? []
      }
    case UInt8(ascii: "\\"):
      if let escaped = following { value = (value ?? []) + [escaped] }
      following = bytes.next()
    case UInt8(ascii: ",") where !isQuoted:
      values.append(value)
      value = nil
    case UInt8(ascii: ")") where !isQuoted:
      return values + [value]
    default:
      value = value ?? []
      value?.append(byte)
    }
    guard let next = following else { return values + [value] }
    byte = next
  }
}
