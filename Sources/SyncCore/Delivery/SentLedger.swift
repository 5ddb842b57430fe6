/// What was sent in batches to all and in windows to one, by which an acknowledgement is worth rows and bytes.
package struct SentLedger: Sendable {
  package struct Amount: Hashable, Sendable {
    package var rows = 0
    package var bytes = 0

    package init(rows: Int = 0, bytes: Int = 0) {
      self.rows = rows
      self.bytes = bytes
    }

    static func + (left: Amount, right: Amount) -> Amount {
      Amount(rows: left.rows + right.rows, bytes: left.bytes + right.bytes)
    }

    static func - (left: Amount, right: Amount) -> Amount {
      Amount(rows: max(0, left.rows - right.rows), bytes: max(0, left.bytes - right.bytes))
    }
  }

  /// All that was sent up to the end of a batch.
  private var sums: [(number: Int64, amount: Amount)] = []
  private var total = Amount()
  private var windows: [String: Amount] = [:]
  /// How much of the sum an office has, or does without.
  private var done: [String: Amount] = [:]
  private static let sumsMax = 1000

  package init() {}

  package mutating func sent(rows: Int, bytes: Int, of number: Int64) {
    total = total + Amount(rows: rows, bytes: bytes)
    if sums.last?.number == number { sums.removeLast() }
    sums.append((number, total))
    if sums.count > Self.sumsMax { sums.removeFirst(sums.count - Self.sumsMax) }
  }

  package mutating func sentWindow(rows: Int, bytes: Int, to office: String) {
    windows[office] = windows[office, default: Amount()] + Amount(rows: rows, bytes: bytes)
  }

  /// What is news of the batches up to this one, and of windows.
  package mutating func acknowledged(_ number: Int64, by office: String) -> Amount {
    let window = windows.removeValue(forKey: office) ?? Amount()
    guard let sum = sums.last(where: { $0.number <= number })?.amount else { return window }
    let before = done[office] ?? Amount()
    guard sum.bytes > before.bytes else { return window }
    done[office] = sum
    return window + (sum - before)
  }

  /// The office has its windows, and takes nothing of the batches until now.
  package mutating func asked(by office: String) -> Amount {
    done[office] = total
    return windows.removeValue(forKey: office) ?? Amount()
  }
}
