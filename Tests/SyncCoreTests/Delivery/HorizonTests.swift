import Testing

@testable import SyncCore

struct HorizonTests {
  @Test func tombstonesGoBehindWhatEveryBranchHasApplied() {
    #expect(Horizon.reached(applied: [7, 3, 9], last: 12) == 3)
    #expect(Horizon.reached(applied: [7, 0], last: 12) == 0, "one that joins has told nothing")
    #expect(Horizon.reached(applied: [], last: 12) == 12, "nobody else remembers")
  }

  @Test func aBranchThatGreetsFromFurtherBackHoldsTheHorizonThere() {
    #expect(Horizon.greeted(applied: 9, start: reference(4)) == 4)
    #expect(Horizon.greeted(applied: 9, start: .origin) == 0)
    #expect(Horizon.greeted(applied: 3, start: reference(4)) == 3, "it has not told that it applied the rest")
  }

  @Test func onlyADatabaseThatWentBackIsBehindTheHorizon() {
    #expect(Horizon.isBehind(reference(4), isSame: false, applied: 9, purged: 5))
    #expect(!Horizon.isBehind(reference(5), isSame: false, applied: 9, purged: 5))
    #expect(!Horizon.isBehind(.origin, isSame: false, applied: 0, purged: 5), "it joins")
    #expect(!Horizon.isBehind(reference(4), isSame: true, applied: 9, purged: 5), "a hello that came late")
  }

  @Test func aBatchSaysNothingWhileDeletesWait() {
    #expect(Horizon.told(reference(4), deletesWait: false) == reference(4))
    #expect(Horizon.told(reference(4), deletesWait: true) == nil)
  }

  @Test func onlyTheFirstBatchThatTellsMakesAMark() {
    #expect(Horizon.isMark(applied: 4, told: 3))
    #expect(!Horizon.isMark(applied: 4, told: 4))
  }
}
