import Testing

@testable import SyncCore

struct ColumnMergeTests {
  let policy = Policy(granularity: .columns)
  let life = dot(1, 1)

  @Test func differentColumnsJoinWithoutAConflict() throws {
    let local = columns(life: life, [0: ("a2", dot(1, 2), 5), 1: ("b", life, 1)])
    let incoming = columns(life: life, [0: ("a", life, 1), 1: ("b2", dot(2, 1), 6)])
    let merged = try #require(merge(local: local, incoming: incoming, policy: policy).mergedRow)
    #expect(merged.row.registers.mapValues(\.value) == [0: "a2", 1: "b2"])
    #expect(merged.decided.isEmpty)
    #expect(merged.row.vector == VersionVector([dot(1, 2), dot(2, 1)]))
  }

  @Test func onlyTheColumnInConflictIsDecided() throws {
    let local = columns(life: life, [0: ("mine", dot(1, 2), 5), 1: ("b", life, 1)])
    let incoming = columns(life: life, [0: ("theirs", dot(2, 1), 6), 1: ("b2", dot(2, 1), 6)])
    let merged = try #require(
      merge(local: local, incoming: incoming, policy: policy, arbiter: head()).mergedRow)
    #expect(merged.row.registers.mapValues(\.value) == [0: "theirs", 1: "b2"])
    #expect(merged.row.registers[0]?.dot == dot(9, 1) && merged.row.registers[1]?.dot == dot(2, 1))
    #expect(merged.decided.map(\.conflict.column) == [0])
    #expect(merged.row.alive.dot == life)
  }

  @Test func aDeleteThatNeverSawAColumnUpdateIsAConflict() {
    // Believed: the newer of the two `alive` registers decides. Wrong: an update writes no `alive`, so a delete that
    // never saw it would erase it silently (the model, delete_against_update).
    let updated = columns(life: life, [0: ("a2", dot(2, 1), 6), 1: ("b", life, 1)])
    let dead = RowState<String>(
      vector: VersionVector(dot(1, 2)), alive: Register(value: false, dot: dot(1, 2), stamp: stamp(9)))
    guard case .held(let conflicts) = merge(local: updated, incoming: dead, policy: policy) else {
      Issue.record("decided silently")
      return
    }
    #expect(conflicts.map(\.kind) == [.deleteOriginDiffers])
    #expect(conflicts.map(\.column) == [nil])
  }

  @Test func twoInsertsAreSettledAsWholeRows() throws {
    let local = columns(life: dot(1, 1), [0: ("a", dot(1, 1), 1), 1: ("same", dot(1, 1), 1)])
    let incoming = columns(life: dot(2, 1), [0: ("x", dot(2, 1), 7), 1: ("same", dot(2, 1), 7)])
    let merged = try #require(
      merge(local: local, incoming: incoming, policy: policy, arbiter: head()).mergedRow)
    #expect(merged.row.registers.mapValues(\.value) == [0: "x", 1: "same"])
    #expect(merged.row.registers.values.allSatisfy { $0.dot == dot(9, 1) })
    #expect(merged.decided.map(\.conflict.column) == [nil])
  }

  @Test func aRowBroughtBackByHeadHasOneDotInEveryColumn() throws {
    // Believed: the winning row may keep its registers' dots. Wrong: a tombstone has no registers, so two copies
    // could each have seen the other's register, hold different ones, and diverge with equal vectors.
    let updated = columns(life: life, [0: ("a2", dot(2, 1), 6), 1: ("b", life, 1)])
    let dead = RowState<String>(
      vector: VersionVector([dot(1, 2), dot(3, 1)]),
      alive: Register(value: false, dot: dot(1, 2), stamp: stamp(9)))
    let merged = try #require(
      merge(local: updated, incoming: dead, policy: policy, arbiter: head()).mergedRow)
    #expect(merged.row.isAlive)
    #expect(Set(merged.row.registers.values.map(\.dot)) == [dot(9, 1)])
  }

  @Test func anInsertThatKnewOfTheDeleteWinsSilently() throws {
    let dead = RowState<String>(
      vector: VersionVector([dot(1, 2), dot(3, 1)]),
      alive: Register(value: false, dot: dot(1, 2), stamp: stamp(9)))
    let again = columns(life: dot(2, 5), [0: ("n", dot(2, 5), 20)], at: 20, seen: dot(1, 2))
    let merged = try #require(merge(local: dead, incoming: again, policy: policy).mergedRow)
    #expect(merged.row.registers[0]?.value == "n" && merged.decided.isEmpty)
  }

  @Test func equalInsertsAreJoinedTheSameWayHoweverLateTheyMeet() throws {
    // Believed: of two equal rows the one with the latest write may stand for both. Wrong: an update makes another one
    // the latest, and the office that joined before it keeps the other registers under the same vector (seed 7810).
    let a = columns(life: dot(1, 1), [0: ("v", dot(1, 1), 1), 1: ("v", dot(1, 1), 1)])
    let later = columns(life: dot(1, 1), [0: ("v", dot(1, 1), 1), 1: ("v", dot(1, 9), 90)])
    let b = columns(life: dot(2, 1), [0: ("v", dot(2, 3), 20), 1: ("v", dot(2, 1), 2)], at: 2)
    let early = try #require(merge(local: a, incoming: b, policy: policy).mergedRow)
    let updated = try #require(merge(local: early.row, incoming: later, policy: policy).mergedRow)
    let late = try #require(merge(local: later, incoming: b, policy: policy).mergedRow)
    #expect(updated.row == late.row)
  }

  @Test func aColumnThatOneOfficeDoesNotHaveYetIsTaken() throws {
    let local = columns(life: life, [0: ("a2", dot(1, 2), 5)])
    let incoming = columns(life: life, [0: ("a", life, 1), 1: ("new", dot(2, 1), 6)])
    let merged = try #require(merge(local: local, incoming: incoming, policy: policy).mergedRow)
    #expect(merged.row.registers.mapValues(\.value) == [0: "a2", 1: "new"])
  }

  @Test func whenBothHaveSeenTheOtherTheyChooseAlike() throws {
    let a = columns(life: life, [0: ("v", dot(2, 1), 6)], seen: dot(3, 1), dot(4, 1))
    let b = columns(life: life, [0: ("v", dot(3, 1), 7)], seen: dot(2, 1), dot(5, 1))
    let here = try #require(merge(local: a, incoming: b, policy: policy).mergedRow)
    let there = try #require(merge(local: b, incoming: a, policy: policy).mergedRow)
    #expect(here == there && here.row.registers[0]?.dot == dot(3, 1))
  }
}
