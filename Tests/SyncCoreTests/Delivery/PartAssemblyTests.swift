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

  @Test func aBatchGoesOnWithThePartsOfOneThatWasCut() {
    var assembly = PartAssembly(batch: reference(1), stored: 3)
    #expect(!assembly.continues(reference(2), after: 2, at: 2))
    #expect(!assembly.continues(reference(1), after: 0, at: 0))
    #expect(!assembly.continues(reference(1), after: 4, at: 4))
    // A part that came after its sender was told is sent again.
    #expect(assembly.continues(reference(1), after: 2, at: 2))
    // Its first part was lost: what is stored under that number is an older one.
    #expect(!assembly.continues(reference(1), after: 2, at: 3))
    // A batch of higher rank goes before it and leaves it; any other one ends it.
    #expect(assembly.outlives(reference(4), resumes: reference(1)))
    #expect(!assembly.outlives(reference(4), resumes: nil))
    #expect(!assembly.outlives(reference(1), resumes: reference(1)))
    assembly.adopted(reference(5), count: 2)
    // What the first one's sender had on its way when the line was cut is no reason to begin anew.
    #expect(assembly.partArrived(of: reference(1), index: 2, isLast: false) == .duplicate)
    #expect(assembly.partArrived(of: reference(1), index: 0, isLast: false) == .duplicate)
    #expect(assembly.partArrived(of: reference(5), index: 3, isLast: false) == .gap)
    #expect(assembly.partArrived(of: reference(5), index: 2, isLast: false) == .stage(reset: false))
    assembly.staged(reference(5), index: 2)
    #expect(!assembly.continues(reference(1), after: 3, at: 3))
    #expect(assembly.partArrived(of: reference(5), index: 2, isLast: false) == .duplicate)
    #expect(assembly.partArrived(of: reference(5), index: 3, isLast: true) == .complete(parts: 4))
  }
}
