import Testing

@testable import SyncCore

struct VersionVectorTests {
  @Test func entriesAreSortedAndTheHigherCounts() {
    let vector = VersionVector([dot(2, 1), dot(1, 5), dot(2, 7), dot(2, 3)])
    #expect(vector.dots == [dot(1, 5), dot(2, 7)])
  }

  @Test func equalVectorsDominateEachOther() {
    let vector = VersionVector([dot(1, 5), dot(2, 7)])
    #expect(vector.dominates(vector))
    #expect(vector.dominates(VersionVector()))
    #expect(!VersionVector().dominates(vector))
  }

  @Test func concurrentVectorsDominateInNeitherDirection() {
    let a = VersionVector([dot(1, 5), dot(2, 1)])
    let b = VersionVector([dot(1, 4), dot(2, 2)])
    #expect(!a.dominates(b) && !b.dominates(a))
    #expect(a.joined(with: b) == VersionVector([dot(1, 5), dot(2, 2)]))
    #expect(a.joined(with: b).dominates(a) && a.joined(with: b).dominates(b))
  }

  @Test func aVectorContainsEarlierWritesOfItsActors() {
    let vector = VersionVector(dot(1, 5))
    #expect(vector.contains(dot(1, 5)) && vector.contains(dot(1, 1)))
    #expect(!vector.contains(dot(1, 6)) && !vector.contains(dot(2, 1)))
  }

  @Test func rowsInsertedTwiceShareNoActor() {
    let a = VersionVector(dot(1, 5))
    #expect(!a.sharesAnActor(with: VersionVector(dot(2, 5))))
    #expect(a.sharesAnActor(with: VersionVector([dot(2, 5), dot(1, 9)])))
  }
}
