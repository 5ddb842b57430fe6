import Testing

@testable import SyncCore

struct LineageTests {
  let actor = ActorID(rawValue: 5)

  private func record(last: Int64 = 7, shown: Int64 = 2, boot: String = "now") -> HostRecord {
    HostRecord(incarnation: actor, last: reference(last), shown: shown, boot: boot)
  }

  private func start(
    _ record: HostRecord?, knowsLast: Bool = true, shown: Int64 = 2, isHead: Bool = false
  ) -> Lineage {
    .atStart(
      record: record, incarnation: actor, knowsLast: knowsLast, shown: shown, boot: "now", isHead: isHead)
  }

  @Test func aDatabaseThatKnowsAllThatWasSentGoesOn() {
    #expect(start(record()) == .continued)
    #expect(start(record(), shown: 3) == .continued)
  }

  @Test func aDatabaseThatLacksWhatWasSentIsForked() {
    #expect(start(record(), knowsLast: false) == .forked)
    #expect(start(record(), shown: 1) == .forked, "rows were shown in a catch-up alone")
  }

  @Test func aForkedHeadCountsOnFromItsClockAndNeverBack() {
    #expect(reference(7).afterFork(at: 1_800_000_000_000, id: 5) == BatchReference(number: 1_800_000_000_000, id: 5))
    #expect(BatchReference(number: 1_900_000_000_000, id: 1).afterFork(at: 5, id: 2).number == 1_900_000_000_001)
  }

  @Test func aDatabaseThatThisHostDoesNotKnowIsForked() {
    #expect(start(nil) == .forked)
    var other = record()
    other.incarnation = ActorID(rawValue: 6)
    #expect(start(other) == .forked)
  }

  @Test func aRecordOfAnotherBootProvesNothing() {
    #expect(start(record(boot: "before")) == .unproven)
    #expect(start(record(boot: "before"), isHead: true) == .forked)
  }

  private func welcomed(_ lineage: Lineage, knows: Bool, headWentBack: Bool = false, have: Int64 = 7) -> Lineage {
    lineage.welcomed(
      knowsHave: knows, headWentBack: headWentBack, have: reference(have), acknowledged: reference(5))
  }

  @Test func theHandshakeDecidesWhatTheHostCannot() {
    #expect(welcomed(.unproven, knows: true) == .continued)
    #expect(welcomed(.unproven, knows: false) == .forked)
    #expect(welcomed(.unproven, knows: true, headWentBack: true) == .forked, "others may have what head lost")
    #expect(welcomed(.forked, knows: true) == .forked)
  }

  @Test func aHeadThatKnowsMoreThanWasSentShowsAMachinePutBackWithItsMemory() {
    #expect(welcomed(.continued, knows: false) == .forked)
    #expect(welcomed(.continued, knows: false, have: 4) == .continued, "records from before the acknowledged go")
    #expect(welcomed(.continued, knows: false, headWentBack: true) == .continued)
  }

  // MARK: recovery

  @Test func aHeadThatWentBackHasRecoveredWhenEveryMemberGaveBackWhatItHas() {
    var recovery = RecoveryMachine()
    recovery.began(with: ["a", "b"])
    #expect(recovery.isRecovering && recovery.needsNewSession("a"))
    let early = recovery.applied(from: "a")
    #expect(!early, "a batch from before the greeting is not all")
    recovery.greeted("a", knowsPosition: true)
    let whole = recovery.applied(from: "a")
    #expect(whole && recovery.isRecovering)
    let next = recovery.applied(from: "a")
    #expect(!next)
    recovery.left("b")
    #expect(!recovery.isRecovering)
  }

  @Test func aBranchThatStandsWhereHeadNeverWasShowsThatHeadWentBack() {
    var recovery = RecoveryMachine()
    recovery.greeted("a", knowsPosition: true)
    #expect(!recovery.isRecovering)
    recovery.greeted("a", knowsPosition: false)
    #expect(recovery.needsNewSession("a"))
  }

  // MARK: copies

  private func admission(_ incarnation: Int64, isFormer: Bool = false, silence: Duration?) -> Admission {
    .of(ActorID(rawValue: incarnation), current: actor, isFormer: isFormer, silence: silence)
  }

  @Test func aCopyIsNotWelcomeWhileTheOfficeIsHeardOf() {
    #expect(admission(6, silence: .seconds(3)) == .occupied)
    #expect(admission(6, silence: .seconds(30)) == .welcome, "a database that was put back is the only one")
    #expect(admission(6, silence: nil) == .welcome)
    #expect(admission(5, isFormer: true, silence: .seconds(1)) == .welcome)
  }

  @Test func whoWasReplacedDoesNotComeBack() {
    #expect(admission(6, isFormer: true, silence: .seconds(300)) == .replaced)
    #expect(Lineage.continued.replaced == nil && Lineage.forked.replaced == nil)
    #expect(Lineage.unproven.replaced == .forked, "a machine put back twice")
  }
}
