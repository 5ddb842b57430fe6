import HubEngine
import SyncCore

extension Definitions {
  /// A collation that a column, domain or type names; nothing for the system's own.
  static func collationDefinition(_ session: Session, _ id: Int64) throws -> [SchemaStatement] {
    let rows = try session.query(
      """
      SELECT format('%I.%I', n.nspname, c.collname), c.collprovider, c.collcollate, c.collctype,
        coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'), c.collisdeterministic
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
      WHERE c.oid = \(id)::oid AND n.nspname <> 'pg_catalog'
      """)
    guard rows.count == 1 else { return [] }
    let locale =
      switch rows.text(0, 1) {
      case "i": "provider = icu, locale = \(quotedLiteral(rows.string(0, 4) ?? rows.text(0, 2)))"
      case "b": "provider = builtin, locale = \(quotedLiteral(rows.text(0, 4)))"
      default:
        "provider = libc, lc_collate = \(quotedLiteral(rows.text(0, 2))), lc_ctype = \(quotedLiteral(rows.text(0, 3)))"
      }
    return [
      SchemaStatement(
        kind: Kind.collation.rawValue, name: rows.text(0, 0),
        statement:
          "CREATE COLLATION \(rows.text(0, 0)) (\(locale)\(rows.bool(0, 5) ? "" : ", deterministic = false"))",
        table: "")
    ]
  }
}

/// The user's own types that columns need, each after those that it is made of.
struct TypeDefinitions {
  let session: Session
  private(set) var statements: [SchemaStatement] = []
  /// Domains met: their checks and defaults may call functions.
  private(set) var domains: [Int64] = []
  private var seen: Set<Int64> = []

  init(session: Session) { self.session = session }

  mutating func add(_ types: [Int64]) throws {
    for type in types { try add(type) }
  }

  private mutating func add(_ id: Int64) throws {
    guard seen.insert(id).inserted else { return }
    let rows = try session.query(
      """
      SELECT t.typtype, t.typelem, t.typbasetype, format('%I.%I', n.nspname, t.typname), t.typrelid,
        quote_ident(e.extname), quote_ident(en.nspname), n.nspname = 'pg_catalog', t.typcategory = 'A', c.relkind
      FROM pg_type t
      JOIN pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_class c ON c.oid = t.typrelid
      LEFT JOIN pg_depend x ON x.classid = 'pg_type'::regclass AND x.objid = t.oid AND x.deptype = 'e'
        AND x.refclassid = 'pg_extension'::regclass
      LEFT JOIN pg_extension e ON e.oid = x.refobjid
      LEFT JOIN pg_namespace en ON en.oid = e.extnamespace
      WHERE t.oid = \(id)::oid
      """)
    guard rows.count == 1 else { return }
    if let name = rows.string(0, 5) {
      return statements.append(Definitions.extensionStatement(name, schema: rows.text(0, 6)))
    }
    if rows.bool(0, 8), rows.int64(0, 1) != 0 { return try add(rows.int64(0, 1)) }
    if rows.bool(0, 7) { return }
    let name = rows.text(0, 3)
    switch rows.text(0, 0) {
    case "e": try addEnum(id, name)
    case "d":
      try add(rows.int64(0, 2))
      try addDomain(id, name)
    case "c" where rows.text(0, 9) == "c": try addComposite(rows.int64(0, 4), name)
    case "r": try addRange(id, name)
    case "m":
      try add(try session.query("SELECT rngtypid FROM pg_range WHERE rngmultitypid = \(id)::oid").int64(0, 0))
    default:
      statements.append(
        Definitions.note("type \(name) is used and not copied: create it at the branch first", ""))
    }
  }

  private mutating func append(_ name: String, _ statement: String) {
    statements.append(
      SchemaStatement(kind: Definitions.Kind.type.rawValue, name: name, statement: statement, table: ""))
  }

  private mutating func addEnum(_ id: Int64, _ name: String) throws {
    let labels = try session.query(
      "SELECT enumlabel FROM pg_enum WHERE enumtypid = \(id)::oid ORDER BY enumsortorder")
    let list = (0..<labels.count).map { quotedLiteral(labels.text($0, 0)) }.joined(separator: ", ")
    append(name, "CREATE TYPE \(name) AS ENUM (\(list))")
  }

  private mutating func addDomain(_ id: Int64, _ name: String) throws {
    let rows = try session.query(
      """
      SELECT format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
        CASE WHEN t.typcollation <> b.typcollation THEN format('%I.%I', cn.nspname, c.collname) END, c.oid,
        pg_get_expr(t.typdefaultbin, 0)
      FROM pg_type t
      JOIN pg_type b ON b.oid = t.typbasetype
      LEFT JOIN pg_collation c ON c.oid = t.typcollation
      LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
      WHERE t.oid = \(id)::oid
      """)
    var text = "CREATE DOMAIN \(name) AS \(rows.text(0, 0))"
    if let collation = rows.string(0, 3) {
      statements += try Definitions.collationDefinition(session, rows.int64(0, 4))
      text += " COLLATE \(collation)"
    }
    if let value = rows.string(0, 5) { text += " DEFAULT \(value)" }
    if rows.bool(0, 1) { text += " NOT NULL" }
    let checks = try session.query(
      """
      SELECT quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
      WHERE contypid = \(id)::oid AND contype = 'c' ORDER BY conname
      """)
    for i in 0..<checks.count {
      let check = checks.text(i, 1)
      // CREATE DOMAIN knows no NOT VALID: a new domain has no values yet.
      let body = check.hasSuffix(" NOT VALID") ? String(check.dropLast(" NOT VALID".count)) : check
      text += " CONSTRAINT \(checks.text(i, 0)) \(body)"
    }
    domains.append(id)
    append(name, text)
  }

  private mutating func addComposite(_ relation: Int64, _ name: String) throws {
    let rows = try session.query(
      """
      SELECT quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.atttypid,
        CASE WHEN a.attcollation <> t.typcollation THEN format('%I.%I', cn.nspname, c.collname) END, c.oid
      FROM pg_attribute a
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_collation c ON c.oid = a.attcollation
      LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
      WHERE a.attrelid = \(relation)::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
      """)
    var fields: [String] = []
    for i in 0..<rows.count {
      try add(rows.int64(i, 2))
      var field = "\(rows.text(i, 0)) \(rows.text(i, 1))"
      if let collation = rows.string(i, 3) {
        statements += try Definitions.collationDefinition(session, rows.int64(i, 4))
        field += " COLLATE \(collation)"
      }
      fields.append(field)
    }
    append(name, "CREATE TYPE \(name) AS (\(fields.joined(separator: ", ")))")
  }

  private mutating func addRange(_ id: Int64, _ name: String) throws {
    let rows = try session.query(
      """
      SELECT format_type(r.rngsubtype, NULL), r.rngsubtype, format('%I.%I', on_.nspname, o.opcname),
        CASE WHEN r.rngcollation <> s.typcollation THEN format('%I.%I', cn.nspname, c.collname) END, c.oid,
        CASE WHEN r.rngsubdiff <> 0 THEN (SELECT format('%I.%I', pn.nspname, p.proname) FROM pg_proc p
          JOIN pg_namespace pn ON pn.oid = p.pronamespace WHERE p.oid = r.rngsubdiff) END,
        r.rngcanonical <> 0, format('%I.%I', mn.nspname, m.typname), r.rngsubdiff::regprocedure,
        r.rngsubdiff >= 16384
      FROM pg_range r
      JOIN pg_type s ON s.oid = r.rngsubtype
      JOIN pg_opclass o ON o.oid = r.rngsubopc
      JOIN pg_namespace on_ ON on_.oid = o.opcnamespace
      JOIN pg_type m ON m.oid = r.rngmultitypid
      JOIN pg_namespace mn ON mn.oid = m.typnamespace
      LEFT JOIN pg_collation c ON c.oid = r.rngcollation
      LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
      WHERE r.rngtypid = \(id)::oid
      """)
    guard !rows.bool(0, 6) else {
      return statements.append(
        Definitions.note(
          "type \(name) is used and not copied, it has a canonical function: create it at the branch first",
          ""))
    }
    try add(rows.int64(0, 1))
    var parts = ["SUBTYPE = \(rows.text(0, 0))", "SUBTYPE_OPCLASS = \(rows.text(0, 2))"]
    if let collation = rows.string(0, 3) {
      statements += try Definitions.collationDefinition(session, rows.int64(0, 4))
      parts.append("COLLATION = \(collation)")
    }
    if let difference = rows.string(0, 5) {
      parts.append("SUBTYPE_DIFF = \(difference)")
      if rows.bool(0, 9) {
        statements.append(
          SchemaStatement(
            kind: Definitions.Kind.function.rawValue, name: rows.text(0, 8), statement: "", table: ""))
      }
    }
    parts.append("MULTIRANGE_TYPE_NAME = \(rows.text(0, 7))")
    append(name, "CREATE TYPE \(name) AS RANGE (\(parts.joined(separator: ", ")))")
  }
}
