import Testing

@testable import SyncCore

struct MergeTests {
  let policy = Policy()

  @Test func theSameOrAnOlderCopyChangesNothing() {
    let local = row("b", dot(1, 2), at: 20, seen: dot(1, 1))
    #expect(merge(local: local, incoming: local, policy: policy) == .keepLocal)
    #expect(merge(local: local, incoming: row("a", dot(1, 1), at: 10), policy: policy) == .keepLocal)
  }

  @Test func aNewerCopyIsTakenWhole() {
    let incoming = row("b", dot(2, 1), at: 20, seen: dot(1, 1))
    #expect(merge(local: row("a", dot(1, 1), at: 10), incoming: incoming, policy: policy) == .takeIncoming)
    #expect(merge(local: nil, incoming: incoming, policy: policy) == .takeIncoming)
  }

  @Test func aBranchHoldsARowInConflict() {
    let local = row("a", dot(1, 2), at: 10, seen: dot(1, 1))
    let incoming = row("b", dot(2, 1), at: 20, seen: dot(1, 1))
    guard case .held(let conflicts) = merge(local: local, incoming: incoming, policy: policy) else {
      Issue.record("not held")
      return
    }
    #expect(conflicts.map(\.kind) == [.updateOriginDiffers])
  }

  @Test func headDecidesUnderADotThatDominatesBoth() throws {
    let local = row("a", dot(1, 2), at: 10, seen: dot(1, 1))
    let incoming = row("b", dot(2, 1), at: 20, seen: dot(1, 1))
    let merged = try #require(
      merge(local: local, incoming: incoming, policy: policy, arbiter: head()).mergedRow)
    #expect(merged.row.registers[0]?.value == "b")
    #expect(merged.row.alive.dot == dot(9, 1) && merged.row.registers[0]?.dot == dot(9, 1))
    #expect(merged.row.vector.dominates(local.vector) && merged.row.vector.dominates(incoming.vector))
    #expect(merged.row.vector.contains(dot(9, 1)))
    #expect(merged.row.latest.stamp > stamp(20))
    #expect(merged.decided.map(\.winner) == [.incoming])
    #expect(merged.decided.map(\.reason) == [.latest])
  }

  @Test(
    "the latest of three concurrent writes wins in whatever order they reach head",
    arguments: [
      [0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0],
    ])
  func theLatestOfThreeWins(order: [Int]) throws {
    // Believed: a decision is a write of now. Wrong: decided between the first two, head's stamp then beat the third.
    let written = [row("a", dot(1, 1), at: 10), row("b", dot(2, 1), at: 20), row("c", dot(3, 1), at: 30)]
    var stored = written[order[0]]
    for (number, next) in order.dropFirst().enumerated() {
      let arbiter = Arbiter(dot: dot(9, Int64(number + 1)), now: stamp(1000))
      stored = try #require(merge(local: stored, incoming: written[next], policy: policy, arbiter: arbiter).mergedRow)
        .row
    }
    #expect(stored.registers[0]?.value == "c")
  }

  @Test func equalRowsWrittenTwiceAreNoConflict() throws {
    let a = row("same", dot(1, 1), at: 10)
    let b = row("same", dot(2, 1), at: 20)
    let here = try #require(merge(local: a, incoming: b, policy: policy).mergedRow)
    let there = try #require(merge(local: b, incoming: a, policy: policy).mergedRow)
    #expect(here == there)
    #expect(here.row.alive.dot == dot(2, 1) && here.decided.isEmpty)
  }

  @Test func twoInsertsAreNamedInsertExists() throws {
    let merged = try #require(
      merge(
        local: row("a", dot(1, 1), at: 10), incoming: row("b", dot(2, 1), at: 5), policy: policy,
        arbiter: head()
      )
      .mergedRow)
    #expect(merged.decided.map(\.conflict.kind) == [.insertExists])
    #expect(merged.row.registers[0]?.value == "a")
  }

  @Test func anUpdateBeatsAConcurrentDeleteUnlessTheTableSaysOtherwise() throws {
    let dead = row(nil, dot(1, 2), at: 99, seen: dot(1, 1))
    let alive = row("b", dot(2, 1), at: 20, seen: dot(1, 1))
    let kept = try #require(merge(local: dead, incoming: alive, policy: policy, arbiter: head()).mergedRow)
    #expect(kept.row.registers[0]?.value == "b")
    #expect(kept.decided.map(\.conflict.kind) == [.updateDeleted])
    let gone = try #require(
      merge(local: alive, incoming: dead, policy: Policy(onDelete: .delete), arbiter: head()).mergedRow)
    #expect(!gone.row.isAlive && gone.row.registers.isEmpty)
    #expect(gone.decided.map(\.conflict.kind) == [.deleteOriginDiffers])
    #expect(gone.decided.map(\.reason) == [.deleteWins])
  }

  @Test func aDeleteThatSawEverythingWinsSilently() throws {
    // The copies differ in a write that stood for the same value.
    let alive = row("a", dot(1, 1), at: 10, seen: dot(3, 1))
    let dead = row(nil, dot(2, 1), at: 20, seen: dot(1, 1))
    let merged = try #require(merge(local: alive, incoming: dead, policy: policy).mergedRow)
    #expect(!merged.row.isAlive && merged.decided.isEmpty)
  }

  @Test(arguments: ConflictPolicy.allCases)
  func everyPolicyNamesItsWinner(_ conflict: ConflictPolicy) throws {
    let local = row("a", dot(1, 2), at: 30, seen: dot(1, 1))
    let incoming = row("b", dot(2, 1), at: 20, seen: dot(1, 1))
    let merged = try #require(
      merge(
        local: local, incoming: incoming, policy: Policy(conflict: conflict), arbiter: head(),
        function: { _ in .values([0: "own"]) }
      ).mergedRow)
    let expected = [ConflictPolicy.latest: "a", .head: "a", .branch: "b", .function: "own"][conflict]
    #expect(merged.row.registers[0]?.value == expected)
    #expect(merged.decided.map(\.reason.rawValue) == [conflict.rawValue])
    #expect((merged.decided.first?.winner == nil) == (conflict == .function))
  }

  @Test func ofEqualStampsTheGreaterActorIsLatest() throws {
    let a = row("a", dot(1, 1), at: 10)
    let b = row("b", dot(2, 1), at: 10)
    for (local, incoming) in [(a, b), (b, a)] {
      let merged = try #require(
        merge(local: local, incoming: incoming, policy: policy, arbiter: head()).mergedRow)
      #expect(merged.row.registers[0]?.value == "b")
    }
  }
}
