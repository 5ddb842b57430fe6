@testable import SyncCore

// Short names for rows in tests. Actors are small numbers, stamps are microseconds.

func dot(_ actor: Int64, _ n: Int64) -> Dot { Dot(actor: ActorID(rawValue: actor), n: n) }

func stamp(_ microseconds: Int64) -> Stamp { Stamp(rawValue: microseconds) }

func reference(_ number: Int64, _ id: Int64 = 0) -> BatchReference {
  BatchReference(number: number, id: id == 0 ? number * 100 : id)
}

/// With row granularity.
func row(_ value: String?, _ dot: Dot, at time: Int64, seen others: Dot...) -> RowState<String> {
  RowState(vector: VersionVector([dot] + others), dot: dot, stamp: stamp(time), value: value)
}

/// With column granularity: columns written by dots; the row was inserted by `life`.
func columns(
  life: Dot, _ registers: [Int: (String, Dot, Int64)], at time: Int64 = 1, seen others: Dot...
) -> RowState<String> {
  let made = registers.mapValues { Register(value: $0.0, dot: $0.1, stamp: stamp($0.2)) }
  return RowState(
    vector: VersionVector([life] + registers.values.map { $0.1 } + others),
    alive: Register(value: true, dot: life, stamp: stamp(time)), registers: made)
}

func head(_ n: Int64 = 1, now: Int64 = 1000) -> Arbiter { Arbiter(dot: dot(9, n), now: stamp(now)) }

extension MergeOutcome {
  var mergedRow: MergedRow<Value>? {
    guard case .merged(let merged) = self else { return nil }
    return merged
  }
}
