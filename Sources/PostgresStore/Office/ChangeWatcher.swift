package import HubEngine
import SyncCore

/// Follows what changes in an office's database, for people.
package actor ChangeWatcher {
  package struct Change: Sendable {
    package var table: String
    package var key: String
    package var isAlive: Bool
    package var at: Int64
    package var json: JSONValue
  }

  private let connection: PostgresConnection
  private var since: FeedPosition?

  package init(url: String) { connection = PostgresConnection(url: url, name: "hub watch") }

  /// What changed since the last call; the first call finds nothing.
  package func next() async throws(HubError) -> [Change] {
    let since = since
    let (position, changes) = try await connection.run { session -> (String, [Change]) in
      try session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
        _ = try PostgresStore.readOffice(session)
        let snapshot = try session.query("SELECT pg_current_snapshot()").text(0, 0)
        guard let since, since.text != snapshot else { return (snapshot, []) }
        let scan = FeedScan(
          session: session, tables: try TableInfo.loadAll(session), since: since, echoes: true, partBytes: 1 << 20)
        var changes: [Change] = []
        while true {
          let part = try scan.next()
          for block in part.blocks { changes += Self.changes(in: block) }
          if part.isLast { return (snapshot, changes) }
        }
      }
    }
    self.since = FeedPosition(text: position)
    return changes
  }

  private static func changes(in block: RowBlock) -> [Change] {
    let names = Array(block.columnNames.prefix(block.keyCount))
    let keys = RowName.all(table: block.table, keys: block.columns[..<block.keyCount])
    return keys.enumerated().map { row, name in
      let key = JSONValue.row(names, name.key)
      return Change(
        table: block.table, key: key.description, isAlive: block.alive[row], at: block.stamps[row],
        json: .fields([
          "table": .string(block.table), "key": key, "kind": .string(block.alive[row] ? "write" : "delete"),
          "stamp": .integer(block.stamps[row]), "actor": .string(String(block.actors[row])),
        ]))
    }
  }
}
