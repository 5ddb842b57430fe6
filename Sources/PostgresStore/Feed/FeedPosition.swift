import SyncCore

/// A position in an office's feed: a PostgreSQL snapshot. New since it is exactly what its transactions did not
/// see: `xid >= xmax OR xid = ANY (xip)`. Never a greatest number: a transaction that took a lower one may commit
/// later. Source: PgQ; PostgreSQL manual, 9.26.8.
///
/// Between the batches of one scan tables of high rank (`TableInfo.rank`) are further on than the others.
package struct FeedPosition: Hashable, Sendable {
  /// `xmin:xmax:xip,…`; nil is the beginning, before every transaction.
  private let ranked: RankedPosition<String?>

  package static let beginning = FeedPosition(text: nil)
  /// The beginning as a snapshot, where one must be stored.
  static let beginningText = "1:1:"

  package init(text: String?) { ranked = RankedPosition(text) }

  private init(_ ranked: RankedPosition<String?>) { self.ranked = ranked }

  /// As it is stored: of the tables that are ahead a text `order own rank=snapshot;…`, or `order echoes …`.
  package init(text: String?, ahead: String?) {
    let text = text == Self.beginningText ? nil : text
    let words = (ahead ?? "").split(separator: " ")
    guard words.count == 3 else {
      ranked = RankedPosition(text)
      return
    }
    let snapshots = words[2].split(separator: ";").compactMap { one -> RankedPosition<String?>.Ahead? in
      let pair = one.split(separator: "=", maxSplits: 1)
      guard pair.count == 2, let rank = Int(pair[0]) else { return nil }
      return .init(rank: rank, snapshot: String(pair[1]))
    }
    ranked = RankedPosition(text, ahead: snapshots, order: String(words[0]), echoes: words[1] == "echoes")
  }

  /// Where all tables stand at least.
  package var text: String? { ranked.base }
  /// What is stored beside the snapshot; nil: all tables stand there.
  var aheadText: String? {
    guard !ranked.isWhole else { return nil }
    let list = ranked.ahead.map { "\($0.rank)=\($0.snapshot ?? Self.beginningText)" }.joined(separator: ";")
    return "\(ranked.order) \(ranked.echoes ? "echoes" : "own") \(list)"
  }
  var storedText: String { text ?? Self.beginningText }
  var isWhole: Bool { ranked.isWhole }
  var echoes: Bool { ranked.echoes }

  /// After a batch of all tables of `rank`, read by `snapshot`; those of higher rank had been read before.
  func moved(rank: Int, to snapshot: String, order: String, echoes: Bool) -> FeedPosition {
    FeedPosition(ranked.moved(rank: rank, to: snapshot, order: order, echoes: echoes))
  }

  /// Where tables of this rank stand.
  func of(rank: Int) -> FeedPosition { FeedPosition(text: ranked.of(rank: rank)) }

  /// For these tables, as they are ranked now.
  func under(_ tables: [TableInfo]) -> FeedPosition { FeedPosition(ranked.under(TableInfo.digest(of: tables))) }

  /// The condition on a version row of a table. Deletes have a rank of their own.
  func isNew(_ alias: String, _ table: TableInfo) -> String {
    let (alive, dead) = (of(rank: table.rank).isNew(alias), of(rank: table.deleteRank).isNew(alias))
    return alive == dead ? alive : "CASE WHEN \(alias).alive THEN \(alive) ELSE \(dead) END"
  }

  /// The condition on `alias.xid`; the text is checked to be numbers only.
  func isNew(_ alias: String) -> String {
    guard let text else { return "true" }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 3, let xmax = UInt64(parts[1]) else { return "true" }
    let inProgress = parts[2].split(separator: ",").compactMap { UInt64($0) }
    let newer = "\(alias).xid >= '\(xmax)'::xid8"
    guard !inProgress.isEmpty else { return newer }
    let list = inProgress.map { "'\($0)'::xid8" }.joined(separator: ", ")
    return "(\(newer) OR \(alias).xid IN (\(list)))"
  }
}

/// Where a catch-up, or a batch that was cut, goes on: after this key of this table.
struct WindowCursor: Equatable {
  var table: String
  var key: [String]
  /// Of the tables' order (`TableInfo.digest`): in another order the cursor would pass over tables.
  var order = ""

  /// Length-prefixed texts; opaque to the receiver.
  var bytes: [UInt8] {
    var out: [UInt8] = []
    for text in [order, table] + key {
      withUnsafeBytes(of: UInt32(text.utf8.count).bigEndian) { out.append(contentsOf: $0) }
      out.append(contentsOf: text.utf8)
    }
    return out
  }

  init(table: String, key: [String], order: String = "") {
    self.table = table
    self.key = key
    self.order = order
  }

  /// nil when the bytes are not a cursor that this office wrote.
  init?(_ bytes: [UInt8]) {
    var texts: [String] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      guard rest.count >= 4 else { return nil }
      let count = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(4)
      guard rest.count >= count else { return nil }
      texts.append(String(decoding: rest.prefix(count), as: UTF8.self))
      rest = rest.dropFirst(count)
    }
    guard texts.count > 2 else { return nil }
    order = texts[0]
    table = texts[1]
    key = Array(texts.dropFirst(2))
  }
}
