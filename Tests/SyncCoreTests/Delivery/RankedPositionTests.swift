import SyncCore
import Testing

@Suite struct RankedPositionTests {
  @Test func tablesOfHighRankAreFurtherOnThanTheOthers() {
    let start = RankedPosition("a")
    #expect(start.isWhole && start.of(rank: 9) == "a")
    let first = start.moved(rank: 10, to: "b", order: "x", echoes: false)
    #expect(!first.isWhole && first.base == "a")
    #expect([12, 10, 9, -1].map { first.of(rank: $0) } == ["b", "b", "a", "a"])
    let second = first.moved(rank: 5, to: "b", order: "x", echoes: false)
    #expect([12, 7, 5, 4].map { second.of(rank: $0) } == ["b", "b", "b", "a"])
    // Another scan begins before the first has ended.
    let again = second.moved(rank: 10, to: "c", order: "x", echoes: false)
    #expect([12, 7, 5, 4].map { again.of(rank: $0) } == ["c", "b", "b", "a"])
  }

  /// A table that is ranked higher by now counted as passed, and rows that had not been sent were never sent.
  @Test func underOtherRanksOnlyWhatAllTablesHaveReachedHolds() {
    let position = RankedPosition("a").moved(rank: 10, to: "b", order: "x", echoes: true)
    #expect(position.under("x") == position)
    #expect(position.under("y") == RankedPosition("a"))
  }

  @Test func theRestOfWhatIsSentAgainIsSentAgain() {
    let position = RankedPosition("a").moved(rank: 10, to: "b", order: "x", echoes: true)
    #expect(position.echoes)
    #expect(!RankedPosition("a", echoes: true).echoes)
  }

  @Test func onlyABatchThatLeavesNothingSaysWhatWasApplied() {
    #expect(Slicing.told(7, isWhole: true) == 7)
    #expect(Slicing.told(7, isWhole: false) == nil)
  }
}
