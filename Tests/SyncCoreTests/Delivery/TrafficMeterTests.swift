import SyncCore
import Testing

@Suite struct TrafficMeterTests {
  @Test func aLineIsMeasuredWhileItIsBusy() {
    var meter = TrafficMeter()
    #expect(meter.bytesPerSecond == nil)
    meter.began(at: .seconds(10))
    meter.passed(rows: 1000, bytes: 1_000_000)
    // Half of it has left after two seconds.
    meter.looked(unfinished: 500_000, at: .seconds(12))
    #expect(meter.bytesPerSecond == 250_000)
    #expect(meter.rowsPerSecond == 250)
    #expect(meter.underWay == 500_000)
    meter.ended(at: .seconds(14))
    #expect(meter.bytesPerSecond == 250_000)
    #expect(meter.underWay == 0)
    // An hour of silence is not a slow line.
    meter.looked(unfinished: 0, at: .seconds(3600))
    meter.began(at: .seconds(3600))
    meter.passed(rows: 1000, bytes: 1_000_000)
    meter.ended(at: .seconds(3604))
    #expect(meter.bytesPerSecond == 250_000)
  }

  @Test func whatIsSmallSaysNothingOfTheLine() {
    var meter = TrafficMeter()
    for second in 0..<20 {
      meter.began(at: .seconds(second))
      meter.passed(rows: 1, bytes: 300)
      meter.ended(at: .seconds(second) + .milliseconds(20))
    }
    #expect(meter.bytesPerSecond == nil)
    #expect((meter.rows, meter.bytes) == (20, 6000))
  }

  @Test func onlyTheLastBusySecondsCount() {
    var meter = TrafficMeter()
    var now = Duration.zero
    for speed in [100_000, 500_000] {
      for _ in 0..<40 {
        meter.began(at: now)
        meter.passed(rows: 10, bytes: speed)
        now += .seconds(1)
        meter.ended(at: now)
      }
    }
    #expect(meter.bytesPerSecond == 500_000)
  }

  /// Seconds without a confirm were left out once: a line of 50 kB/s seemed to have ten times that.
  @Test func theSecondsThatOneLargeMessageTakesCountTogether() {
    var meter = TrafficMeter()
    meter.began(at: .zero)
    meter.passed(rows: 40, bytes: 2_000_000)
    meter.handedOver()
    for second in 1...40 { meter.looked(unfinished: 2_000_000 - second / 10 * 500_000, at: .seconds(second)) }
    #expect(meter.bytesPerSecond == 50_000)
    #expect(meter.rowsPerSecond == 1)
  }

  @Test func theWaitForAReceiverThatIsAwayIsNotTheLines() {
    var meter = TrafficMeter()
    meter.began(at: .zero)
    meter.passed(rows: 10, bytes: 1_000_000)
    meter.handedOver()
    meter.looked(unfinished: 0, at: .seconds(2))
    for second in 3...600 { meter.looked(unfinished: 0, at: .seconds(second)) }
    #expect(meter.bytesPerSecond == 500_000)
    #expect(meter.underWay == 1_000_000)
    meter.began(at: .seconds(601))
    meter.passed(rows: 10, bytes: 1_000_000)
    meter.ended(at: .seconds(603))
    #expect(meter.bytesPerSecond == 500_000)
  }

  @Test func whatACutLineLostHasNotPassed() {
    var meter = TrafficMeter()
    meter.began(at: .zero)
    meter.passed(rows: 10, bytes: 1_000_000)
    meter.looked(unfinished: 600_000, at: .seconds(1))
    meter.interrupted()
    #expect(meter.bytes == 400_000)
    #expect(meter.unfinished == 0 && meter.underWay == 0)
    meter.looked(unfinished: 0, at: .seconds(900))
    #expect(meter.bytesPerSecond == 400_000)
  }
}
