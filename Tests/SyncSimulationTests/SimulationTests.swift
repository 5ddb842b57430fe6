import Testing

@testable import SyncSimulation

struct SimulationTests {
  @Test func schedulesKeepEveryPromise() async {
    let summary = await Simulation.run(schedules: 400)
    #expect(summary.finding == nil)
    #expect(summary.writes > 4000 && summary.conflicts > 500 && summary.batches > 4000 && summary.restores > 20)
    #expect(summary.tombstonesPurged > 50 && summary.slices > 500 && summary.resumed > 10)
    #expect(summary.refusals > 400 && summary.revived > 4 && summary.verdicts > 50)
  }

  /// An application's delete whose cascade could not be done left the children in a circle deleted.
  @Test func aCascadeIsDoneWholeOrNotAtAll() {
    #expect(Simulation.run(seed: 32805).summary.finding == nil)
  }

  /// A branch stood in a history of head's that was given up, at a number beyond what head had purged since: it brought back
  /// what nobody else remembered, and half of a transaction.
  @Test func headThatForkedCountsBeyondWhatItGaveUp() {
    #expect(Simulation.run(seed: 37957).summary.finding == nil)
  }

  /// Head forgot deletes that a branch had in quarantine: its next write of the row waited there for a verdict for ever.
  @Test func deletesInQuarantineAreNotForgotten() {
    for seed in [39539, 1_017_372] { #expect(Simulation.run(seed: seed).summary.finding == nil, "seed \(seed)") }
  }

  @Test("a decision is reversed whose row head has forgotten, and a branch not yet")
  func aForgottenRowIsKept() {
    #expect(Simulation.run(seed: 2_066_976).summary.finding == nil)
  }

  @Test("a batch goes on with as many parts of one that was cut as its sender knew of, though more are stored by now")
  func laterPartsOfACutBatchComeAgain() {
    #expect(Simulation.run(seed: 2_102_756).summary.finding == nil)
  }

  @Test("a row that waits twice for a unique value is decided upon what was decided before")
  func theSameRowWaitsTwice() {
    #expect(Simulation.run(seed: 2_004_191).summary.finding == nil)
  }

  @Test func aSeedIsTheSameScheduleEveryTime() {
    for seed in 0..<20 {
      let once = Simulation.run(seed: seed, traces: true)
      let again = Simulation.run(seed: seed, traces: true)
      #expect(once.trace == again.trace && !once.trace.isEmpty)
    }
  }
}

struct WriteSetTests {
  @Test func setsCompareByContentWhateverTheirLength() {
    var a = WriteSet()
    a.insert(3)
    a.insert(200)
    var b = WriteSet()
    b.insert(3)
    #expect(b.isSubset(of: a) && !a.isSubset(of: b) && a != b)
    b.insert(200)
    #expect(a == b && b.contains(200) && !b.contains(199))
  }
}
