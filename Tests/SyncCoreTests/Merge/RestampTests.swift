import Testing

@testable import SyncCore

struct RestampTests {
  let hour: Int64 = 3_600_000_000

  @Test func aStampThatRunsAheadIsReplacedUnderHeadsDot() throws {
    let incoming = row("a", dot(1, 1), at: hour)
    let merged = try #require(
      merge(local: nil, incoming: incoming, policy: Policy(), arbiter: head()).mergedRow)
    #expect(merged.isRestamped && merged.row.registers[0]?.value == "a")
    #expect(merged.row.alive.dot == dot(9, 1) && merged.row.registers[0]?.dot == dot(9, 1))
    #expect(merged.row.latest.stamp < stamp(10_000))
    #expect(merged.row.vector.dominates(incoming.vector))
  }

  @Test func aWrongClockDoesNotWinTheConflict() throws {
    let wrong = row("wrong", dot(1, 2), at: hour, seen: dot(1, 1))
    let right = row("right", dot(2, 1), at: 2000, seen: dot(1, 1))
    let merged = try #require(
      merge(local: right, incoming: wrong, policy: Policy(), arbiter: head(now: 1000)).mergedRow)
    #expect(merged.row.registers[0]?.value == "right" && merged.isRestamped)
  }

  @Test func aBranchBelievesWhatHeadSends() {
    let incoming = row("a", dot(1, 1), at: hour)
    #expect(merge(local: nil, incoming: incoming, policy: Policy()) == .takeIncoming)
  }

  @Test func onlyTheColumnThatRunsAheadIsWrittenAgain() throws {
    let life = dot(1, 1)
    let incoming = columns(life: life, [0: ("a", dot(1, 2), hour), 1: ("b", life, 1)])
    let restamped = try #require(head().restamped(incoming))
    #expect(restamped.registers[0]?.dot == dot(9, 1) && restamped.registers[1]?.dot == life)
    #expect(restamped.alive.dot == life)
    #expect(head().restamped(restamped) == nil)
  }
}
