import SyncCore

/// What must hold of head's rows once everything is quiet; the other offices are equal to head by then.
extension Ledger {
  mutating func checkHead(_ head: Database) {
    let rows = head.rows
    for (key, copy) in rows.enumerated() {
      if let copy { checkCounter(copy, key) }
    }
    var quarantined = WriteSet()
    for (_, row) in head.inbox.quarantined { quarantined.formUnion(row.truth) }
    for index in writes.indices
    where writes[index].isCommitted && !quarantined.contains(index)
      && !writes[index].isLost
    {
      let write = writes[index]
      if rows[write.key] == nil, head.forgotten[write.key]?.contains(index) ?? false { continue }
      guard let copy = rows[write.key], copy.truth.contains(index) else {
        fail(.accounted, "write \(index) of key \(write.key) never arrived")
        return
      }
      for column in write.columns where !isAccounted(index, column, copy, depth: 0) {
        fail(.accounted, "write \(index) of key \(write.key), register \(column), was lost silently")
      }
      for column in write.columns
      where owner(copy.state, column) == index && discarded.contains(ColumnWrite(write: index, column: column)) {
        fail(.discarded, "write \(index) of key \(write.key), register \(column), came back")
      }
    }
  }

  private mutating func checkCounter(_ copy: Copy, _ key: Int) {
    guard let counter = copy.state.counters[Self.counter] else {
      fail(.exact, "key \(key) has no counter")
      return
    }
    var expected = 0
    copy.truth.visit { expected += writes[$0].isCommitted ? writes[$0].increment : 0 }
    let sum = counter.contributions.values.reduce(0) { $0 + $1.sum }
    if sum != expected { fail(.exact, "key \(key): increments come to \(sum), made were \(expected)") }
    guard copy.state.isAlive else { return }
    let amount = inserted[copy.state.alive.dot]
    if counter.inserted != amount {
      fail(.exact, "key \(key): inserted \(counter.inserted), the surviving insert's is \(amount ?? -1)")
    }
  }

  private func isAccounted(_ index: Int, _ column: Int, _ copy: Copy, depth: Int) -> Bool {
    if owner(copy.state, column) == index { return true }
    if logged.contains(ColumnWrite(write: index, column: column)) { return true }
    let key = writes[index].key
    for (i, other) in writes.enumerated() where other.key == key && !other.isArbitration {
      if i != index, other.isWhole || other.columns.contains(column), other.context.contains(index),
        copy.truth.contains(i)
      {
        return true
      }
    }
    guard depth < 40, let stands = aliases[ColumnWrite(write: index, column: column)] else { return false }
    return stands.contains { $0 != index && isAccounted($0, column, copy, depth: depth + 1) }
  }

  /// Half of a transaction in one office's rows, if there is one.
  func half(in database: Database) -> String? {
    for transaction in transactions {
      var seen = 0
      for (key, write) in transaction where database.hasSeen(write, of: key) { seen += 1 }
      guard seen > 0, seen < transaction.count else { continue }
      let missing = transaction.filter { !database.hasSeen($0.write, of: $0.key) }
      if let lost = missing.first(where: { database.held[$0.key] == nil && !refusedOnce.contains($0.write) }) {
        return "write \(lost.write) of key \(lost.key) is missing of \(transaction)"
      }
    }
    return nil
  }
}
