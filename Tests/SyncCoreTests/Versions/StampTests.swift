import Testing

@testable import SyncCore

struct StampTests {
  @Test func aWriteIsLaterThanWhatItReplacesWhateverTheClockSays() {
    #expect(Stamp.next(now: stamp(10), after: nil) == stamp(10))
    #expect(Stamp.next(now: stamp(10), after: stamp(3)) == stamp(10))
    #expect(Stamp.next(now: stamp(10), after: stamp(10)) == stamp(11))
    #expect(Stamp.next(now: stamp(10), after: stamp(500)) == stamp(501))
  }

  @Test func aStampFromTheNetworkOverflowsNothing() {
    #expect(Stamp.next(now: stamp(10), after: stamp(Int64.max)) == stamp(Int64.max))
    #expect(stamp(Int64.min).advanced(byMicroseconds: -1) == stamp(Int64.min))
    #expect(stamp(Int64.max).isAhead(of: stamp(0), byMoreThan: .seconds(300)))
    #expect(Duration.seconds(Int64.max).microseconds == Int64.max)
  }

  @Test func theSkewAllowedIsInclusive() {
    #expect(!stamp(300_000_000).isAhead(of: stamp(0), byMoreThan: .seconds(300)))
    #expect(stamp(300_000_001).isAhead(of: stamp(0), byMoreThan: .seconds(300)))
  }
}
