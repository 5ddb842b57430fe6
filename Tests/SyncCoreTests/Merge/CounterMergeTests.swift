import Testing

@testable import SyncCore

struct CounterMergeTests {
  let policy = Policy()

  private func counted(
    _ life: Dot, inserted: Int, _ added: [Int64: (Int, Int64)], seen others: Dot..., alive: Bool = true,
    at time: Int64 = 5
  ) -> RowState<Int> {
    let contributions = added.map {
      (ActorID(rawValue: $0.key), Counter<Int>.Contribution(sum: $0.value.0, n: $0.value.1))
    }
    let dots = added.map { dot($0.key, $0.value.1) }
    return RowState(
      vector: VersionVector([life] + dots + others),
      alive: Register(value: alive, dot: life, stamp: stamp(time)),
      registers: [0: Register(value: 0, dot: life, stamp: stamp(time))],
      counters: [
        1: Counter(inserted: inserted, contributions: Dictionary(uniqueKeysWithValues: contributions))
      ])
  }

  private func total(_ row: RowState<Int>) -> Int {
    let counter = row.counters[1]
    return (counter?.inserted ?? 0) + (counter?.contributions.values.reduce(0) { $0 + $1.sum } ?? 0)
  }

  @Test func concurrentIncrementsBothCountOnce() throws {
    let local = counted(dot(1, 1), inserted: 10, [1: (5, 2)])
    let incoming = counted(dot(1, 1), inserted: 10, [2: (-3, 1)])
    let merged = try #require(merge(local: local, incoming: incoming, policy: policy).mergedRow)
    #expect(total(merged.row) == 12 && merged.decided.isEmpty)
    #expect(merge(local: merged.row, incoming: incoming, policy: policy) == .keepLocal)
  }

  @Test func theAmountOfTheInsertThatLostIsDroppedAndItsIncrementsCount() throws {
    let local = counted(dot(1, 1), inserted: 10, [1: (1, 2)], at: 5)
    let incoming = counted(dot(2, 1), inserted: 70, [2: (2, 2)], at: 6)
    let merged = try #require(
      merge(local: local, incoming: incoming, policy: policy, arbiter: head()).mergedRow)
    #expect(total(merged.row) == 70 + 1 + 2)
    #expect(merged.decided.first?.conflict.local.counters[1]?.inserted == 10)
  }

  @Test func aDeleteThatNeverSawAnIncrementIsAConflict() {
    let dead = counted(dot(1, 2), inserted: 10, [:], seen: dot(1, 1), alive: false)
    let alive = counted(dot(1, 1), inserted: 10, [2: (5, 1)])
    guard case .held = merge(local: dead, incoming: alive, policy: policy) else {
      Issue.record("decided silently")
      return
    }
  }

  @Test func anInsertOverATombstoneMeetsAnIncrementThatItNeverSaw() throws {
    // 10 were deleted, 8 inserted again; meanwhile another office had added 5 to the old row.
    let again = counted(dot(1, 3), inserted: 8, [:], seen: dot(1, 2), dot(1, 1), at: 9)
    let added = counted(dot(1, 1), inserted: 10, [2: (5, 1)])
    let merged = try #require(merge(local: again, incoming: added, policy: policy).mergedRow)
    #expect(total(merged.row) == 13)
  }
}
