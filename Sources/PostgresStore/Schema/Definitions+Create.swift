import HubEngine
package import SyncCore

extension Definitions {
  /// How a statement of each kind begins; what has no entry is not run.
  private static let forms: [Kind: [String]] = [
    .schema: ["CREATE SCHEMA "], .extension: ["CREATE EXTENSION IF NOT EXISTS "],
    .collation: ["CREATE COLLATION "], .type: ["CREATE TYPE ", "CREATE DOMAIN "],
    .sequence: ["CREATE SEQUENCE "], .table: ["CREATE TABLE "], .owner: ["ALTER SEQUENCE "],
    .primary: ["ALTER TABLE "], .constraint: ["ALTER TABLE "], .foreign: ["ALTER TABLE "],
    .index: ["CREATE INDEX ", "CREATE UNIQUE INDEX "],
  ]

  /// Creates what is missing and leaves what is there, by name; returns the names created. In the caller's
  /// transaction. A table that is there and is not what the definition says ends it, with the differences named.
  package static func create(_ session: Session, _ statements: [SchemaStatement]) throws -> [String] {
    var created: [String] = []
    for statement in statements {
      guard let kind = Kind(rawValue: statement.kind) else {
        throw HubError(
          .unsupported, "head sent a definition of an unknown kind, \(statement.kind)",
          hint: "update hub here")
      }
      switch kind {
      case .note: continue
      case .function: try require(session, function: statement.name)
      case .owner where !created.contains(statement.name): continue
      case .owner: try run(session, statement, kind)
      default:
        if try exists(session, statement, kind) {
          if kind == .table { try compare(session, statement, statements) }
          if kind == .type { try compareLabels(session, statement) }
          continue
        }
        try run(session, statement, kind)
        created.append(statement.name)
      }
    }
    return created
  }

  /// One statement: the extended protocol takes no second one.
  private static func run(_ session: Session, _ statement: SchemaStatement, _ kind: Kind) throws {
    guard forms[kind]?.contains(where: statement.statement.hasPrefix) == true else {
      throw HubError(
        .refused, "head sent a definition of \(statement.name) that is not a \(kind.rawValue)",
        hint: "check which hub and database version head runs")
    }
    do {
      try session.query(SQL(unsafe: statement.statement))
    } catch {
      guard !error.isTransient else { throw error }
      throw HubError(
        .database, "cannot create \(kind.rawValue) \(statement.name): \(error.description)",
        hint: error.hint ?? "create it by hand as head has it, then join again", sqlstate: error.sqlstate)
    }
  }

  private static func require(_ session: Session, function: String) throws {
    guard try !session.query("SELECT to_regprocedure(\(function)) IS NOT NULL").bool(0, 0) else { return }
    throw HubError(
      .notReady, "the tables of head call the function \(function), which is missing here",
      hint: "hub copies no functions: create it, then join again")
  }

  private static func exists(_ session: Session, _ statement: SchemaStatement, _ kind: Kind) throws -> Bool {
    let name = statement.name
    switch kind {
    case .schema: return try session.query("SELECT to_regnamespace(\(name)) IS NOT NULL").bool(0, 0)
    case .extension:
      return try session.query(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE quote_ident(extname) = \(name))"
      )
      .bool(0, 0)
    case .collation: return try session.query("SELECT to_regcollation(\(name)) IS NOT NULL").bool(0, 0)
    case .type: return try session.query("SELECT to_regtype(\(name)) IS NOT NULL").bool(0, 0)
    case .table, .sequence, .index:
      return try session.query("SELECT to_regclass(\(name)) IS NOT NULL").bool(0, 0)
    case .primary, .constraint, .foreign: return try hasConstraint(session, statement, kind)
    case .function, .owner, .note: return false
    }
  }

  /// By name; or one that says the same under another name. A table's primary key was compared with the table.
  private static func hasConstraint(
    _ session: Session, _ statement: SchemaStatement, _ kind: Kind
  ) throws -> Bool {
    let definition =
      statement.statement.split(separator: " ADD CONSTRAINT ", maxSplits: 1).last.map(String.init) ?? ""
    return try session.query(
      """
      SELECT EXISTS (
        SELECT FROM (SELECT parse_ident(\(statement.name)) AS part) AS p
        JOIN pg_constraint c ON c.conrelid = to_regclass(format('%I.%I', part[1], part[2]))
        WHERE c.conname = part[3] OR (\(kind == .primary) AND c.contype = 'p')
          OR quote_ident(part[3]) || ' ' || pg_get_constraintdef(c.oid) = \(definition))
      """
    ).bool(0, 0)
  }

  // MARK: what is there

  /// Lets the server read the definition, as a temporary table that goes again, and compares the two.
  private static func compare(
    _ session: Session, _ statement: SchemaStatement, _ all: [SchemaStatement]
  ) throws {
    let name = statement.name
    let kind = try session.query("SELECT relkind FROM pg_class WHERE oid = to_regclass(\(name))").text(0, 0)
    guard kind == "r" else {
      throw HubError(
        .refused, "\(statement.table) is not an ordinary table here",
        hint: "rename or drop it, then join again")
    }
    guard statement.statement.hasPrefix("CREATE TABLE \(name) (") else {
      throw HubError(.refused, "head sent a definition of \(name) that is not one of that table")
    }
    let body = statement.statement.dropFirst("CREATE TABLE \(name) ".count)
    let primary = all.first { $0.kind == Kind.primary.rawValue && $0.table == statement.table }
    try session.script("SAVEPOINT hub_compare")
    try session.query(SQL(unsafe: "CREATE TEMPORARY TABLE hub_definition \(body)"))
    if let key = primary?.statement.split(separator: " PRIMARY KEY ", maxSplits: 1).last {
      try session.query(SQL(unsafe: "ALTER TABLE pg_temp.hub_definition ADD PRIMARY KEY \(key)"))
    }
    let differences = try differences(session, name)
    try session.script("ROLLBACK TO SAVEPOINT hub_compare; RELEASE SAVEPOINT hub_compare")
    guard differences.isEmpty else {
      throw HubError(
        .refused,
        "table \(statement.table) is here and differs from head's: \(differences.joined(separator: "; "))",
        hint: "alter, rename or drop it, then join again")
    }
  }

  private static func differences(_ session: Session, _ name: String) throws -> [String] {
    let rows = try session.query(
      """
      WITH shape AS (
        SELECT a.attrelid, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
          a.attgenerated <> '' AS computed,
          a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS needed
        FROM pg_attribute a
        WHERE a.attrelid IN (to_regclass(\(name)), 'pg_temp.hub_definition'::regclass) AND a.attnum > 0
          AND NOT a.attisdropped
      ), theirs AS (SELECT * FROM shape WHERE attrelid = 'pg_temp.hub_definition'::regclass),
      ours AS (SELECT * FROM shape WHERE attrelid <> 'pg_temp.hub_definition'::regclass),
      keys AS (
        SELECT i.indrelid = 'pg_temp.hub_definition'::regclass AS theirs,
          string_agg(quote_ident(a.attname), ', ' ORDER BY k.position) AS columns
        FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, position)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indisprimary AND k.position <= i.indnkeyatts
          AND i.indrelid IN (to_regclass(\(name)), 'pg_temp.hub_definition'::regclass)
        GROUP BY 1
      )
      SELECT CASE
        WHEN o.name IS NULL THEN format('column %I is missing', t.name)
        WHEN t.name IS NULL THEN format('column %I must be filled and head does not have it', o.name)
        WHEN o.type <> t.type THEN format('column %I is %s here and %s at head', t.name, o.type, t.type)
        WHEN o.computed THEN format('column %I is generated here and not at head', t.name)
        ELSE format('column %I is generated at head and not here', t.name) END
      FROM theirs t FULL JOIN ours o ON o.name = t.name
      WHERE o.name IS NULL OR (t.name IS NULL AND o.needed) OR o.type <> t.type OR o.computed <> t.computed
      UNION ALL
      SELECT format('its primary key is (%s) here and (%s) at head', coalesce(o.columns, ''), coalesce(t.columns, ''))
      FROM (SELECT columns FROM keys WHERE theirs) t
      FULL JOIN (SELECT columns FROM keys WHERE NOT theirs) o ON true
      WHERE t.columns IS DISTINCT FROM o.columns
      """)
    return (0..<rows.count).map { rows.text($0, 0) }
  }

  /// An enumeration that is here must have every label of head's.
  private static func compareLabels(_ session: Session, _ statement: SchemaStatement) throws {
    let prefix = "CREATE TYPE \(statement.name) AS ENUM ("
    guard statement.statement.hasPrefix(prefix) else { return }
    let labels = statement.statement.dropFirst(prefix.count - 1)
    try session.script("SAVEPOINT hub_compare")
    try session.query(SQL(unsafe: "CREATE TYPE pg_temp.hub_labels AS ENUM \(labels)"))
    let rows = try session.query(
      """
      SELECT quote_literal(enumlabel) FROM pg_enum WHERE enumtypid = 'pg_temp.hub_labels'::regtype
        AND enumlabel NOT IN (SELECT enumlabel FROM pg_enum WHERE enumtypid = to_regtype(\(statement.name)))
      ORDER BY enumsortorder
      """)
    try session.script("ROLLBACK TO SAVEPOINT hub_compare; RELEASE SAVEPOINT hub_compare")
    guard rows.count > 0 else { return }
    throw HubError(
      .refused,
      "type \(statement.name) is here and lacks \((0..<rows.count).map { rows.text($0, 0) }.joined(separator: ", "))",
      hint: "ALTER TYPE \(statement.name) ADD VALUE …, then join again")
  }
}
