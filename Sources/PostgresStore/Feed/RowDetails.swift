import SyncCore

/// What a version row has beyond the row's own write, of tables with counters or merged by column.
///
/// PostgreSQL holds both as one flat array of fours: column number, actor, n and the sum or stamp.
struct RowDetails {
  var contributions: [RowContribution] = []
  var columnVersions: [ColumnVersion] = []

  /// Of a row that nobody counted in, and of which no column was updated alone.
  init() {}

  /// What to select for it of a version table `v`, with a comma before.
  static func columns(of table: TableInfo) -> String {
    table.comparesUpdates
      ? (table.counters.isEmpty ? ", NULL" : ", v.contributions")
        + (table.isMergedByColumn ? ", v.column_versions" : ", NULL") : ""
  }

  /// From result columns `from` and the one after it. `place` says where a column of the table stands; nil: nowhere.
  init(_ rows: ResultSet, _ row: Int, from: Int, _ table: TableInfo, at place: (Int) -> Int?) {
    guard table.comparesUpdates else { return }
    func entries<Entry>(_ column: Int, _ make: (Int, Dot, Substring) -> Entry?) -> [Entry] {
      guard let text = rows.string(row, column) else { return [] }
      let parts = text.dropFirst().dropLast().split(separator: ",")
      return stride(from: 0, to: parts.count - 3, by: 4).compactMap { i in
        guard let number = Int(parts[i]), let actor = Int64(parts[i + 1]), let n = Int64(parts[i + 2]),
          let index = table.columns.firstIndex(where: { $0.number == number }), let at = place(index)
        else { return nil }
        return make(at, Dot(actor: ActorID(rawValue: actor), n: n), parts[i + 3])
      }
    }
    contributions = entries(from) { RowContribution(column: $0, dot: $1, sum: Array($2.utf8)) }
    contributions.sort { ($0.column, $0.dot.actor) < ($1.column, $1.dot.actor) }
    columnVersions = entries(from + 1) { column, dot, stamp in
      Int64(stamp).map { ColumnVersion(column: column, dot: dot, stamp: $0) }
    }
    columnVersions.sort { $0.column < $1.column }
  }

  static func text(_ contributions: [RowContribution], _ number: (Int) -> Int?) -> String? {
    text(contributions.map { ($0.column, $0.dot, String(decoding: $0.sum, as: UTF8.self)) }, number)
  }

  static func text(_ versions: [ColumnVersion], _ number: (Int) -> Int?) -> String? {
    text(versions.map { ($0.column, $0.dot, String($0.stamp)) }, number)
  }

  private static func text(_ entries: [(Int, Dot, String)], _ number: (Int) -> Int?) -> String? {
    let fours = entries.compactMap { column, dot, last in
      number(column).map { "\($0),\(dot.actor.rawValue),\(dot.n),\(last)" }
    }
    return fours.isEmpty ? nil : "{" + fours.joined(separator: ",") + "}"
  }
}
