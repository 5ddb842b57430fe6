/// What keeps foreign keys, and what ends a quarantine.
extension Arbiter {
  /// A deleted row that living rows refer to comes back over its delete: both copies have been seen. Its stamp directly
  /// follows the later one, as any decision's does. What was added to its counters while it was away counts.
  ///
  /// - Parameter deletedNow: the delete is what arrived, and the row what head held; else head had the row deleted
  ///   before.
  package func revived<Value>(
    _ image: RowState<Value>, over tombstone: RowState<Value>, deletedNow: Bool
  ) -> MergedRow<Value> {
    let stamp = max(image.latest.stamp, tombstone.latest.stamp).advanced(byMicroseconds: 1)
    var row = image
    row.alive = Register(value: true, dot: dot, stamp: stamp)
    row.registers = image.registers.mapValues { Register(value: $0.value, dot: dot, stamp: stamp) }
    row.vector = image.vector.joined(with: tombstone.vector)
    row.vector.insert(dot)
    for (column, other) in tombstone.counters {
      guard let mine = image.counters[column] else { continue }
      row.counters[column]?.contributions = mine.contributions(joined: other)
    }
    let conflict =
      deletedNow
      ? Conflict(column: nil, local: image, incoming: tombstone)
      : Conflict(column: nil, local: tombstone, incoming: image)
    return MergedRow(
      row: row,
      decided: [DecidedConflict(conflict: conflict, winner: deletedNow ? .local : .incoming, reason: .referenced)],
      isRestamped: false)
  }

  /// The version under which a row, or its absence, stands here although a refused state of it was sent; nil: it stands
  /// already. It has seen the refused one, so that whoever wrote that takes this one.
  ///
  /// - Parameters:
  ///   - local: what is known of the row here; nil: nothing.
  ///   - stamp: the refused state's latest. Of a clock that runs ahead it counts as now.
  package func absorbed(
    _ vector: VersionVector, stamp: Stamp, over local: (vector: VersionVector, latest: Stamp)?
  ) -> (vector: VersionVector, version: Version)? {
    if let local, local.vector.dominates(vector) { return nil }
    let theirs = min(stamp, now)
    var joined = (local?.vector ?? VersionVector()).joined(with: vector)
    joined.insert(dot)
    return (joined, Version(stamp: .next(now: now, after: max(local?.latest ?? theirs, theirs)), dot: dot))
  }

  /// Merged by column: whether a column keeps the write that it has when the row absorbs a refused one. What the refused
  /// one wrote without being known here is written again: keeping its dot it would lose to the refused write, which is
  /// in the vector too. Other columns keep theirs, or they would meet writes in conflict that are about something else.
  package static func keepsItsWrite(refused: Dot?, local: VersionVector) -> Bool { refused.map(local.contains) ?? true }
}

extension Arbiter {
  /// `absorbed(_:stamp:over:)` of whole rows. The contributions of both are joined while what the counters show stays,
  /// so that of what is added later only that counts.
  package func absorbed<Value: AdditiveArithmetic>(
    _ refused: RowState<Value>, over local: RowState<Value>?, granularity: Granularity
  ) -> RowState<Value>? {
    guard
      let (vector, version) = absorbed(
        refused.vector, stamp: refused.latest.stamp, over: local.map { ($0.vector, $0.latest.stamp) })
    else { return nil }
    var row = local ?? RowState(vector: vector, alive: Register(value: false, dot: dot, stamp: version.stamp))
    row.vector = vector
    row.alive = Register(value: row.isAlive, dot: dot, stamp: version.stamp)
    for (column, register) in row.registers {
      let theirs = refused.registers[column]?.dot
      if granularity == .columns, Self.keepsItsWrite(refused: theirs, local: local?.vector ?? vector) { continue }
      row.registers[column] = Register(value: register.value, dot: dot, stamp: version.stamp)
    }
    for (column, theirs) in refused.counters {
      let mine = row.counters[column] ?? Counter(inserted: .zero)
      var counter = mine
      counter.contributions = mine.contributions(joined: theirs)
      counter.inserted = row.isAlive ? mine.inserted + mine.added - counter.added : .zero
      row.counters[column] = counter
    }
    return row
  }
}
