/// A position in an office's feed: a PostgreSQL snapshot. New since it is exactly what its transactions did not
/// see: `xid >= xmax OR xid = ANY (xip)`. Never a greatest number: a transaction that took a lower one may commit
/// later. Source: PgQ; PostgreSQL manual, 9.26.8.
package struct FeedPosition: Hashable, Sendable {
  /// `xmin:xmax:xip,…`; nil is the beginning, before every transaction.
  package let text: String?

  package static let beginning = FeedPosition(text: nil)
  /// The beginning as a snapshot, where one must be stored.
  static let beginningText = "1:1:"

  package init(text: String?) { self.text = text }

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

/// Where a catch-up goes on: after this key of this table.
struct WindowCursor: Equatable {
  var table: String
  var key: [String]

  /// Length-prefixed texts; opaque to the receiver.
  var bytes: [UInt8] {
    var out: [UInt8] = []
    for text in [table] + key {
      withUnsafeBytes(of: UInt32(text.utf8.count).bigEndian) { out.append(contentsOf: $0) }
      out.append(contentsOf: text.utf8)
    }
    return out
  }

  init(table: String, key: [String]) {
    self.table = table
    self.key = key
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
    guard let first = texts.first, texts.count > 1 else { return nil }
    table = first
    key = Array(texts.dropFirst())
  }
}
