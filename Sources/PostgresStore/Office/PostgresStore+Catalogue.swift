package import HubEngine
package import SyncCore
import Synchronization

extension PostgresStore {
  package func catalogue() async throws(HubError) -> Catalogue {
    try await control.run { session in
      try session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ") { session in
        let tables = try TableInfo.loadAll(session)
        return Catalogue(
          version: try session.query("SELECT catalogue_version FROM hub.office").int64(0, 0),
          tables: try TableInfo.catalogue(session),
          statements: try Definitions.export(session, tables: tables),
          stride: try Self.stride(session))
      }
    }
  }

  static func stride(_ session: Session) throws -> Int {
    let rows = try session.query("SELECT value::int FROM hub.setting WHERE name = 'key_stride'")
    return rows.count == 0 ? 1 : rows.int(0, 0)
  }

  /// A branch takes head's catalogue: makes missing tables, tracks what is new, lets go of what is not in it.
  package func install(_ catalogue: Catalogue) async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        try session.script("SET LOCAL lock_timeout = '5s'")
        try Self.install(catalogue, session)
      }
    }
    _ = try await office()
    try await reload()
  }

  private static func install(_ catalogue: Catalogue, _ session: Session) throws {
    let office = try readOffice(session)
    guard catalogue.version != office.catalogueVersion else { return }
    let before = try TableInfo.loadAll(session)
    let wanted = Dictionary(uniqueKeysWithValues: catalogue.tables.map { ($0.name, $0) })
    let known = Set(try TableInfo.catalogue(session).map(\.name))
    for name in known where wanted[name] == nil { try letGo(name, before, session) }
    if !office.isJoined { try prepareExisting(catalogue.tables.filter { !known.contains($0.name) }, session) }
    _ = try Definitions.create(session, catalogue.statements)
    for table in catalogue.tables { try upsert(table, session) }
    try session.query(
      """
      INSERT INTO hub.setting VALUES ('key_stride', \(String(catalogue.stride)))
      ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value
      """)
    for table in try TableInfo.loadAll(session) {
      if let old = before.first(where: { $0.id == table.id }) {
        if old.options != table.options { try Capture.installTriggers(session, table, role: "branch") }
      } else if try !session.query("SELECT to_regclass(\(table.versions)) IS NOT NULL").bool(0, 0) {
        try Capture.install(session, table, role: "branch")
        if table.options.keys == "stride" && table.options.direction != "down" {
          try KeyStride.apply(session, table, residue: office.residue, stride: catalogue.stride)
        }
      }
    }
    try session.query("UPDATE hub.office SET catalogue_version = \(catalogue.version)")
  }

  /// Ends the tracking of a table, of `tables` or not there any more.
  static func letGo(_ name: String, _ tables: [TableInfo], _ session: Session) throws {
    if let table = tables.first(where: { $0.name == name }), table.options.keys == "stride" {
      try KeyStride.release(session, table)
    }
    let gone = try session.query(
      "DELETE FROM hub.tracked WHERE schema_name || '.' || relation_name = \(name) RETURNING id")
    if gone.count > 0 { try Capture.remove(session, id: gone.int(0, 0)) }
  }

  /// Tables that hold rows before the office joins: refused, emptied or merged, as `hub join --existing` says.
  private static func prepareExisting(_ tables: [CatalogueTable], _ session: Session) throws {
    let rows = try session.query("SELECT value FROM hub.setting WHERE name = 'existing'")
    let mode = rows.count == 0 ? "refuse" : rows.text(0, 0)
    guard mode != "merge" else { return }
    var filled: [String] = []
    for table in tables {
      let quoted = quotedName(table.schemaName) + "." + quotedName(table.relationName)
      guard try session.query("SELECT to_regclass(\(quoted)) IS NOT NULL").bool(0, 0) else { continue }
      if try session.script("SELECT EXISTS (SELECT FROM \(quoted))").bool(0, 0) { filled.append(quoted) }
    }
    guard !filled.isEmpty else { return }
    guard mode == "replace" else {
      throw HubError(
        .refused, "tables hold rows already: \(filled.joined(separator: ", "))",
        hint: "ask head for a new token (hub invite) and join with --existing merge to keep them, or "
          + "--existing replace to take head's rows instead")
    }
    try session.script("TRUNCATE \(filled.joined(separator: ", "))")
  }

  /// Writes a table's row in `hub.tracked`; returns nothing: `TableInfo.loadAll` reads it back.
  package static func upsert(_ table: CatalogueTable, _ session: Session) throws {
    let options = table.options
    let counters = "{" + options.counters.map { quotedName($0) }.joined(separator: ",") + "}"
    try session.query(
      """
      INSERT INTO hub.tracked (schema_name, relation_name, direction, merge, on_conflict, on_delete, counters,
        origin_column, keys, foreign_writes, priority)
      VALUES (\(table.schemaName), \(table.relationName), \(options.direction), \(options.merge),
        \(options.onConflict), \(options.onDelete), \(counters)::text[], \(options.originColumn), \(options.keys),
        \(options.foreignWrites), \(options.priority))
      ON CONFLICT (schema_name, relation_name) DO UPDATE SET direction = EXCLUDED.direction, merge = EXCLUDED.merge,
        on_conflict = EXCLUDED.on_conflict, on_delete = EXCLUDED.on_delete, counters = EXCLUDED.counters,
        origin_column = EXCLUDED.origin_column, keys = EXCLUDED.keys, foreign_writes = EXCLUDED.foreign_writes,
        priority = EXCLUDED.priority
      """)
  }
}
