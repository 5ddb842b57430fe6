/// Hours of the day, local time, in which an office connects; from the first minute up to, and without, the last one.
package struct DailyWindow: Sendable, Equatable {
  /// Minutes since midnight.
  package var opens: Int
  package var closes: Int

  /// `01:00-03:00`; it may cross midnight. nil: it is no such text.
  package init?(_ text: String) {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Self.minutes($0) }
    guard ends.count == 2, let opens = ends[0], let closes = ends[1], opens != closes else { return nil }
    self.opens = opens
    self.closes = closes
  }

  private static func minutes(_ text: Substring) -> Int? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 && $0.utf8.allSatisfy { (48...57).contains($0) } }),
      let hours = Int(parts[0]), let minutes = Int(parts[1]), hours < 24, minutes < 60
    else { return nil }
    return hours * 60 + minutes
  }

  package func contains(minute: Int) -> Bool {
    opens < closes ? (opens..<closes).contains(minute) : minute >= opens || minute < closes
  }

  private static func two(_ number: Int) -> String { number < 10 ? "0\(number)" : String(number) }

  /// When the next of these windows opens, as `HH:MM`; nil: one is open, or there is none.
  package static func opensNext(_ windows: [DailyWindow], minute: Int) -> String? {
    guard !windows.isEmpty, !windows.contains(where: { $0.contains(minute: minute) }) else { return nil }
    let waits = windows.map { ($0.opens + 1440 - minute) % 1440 }
    return clock(minute + (waits.min() ?? 0))
  }

  /// When what is open now closes, as `HH:MM`; nil: never, or nothing is open.
  package static func closesNext(_ windows: [DailyWindow], minute: Int) -> String? {
    guard windows.contains(where: { $0.contains(minute: minute) }) else { return nil }
    return (1..<1440).first { after in !windows.contains { $0.contains(minute: (minute + after) % 1440) } }
      .map { clock(minute + $0) }
  }

  private static func clock(_ minute: Int) -> String { two(minute % 1440 / 60) + ":" + two(minute % 60) }
}
