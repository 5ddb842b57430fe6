import Testing

@testable import SyncCore

struct PartAssemblyTests {
  @Test func partsInOrderMakeABatch() {
    var assembly = PartAssembly()
    #expect(assembly.partArrived(of: reference(1), index: 0, isLast: false) == .stage(reset: true))
    assembly.staged(reference(1), index: 0)
    #expect(assembly.partArrived(of: reference(1), index: 0, isLast: false) == .duplicate)
    #expect(assembly.partArrived(of: reference(1), index: 1, isLast: false) == .stage(reset: false))
    assembly.staged(reference(1), index: 1)
    #expect(assembly.partArrived(of: reference(1), index: 2, isLast: true) == .complete(parts: 3))
  }

  @Test func aBatchOfOnePartIsNotStaged() {
    #expect(PartAssembly().partArrived(of: reference(1), index: 0, isLast: true) == .single)
  }

  @Test func aMissingPartIsAGap() {
    var assembly = PartAssembly(batch: reference(1), stored: 1)
    #expect(assembly.partArrived(of: reference(1), index: 2, isLast: true) == .gap)
    #expect(assembly.partArrived(of: reference(2), index: 1, isLast: true) == .gap)
    assembly.reset()
    #expect(assembly.partArrived(of: reference(1), index: 1, isLast: true) == .gap)
  }

  @Test func aBatchWhoseLastPartWasStoredBeforeACrashIsApplied() {
    // Believed: a part that is stored already is a duplicate. Wrong: killed between storing the last part and applying,
    // the office would wait for a beat and fetch the whole batch again.
    let assembly = PartAssembly(batch: reference(1), stored: 3)
    #expect(assembly.partArrived(of: reference(1), index: 2, isLast: true) == .applyStored(parts: 3))
    #expect(assembly.partArrived(of: reference(1), index: 1, isLast: false) == .duplicate)
  }

  @Test func anotherBatchDropsTheUnfinishedOne() {
    let assembly = PartAssembly(batch: reference(1), stored: 3)
    #expect(assembly.partArrived(of: reference(2), index: 0, isLast: false) == .stage(reset: true))
  }
}
