/// A hybrid logical clock's reading: microseconds since 1970, moved forward where causality demands it.
///
/// Every write's stamp is later than the row's previous one, so a newer version never looks older than what it
/// replaces. Source: S. Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.
package struct Stamp: Hashable, Comparable, Sendable, RawRepresentable {
  package let rawValue: Int64

  package init(rawValue: Int64) { self.rawValue = rawValue }

  package static func < (a: Stamp, b: Stamp) -> Bool { a.rawValue < b.rawValue }

  /// The stamp of a write made at `now` on a row whose latest stamp is `previous`.
  package static func next(now: Stamp, after previous: Stamp?) -> Stamp {
    guard let previous else { return now }
    return max(now, previous.advanced(byMicroseconds: 1))
  }

  /// Saturates: a stamp from the network may be any number.
  package func advanced(byMicroseconds delta: Int64) -> Stamp {
    let (sum, overflow) = rawValue.addingReportingOverflow(delta)
    return Stamp(rawValue: overflow ? (delta > 0 ? Int64.max : Int64.min) : sum)
  }

  /// Whether the clock that made this stamp runs ahead of `now` by more than is allowed.
  package func isAhead(of now: Stamp, byMoreThan skew: Duration) -> Bool {
    self > now.advanced(byMicroseconds: skew.microseconds)
  }
}

extension Duration {
  /// Whole microseconds, saturating.
  package var microseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
    guard !overflow else { return seconds > 0 ? Int64.max : Int64.min }
    let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000)
    return overflowed ? (seconds > 0 ? Int64.max : Int64.min) : sum
  }
}
