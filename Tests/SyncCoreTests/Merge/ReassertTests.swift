import Testing

@testable import SyncCore

struct ReassertTests {
  @Test func aRowThatComesBackDominatesItsDeleteAndEveryWriteThatTheDeleteHadSeen() {
    let image = row("a", dot(1, 1), at: 10)
    let tombstone = row(nil, dot(2, 1), at: 20, seen: dot(1, 1))
    let revived = head(5).revived(image, over: tombstone, deletedNow: false)
    let back = revived.row
    #expect(revived.decided.map(\.winner) == [.incoming] && revived.decided.map(\.reason) == [.referenced])
    #expect(back.isAlive && back.registers[0]?.value == "a")
    #expect(back.alive.dot == dot(9, 5) && back.registers[0]?.dot == dot(9, 5))
    #expect(back.vector.dominates(tombstone.vector) && back.vector.dominates(image.vector))
    // Just after the delete: a later write of a third office still wins by its stamp.
    #expect(back.latest.stamp == stamp(21))
    #expect(merge(local: tombstone, incoming: back, policy: Policy()) == .takeIncoming)
    #expect(merge(local: back, incoming: tombstone, policy: Policy()) == .keepLocal)
  }

  /// A row came back as it was when it was deleted; what other offices had added by then and sent after the delete was
  /// lost, because only the tombstone's contributions were kept and the row's look was not touched.
  @Test func whatWasAddedAfterTheDeleteCountsInTheRowThatComesBack() {
    let image = counted(100, [dot(1, 1): 5], alive: dot(1, 1), at: 10)
    var tombstone = image.deleted(dot: dot(2, 1), now: stamp(20))
    tombstone.counters[0]?.contributions[dot(3, 7).actor] = .init(sum: 3, n: 7)
    let back = head(5).revived(image, over: tombstone, deletedNow: true).row
    #expect(back.image?.shown == [0: 108])
  }
}

struct AbsorbTests {
  /// The columns of head's row kept their dots; the refused column's was later and came back with the branch's next
  /// write of another column.
  @Test func whatWasDiscardedDoesNotComeBackWithTheNextWriteOfItsOffice() {
    let start = RowState.inserted(
      RowImage(values: [1: 1, 2: 1], shown: [:]), over: nil, dot: dot(9, 1), now: stamp(1))
    let mine = start.updated(
      [RowImage(values: [1: 5, 2: 1], shown: [:])], dot: dot(9, 2), now: stamp(5), granularity: .columns)
    let refused = mine?.updated(
      [RowImage(values: [1: 666, 2: 1], shown: [:])], dot: dot(1, 1), now: stamp(10), granularity: .columns)
    let next = refused?.updated(
      [RowImage(values: [1: 666, 2: 2], shown: [:])], dot: dot(1, 2), now: stamp(30), granularity: .columns)
    guard let mine, let refused, let next, let stands = head(3).absorbed(refused, over: mine, granularity: .columns)
    else {
      Issue.record("no state")
      return
    }
    let outcome = merge(local: stands, incoming: next, policy: Policy(granularity: .columns), arbiter: head(4))
    guard case .merged(let merged) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(merged.row.image?.values == [1: 5, 2: 2] && merged.decided.isEmpty)
  }

  /// What was added in a refused row was dropped from the sums, so the office's next increment brought it back.
  @Test func ofTheIncrementsAfterADiscardOnlyTheNewOnesCount() {
    let start = counted(100, [:], alive: dot(9, 1), at: 1)
    func added(_ row: RowState<Int>, _ amount: Int, _ n: Int64) -> RowState<Int> {
      let shown = (row.image?.shown[0] ?? 0) + amount
      return row.updated([RowImage(values: [:], shown: [0: shown])], dot: dot(1, n), now: stamp(5), granularity: .row)
        ?? row
    }
    let refused = added(added(start, 10, 1), 500, 2)
    guard let stands = head(3).absorbed(refused, over: added(start, 10, 1), granularity: .row) else {
      Issue.record("no state")
      return
    }
    #expect(stands.image?.shown == [0: 110])
    let outcome = merge(local: stands, incoming: added(refused, 7, 3), policy: Policy(), arbiter: head(4))
    guard case .merged(let merged) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(merged.row.image?.shown == [0: 117])
  }
}

struct CaptureRuleTests {
  @Test func anAssignmentOnACounterIsTheDifferenceThatItMakes() {
    let row = counted(100, [dot(2, 1): 5], alive: dot(1, 1), at: 1)
    let set = row.updated([RowImage(values: [:], shown: [0: 90])], dot: dot(1, 2), now: stamp(5), granularity: .row)
    #expect(set?.counters[0]?.contributions[dot(1, 2).actor] == .init(sum: -15, n: 2))
    #expect(set?.image?.shown == [0: 90] && set?.alive.dot == dot(1, 1))
    #expect(
      row.updated([RowImage(values: [:], shown: [0: 105])], dot: dot(1, 2), now: stamp(5), granularity: .row) == nil)
  }
}

private func counted(_ inserted: Int, _ added: [Dot: Int], alive: Dot, at time: Int64) -> RowState<Int> {
  RowState(
    vector: VersionVector([alive] + added.keys), alive: Register(value: true, dot: alive, stamp: stamp(time)),
    counters: [
      0: Counter(
        inserted: inserted,
        contributions: Dictionary(uniqueKeysWithValues: added.map { ($0.key.actor, .init(sum: $0.value, n: $0.key.n)) })
      )
    ])
}
