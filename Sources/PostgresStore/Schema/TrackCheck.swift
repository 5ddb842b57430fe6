import HubEngine
package import SyncCore

/// What is looked at before a table is tracked: refusals as one line and what to do, and warnings.
package enum TrackCheck {
  // MARK: names

  /// The schema and table that a name on the command line means: `table`, `schema.table`, either part quoted as
  /// in SQL. Unquoted names are taken as they are written, as PostgreSQL stores them; the schema is `public` when
  /// none is named.
  package static func resolve(
    _ session: Session, _ name: String
  ) throws -> (schema: String, relation: String) {
    let (schema, relation) = try names(name)
    let found = try session.query(
      """
      SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = \(schema) AND c.relname = \(relation) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      """)
    if found.count == 0 { throw try missing(session, schema, relation) }
    return (schema, relation)
  }

  /// What a person wrote, in its two parts.
  static func names(_ name: String) throws -> (schema: String, relation: String) {
    guard let parts = parts(of: name), parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else {
      throw HubError(
        .usage, "\(name) is not the name of a table",
        hint: "write table, schema.table or \"Schema\".\"Table\"")
    }
    return parts.count == 2 ? (parts[0], parts[1]) : ("public", parts[0])
  }

  /// The parts between dots; quotes hold a part together. nil: quotes that do not match.
  private static func parts(of name: String) -> [String]? {
    var parts: [String] = []
    var part = ""
    var rest = name.trimmed[...]
    while true {
      if rest.first == "\"" {
        guard part.isEmpty, let quoted = quotedPart(&rest) else { return nil }
        part = quoted
        guard rest.isEmpty || rest.first == "." else { return nil }
      }
      guard let character = rest.popFirst() else { break }
      if character == "." {
        parts.append(part)
        part = ""
      } else {
        part.append(character)
      }
    }
    return parts + [part]
  }

  /// Takes one quoted identifier off the front; `""` inside is a quote.
  private static func quotedPart(_ rest: inout Substring) -> String? {
    var out = ""
    rest.removeFirst()
    while let character = rest.popFirst() {
      guard character == "\"" else {
        out.append(character)
        continue
      }
      guard rest.first == "\"" else { return out.isEmpty ? nil : out }
      rest.removeFirst()
      out.append("\"")
    }
    return nil
  }

  private static func missing(_ session: Session, _ schema: String, _ relation: String) throws -> HubError {
    let similar = try session.query(
      """
      SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'hub')
        AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'
        AND (lower(c.relname) = lower(\(relation)) OR lower(c.relname) IN (lower(\(relation)) || 's',
          rtrim(lower(\(relation)), 's')) OR starts_with(lower(c.relname), lower(\(relation))))
      ORDER BY n.nspname <> \(schema), lower(c.relname) <> lower(\(relation)), 1 LIMIT 3
      """)
    let names = (0..<similar.count).map { similar.text($0, 0) }
    return HubError(
      .usage, "there is no table \(relation) in schema \(schema)",
      hint: names.isEmpty
        ? "names are case-sensitive and the schema is public when none is given"
        : "names are case-sensitive; did you mean \(names.joined(separator: " or "))?")
  }

  // MARK: tables

  /// Refuses what cannot be tracked; returns warnings, a sentence each.
  package static func check(
    _ session: Session, _ schema: String, _ relation: String, _ options: TrackingOptions
  ) throws -> [String] {
    try check(options)
    let name = TableInfo.catalogueName(schema, relation)
    if schema == "hub" || schema.hasPrefix("pg_") || schema == "information_schema" {
      throw HubError(.refused, "\(name) belongs to \(schema == "hub" ? "hub itself" : "PostgreSQL")")
    }
    let row = try session.query(
      """
      SELECT c.oid, c.relkind, c.relpersistence, c.relispartition, c.relforcerowsecurity AND c.relrowsecurity,
        EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
        EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid), row_security_active(c.oid), c.relreplident
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = \(schema) AND c.relname = \(relation)
      """)
    guard row.count == 1 else { throw try missing(session, schema, relation) }
    try checkKind(row, name)
    let id = row.int64(0, 0)
    try checkTracked(session, schema, relation)
    try checkReplica(session, id, name)
    try checkKey(session, id, name, quotedName(schema) + "." + quotedName(relation))
    try checkColumns(session, id, name)
    try checkCounters(session, id, name, options.counters)
    if let function = options.conflictFunction { try checkFunction(session, function) }
    if row.bool(0, 4) || row.bool(0, 7) {
      throw HubError(
        .refused,
        "\(name) has row-level security\(row.bool(0, 4) ? " that is forced" : ""), hub would not see every row",
        hint: "ALTER TABLE … NO FORCE ROW LEVEL SECURITY, and let hub's role own the table or have BYPASSRLS")
    }
    return try warnings(session, id, name, options)
  }

  private static func check(_ options: TrackingOptions) throws {
    func require(_ flag: String, _ value: String, _ allowed: [String]) throws {
      guard !allowed.contains(value) else { return }
      throw HubError(
        .usage, "--\(flag) \(value) is not known", hint: "it is one of \(allowed.joined(separator: ", "))")
    }
    try require("direction", options.direction, ["both", "down", "up"])
    try require("merge", options.merge, ["row", "columns"])
    try require("on-delete", options.onDelete, ["update", "delete"])
    try require("keys", options.keys, ["stride", "as-is"])
    try require("foreign-writes", options.foreignWrites, ["refuse", "ignore"])
    guard options.originColumn == nil else {
      throw HubError(.unsupported, "--origin-column: not in this version")
    }
    if options.conflictFunction == nil {
      try require("on-conflict", options.onConflict, ["latest", "head", "branch", "function:NAME"])
    }
  }

  private static func checkKind(_ row: ResultSet, _ name: String) throws {
    func refuse(_ what: String, _ hint: String) throws -> Never {
      throw HubError(.refused, "\(name) is \(what)", hint: hint)
    }
    switch row.text(0, 1) {
    case "r": break
    case "p":
      try refuse("a partitioned table", "hub tracks ordinary tables; partitions are not in this version")
    case "v", "m": try refuse("a view", "track the tables that it shows")
    case "f": try refuse("a foreign table", "track it in the database where it lives")
    default: try refuse("no table", "hub tracks ordinary tables")
    }
    switch row.text(0, 2) {
    case "u": try refuse("unlogged, a crash would empty it", "ALTER TABLE … SET LOGGED, then track it")
    case "t": try refuse("a temporary table", "hub tracks tables that stay")
    default: break
    }
    if row.bool(0, 3) {
      try refuse("a partition", "hub tracks ordinary tables; partitions are not in this version")
    }
    if row.bool(0, 5) || row.bool(0, 6) {
      try refuse(
        "part of an inheritance tree", "hub tracks tables that neither inherit nor are inherited from")
    }
  }

  private static func checkTracked(_ session: Session, _ schema: String, _ relation: String) throws {
    guard try session.query("SELECT to_regclass('hub.tracked') IS NOT NULL").bool(0, 0) else { return }
    let tracked = try session.query(
      "SELECT FROM hub.tracked WHERE schema_name = \(schema) AND relation_name = \(relation)")
    guard tracked.count > 0 else { return }
    throw HubError(
      .refused, "\(schema).\(relation) is tracked already",
      hint: "hub untrack it first to change how, or see hub tables")
  }

  /// PostgreSQL's own logical replication fires row triggers only: its writes would be missed.
  private static func checkReplica(_ session: Session, _ id: Int64, _ name: String) throws {
    guard
      try session.query("SELECT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = \(id)::oid)").bool(
        0, 0)
    else { return }
    throw HubError(
      .refused, "\(name) is filled by a PostgreSQL subscription, which hub does not see",
      hint: "track it where it is written, or take it out of the subscription")
  }

  private static func checkKey(_ session: Session, _ id: Int64, _ name: String, _ quoted: String) throws {
    let key = try session.query(
      """
      SELECT i.indimmediate, i.indisvalid FROM pg_index i WHERE i.indrelid = \(id)::oid AND i.indisprimary
      """)
    guard key.count == 1 else {
      throw HubError(
        .refused, "\(name) has no primary key",
        hint: "ALTER TABLE \(quoted) ADD PRIMARY KEY (…), then track it")
    }
    guard key.bool(0, 0) else {
      throw HubError(
        .refused, "\(name) has a deferrable primary key",
        hint: "drop it and add the primary key without DEFERRABLE, then track it")
    }
  }

  private static func checkColumns(_ session: Session, _ id: Int64, _ name: String) throws {
    let rows = try session.query(
      """
      SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = \(id)::oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typname = 'lo'
      """)
    guard rows.count > 0 else { return }
    throw HubError(
      .refused, "column \(rows.text(0, 0)) of \(name) holds large objects, which no trigger sees",
      hint: "store the data as bytea")
  }

  /// `schema` and name of a function, `public` when no schema is given; nil: no name.
  package static func function(named name: String) -> (schema: String, name: String)? {
    guard let parts = parts(of: name), (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }) else {
      return nil
    }
    return parts.count == 2 ? (parts[0], parts[1]) : ("public", parts[0])
  }

  /// A counter is a whole or decimal number that is never NULL: an absent amount has no difference.
  private static func checkCounters(
    _ session: Session, _ id: Int64, _ name: String, _ counters: [String]
  ) throws {
    guard Set(counters).count == counters.count else {
      throw HubError(.usage, "--counter names a column twice")
    }
    for counter in counters {
      let column = try session.query(
        """
        WITH RECURSIVE base AS (
          SELECT t.oid, t.typtype, t.typbasetype, a.attnum, a.attnotnull, a.attgenerated <> '' OR a.attidentity <> '' AS own
          FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
          WHERE a.attrelid = \(id)::oid AND a.attname = \(counter) AND a.attnum > 0 AND NOT a.attisdropped
          UNION ALL
          SELECT t.oid, t.typtype, t.typbasetype, b.attnum, b.attnotnull, b.own
          FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
        )
        SELECT oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype), attnotnull, own,
          EXISTS (SELECT FROM pg_index i WHERE i.indrelid = \(id)::oid AND i.indisprimary AND attnum = ANY (i.indkey))
        FROM base WHERE typtype <> 'd'
        """)
      guard column.count == 1 else {
        throw HubError(.usage, "\(name) has no column \(counter)", hint: "names are case-sensitive")
      }
      guard column.bool(0, 0), !column.bool(0, 2), !column.bool(0, 3) else {
        throw HubError(
          .refused, "column \(counter) of \(name) cannot count",
          hint: "a counter is a smallint, integer, bigint or numeric outside the key, neither identity nor generated")
      }
      guard column.bool(0, 1) else {
        throw HubError(
          .refused, "column \(counter) of \(name) may be NULL, which counts nothing",
          hint: "UPDATE it to 0 where it is NULL, then ALTER TABLE … ALTER \(quotedName(counter)) SET NOT NULL")
      }
    }
  }

  private static func checkFunction(_ session: Session, _ text: String) throws {
    let signature = "\(text)(local jsonb, incoming jsonb) RETURNS jsonb"
    guard let function = function(named: text) else {
      throw HubError(
        .usage, "\(text) is not the name of a function", hint: "write function:name, function:schema.name")
    }
    let found = try session.query(
      """
      SELECT p.pronargs = 2 AND p.proargtypes[0] = 'jsonb'::regtype AND p.proargtypes[1] = 'jsonb'::regtype
          AND p.prorettype = 'jsonb'::regtype AND NOT p.proretset AND p.prokind = 'f',
        has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = \(function.schema) AND p.proname = \(function.name) ORDER BY 1 DESC LIMIT 1
      """)
    guard found.count == 1 else {
      throw HubError(
        .usage, "there is no function \(function.name) in schema \(function.schema)",
        hint: "CREATE FUNCTION \(signature), here at head; names are case-sensitive")
    }
    guard found.bool(0, 0) else {
      throw HubError(
        .refused, "function \(text) does not take two jsonb and return one", hint: "CREATE FUNCTION \(signature)")
    }
    guard found.bool(0, 1) else {
      throw HubError(
        .refused, "this role may not call function \(text)", hint: "GRANT EXECUTE ON FUNCTION … TO the role",
        sqlstate: "42501")
    }
  }

  // MARK: warnings

  private static func warnings(
    _ session: Session, _ id: Int64, _ name: String, _ options: TrackingOptions
  ) throws -> [String] {
    var out: [String] = []
    let columns = try session.query(
      """
      SELECT a.attname, a.atttypid = 'oid'::regtype FROM pg_attribute a
      LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
      WHERE a.attrelid = \(id)::oid AND a.attnum > 0 AND NOT a.attisdropped
        AND (a.atttypid = 'oid'::regtype OR a.atttypid = 'int2'::regtype AND a.attnum = ANY (i.indkey)
          AND (a.attidentity <> '' OR a.atthasdef AND a.attgenerated = ''))
      ORDER BY a.attnum
      """)
    for i in 0..<columns.count {
      let column = columns.text(i, 0)
      if columns.bool(i, 1) {
        out.append("column \(column) of \(name) is an oid: if it names large objects, they are not copied")
      } else if options.keys == "stride", options.direction != "down" {
        out.append(
          "key \(column) of \(name) is a smallint: its sequence is left as it is and offices may draw equal keys"
        )
      }
    }
    let triggers = try session.query(
      """
      SELECT tgname, tgenabled = 'A' FROM pg_trigger
      WHERE tgrelid = \(id)::oid AND NOT tgisinternal AND tgenabled IN ('A', 'R')
        AND NOT starts_with(tgname, 'hub_capture_')
      ORDER BY tgname
      """)
    for i in 0..<triggers.count {
      let kind = triggers.bool(i, 1) ? "ALWAYS" : "REPLICA"
      out.append(
        "trigger \(triggers.text(i, 0)) of \(name) is ENABLE \(kind): it also runs when hub applies rows")
    }
    return out
  }
}
