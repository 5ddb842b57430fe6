import CLinux
import Glibc
import Synchronization

/// Runs the jobs of one actor on a thread of its own, so that calls into a C library may block without
/// occupying the cooperative pool. The thread sleeps in poll(2) on an eventfd (written by `enqueue`) and, while
/// a task awaits `readable`, on the connection's descriptor: waiting for input suspends the task, not the thread.
package final class ConnectionExecutor: SerialExecutor {
  private struct Wait {
    var descriptor: Int32
    var deadline: ContinuousClock.Instant
    var continuation: CheckedContinuation<Bool, Never>
  }

  private struct State {
    var jobs: [UnownedJob] = []
    var waits: [Wait] = []
    var stopping = false
  }

  private let state = Mutex(State())
  private let wakeUp: Int32

  package init(name: String) {
    wakeUp = hub_eventfd()
    precondition(wakeUp >= 0, "eventfd: out of file descriptors")
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Start(executor: self, name: name))
    let failed = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        hub_name_thread(start.name)
        start.executor.loop()
        return nil
      }, box.toOpaque())
    precondition(failed == 0, "pthread_create: \(failed)")
    pthread_detach(thread)
  }

  private final class Start: Sendable {
    let executor: ConnectionExecutor
    let name: String
    init(executor: ConnectionExecutor, name: String) {
      self.executor = executor
      self.name = name
    }
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let unowned = UnownedJob(job)
    state.withLock { $0.jobs.append(unowned) }
    wake()
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  /// Waits until the descriptor has input (true) or the time is over (false).
  package func readable(_ descriptor: Int32, within limit: Duration) async -> Bool {
    await withCheckedContinuation { continuation in
      state.withLock {
        $0.waits.append(Wait(descriptor: descriptor, deadline: .now + limit, continuation: continuation))
      }
      wake()
    }
  }

  /// Ends the thread once its queue is empty. The executor must not be used afterwards.
  package func stop() {
    state.withLock { $0.stopping = true }
    wake()
  }

  private func wake() {
    var one: UInt64 = 1
    _ = write(wakeUp, &one, 8)
  }

  private func loop() {
    while true {
      let (jobs, waits, stopping) = state.withLock { s in
        defer { s.jobs.removeAll() }
        return (s.jobs, s.waits.map { ($0.descriptor, $0.deadline) }, s.stopping)
      }
      for job in jobs { job.runSynchronously(on: asUnownedSerialExecutor()) }
      if !jobs.isEmpty { continue }
      if stopping && waits.isEmpty { break }
      sleep(waits)
    }
    Glibc.close(wakeUp)
  }

  private func sleep(_ waits: [(descriptor: Int32, deadline: ContinuousClock.Instant)]) {
    var descriptors = [pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)]
    descriptors += waits.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
    var timeout: Int32 = -1
    if let first = waits.map(\.deadline).min() {
      let left = ContinuousClock.now.duration(to: first)
      let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000
      timeout = Int32(clamping: max(0, milliseconds + 1))
    }
    poll(&descriptors, nfds_t(descriptors.count), timeout)
    if descriptors[0].revents != 0 {
      var count: UInt64 = 0
      _ = read(wakeUp, &count, 8)
    }
    let now = ContinuousClock.now
    let ready = Set(descriptors.dropFirst().filter { $0.revents != 0 }.map(\.fd))
    let done = state.withLock { s in
      let done = s.waits.filter { ready.contains($0.descriptor) || $0.deadline <= now }
      s.waits.removeAll { ready.contains($0.descriptor) || $0.deadline <= now }
      return done
    }
    for wait in done { wait.continuation.resume(returning: ready.contains(wait.descriptor)) }
  }
}
