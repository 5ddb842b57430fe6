import HubEngine
import SyncCore

/// One pass over the tracked tables for rows that changed since a position, inside an open transaction.
///
/// Rows that live come in the order of the tables, by rank, parents first; deletes come last, children first, unless
/// there are very many: a batch that is applied whole needs no order, one too large for that does.
///
/// With `slices` what is more than one part becomes a batch a rank, each of one transaction at the receiver. Their rows
/// come in the order of the keys, so that a batch that was cut goes on after the parts that the receiver has.
final class FeedScan {
  /// What to read of one table.
  private struct Step {
    var table: TableInfo
    var rank: Int
    /// On the version row `v`.
    var condition: String
    /// Its rows come in the order of the cursor.
    var movesCursor = true
  }

  /// A batch that was cut: the receiver has its parts up to the cursor. `readAt`: when the first of them was read.
  struct Resumption {
    var cursor: WindowCursor
    var readAt: FeedPosition
  }

  private enum Stop { case full, rankEnd, end }

  private let session: Session
  private let since: FeedPosition
  private let echoes: Bool
  private let isKeyed: Bool
  private let slices: Bool
  private let partBytes: Int
  /// Of tables that come to this office only what this one sent.
  private let returning: String?
  private let order: String
  private let heldDeletesMax = 50_000

  private var steps: [Step] = []
  private var index = 0
  private var isOpen = false
  private var fetchCount = 200
  /// Rows and bytes read of the fetch that is under way.
  private var fetched: (rows: Int, bytes: Int)?
  private var heldDeletes: [RowBlock] = []
  private var heldCount = 0
  /// The part in the making, with the ranks of its rows.
  private var open: [(rank: Int, block: RowBlock)] = []
  private var bytes = 0
  private var cursor: [UInt8] = []

  // slices
  private var resumption: Resumption?
  /// All may fit into one part: nothing is ordered yet.
  private var isFirstLook: Bool
  /// Where the rank under way began.
  private var rankStart = 0
  private var partsOfBatch = 0
  /// The batch that the last part belongs to goes on where it was cut.
  private(set) var resumes = false
  /// The rank of the batch that the last part belongs to; nil: it is everything.
  private var batchRank: Int?

  /// What the receiver has of a batch that was cut is of use, now or later.
  var keepsStaged: Bool { resumption != nil || resumes }

  /// Where the batch that the last part belongs to leads.
  func position(at snapshot: String) -> FeedPosition {
    guard let batchRank, batchRank != steps.last?.rank else { return FeedPosition(text: snapshot) }
    return since.moved(rank: batchRank, to: snapshot, order: order, echoes: echoes)
  }

  /// - Parameters:
  ///   - after: scan in the order of the keys, after this one, as a catch-up does; `isKeyed` with nil: from the
  ///     beginning.
  ///   - echoes: also rows that came from the receiver.
  ///   - returning: an office that lost what it had sent.
  ///   - slices: several batches, if it is too much for one part; `resumption`: the first of them was cut.
  init(
    session: Session, tables: [TableInfo], since: FeedPosition, echoes: Bool, isKeyed: Bool = false,
    after: WindowCursor? = nil, returning: String? = nil, slices: Bool = false, resumption: Resumption? = nil,
    partBytes: Int
  ) {
    self.returning = returning
    self.session = session
    let since = since.under(tables)
    self.since = since
    self.echoes = echoes || since.echoes
    self.isKeyed = isKeyed
    self.slices = slices
    self.partBytes = partBytes
    isFirstLook = slices
    order = TableInfo.digest(of: tables)
    if let resumption, resumption.cursor.order == order { self.resumption = resumption }
    steps =
      slices
      ? Self.slicedSteps(tables, since) : tables.map { Step(table: $0, rank: 0, condition: since.isNew("v", $0)) }
    if let after, after.order == order, let at = tables.firstIndex(where: { $0.name == after.table }) {
      steps.removeFirst(at)
      steps[0].condition = "(\(steps[0].condition)) AND " + Self.follows(tables[at], after.key)
    }
  }

  /// By falling rank. Deletes of a parent go with the lowest of its children, in a step of their own.
  private static func slicedSteps(_ tables: [TableInfo], _ since: FeedPosition) -> [Step] {
    var steps = tables.filter { $0.rank == $0.deleteRank }.map {
      Step(table: $0, rank: $0.rank, condition: since.isNew("v", $0))
    }
    for table in tables where table.rank != table.deleteRank {
      steps.append(
        Step(table: table, rank: table.rank, condition: "v.alive AND " + since.of(rank: table.rank).isNew("v")))
      let dead = "NOT v.alive AND " + since.of(rank: table.deleteRank).isNew("v")
      steps.append(Step(table: table, rank: table.deleteRank, condition: dead, movesCursor: false))
    }
    let places = Dictionary(uniqueKeysWithValues: tables.enumerated().map { ($1.name, $0) })
    return steps.sorted { ($1.rank, places[$0.table.name] ?? 0) < ($0.rank, places[$1.table.name] ?? 0) }
  }

  /// The next part; its `isLast` says that its batch ends, without `more` that nothing follows. A scan without rows is one
  /// empty last part.
  func next(rowsMax: Int = .max) throws -> FeedPart {
    guard slices else {
      let stop = try fill(rowsMax, throughRank: false)
      return take(isLast: stop == .end, more: false)
    }
    if isFirstLook {
      if try fill(.max, throughRank: false) == .end {
        isFirstLook = false
        return take(isLast: true, more: false)
      }
      // Too much for one part, or a rank that goes on where it was cut.
      try startRankAgain()
    }
    return try nextOfRank()
  }

  /// Ranks that were read whole are batches of one part; then each as it comes.
  private func nextOfRank() throws -> FeedPart {
    if let rank = open.first?.rank, partsOfBatch == 0, index == rankStart, !isOpen {
      let rest = open.filter { $0.rank != rank }
      open.removeAll { $0.rank != rank }
      batchRank = rank
      let part = take(isLast: true, more: true)
      open = rest
      return part
    }
    while index < steps.count {
      if partsOfBatch == 0 { try beginRank() }
      let stop = try fill(.max, throughRank: true)
      if stop == .full {
        // The receiver stores one unfinished batch.
        if !resumes { resumption = nil }
        partsOfBatch += 1
        return take(isLast: false, more: true)
      }
      let isNothing = open.isEmpty && partsOfBatch == 0 && !resumes
      partsOfBatch = 0
      if !isNothing { return take(isLast: true, more: stop == .rankEnd) }
    }
    return .empty
  }

  private func beginRank() throws {
    guard !isOpen, index < steps.count else { return }
    let rank = steps[index].rank
    batchRank = rank
    resumes = false
    guard let resumption,
      let at = steps.firstIndex(where: { $0.table.name == resumption.cursor.table && $0.movesCursor }),
      steps[at].rank == rank
    else { return }
    self.resumption = nil
    cursor = resumption.cursor.bytes
    resumes = true
    let end = steps[index...].firstIndex { $0.rank != rank } ?? steps.count
    let follows = Self.follows(steps[at].table, resumption.cursor.key)
    let changed = "(NOT v.alive OR \(resumption.readAt.isNew("v")))"
    var rest: [Step] = []
    var again: [Step] = []
    for number in index..<end {
      var (later, earlier) = (steps[number], steps[number])
      earlier.movesCursor = false
      earlier.condition = "(\(earlier.condition)) AND \(changed)"
      if number == at {
        later.condition = "(\(later.condition)) AND \(follows)"
        earlier.condition += " AND NOT (\(follows))"
      }
      if number >= at || !later.movesCursor { rest.append(later) }
      if number <= at, later.movesCursor { again.append(earlier) }
    }
    steps.replaceSubrange(index..<end, with: rest + again)
  }

  /// What was read of the rank under way is read again, in the order of the keys.
  private func startRankAgain() throws {
    isFirstLook = false
    if isOpen {
      while try session.nextRow() != nil {}
      try session.script("CLOSE hub_feed")
      isOpen = false
    }
    fetched = nil
    index = rankStart
    if index < steps.count { open.removeAll { $0.rank == steps[index].rank } }
    heldDeletes = []
    heldCount = 0
    bytes = 0
  }

  private func take(isLast: Bool, more: Bool) -> FeedPart {
    let part = FeedPart(
      blocks: open.map(\.block), rows: openRows, cursor: cursor, isLast: isLast, more: more)
    open = []
    bytes = 0
    return part
  }

  private var openRows: Int { open.reduce(0) { $0 + $1.block.count } }

  private func fill(_ rowsMax: Int, throughRank: Bool) throws -> Stop {
    while index < steps.count {
      let step = steps[index]
      if isFirstLook, !isOpen, step.rank == resumedRank { return .rankEnd }
      if !isOpen { try open(step) }
      if fetched == nil {
        try session.stream("FETCH \(min(fetchCount, max(1, rowsMax - openRows))) FROM hub_feed")
        fetched = (0, 0)
      }
      if try read(step, rowsMax: rowsMax) { return .full }
      guard !isOpen, index == steps.count || steps[index].rank != step.rank else { continue }
      // Deletes, children first.
      open += heldDeletes.reversed().map { (step.rank, $0) }
      heldDeletes = []
      heldCount = 0
      rankStart = index
      if throughRank { return index == steps.count ? .end : .rankEnd }
    }
    return .end
  }

  private var resumedRank: Int? {
    resumption.flatMap { at in steps.first { $0.table.name == at.cursor.table && $0.movesCursor }?.rank }
  }

  /// Reads what was fetched, row by row, until the part is full: rows of very different sizes may be in one fetch.
  private func read(_ step: Step, rowsMax: Int) throws -> Bool {
    let table = step.table
    var block = RowBlock(table: table.name, columnNames: table.columnNames, keyCount: table.keyCount)
    var dead = block
    var count = fetched ?? (0, 0)
    var last: ResultSet?
    let before = openRows
    while bytes < partBytes, before + block.count < rowsMax, let row = try session.nextRow() {
      let size = append(row, table, alive: &block, dead: &dead, apart: !isKeyed)
      bytes += size
      count = (count.rows + 1, count.bytes + size)
      last = row
    }
    fetched = count
    if isOrdered, step.movesCursor, let last {
      cursor = WindowCursor(table: table.name, key: lastKey(last, table), order: order).bytes
    }
    hold(dead, step.rank)
    if block.count > 0 { open.append((step.rank, block)) }
    if bytes >= partBytes || before + block.count >= rowsMax { return true }
    fetched = nil
    if count.rows == 0 {
      try session.script("CLOSE hub_feed")
      isOpen = false
      index += 1
    }
    fetchCount = max(1, min(2000, fetchCount * 8, partBytes * count.rows / max(1, count.bytes) / 2))
    return false
  }

  private func hold(_ dead: RowBlock, _ rank: Int) {
    guard dead.count > 0 else { return }
    if heldCount + dead.count > heldDeletesMax {
      open.append((rank, dead))
    } else {
      heldDeletes.append(dead)
      heldCount += dead.count
    }
  }

  private var isOrdered: Bool { isKeyed || (slices && !isFirstLook) }

  private func open(_ step: Step) throws {
    let table = step.table
    let keys = table.keyColumns.enumerated()
      .map { "coalesce(t.\(quotedName($1.name)), v.k\($0 + 1))" }
    let values = table.columns[table.keyCount...].map { "t.\(quotedName($0.name))" }
    let list = (keys + values).joined(separator: ", ")
    let join = table.keyJoin({ "t.\(quotedName($1.name))" }, { index, _ in "v.k\(index + 1)" })
    var filter = "(\(step.condition))"
    if !echoes { filter += " AND NOT v.echo" }
    if let returning, table.options.direction == "up" { filter += " AND " + Self.isWritten(by: returning) }
    let order =
      isOrdered ? "ORDER BY " + (1...table.keyCount).map { "v.k\($0)" }.joined(separator: ", ") : ""
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
