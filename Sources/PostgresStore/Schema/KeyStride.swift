import HubEngine

/// Sequences of integer keys that step by a stride, each office in its own residue class, so that two offices never
/// draw the same key.
package enum KeyStride {
  /// A sequence that feeds a key column.
  private struct Source {
    var name: String
    var column: String
    var typeIsSmall: Bool
    var increment: Int64
    var minimum: Int64
    var maximum: Int64
    var cycles: Bool
  }

  /// Sets the sequences of the table's key to values ≡ `residue` modulo `stride`, beyond every key in the table and
  /// every value drawn. Does nothing when they are so already; leaves `smallint` columns as they are.
  package static func apply(_ session: Session, _ table: TableInfo, residue: Int, stride: Int) throws {
    guard stride > 0, residue >= 0, residue < stride else {
      throw HubError(.refused, "residue \(residue) does not belong to stride \(stride)")
    }
    for source in try sources(session, table) where !source.typeIsSmall {
      try apply(session, table, source, Int64(residue), Int64(stride))
    }
  }

  /// Lets the sequences step by one again.
  package static func release(_ session: Session, _ table: TableInfo) throws {
    for source in try sources(session, table) where source.increment > 1 && !source.typeIsSmall {
      try session.query(SQL(unsafe: "ALTER SEQUENCE \(source.name) INCREMENT BY 1"))
    }
  }

  /// Sequences behind the key's columns: owned (serial, identity) or named by a default.
  private static func sources(_ session: Session, _ table: TableInfo) throws -> [Source] {
    let rows = try session.query(
      """
      SELECT DISTINCT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname), a.atttypid = 'int2'::regtype
        OR s.seqtypid = 'int2'::regtype, s.seqincrement, s.seqmin, CASE a.atttypid
          WHEN 'int4'::regtype THEN least(s.seqmax, 2147483647) ELSE s.seqmax END, s.seqcycle
      FROM pg_index i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
      JOIN (
        SELECT d.adrelid AS relation, d.adnum AS number, p.refobjid AS sequence FROM pg_attrdef d
        JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
          AND p.refclassid = 'pg_class'::regclass
        UNION
        SELECT p.refobjid, p.refobjsubid::int2, p.objid FROM pg_depend p
        WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'i'
      ) AS fed ON fed.relation = a.attrelid AND fed.number = a.attnum
      JOIN pg_class c ON c.oid = fed.sequence AND c.relkind = 'S'
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_sequence s ON s.seqrelid = c.oid
      WHERE i.indrelid = \(table.relationID)::oid AND i.indisprimary
        AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
      ORDER BY 1, 2
      """)
    return (0..<rows.count).map { i in
      Source(
        name: rows.text(i, 0), column: rows.text(i, 1), typeIsSmall: rows.bool(i, 2),
        increment: rows.int64(i, 3),
        minimum: rows.int64(i, 4), maximum: rows.int64(i, 5), cycles: rows.bool(i, 6))
    }
  }

  private static func apply(
    _ session: Session, _ table: TableInfo, _ source: Source, _ residue: Int64, _ stride: Int64
  ) throws {
    guard source.increment > 0 else {
      throw HubError(
        .refused, "sequence \(source.name) of \(table.name) counts down",
        hint: "track the table with --keys as-is")
    }
    guard !source.cycles else {
      throw HubError(
        .refused, "sequence \(source.name) of \(table.name) cycles, it would leave its office's numbers",
        hint: "ALTER SEQUENCE \(source.name) NO CYCLE, or track the table with --keys as-is")
    }
    // ALTER SEQUENCE locks the sequence against nextval until the transaction ends; what is read after it stays so.
    try session.query(SQL(unsafe: "ALTER SEQUENCE \(source.name) INCREMENT BY \(stride)"))
    let row = try session.query(SQL(unsafe: "SELECT last_value, is_called FROM \(source.name)"))
    let (last, isCalled) = (row.int64(0, 0), row.bool(0, 1))
    // Rows of other offices may lie beyond this one's numbers: once the sequence is set, only its own class counts.
    if source.increment == stride, isCalled {
      let (upcoming, overflow) = last.addingReportingOverflow(stride)
      if !overflow, (upcoming % stride + stride) % stride == residue,
        try !hasKeys(session, table, source, from: upcoming, residue, stride)
      {
        return
      }
    }
    let greatest = try session.query(SQL(unsafe: "SELECT max(\(source.column))::bigint FROM \(table.quoted)"))
    let floor = max(isCalled ? last : last - 1, source.minimum - 1, greatest.integer(0, 0) ?? .min)
    let start = try next(after: floor, residue, stride, source, table)
    try session.query(SQL(unsafe: "ALTER SEQUENCE \(source.name) RESTART WITH \(start)"))
  }

  /// Whether keys of this class lie where the sequence is about to go.
  private static func hasKeys(
    _ session: Session, _ table: TableInfo, _ source: Source, from: Int64, _ residue: Int64, _ stride: Int64
  ) throws -> Bool {
    try session.query(
      SQL(
        unsafe: """
          SELECT EXISTS (SELECT FROM \(table.quoted) WHERE \(source.column) >= \(from)
            AND (\(source.column)::bigint % \(stride) + \(stride)) % \(stride) = \(residue))
          """)
    ).bool(0, 0)
  }

  /// The smallest value of the class beyond `floor`.
  private static func next(
    after floor: Int64, _ residue: Int64, _ stride: Int64, _ source: Source, _ table: TableInfo
  ) throws -> Int64 {
    let past = ((floor % stride) + stride) % stride
    let distance = (residue - past + stride) % stride
    let (value, overflow) = floor.addingReportingOverflow(distance == 0 ? stride : distance)
    guard !overflow, value <= source.maximum else {
      throw HubError(
        .refused, "sequence \(source.name) of \(table.name) has no numbers left below \(source.maximum)",
        hint: "widen the column to bigint and the sequence's MAXVALUE, or track the table with --keys as-is")
    }
    return value
  }
}
