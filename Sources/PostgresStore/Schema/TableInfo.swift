package import SyncCore

/// What hub knows of one tracked table, read from PostgreSQL's catalogue.
package struct TableInfo: Sendable {
  package struct Column: Sendable, Equatable {
    package var name: String
    /// Its number in the table (`attnum`), by which version rows name it.
    package var number: Int
    /// The bare type to cast a text to: domains by their base type, no modifier (`'abcdef'::varchar(3)` would cut
    /// in silence; assigning checks).
    package var castType: String
    package var isGenerated: Bool
    /// GENERATED ALWAYS AS IDENTITY: inserted by OVERRIDING, never updated.
    package var isIdentityAlways: Bool
    /// `OPERATOR(schema.=)` of the key's index; empty for columns outside the key.
    package var equality: String
    /// `OPERATOR(schema.>)` of the key's index.
    package var greater: String
  }

  /// One of the two tables is tracked, the other may not be.
  package struct ForeignKey: Sendable, Equatable {
    package var name: String
    package var child: String
    package var parent: String
    package var quotedChild: String
    package var quotedParent: String
    package var childColumns: [String]
    package var parentColumns: [String]
    package var operators: [String]
    package var isWithinTracked: Bool
    /// Whether hub may lock the parent's rows.
    package var locksParent: Bool
  }

  /// No two rows may be alike in all these columns, by these operators.
  package struct DeferredConstraint: Sendable, Equatable {
    package var name: String
    package var columns: [String]
    package var operators: [String]
    package var nullsAreEqual: Bool
  }

  package var id: Int
  package var relationID: Int64
  package var schemaName: String
  package var relationName: String
  package var options: TrackingOptions
  /// Key columns first, in the key's order; then the others in the table's order. Generated columns are absent.
  package var columns: [Column]
  package var keyCount: Int
  /// This table's references to others, and others' to this one.
  package var references: [ForeignKey]
  package var referencedBy: [ForeignKey]
  /// DEFERRABLE unique and exclusion constraints: `session_replication_role = replica` silences their recheck.
  package var deferred: [DeferredConstraint] = []
  /// The user's triggers that fire for what hub writes: ENABLE ALWAYS or REPLICA.
  package var replicaTriggers: [String] = []
  /// Its priority, or that of a table that refers to it: a parent passes no later than its children.
  package var rank = 0
  /// Of its deleted rows: those of a parent pass no earlier than its children's.
  package var deleteRank = 0

  /// The name in the catalogue and on the wire.
  package var name: String { Self.catalogueName(schemaName, relationName) }
  package var quoted: String { quotedName(schemaName) + "." + quotedName(relationName) }
  package var versions: String { "hub.v\(id)" }
  package var keyColumns: ArraySlice<Column> { columns[..<keyCount] }
  package var columnNames: [String] { columns.map(\.name) }
  package var counters: [Column] { columns[keyCount...].filter { options.counters.contains($0.name) } }
  /// The columns that are neither key nor counter.
  package var registers: [Column] { columns[keyCount...].filter { !options.counters.contains($0.name) } }
  package var isMergedByColumn: Bool { options.merge == "columns" }
  /// An update has to say what it changed.
  package var comparesUpdates: Bool { isMergedByColumn || !counters.isEmpty }

  package static func catalogueName(_ schema: String, _ relation: String) -> String {
    "\(schema).\(relation)"
  }

  /// Key equality between two aliases: `key` columns by name at one side, `k1…` at the version table's.
  package func keyJoin(_ left: (Int, Column) -> String, _ right: (Int, Column) -> String) -> String {
    keyColumns.enumerated().map { "\(left($0, $1)) \($1.equality) \(right($0, $1))" }.joined(
      separator: " AND ")
  }
}

extension TableInfo {
  /// All tracked tables that are there: by falling rank, parents before children where foreign keys say so, then by name.
  package static func loadAll(_ session: Session) throws -> [TableInfo] {
    let rows = try session.query(
      """
      SELECT t.schema_name, t.relation_name, \(unsafe: options), t.id, c.oid
      FROM hub.tracked t
      JOIN pg_namespace s ON s.nspname = t.schema_name
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.relation_name
      ORDER BY t.schema_name, t.relation_name
      """)
    var tables = (0..<rows.count).map { i in
      let entry = entry(rows, i)
      return TableInfo(
        id: rows.int(i, 11), relationID: rows.int64(i, 12), schemaName: entry.schemaName,
        relationName: entry.relationName, options: entry.options, columns: [], keyCount: 0, references: [],
        referencedBy: [])
    }
    try loadColumns(session, &tables)
    // Without its primary key, or with another, it is not the table that was tracked.
    let others = try withOtherKeys(session)
    tables.removeAll { $0.keyCount == 0 || others.contains($0.id) }
    try loadForeignKeys(session, &tables)
    try loadDeferred(session, &tables)
    try loadReplicaTriggers(session, &tables)
    rank(&tables)
    return parentsFirst(tables.sorted { $0.rank > $1.rank })
  }

  /// All tracked tables, there or not.
  package static func catalogue(_ session: Session) throws -> [CatalogueTable] {
    let rows = try session.query(
      """
      SELECT t.schema_name, t.relation_name, \(unsafe: options) FROM hub.tracked t
      ORDER BY t.schema_name, t.relation_name
      """)
    return (0..<rows.count).map { entry(rows, $0) }
  }

  private static let options = """
    t.direction, t.merge, t.on_conflict, t.on_delete, array_to_string(t.counters, chr(10)), t.origin_column, t.keys,
      t.foreign_writes, t.priority
    """

  /// Of a row that begins with the names and the options.
  private static func entry(_ rows: ResultSet, _ i: Int) -> CatalogueTable {
    var options = TrackingOptions()
    options.direction = rows.text(i, 2)
    options.merge = rows.text(i, 3)
    options.onConflict = rows.text(i, 4)
    options.onDelete = rows.text(i, 5)
    options.counters = rows.text(i, 6).split(separator: "\n").map(String.init)
    options.originColumn = rows.string(i, 7)
    options.keys = rows.text(i, 8)
    options.foreignWrites = rows.text(i, 9)
    options.priority = rows.int(i, 10)
    return CatalogueTable(schemaName: rows.text(i, 0), relationName: rows.text(i, 1), options: options)
  }

  private static func loadColumns(_ session: Session, _ tables: inout [TableInfo]) throws {
    let oids = tables.map(\.relationID)
    let rows = try session.query(
      """
      WITH RECURSIVE base AS (
        SELECT t.oid AS type, t.oid AS base FROM pg_type t WHERE t.typtype <> 'd'
        UNION ALL
        SELECT d.oid, b.base FROM pg_type d JOIN base b ON d.typbasetype = b.type WHERE d.typtype = 'd'
      )
      SELECT a.attrelid, a.attname, format_type(b.base, -1), a.attgenerated <> '', a.attidentity = 'a',
        k.position, opn.nspname, op.oprname, gtn.nspname, gt.oprname, a.attnum
      FROM pg_attribute a
      JOIN base b ON b.type = a.atttypid
      LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
      LEFT JOIN LATERAL (
        SELECT position FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS u(attnum, position)
        WHERE u.attnum = a.attnum AND position <= i.indnkeyatts
      ) k ON true
      LEFT JOIN pg_opclass oc ON oc.oid = (i.indclass::oid[])[k.position - 1]
      LEFT JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
      LEFT JOIN pg_operator op ON op.oid = ao.amopopr
      LEFT JOIN pg_namespace opn ON opn.oid = op.oprnamespace
      LEFT JOIN pg_amop ag ON ag.amopfamily = oc.opcfamily AND ag.amopstrategy = 5
        AND ag.amoplefttype = oc.opcintype AND ag.amoprighttype = oc.opcintype
      LEFT JOIN pg_operator gt ON gt.oid = ag.amopopr
      LEFT JOIN pg_namespace gtn ON gtn.oid = gt.oprnamespace
      WHERE a.attrelid = ANY (\(.integers(oids))::bigint[]) AND a.attnum > 0 AND NOT a.attisdropped
      ORDER BY a.attrelid, k.position NULLS LAST, a.attnum
      """)
    for i in 0..<rows.count {
      let relation = rows.int64(i, 0)
      guard let at = tables.firstIndex(where: { $0.relationID == relation }) else { continue }
      let isKey = rows.integer(i, 5) != nil
      let column = Column(
        name: rows.text(i, 1), number: rows.int(i, 10), castType: rows.text(i, 2), isGenerated: rows.bool(i, 3),
        isIdentityAlways: rows.bool(i, 4),
        equality: isKey ? operatorName(rows.text(i, 6), rows.text(i, 7)) : "",
        greater: isKey ? operatorName(rows.text(i, 8), rows.text(i, 9)) : "")
      if isKey { tables[at].keyCount += 1 }
      if isKey || !column.isGenerated { tables[at].columns.append(column) }
    }
  }

  private static func operatorName(_ schema: String, _ name: String) -> String {
    "OPERATOR(\(quotedName(schema)).\(name))"
  }

  /// The tables of which the version table has other keys, of types that do not compare.
  private static func withOtherKeys(_ session: Session) throws -> Set<Int> {
    let rows = try session.query(
      """
      SELECT t.id FROM hub.tracked t
      JOIN pg_namespace s ON s.nspname = t.schema_name
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.relation_name
      JOIN pg_class v ON v.oid = to_regclass('hub.v' || t.id)
      JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
      WHERE i.indnkeyatts <>
          (SELECT count(*) FROM pg_attribute WHERE attrelid = v.oid AND attname ~ '^k[0-9]+$' AND NOT attisdropped)
        OR EXISTS (
          SELECT FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS u(attnum, position)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum
          JOIN pg_attribute k ON k.attrelid = v.oid AND k.attname = 'k' || u.position
          JOIN pg_type at ON at.oid = a.atttypid JOIN pg_type kt ON kt.oid = k.atttypid
          WHERE a.atttypid <> k.atttypid
            AND (at.typcategory <> kt.typcategory OR at.typcategory NOT IN ('N', 'S', 'D')))
      """)
    return Set((0..<rows.count).map { rows.int($0, 0) })
  }

  /// Those to and from tables that are not tracked too, as far as hub may read these.
  private static func loadForeignKeys(_ session: Session, _ tables: inout [TableInfo]) throws {
    let rows = try session.query(
      """
      SELECT f.conname, f.conrelid, f.confrelid, a.attname, p.attname, n.nspname, o.oprname, u.position,
        cn.nspname, c.relname, pn.nspname, pc.relname, t.child AND t.parent, t.parent OR has_table_privilege(pc.oid, 'UPDATE')
      FROM (SELECT *, conrelid = ANY (v.oids) AS child, confrelid = ANY (v.oids) AS parent
        FROM pg_constraint, (VALUES (\(.integers(tables.map(\.relationID)))::bigint[])) AS v (oids)
        WHERE contype = 'f' AND conparentid = 0 AND (conrelid = ANY (v.oids) OR confrelid = ANY (v.oids))) AS t
      JOIN pg_constraint f ON f.oid = t.oid
      JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
      JOIN pg_class pc ON pc.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
      CROSS JOIN LATERAL unnest(f.conkey, f.confkey, f.conpfeqop)
        WITH ORDINALITY AS u(child, parent, equality, position)
      JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.child
      JOIN pg_attribute p ON p.attrelid = f.confrelid AND p.attnum = u.parent
      JOIN pg_operator o ON o.oid = u.equality
      JOIN pg_namespace n ON n.oid = o.oprnamespace
      WHERE (t.child OR has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(cn.oid, 'USAGE'))
        AND (t.parent OR has_table_privilege(pc.oid, 'SELECT') AND has_schema_privilege(pn.oid, 'USAGE'))
      ORDER BY f.oid, u.position
      """)
    var keys: [(child: Int64, parent: Int64, key: ForeignKey)] = []
    for i in 0..<rows.count {
      if rows.int(i, 7) == 1 {
        let key = ForeignKey(
          name: rows.text(i, 0), child: catalogueName(rows.text(i, 8), rows.text(i, 9)),
          parent: catalogueName(rows.text(i, 10), rows.text(i, 11)),
          quotedChild: quotedName(rows.text(i, 8)) + "." + quotedName(rows.text(i, 9)),
          quotedParent: quotedName(rows.text(i, 10)) + "." + quotedName(rows.text(i, 11)), childColumns: [],
          parentColumns: [], operators: [], isWithinTracked: rows.bool(i, 12), locksParent: rows.bool(i, 13))
        keys.append((rows.int64(i, 1), rows.int64(i, 2), key))
      }
      keys[keys.count - 1].key.childColumns.append(rows.text(i, 3))
      keys[keys.count - 1].key.parentColumns.append(rows.text(i, 4))
      keys[keys.count - 1].key.operators.append(operatorName(rows.text(i, 5), rows.text(i, 6)))
    }
    for at in tables.indices {
      tables[at].references = keys.filter { $0.child == tables[at].relationID }.map(\.key)
      tables[at].referencedBy = keys.filter { $0.parent == tables[at].relationID }.map(\.key)
    }
  }

  /// Constraints over expressions are left to PostgreSQL's index, which refuses what it must when it is not deferred.
  private static func loadDeferred(_ session: Session, _ tables: inout [TableInfo]) throws {
    let rows = try session.query(
      """
      SELECT c.conrelid, c.conname, a.attname, n.nspname, o.oprname, u.position,
        coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
      FROM pg_constraint c
      JOIN pg_index i ON i.indexrelid = c.conindid
      CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS u(number, position)
      JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = u.number
      JOIN pg_opclass oc ON oc.oid = (i.indclass::oid[])[u.position - 1]
      LEFT JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
      JOIN pg_operator o ON o.oid = coalesce(c.conexclop[u.position], ao.amopopr)
      JOIN pg_namespace n ON n.oid = o.oprnamespace
      WHERE c.contype IN ('u', 'x') AND c.condeferrable AND i.indexprs IS NULL AND i.indpred IS NULL
        AND c.conrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
      ORDER BY c.oid, u.position
      """)
    for i in 0..<rows.count {
      guard let at = tables.firstIndex(where: { $0.relationID == rows.int64(i, 0) }) else { continue }
      if rows.int(i, 5) == 1 {
        tables[at].deferred.append(
          DeferredConstraint(
            name: rows.text(i, 1), columns: [], operators: [], nullsAreEqual: rows.bool(i, 6)))
      }
      let last = tables[at].deferred.count - 1
      tables[at].deferred[last].columns.append(rows.text(i, 2))
      tables[at].deferred[last].operators.append(operatorName(rows.text(i, 3), rows.text(i, 4)))
    }
  }

  private static func loadReplicaTriggers(_ session: Session, _ tables: inout [TableInfo]) throws {
    let rows = try session.query(
      """
      SELECT tgrelid, tgname FROM pg_trigger WHERE tgrelid = ANY (\(.integers(tables.map(\.relationID)))::bigint[])
        AND tgenabled IN ('A', 'R') AND NOT tgisinternal AND NOT starts_with(tgname, 'hub_capture_') ORDER BY tgname
      """)
    for i in 0..<rows.count {
      guard let at = tables.firstIndex(where: { $0.relationID == rows.int64(i, 0) }) else { continue }
      tables[at].replicaTriggers.append(rows.text(i, 1))
    }
  }

  /// Carries priorities from children to parents until nothing changes; tables that refer to each other have one rank.
  private static func rank(_ tables: inout [TableInfo]) {
    let numbers = Dictionary(uniqueKeysWithValues: tables.enumerated().map { ($1.name, $0) })
    let links = tables.enumerated().flatMap { child, table in
      table.references.compactMap { key in numbers[key.parent].map { (child: child, parent: $0) } }
    }
    for at in tables.indices { tables[at].rank = tables[at].options.priority }
    while let link = links.first(where: { tables[$0.parent].rank < tables[$0.child].rank }) {
      tables[link.parent].rank = tables[link.child].rank
    }
    for at in tables.indices { tables[at].deleteRank = tables[at].rank }
    while let link = links.first(where: { tables[$0.parent].deleteRank > tables[$0.child].deleteRank }) {
      tables[link.parent].deleteRank = tables[link.child].deleteRank
    }
  }

  /// Of names and ranks, in this order: FNV-1a.
  static func digest(of tables: [TableInfo]) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for table in tables {
      for byte in "\(table.name) \(table.rank) \(table.deleteRank)\n".utf8 {
        hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
      }
    }
    return String(hash, radix: 36)
  }

  /// Depth-first over the references; a cycle is entered where the names' order meets it.
  private static func parentsFirst(_ tables: [TableInfo]) -> [TableInfo] {
    var ordered: [TableInfo] = []
    var visited: Set<String> = []
    func visit(_ table: TableInfo) {
      guard visited.insert(table.name).inserted else { return }
      for key in table.references {
        if let parent = tables.first(where: { $0.name == key.parent }) { visit(parent) }
      }
      ordered.append(table)
    }
    for table in tables { visit(table) }
    return ordered
  }
}
