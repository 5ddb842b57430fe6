import HubEngine
import SyncCore

/// One pass over the tracked tables for rows that changed since a position, inside an open transaction.
///
/// Rows that live come in the order of the tables, parents first; deletes come last, children first, unless
/// there are very many: a batch that is applied whole needs no order, one too large for that does.
final class FeedScan {
  private let session: Session
  private let tables: [TableInfo]
  private let since: FeedPosition
  private let echoes: Bool
  private let after: WindowCursor?
  private let isKeyed: Bool
  private let partBytes: Int
  /// Of tables that come to this office only what this one sent.
  private let returning: String?
  private let heldDeletesMax = 50_000

  private var index = 0
  private var isOpen = false
  private var fetchCount = 200
  /// Rows and bytes read of the fetch that is under way.
  private var fetched: (rows: Int, bytes: Int)?
  private var heldDeletes: [RowBlock] = []
  private var heldCount = 0

  /// - Parameters:
  ///   - after: scan in the order of the keys, after this one, as a catch-up does; `isKeyed` with nil: from the
  ///     beginning.
  ///   - echoes: also rows that came from the receiver.
  ///   - returning: an office that lost what it had sent.
  init(
    session: Session, tables: [TableInfo], since: FeedPosition, echoes: Bool, isKeyed: Bool = false,
    after: WindowCursor? = nil, returning: String? = nil, partBytes: Int
  ) {
    self.returning = returning
    self.session = session
    self.tables = tables
    self.since = since
    self.echoes = echoes
    self.after = after
    self.isKeyed = isKeyed
    self.partBytes = partBytes
    if let after { index = tables.firstIndex { $0.name == after.table } ?? 0 }
  }

  /// The next part; its `isLast` says that nothing follows. A scan without rows is one empty last part.
  func next(rowsMax: Int = .max) throws -> FeedPart {
    var part = FeedPart(blocks: [], rows: 0, cursor: [], isLast: false)
    var bytes = 0
    while index < tables.count {
      let table = tables[index]
      if !isOpen { try open(table) }
      if fetched == nil {
        try session.stream("FETCH \(min(fetchCount, max(1, rowsMax - part.rows))) FROM hub_feed")
        fetched = (0, 0)
      }
      let isFull = try read(table, into: &part, &bytes, rowsMax: rowsMax)
      if isFull { return part }
    }
    part.blocks += heldDeletes.reversed()
    part.rows += heldCount
    heldDeletes = []
    heldCount = 0
    part.isLast = true
    return part
  }

  /// Reads what was fetched, row by row, until the part is full: rows of very different sizes may be in one fetch.
  private func read(_ table: TableInfo, into part: inout FeedPart, _ bytes: inout Int, rowsMax: Int) throws
    -> Bool
  {
    var block = RowBlock(table: table.name, columnNames: table.columnNames, keyCount: table.keyCount)
    var dead = block
    var count = fetched ?? (0, 0)
    var last: ResultSet?
    while bytes < partBytes, part.rows + block.count < rowsMax, let row = try session.nextRow() {
      let size = append(row, table, alive: &block, dead: &dead, apart: !isKeyed)
      bytes += size
      count = (count.rows + 1, count.bytes + size)
      last = row
    }
    fetched = count
    if isKeyed, let last { part.cursor = WindowCursor(table: table.name, key: lastKey(last, table)).bytes }
    hold(dead, &part)
    if block.count > 0 {
      part.rows += block.count
      part.blocks.append(block)
    }
    if bytes >= partBytes || part.rows >= rowsMax { return true }
    fetched = nil
    if count.rows == 0 {
      try session.script("CLOSE hub_feed")
      isOpen = false
      index += 1
    }
    fetchCount = max(1, min(2000, fetchCount * 8, partBytes * count.rows / max(1, count.bytes) / 2))
    return false
  }

  private func hold(_ dead: RowBlock, _ part: inout FeedPart) {
    guard dead.count > 0 else { return }
    if heldCount + dead.count > heldDeletesMax {
      part.blocks.append(dead)
      part.rows += dead.count
    } else {
      heldDeletes.append(dead)
      heldCount += dead.count
    }
  }

  private func open(_ table: TableInfo) throws {
    let keys = table.keyColumns.enumerated()
      .map { "coalesce(t.\(quotedName($1.name)), v.k\($0 + 1))" }
    let values = table.columns[table.keyCount...].map { "t.\(quotedName($0.name))" }
    let list = (keys + values).joined(separator: ", ")
    let join = table.keyJoin({ "t.\(quotedName($1.name))" }, { index, _ in "v.k\(index + 1)" })
    var filter = since.isNew("v")
    if !echoes { filter += " AND NOT v.echo" }
    if let after, after.table == table.name { filter += " AND " + Self.follows(table, after.key) }
    if let returning, table.options.direction == "up" { filter += " AND " + Self.isWritten(by: returning) }
    let order =
      isKeyed ? "ORDER BY " + (1...table.keyCount).map { "v.k\($0)" }.joined(separator: ", ") : ""
    try session.script(
      """
      DECLARE hub_feed NO SCROLL CURSOR FOR
      SELECT \(list), v.actor, v.n, v.stamp, v.vector, t.tableoid IS NOT NULL\(RowDetails.columns(of: table))
      FROM \(table.versions) v LEFT JOIN \(table.quoted) t ON \(join)
      WHERE \(filter) \(order)
      """)
    isOpen = true
  }

  private static func isWritten(by office: String) -> String {
    """
    EXISTS (SELECT FROM hub.actor a WHERE a.office = \(quotedLiteral(office))
      AND (a.actor = v.actor OR a.actor = ANY (v.vector)))
    """
  }

  /// The rows after `key` in the key's order; as one row comparison where that uses the index.
  private static func follows(_ table: TableInfo, _ key: [String]) -> String {
    guard key.count == table.keyCount else { return "true" }
    let values = zip(table.keyColumns, key).map { "\(quotedLiteral($1))::\($0.castType)" }
    let names = (1...table.keyCount).map { "v.k\($0)" }
    if table.keyColumns.allSatisfy({ $0.greater == table.columns[0].greater }) {
      return
        "ROW(\(names.joined(separator: ", "))) \(table.columns[0].greater) ROW(\(values.joined(separator: ", ")))"
    }
    let cases = (0..<table.keyCount).map { i in
      let equal = (0..<i).map { "\(names[$0]) \(table.columns[$0].equality) \(values[$0])" }
      return (equal + ["\(names[i]) \(table.columns[i].greater) \(values[i])"]).joined(separator: " AND ")
    }
    return "(" + cases.map { "(\($0))" }.joined(separator: " OR ") + ")"
  }

  private func lastKey(_ rows: ResultSet, _ table: TableInfo) -> [String] {
    (0..<table.keyCount).map { rows.text(rows.count - 1, $0) }
  }

  /// Appends result rows to blocks; returns their size in bytes.
  /// Rows with a value that is too large to travel; they are left out and reported.
  private(set) var oversized: [(table: String, key: JSONValue, bytes: Int)] = []

  private func largest(_ rows: ResultSet, _ row: Int, _ width: Int) -> Int? {
    (0..<width).compactMap { rows.bytes(row, $0)?.count }.max()
  }

  private static func key(_ rows: ResultSet, _ row: Int, _ table: TableInfo) -> JSONValue {
    .row(table.keyColumns.map(\.name), (0..<table.keyCount).map { rows.bytes(row, $0).map(Array.init) })
  }

  private func append(
    _ rows: ResultSet, _ table: TableInfo, alive block: inout RowBlock, dead: inout RowBlock, apart: Bool
  ) -> Int {
    let width = table.columns.count
    var size = 0
    for row in 0..<rows.count {
      let alive = rows.bool(row, width + 4)
      if let bytes = largest(rows, row, width), bytes > Limits.valueBytesMax {
        oversized.append((table.name, Self.key(rows, row, table), bytes))
        size += bytes
        continue
      }
      if apart, !alive {
        size += Self.append(rows, row, table, alive, &dead)
      } else {
        size += Self.append(rows, row, table, alive, &block)
      }
    }
    return size
  }

  private static func append(
    _ rows: ResultSet, _ row: Int, _ table: TableInfo, _ alive: Bool, _ block: inout RowBlock
  ) -> Int {
    let width = table.columns.count
    var size = 32
    let number = block.count
    block.actors.append(rows.int64(row, width))
    block.counters.append(rows.int64(row, width + 1))
    block.stamps.append(rows.int64(row, width + 2))
    block.alive.append(alive)
    if let text = rows.string(row, width + 3) { block.vectors[number] = VersionVector(postgres: text) }
    if table.comparesUpdates {
      let details = RowDetails(rows, row, from: width + 5, table) { $0 }
      if !details.contributions.isEmpty { block.contributions[number] = details.contributions }
      if !details.columnVersions.isEmpty, alive { block.columnVersions[number] = details.columnVersions }
      size += 32 * (details.contributions.count + details.columnVersions.count)
    }
    for column in 0..<width {
      let bytes = rows.bytes(row, column)
      size += bytes?.count ?? 0
      block.columns[column].append(bytes)
    }
    return size
  }
}

extension VersionVector {
  /// From a bigint[] of actor, n, actor, n, …
  init(postgres text: String) {
    let numbers = text.dropFirst().dropLast().split(separator: ",").compactMap { Int64($0) }
    self.init(
      stride(from: 0, to: numbers.count - 1, by: 2).map {
        Dot(actor: ActorID(rawValue: numbers[$0]), n: numbers[$0 + 1])
      })
  }

  var postgres: String { "{" + dots.map { "\($0.actor.rawValue),\($0.n)" }.joined(separator: ",") + "}" }
}
