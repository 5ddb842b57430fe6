import HubEngine
package import SyncCore

/// What tracked tables are made of, as statements that an empty database runs in order.
///
/// The texts are PostgreSQL's own (`pg_get_constraintdef`, `pg_get_indexdef`, `format_type`), under
/// `search_path = pg_catalog`, so that every name in them is qualified. Triggers, row security, privileges,
/// comments and storage stay where they are; functions too, but those that a definition calls are named.
package enum Definitions {
  /// What a statement makes; in the order in which they are run.
  package enum Kind: String, Sendable, CaseIterable {
    case schema, `extension`, collation, type, sequence
    /// No statement: something of the owner's that a definition calls and that must be there already.
    case function
    case table
    case owner, primary, constraint, index, foreign
    /// No statement: what was left out, in words.
    case note
  }

  /// The statements for `tables`, in an order in which they can be run.
  package static func export(_ session: Session, tables: [TableInfo]) throws -> [SchemaStatement] {
    guard !tables.isEmpty else { return [] }
    var found: [SchemaStatement] = []
    let columns = try relations(session, tables, &found)
    try sequences(session, tables, &found)
    try constraints(session, tables, &found)
    try indexes(session, tables, &found)
    var types = TypeDefinitions(session: session)
    try types.add(columns)
    found += types.statements
    try calls(session, tables, domains: types.domains, &found)
    try schemas(session, &found)
    let order = Dictionary(uniqueKeysWithValues: Kind.allCases.enumerated().map { ($1.rawValue, $0) })
    var seen: Set<String> = []
    return found.enumerated()
      .filter { seen.insert("\($0.element.kind) \($0.element.name) \($0.element.statement)").inserted }
      .sorted { (order[$0.element.kind] ?? 0, $0.offset) < (order[$1.element.kind] ?? 0, $1.offset) }
      .map(\.element)
  }

  /// `CREATE TABLE` with columns alone; returns the types of the columns.
  private static func relations(
    _ session: Session, _ tables: [TableInfo], _ found: inout [SchemaStatement]
  ) throws -> [Int64] {
    let rows = try session.query(
      """
      SELECT a.attrelid, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull,
        a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid),
        CASE WHEN a.attcollation <> t.typcollation THEN format('%I.%I', cn.nspname, c.collname) END, c.oid,
        s.seqtypid IS NOT NULL, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
        s.seqrelid::regclass
      FROM pg_attribute a
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      LEFT JOIN pg_collation c ON c.oid = a.attcollation
      LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
      LEFT JOIN pg_depend p ON a.attidentity <> '' AND p.refclassid = 'pg_class'::regclass
        AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum AND p.deptype = 'i'
        AND p.classid = 'pg_class'::regclass
      LEFT JOIN pg_sequence s ON s.seqrelid = p.objid
      WHERE a.attrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[]) AND a.attnum > 0
        AND NOT a.attisdropped
      ORDER BY a.attrelid, a.attnum
      """)
    var columns: [Int64: [String]] = [:]
    var types: [Int64] = []
    for i in 0..<rows.count {
      types.append(rows.int64(i, 3))
      var text = "\(rows.text(i, 1)) \(rows.text(i, 2))"
      if let collation = rows.string(i, 8) {
        text += " COLLATE \(collation)"
        found += try collationDefinition(session, rows.int64(i, 9))
      }
      switch (rows.text(i, 5), rows.text(i, 6)) {
      case ("", ""): if let value = rows.string(i, 7) { text += " DEFAULT \(value)" }
      case ("", _): text += " GENERATED ALWAYS AS (\(rows.text(i, 7))) STORED"
      case (let identity, _):
        text += " GENERATED \(identity == "a" ? "ALWAYS" : "BY DEFAULT") AS IDENTITY"
        if rows.bool(i, 10) {
          text +=
            " (\(sequenceOptions(rows, i, from: 11, start: try start(session, rows.text(i, 17), rows, i, from: 11))))"
        }
      }
      if rows.bool(i, 4) { text += " NOT NULL" }
      columns[rows.int64(i, 0), default: []].append(text)
    }
    for table in tables {
      let list = (columns[table.relationID] ?? []).joined(separator: ", ")
      found.append(
        SchemaStatement(
          kind: Kind.table.rawValue, name: table.quoted, statement: "CREATE TABLE \(table.quoted) (\(list))",
          table: table.name))
    }
    return types
  }

  /// From start, increment, minimum, maximum, cache, cycle in this order of columns.
  /// Where a branch's sequence begins: not before head's, whose rows arrive there only after the table was made.
  private static func start(
    _ session: Session, _ name: String, _ rows: ResultSet, _ row: Int, from column: Int
  ) throws -> Int64 {
    guard rows.int64(row, column + 1) > 0 else { return rows.int64(row, column) }
    let drawn = try session.query(SQL(unsafe: "SELECT last_value FROM \(name)"))
    return max(rows.int64(row, column), drawn.int64(0, 0))
  }

  private static func sequenceOptions(_ rows: ResultSet, _ row: Int, from column: Int, start: Int64) -> String {
    """
    INCREMENT BY \(rows.text(row, column + 1)) MINVALUE \(rows.text(row, column + 2)) \
    MAXVALUE \(rows.text(row, column + 3)) START WITH \(start) \
    CACHE \(rows.text(row, column + 4))\(rows.bool(row, column + 5) ? " CYCLE" : "")
    """
  }

  /// Sequences that defaults take their values from, and those that belong to a column.
  private static func sequences(
    _ session: Session, _ tables: [TableInfo], _ found: inout [SchemaStatement]
  ) throws {
    let rows = try session.query(
      """
      SELECT DISTINCT ON (c.oid) format('%I.%I', n.nspname, c.relname), format_type(s.seqtypid, NULL), s.seqstart,
        s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
        (SELECT format('%I.%I.%I', tn.nspname, t.relname, a.attname) FROM pg_depend o
          JOIN pg_class t ON t.oid = o.refobjid
          JOIN pg_namespace tn ON tn.oid = t.relnamespace
          JOIN pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid
          WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.refclassid = 'pg_class'::regclass
            AND o.deptype = 'a' AND t.oid = ANY (\(.integers(tables.map(\.relationID)))::bigint[]) LIMIT 1)
      FROM (
        SELECT p.refobjid AS id FROM pg_attrdef d
        JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
          AND p.refclassid = 'pg_class'::regclass
        WHERE d.adrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
        UNION
        SELECT p.objid FROM pg_depend p
        WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'a'
          AND p.refobjid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
      ) AS used
      JOIN pg_class c ON c.oid = used.id AND c.relkind = 'S'
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_sequence s ON s.seqrelid = c.oid
      ORDER BY c.oid
      """)
    for i in 0..<rows.count {
      let name = rows.text(i, 0)
      found.append(
        SchemaStatement(
          kind: Kind.sequence.rawValue, name: name,
          statement: "CREATE SEQUENCE \(name) AS \(rows.text(i, 1)) "
            + sequenceOptions(rows, i, from: 2, start: try start(session, name, rows, i, from: 2)),
          table: ""))
      if let owner = rows.string(i, 8) {
        found.append(
          SchemaStatement(
            kind: Kind.owner.rawValue, name: name, statement: "ALTER SEQUENCE \(name) OWNED BY \(owner)",
            table: ""))
      }
    }
  }

  private static func constraints(
    _ session: Session, _ tables: [TableInfo], _ found: inout [SchemaStatement]
  ) throws {
    let rows = try session.query(
      """
      SELECT c.conrelid, c.contype, quote_ident(c.conname), pg_get_constraintdef(c.oid), c.confrelid::regclass,
        c.contype = 'f' AND NOT c.confrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[]), c.conname
      FROM pg_constraint c
      WHERE c.conrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
        AND c.contype IN ('p', 'u', 'x', 'c', 'f') AND c.conparentid = 0
      ORDER BY array_position('{p,u,x,c,f}'::"char"[], c.contype), c.conname
      """)
    for i in 0..<rows.count {
      guard let table = tables.first(where: { $0.relationID == rows.int64(i, 0) }) else { continue }
      if rows.bool(i, 5) {
        found.append(
          note(
            "foreign key \(rows.text(i, 6)) of \(table.name) is left out: \(rows.text(i, 4)) is not tracked",
            table.name))
        continue
      }
      let kind: Kind =
        switch rows.text(i, 1) {
        case "p": .primary
        case "f": .foreign
        default: .constraint
        }
      found.append(
        SchemaStatement(
          kind: kind.rawValue, name: "\(table.quoted).\(rows.text(i, 2))",
          statement: "ALTER TABLE \(table.quoted) ADD CONSTRAINT \(rows.text(i, 2)) \(rows.text(i, 3))",
          table: table.name))
    }
  }

  private static func indexes(
    _ session: Session, _ tables: [TableInfo], _ found: inout [SchemaStatement]
  ) throws {
    let rows = try session.query(
      """
      SELECT i.indrelid, format('%I.%I', n.nspname, c.relname), pg_get_indexdef(i.indexrelid), i.indisvalid
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE i.indrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
      ORDER BY i.indrelid, c.relname
      """)
    for i in 0..<rows.count {
      guard let table = tables.first(where: { $0.relationID == rows.int64(i, 0) }) else { continue }
      guard rows.bool(i, 3) else {
        found.append(note("index \(rows.text(i, 1)) is left out: it is not valid", table.name))
        continue
      }
      found.append(
        SchemaStatement(
          kind: Kind.index.rawValue, name: rows.text(i, 1), statement: rows.text(i, 2), table: table.name))
    }
  }

  /// Functions, operator classes and operators that definitions use: the extension that owns them, or their name.
  private static func calls(
    _ session: Session, _ tables: [TableInfo], domains: [Int64], _ found: inout [SchemaStatement]
  ) throws {
    let relations = SQLValue.integers(tables.map(\.relationID))
    let rows = try session.query(
      """
      WITH users AS (
        SELECT 'pg_attrdef'::regclass AS class, oid AS id FROM pg_attrdef WHERE adrelid = ANY (\(relations)::bigint[])
        UNION ALL
        SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
        WHERE conrelid = ANY (\(relations)::bigint[]) OR contypid = ANY (\(.integers(domains))::bigint[])
        UNION ALL
        SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = ANY (\(relations)::bigint[])
        UNION ALL
        SELECT 'pg_type'::regclass, unnest(\(.integers(domains))::bigint[])::oid
      )
      SELECT DISTINCT quote_ident(e.extname), quote_ident(n.nspname), d.refclassid = 'pg_proc'::regclass,
        CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid::regprocedure::text END,
        pg_describe_object(d.refclassid, d.refobjid, 0)
      FROM users u
      JOIN pg_depend d ON d.classid = u.class AND d.objid = u.id AND d.deptype = 'n'
        AND d.refclassid IN ('pg_proc'::regclass, 'pg_opclass'::regclass, 'pg_operator'::regclass)
      LEFT JOIN pg_depend x ON x.classid = d.refclassid AND x.objid = d.refobjid AND x.deptype = 'e'
        AND x.refclassid = 'pg_extension'::regclass
      LEFT JOIN pg_extension e ON e.oid = x.refobjid
      LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
      ORDER BY 1, 4, 5
      """)
    for i in 0..<rows.count {
      if let name = rows.string(i, 0) {
        found.append(extensionStatement(name, schema: rows.text(i, 1)))
      } else if let function = rows.string(i, 3) {
        found.append(
          SchemaStatement(kind: Kind.function.rawValue, name: function, statement: "", table: ""))
      } else {
        found.append(note("\(rows.text(i, 4)) is used and not copied: create it at the branch first", ""))
      }
    }
  }

  static func extensionStatement(_ name: String, schema: String) -> SchemaStatement {
    SchemaStatement(
      kind: Kind.extension.rawValue, name: name,
      statement: "CREATE EXTENSION IF NOT EXISTS \(name) WITH SCHEMA \(schema)", table: "")
  }

  static func note(_ text: String, _ table: String) -> SchemaStatement {
    SchemaStatement(kind: Kind.note.rawValue, name: text, statement: "", table: table)
  }

  /// The schemas of everything found, and of the extensions.
  private static func schemas(_ session: Session, _ found: inout [SchemaStatement]) throws {
    let qualified: [Kind] = [.table, .sequence, .type, .collation]
    var names = found.filter { one in qualified.contains { $0.rawValue == one.kind } }.map(\.name)
    let extensions = found.filter { $0.kind == Kind.extension.rawValue }
    names += extensions.compactMap { $0.statement.split(separator: " WITH SCHEMA ").last.map { "\($0).x" } }
    var schemas: Set<String> = []
    for name in names {
      let first = try session.query("SELECT quote_ident((parse_ident(\(name)))[1])").text(0, 0)
      if first != "pg_catalog" { schemas.insert(first) }
    }
    found += schemas.sorted().map {
      SchemaStatement(kind: Kind.schema.rawValue, name: $0, statement: "CREATE SCHEMA \($0)", table: "")
    }
  }
}
