import Testing

@testable import SyncCore

struct PaceTests {
  @Test func patienceDoublesUpToItsBoundAndProgressRenewsIt() {
    var reminder = Reminder(after: .seconds(5), atMost: .seconds(20))
    #expect(!reminder.isDue(at: .seconds(1000)))
    reminder.asked(at: .seconds(0))
    #expect(!reminder.isDue(at: .seconds(4)) && reminder.isDue(at: .seconds(5)))
    reminder.asked(at: .seconds(5))
    #expect(!reminder.isDue(at: .seconds(14)) && reminder.isDue(at: .seconds(15)))
    for _ in 0..<4 { reminder.asked(at: .seconds(100)) }
    #expect(reminder.isDue(at: .seconds(120)) && !reminder.isDue(at: .seconds(119)))
    reminder.progressed(at: .seconds(200))
    #expect(reminder.isDue(at: .seconds(205)))
    reminder.answered()
    #expect(!reminder.isDue(at: .seconds(1000)))
  }

  @Test func aQuietOfficeBeatsOnceInFiveSeconds() {
    var pace = PaceMachine(now: .zero)
    func said(_ seconds: Int) -> PaceMachine.Action? {
      pace.foundNothing(at: .seconds(seconds), applied: nil, isAcknowledged: true)
    }
    #expect(said(0) == .beat(asks: false))
    #expect((1...4).allSatisfy { said($0) == nil })
    #expect(said(5) == .beat(asks: false))
  }

  @Test func anEmptyBatchSaysOnceWhatWasApplied() {
    var pace = PaceMachine(now: .zero)
    pace.published(at: .zero)
    func said(_ seconds: Int, applied: Int64) -> PaceMachine.Action? {
      pace.foundNothing(at: .seconds(seconds), applied: reference(applied), isAcknowledged: true)
    }
    #expect(said(1, applied: 3) == nil)
    #expect(said(60, applied: 3) == .emptyBatch)
    pace.recordedBatch(at: .seconds(60), applied: reference(3))
    #expect(said(500, applied: 3) == .beat(asks: false))
    #expect(said(501, applied: 4) == .emptyBatch)
  }

  @Test func whoMissesAnAcknowledgementAsks() {
    var pace = PaceMachine(now: .zero)
    #expect(pace.foundNothing(at: .zero, applied: nil, isAcknowledged: false) == .beat(asks: true))
  }
}
