/// Head's power over conflicts: a fresh dot of its own that dominates both copies, and its clock.
///
/// A branch has none. One arbiter serves one merge; its dot may go unused.
package struct Arbiter: Hashable, Sendable {
  package var dot: Dot
  package var now: Stamp
  /// A stamp further ahead than this is not believed.
  package var skewMax: Duration

  package init(dot: Dot, now: Stamp, skewMax: Duration = Limits.clockSkewMax) {
    self.dot = dot
    self.now = now
    self.skewMax = skewMax
  }

  func disbelieves(_ stamp: Stamp) -> Bool { stamp.isAhead(of: now, byMoreThan: skewMax) }

  /// Stamps that are not believed count as `now`, so that a wrong clock does not win every conflict.
  func believed<Value>(_ row: RowState<Value>) -> RowState<Value> {
    var row = row
    if disbelieves(row.alive.stamp) { row.alive.stamp = now }
    for (column, register) in row.registers where disbelieves(register.stamp) {
      row.registers[column]?.stamp = now
    }
    return row
  }

  /// The row with every register whose stamp runs ahead written again under this arbiter's dot; nil when all are
  /// believed. Only for a row that head is about to store: its vector must have everything that head has seen of
  /// this row, because the new dot says so.
  package func restamped<Value>(_ row: RowState<Value>) -> RowState<Value>? {
    let disbelieved = Disbelieved(self, row)
    guard !disbelieved.isEmpty else { return nil }
    var out = believed(row)
    let stamp = Stamp.next(now: now, after: out.latest.stamp)
    if disbelieved.alive { out.alive = Register(value: row.isAlive, dot: dot, stamp: stamp) }
    for column in disbelieved.columns {
      out.registers[column]?.dot = dot
      out.registers[column]?.stamp = stamp
    }
    out.vector.insert(dot)
    return out
  }
}
