import HubEngine
import SyncCore

/// One row that hub writes as an application of this office would: the user's triggers fire, constraints hold, and
/// capture makes a version of this office's own that has seen everything here, so that it conflicts with nothing.
struct PlainWrite {
  let applier: TableApplier
  private let session: Session
  private let isAlive: Bool

  /// - Parameter row: columns by name; those that are missing keep what they have, or their default. nil: no row.
  init(_ session: Session, _ table: TableInfo, key: [String: String?], row: [String: String?]?) throws {
    self.session = session
    isAlive = row != nil
    let keyNames = table.keyColumns.map(\.name)
    guard Set(keyNames) == Set(key.keys) else {
      throw HubError(.refused, "the key of table \(table.name) is another by now", hint: "write the row by hand")
    }
    for name in keyNames {
      if let given = row?[name], given != key[name] ?? nil {
        throw HubError(.refused, "column \(name) is part of the key, and another value would be another row")
      }
    }
    // A column that is gone matters only where it held something.
    let given = (row ?? [:]).filter { !key.keys.contains($0.key) }
    let known = given.keys.filter { name in table.columns.contains { $0.name == name } }.sorted()
    let gone = given.filter { !known.contains($0.key) && $0.value != nil }.keys.sorted()
    guard gone.isEmpty else {
      throw HubError(
        .refused, "table \(table.name) has no column \(gone.joined(separator: ", "))",
        hint: "give the row as a file with the columns that it has")
    }
    var block = RowBlock(table: table.name, columnNames: keyNames + known, keyCount: keyNames.count)
    block.actors = [1]
    block.counters = [1]
    block.stamps = [0]
    block.alive = [isAlive]
    for (at, name) in block.columnNames.enumerated() {
      let value: String? = (key[name] ?? given[name]) ?? nil
      block.columns[at].append(value.map { Array($0.utf8) })
    }
    // As an application's: what triggers make of it is meant.
    var table = table
    table.replicaTriggers = []
    applier = try TableApplier(session: session, table: table, block: block, refusesMissing: true)
  }

  /// Locks the row and its version, in the order in which applications take them.
  func lock() throws -> (exists: Bool, version: TableApplier.LocalVersion?) {
    (try applier.lockRows()[0], try applier.lockVersions()[0])
  }

  /// Whether the row looks like this already, in the columns given.
  func isThere(_ exists: Bool) throws -> Bool {
    guard exists, isAlive else { return exists == isAlive }
    return try applier.localValues(of: [0])[0] == applier.values(of: 0)
  }

  /// Writes the locked row. Ends the transaction with an error where an application's statement would.
  func write(exists: Bool) throws {
    // What an application of this role gets, for functions of triggers that do not say where their tables are.
    try session.query(
      """
      SELECT set_config('search_path', coalesce((
        SELECT substr(setting, strpos(setting, '=') + 1) FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
          AND setting LIKE 'search_path=%' ORDER BY setrole = 0, setdatabase = 0 LIMIT 1), '"$user", public'), true)
      """)
    let content: PlannedWrite.Content = isAlive ? (exists ? .update : .insert) : (exists ? .delete : .none)
    try applier.writeRows(
      [
        PlannedWrite(
          row: 0, content: content, isAlive: isAlive, dot: applier.block.dot(0), stamp: 0, vector: nil,
          hasVersion: false,
          echo: false)
      ], replacing: false)
    // What is deferred is checked while the triggers still find their tables.
    try session.script("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL search_path = pg_catalog")
  }
}
