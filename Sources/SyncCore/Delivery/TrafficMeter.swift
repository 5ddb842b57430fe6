/// How fast rows pass while there is something to pass: an idle line says nothing of its speed.
///
/// Bytes are those of messages, as they are on the line. Times are of a monotonic clock.
package struct TrafficMeter: Hashable, Sendable {
  private struct Sample: Hashable, Sendable {
    var seconds: Double
    var rows: Double
    var bytes: Double
  }

  private struct Mark: Hashable, Sendable {
    var at: Duration
    /// That had left.
    var bytes: Int64
    /// Handed over before what is under way: rows leave as their bytes do.
    var rowsBefore: Int64
    var bytesBefore: Int64
  }

  /// Handed over by this process, less what a cut line lost.
  package private(set) var rows: Int64 = 0
  package private(set) var bytes: Int64 = 0
  /// Of the bytes, what has not left yet.
  package private(set) var unfinished: Int64 = 0
  private var samples: [Sample] = []
  private var mark: Mark?
  /// More is to be handed over: a pause is the line's, or of who feeds it.
  private var isOpen = false
  /// Bytes that had left when what is under way began.
  private var begun: Int64?
  private static let samplesMax = 30
  /// Less than this takes as long as a message takes, whatever the line.
  private static let bytesMin: Int64 = 64 * 1024

  package init() {}

  package var bytesPerSecond: Double? { rate(\.bytes) }
  package var rowsPerSecond: Double? { rate(\.rows) }
  /// Bytes that have left of what is under way.
  package var underWay: Int64 { begun.map { max(0, left - $0) } ?? 0 }
  private var left: Int64 { bytes - unfinished }

  private func rate(_ what: KeyPath<Sample, Double>) -> Double? {
    let seconds = samples.reduce(0) { $0 + $1.seconds }
    return seconds > 0 ? samples.reduce(0) { $0 + $1[keyPath: what] } / seconds : nil
  }

  package mutating func passed(rows: Int, bytes: Int) {
    self.rows += Int64(rows)
    self.bytes += Int64(bytes)
  }

  /// Something is being sent, or was asked for.
  package mutating func began(at now: Duration) {
    begun = left
    isOpen = true
    if mark == nil { mark = Mark(at: now, bytes: left, rowsBefore: rows, bytesBefore: bytes) }
  }

  /// All of it is handed over; some may not have left.
  package mutating func handedOver() { isOpen = false }

  /// What has left is with its receiver, for good; more is under way.
  package mutating func acknowledged() { if begun != nil { begun = left } }

  package var isIdle: Bool { mark == nil }

  /// A moment in between. `unfinished`: bytes that were handed over and have not left. A large message on a thin line
  /// leaves once in many seconds: they count together.
  package mutating func looked(unfinished: Int, at now: Duration) {
    self.unfinished = Int64(unfinished)
    guard let mark, now >= mark.at + .seconds(1) else { return }
    let left = left
    if left - mark.bytes >= Self.bytesMin {
      sample(mark, at: now)
      self.mark?.at = now
      self.mark?.bytes = left
    }
    if !isOpen && unfinished == 0 { self.mark = nil }
  }

  /// All of it has arrived.
  package mutating func ended(at now: Duration) {
    unfinished = 0
    if let mark, bytes - mark.bytes >= Self.bytesMin { sample(mark, at: now) }
    (mark, begun, isOpen) = (nil, nil, false)
  }

  /// The line is cut: what had not left has to pass again.
  package mutating func interrupted() {
    bytes -= unfinished
    unfinished = 0
    (mark, begun, isOpen) = (nil, nil, false)
  }

  private mutating func sample(_ mark: Mark, at now: Duration) {
    let passed = Double(left - mark.bytes)
    let rowsPerByte = Double(rows - mark.rowsBefore) / max(1, Double(bytes - mark.bytesBefore))
    let time = mark.at.seconds(to: now)
    guard passed > 0, time > 0 else { return }
    samples.append(Sample(seconds: time, rows: passed * rowsPerByte, bytes: passed))
    if samples.count > Self.samplesMax { samples.removeFirst() }
  }
}

extension Duration {
  fileprivate func seconds(to other: Duration) -> Double {
    let (seconds, attoseconds) = (other - self).components
    return Double(seconds) + Double(attoseconds) / 1e18
  }
}
