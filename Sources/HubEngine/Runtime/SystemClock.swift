import Glibc

/// The wall clock, for stamps in messages and for people. Time-outs use `ContinuousClock`.
package enum SystemClock {
  /// Microseconds since 1970.
  package static var now: Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
  }

  /// Minutes since midnight, local time.
  static var minuteOfDay: Int {
    let local = local(after: 0)
    return Int(local.tm_hour) * 60 + Int(local.tm_min)
  }

  /// `HH:MM`, local time.
  package static func hour(after seconds: Double) -> String { text("%H:%M", local(after: seconds)) }

  /// `2026-01-31T23:59:59Z`.
  package static func utc(after seconds: Double) -> String {
    var (moment, universal) = (moment(after: seconds), tm())
    gmtime_r(&moment, &universal)
    return text("%Y-%m-%dT%H:%M:%SZ", universal)
  }

  private static func local(after seconds: Double) -> tm {
    var (moment, local) = (moment(after: seconds), tm())
    localtime_r(&moment, &local)
    return local
  }

  /// At most some thirty years from now.
  private static func moment(after seconds: Double) -> time_t { time(nil) + Int(min(max(0, seconds), 1e9)) }

  private static func text(_ format: String, _ time: tm) -> String {
    var (time, buffer) = (time, [CChar](repeating: 0, count: 32))
    let count = strftime(&buffer, buffer.count, format, &time)
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
