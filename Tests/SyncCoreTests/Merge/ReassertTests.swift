import Testing

@testable import SyncCore

struct ReassertTests {
  @Test func aReassertedRowDominatesItsDeleteAndEveryWriteThatTheDeleteHadSeen() {
    let image = row("a", dot(1, 1), at: 10)
    let tombstone = row(nil, dot(2, 1), at: 20, seen: dot(1, 1))
    let back = head(5).reasserted(image, over: tombstone)
    #expect(back.isAlive && back.registers[0]?.value == "a")
    #expect(back.alive.dot == dot(9, 5) && back.registers[0]?.dot == dot(9, 5))
    #expect(back.vector.dominates(tombstone.vector) && back.vector.dominates(image.vector))
    // Just after the delete: a later write of a third office still wins by its stamp.
    #expect(back.latest.stamp == stamp(21))
    #expect(merge(local: tombstone, incoming: back, policy: Policy()) == .takeIncoming)
    #expect(merge(local: back, incoming: tombstone, policy: Policy()) == .keepLocal)
  }
}
