package import HubEngine
import SyncCore

/// Rows that TRUNCATE removed without the truncating transaction having seen them.
///
/// TRUNCATE takes all rows, a REPEATABLE READ transaction sees only those of its snapshot: rows that others committed since
/// are gone without a tombstone. Its trigger leaves a request, which is served here, by a newer snapshot.
enum Truncation {
  /// Version rows are locked before the table is looked at again: an application that inserts one of the keys meanwhile
  /// waits for the version's lock and then writes a newer version over the tombstone.
  static func settle(_ session: Session, _ table: TableInfo) throws {
    let names = (1...table.keyCount).map { "k\($0)" }
    let join = table.keyJoin({ "t.\(quotedName($1.name))" }, { index, _ in "v.k\(index + 1)" })
    let missing = "v.alive AND NOT EXISTS (SELECT FROM \(table.quoted) t WHERE \(join))"
    let locked = try session.script("SELECT FROM \(table.versions) v WHERE \(missing) FOR UPDATE")
    guard locked.count > 0 else { return }
    let keys = zip(names, table.keyColumns).map { "v.\($0) AS \(quotedName($1.name))" }.joined(separator: ", ")
    try session.script(
      Capture.upsert(table, rows: "(SELECT \(keys) FROM \(table.versions) v WHERE \(missing)) AS s", alive: false))
  }
}

extension PostgresStore {
  package func settleTruncated(_ name: String) async throws(HubError) -> Bool {
    guard let table = tablesByName[name] else { return true }
    do {
      try await control.run { session in
        try session.transaction { session in
          try LockPatience.begin(session)
          try Truncation.settle(session, table)
        }
      }
    } catch {
      guard error.isTransient, error.sqlstate != nil, !error.isDisconnect else { throw error }
      return false
    }
    return true
  }
}
