import Synchronization

/// Wakes every task that waits for a change. Remember `generation`, look at what you wait for, then `wait(after:)`:
/// a change in between is not missed.
final class Signal: Sendable {
  private struct State {
    var generation: UInt64 = 0
    var lastWaiter: UInt64 = 0
    var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
  }

  private let state = Mutex(State())

  var generation: UInt64 { state.withLock { $0.generation } }

  func fire() {
    let waiting = state.withLock { s in
      s.generation += 1
      defer { s.waiting.removeAll() }
      return Array(s.waiting.values)
    }
    for continuation in waiting { continuation.resume() }
  }

  /// Returns after the next `fire`, at once if there was one since `seen`, and at once when the task is cancelled.
  nonisolated(nonsending) func wait(after seen: UInt64) async {
    let id = state.withLock { s in
      s.lastWaiter += 1
      return s.lastWaiter
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        // A task is marked cancelled before its handler runs: whichever comes second finds the other's trace.
        let goesOn = state.withLock { s in
          if s.generation != seen || Task.isCancelled { return true }
          s.waiting[id] = continuation
          return false
        }
        if goesOn { continuation.resume() }
      }
    } onCancel: {
      state.withLock { $0.waiting.removeValue(forKey: id) }?.resume()
    }
  }
}
