import Glibc

/// The wall clock, for stamps in messages and for people. Time-outs use `ContinuousClock`.
package enum SystemClock {
  /// Microseconds since 1970.
  package static var now: Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
  }
}
