import ArgumentParser
import HubEngine
import PostgresStore

/// Where one row's last writes are.
struct Trace: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Where a row's last write is: sent, arrived, waiting, held, quarantined or lost to a conflict.",
    discussion: """
      Says what this office knows. "arrived" means that the other office took the batch; whether its database refused \
      the row, hub trace says there.
      """)

  @Argument(help: "The table.") var table: String
  @Argument(help: "The key's value; of a composite key values between commas, or a JSON object.") var key: String
  @OptionGroup var options: DatabaseOptions

  func run() throws {
    let trace = try options.transaction { try RowTrace.read($0, table: table, key: key) }
    if options.json { return print(trace.json) }
    print("\(trace.table) \(trace.keyText): \(trace.answer)")
    if let version = trace.version {
      let what = version.isAlive ? "the row" : "its delete"
      print("\n  last write: \(what), by \(version.office) at \(version.writtenAt)")
      print("  version: \(version.vector)")
      if !trace.peers.isEmpty {
        print("  sent: \(version.batch.map { "in batch \($0) or earlier" } ?? "not yet")\n")
        printTable(
          ["OFFICE", "ARRIVED", "BATCHES NOT ACKNOWLEDGED", "LAST SEEN"],
          trace.peers.map { [$0.office, $0.hasIt ? "yes" : "no", String($0.unacknowledged), $0.lastSeen ?? "never"] })
      }
    }
    for row in trace.quarantined {
      print("\n  quarantined row \(row.id), from \(row.peer) since \(row.since): \(row.sqlstate) \(row.error)")
    }
    for entry in trace.conflicts {
      print("\n  conflict \(entry.id), \(entry.at): \(entry.winner.office)'s copy won over \(entry.loser.office)'s")
    }
  }
}
