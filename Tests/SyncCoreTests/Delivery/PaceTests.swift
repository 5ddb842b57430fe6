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

  @Test func looksBecomeRarerWhileNothingIsFound() {
    var pace = PaceMachine(now: .zero)
    var (now, waits) = (Duration.zero, [Duration]())
    while now < .seconds(20) {
      waits.append(pace.waitAfterLook(found: false, at: now))
      now += waits[waits.count - 1]
    }
    #expect(waits[0] == .milliseconds(3) && waits.contains(Limits.lookEvery))
    #expect(waits == waits.sorted() && waits.last == Limits.lookEveryMax)
    #expect(pace.waitAfterLook(found: true, at: now) == Limits.lookEveryMin)
    for _ in 0..<50 { #expect(pace.waitAfterLook(found: false, at: now) <= Limits.lookEvery) }
    // A clock that stood still, as after a suspend, does no harm.
    #expect(pace.waitAfterLook(found: false, at: now + .seconds(3600)) <= Limits.lookEveryMax)
  }

  @Test func aSenderThatNobodyAcknowledgesSlowsDownUntilAReceiverComes() {
    // Believed: whatever changed is sent at once. Wrong: a receiver slower than its sender never got to the request for
    // a catch-up at the end of its queue, and an absent one found a batch for every moment it was away.
    var pace = PaceMachine(now: .zero)
    pace.recordedBatch(at: .seconds(100), applied: nil)
    func may(_ unacknowledged: Int64, after wait: Duration) -> Bool {
      pace.mayPublish(at: .seconds(100) + wait, unacknowledged: unacknowledged)
    }
    #expect(may(Limits.unacknowledgedBatches, after: .zero))
    #expect(!may(Limits.unacknowledgedBatches + 1, after: .milliseconds(19)))
    #expect(may(Limits.unacknowledgedBatches + 1, after: .milliseconds(20)))
    #expect(!may(Limits.unacknowledgedBatches + 4, after: .milliseconds(159)))
    #expect(!may(1_000_000, after: Limits.batchEveryMax - .milliseconds(1)))
    #expect(may(1_000_000, after: Limits.batchEveryMax))
    pace.receiverCame()
    #expect(may(1_000_000, after: .zero))
    pace.recordedBatch(at: .seconds(100), applied: nil)
    #expect(!may(1_000_000, after: .zero))
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
