/// A value, the one write that produced it and that write's stamp.
package struct Register<Value: Equatable & Sendable>: Equatable, Sendable {
  package var value: Value
  package var dot: Dot
  package var stamp: Stamp

  package init(value: Value, dot: Dot, stamp: Stamp) {
    self.value = value
    self.dot = dot
    self.stamp = stamp
  }

  package var version: Version { Version(stamp: stamp, dot: dot) }
}

/// The order that `latest` goes by: the stamp, then the actor.
package struct Version: Hashable, Comparable, Sendable {
  package var stamp: Stamp
  package var dot: Dot

  package init(stamp: Stamp, dot: Dot) {
    self.stamp = stamp
    self.dot = dot
  }

  package static func < (a: Version, b: Version) -> Bool { (a.stamp, a.dot) < (b.stamp, b.dot) }
}

/// A column that is a sum: the amount it was inserted with, and what each actor added since.
///
/// Merging never adds, so amounts may be any type (decimal text in the product). The visible value is
/// `inserted` plus all contributions. An insert over a tombstone stores its amount less the contributions that it
/// has seen, so that those it has not seen still count. `inserted` belongs to the row's `alive` register: it
/// goes where that register goes.
package struct Counter<Value: Equatable & Sendable>: Equatable, Sendable {
  /// What one actor added in all, and its last write that added.
  package struct Contribution: Equatable, Sendable {
    package var sum: Value
    package var n: Int64

    package init(sum: Value, n: Int64) {
      self.sum = sum
      self.n = n
    }
  }

  package var inserted: Value
  package var contributions: [ActorID: Contribution]

  package init(inserted: Value, contributions: [ActorID: Contribution] = [:]) {
    self.inserted = inserted
    self.contributions = contributions
  }

  /// Both sides' contributions, of each actor the newer.
  func contributions(joined other: Counter) -> [ActorID: Contribution] {
    contributions.merging(other.contributions) { $0.n >= $1.n ? $0 : $1 }
  }

  /// The last write of each actor that is inside the sum.
  var dots: [Dot] { contributions.map { Dot(actor: $0.key, n: $0.value.n) } }
}

/// One office's copy of a row: what it has seen, whether the row is there, and the registers it consists of.
///
/// Invariants: a dead row has no registers (its counters stay); a live one has the same registers in every office:
/// with row granularity one, at index 0, that holds all columns which are no counters and whose dot is
/// `alive`'s; with column granularity one a column. A column without a dot of its own has `alive`'s. The vector contains every dot.
package struct RowState<Value: Equatable & Sendable>: Equatable, Sendable {
  package var vector: VersionVector
  package var alive: Register<Bool>
  package var registers: [Int: Register<Value>]
  package var counters: [Int: Counter<Value>]

  package init(
    vector: VersionVector, alive: Register<Bool>, registers: [Int: Register<Value>] = [:],
    counters: [Int: Counter<Value>] = [:]
  ) {
    self.vector = vector
    self.alive = alive
    self.registers = alive.value ? registers : [:]
    self.counters = counters
  }

  /// With row granularity: `value` holds the whole row, nil when it is deleted.
  package init(vector: VersionVector, dot: Dot, stamp: Stamp, value: Value?) {
    self.init(
      vector: vector, alive: Register(value: value != nil, dot: dot, stamp: stamp),
      registers: value.map { [0: Register(value: $0, dot: dot, stamp: stamp)] } ?? [:])
  }

  package var isAlive: Bool { alive.value }

  /// The latest write among the registers.
  package var latest: Version {
    registers.values.reduce(alive.version) { max($0, $1.version) }
  }

  /// Every write that is part of what the row shows.
  var currentDots: [Dot] {
    [alive.dot] + registers.values.map(\.dot) + counters.values.flatMap(\.dots)
  }

  /// Whether both would look the same to an application, counters' increments aside.
  package func showsSame(as other: RowState) -> Bool {
    isAlive == other.isAlive && registers.count == other.registers.count
      && registers.allSatisfy { other.registers[$0.key]?.value == $0.value.value }
      && (!isAlive || counters.allSatisfy { other.counters[$0.key]?.inserted == $0.value.inserted })
  }
}
