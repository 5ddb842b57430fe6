import Synchronization

/// A moment shared between tasks.
final class MutexBox: Sendable {
  private let value: Mutex<ContinuousClock.Instant>

  init(_ value: ContinuousClock.Instant) { self.value = Mutex(value) }

  /// True, and moved to now, when it lies longer back than `interval`.
  func update(every interval: Duration) -> Bool {
    value.withLock { value in
      guard value + interval < .now else { return false }
      value = .now
      return true
    }
  }
}
