import CLinux
import Glibc
import Synchronization

/// Runs the jobs of one actor on a thread of its own, so that calls into a C library may block without
/// occupying the cooperative pool. The thread sleeps in poll(2) on an eventfd (written by `enqueue`) and, while
/// a task awaits `readable` or `writable`, on the connection's descriptor: waiting suspends the task, not the
/// thread.
///
/// The thread ends with the last reference to the executor. It holds only the `Loop`, never the executor itself,
/// so an actor that owns its executor needs no farewell and a late call never waits for a thread that is gone.
package final class ConnectionExecutor: SerialExecutor {
  private let loop: Loop

  package init(name: String) {
    loop = Loop()
    loop.start(named: name, serving: UnownedSerialExecutor(ordinary: self))
  }

  deinit { loop.stop() }

  package func enqueue(_ job: consuming ExecutorJob) { loop.add(UnownedJob(job)) }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  /// Waits until the descriptor has input or is broken (true), or the time is over or `interrupt` came (false).
  package nonisolated(nonsending) func readable(_ descriptor: Int32, within limit: Duration) async -> Bool {
    await wait(descriptor, for: Int16(POLLIN), within: limit)
  }

  /// Waits until the descriptor takes output or is broken (true), or the time is over or `interrupt` came (false).
  package nonisolated(nonsending) func writable(_ descriptor: Int32, within limit: Duration) async -> Bool {
    await wait(descriptor, for: Int16(POLLOUT), within: limit)
  }

  /// Ends all waiting for the descriptor; callable from any thread.
  package func interrupt(_ descriptor: Int32) { loop.interrupt(descriptor) }

  /// Ends the thread once its queue is empty; the executor must not be used afterwards. Seldom needed: the thread
  /// ends with the executor.
  package func stop() { loop.stop() }

  private nonisolated(nonsending) func wait(
    _ descriptor: Int32, for events: Int16, within limit: Duration
  ) async -> Bool {
    await withCheckedContinuation { continuation in
      loop.add(
        Wait(descriptor: descriptor, events: events, deadline: .now + limit, continuation: continuation))
    }
  }
}

private struct Wait {
  var descriptor: Int32
  var events: Int16
  var deadline: ContinuousClock.Instant
  var continuation: CheckedContinuation<Bool, Never>
}

/// What the thread works on; outlives the executor by the thread's last turn.
private final class Loop: Sendable {
  private struct State {
    var jobs: [UnownedJob] = []
    var waits: [Wait] = []
    /// The thread is in poll(2), or about to enter it: only then does it need the eventfd.
    var sleeping = false
    var stopping = false
  }

  private let state = Mutex(State())
  /// -1 when the process is out of descriptors: then the thread looks every millisecond instead.
  private let wakeUp: Int32

  init() { wakeUp = hub_eventfd() }

  deinit {
    if wakeUp >= 0 { Glibc.close(wakeUp) }
  }

  func start(named name: String, serving executor: UnownedSerialExecutor) {
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Start(loop: self, executor: executor, name: name))
    let failed = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        hub_name_thread(start.name)
        start.loop.run(serving: start.executor)
        return nil
      }, box.toOpaque())
    // Without its thread no job of the actor would ever run, and nobody would hear of it.
    precondition(failed == 0, "pthread_create: \(failed)")
    pthread_detach(thread)
  }

  private final class Start: Sendable {
    let loop: Loop
    let executor: UnownedSerialExecutor
    let name: String
    init(loop: Loop, executor: UnownedSerialExecutor, name: String) {
      self.loop = loop
      self.executor = executor
      self.name = name
    }
  }

  func add(_ job: UnownedJob) { change { $0.jobs.append(job) } }

  func add(_ wait: Wait) { change { $0.waits.append(wait) } }

  func stop() { change { $0.stopping = true } }

  func interrupt(_ descriptor: Int32) {
    for wait in takeWaits(where: { $0.descriptor == descriptor }) {
      wait.continuation.resume(returning: false)
    }
  }

  private func change(_ body: (inout sending State) -> Void) {
    let wake = state.withLock { s in
      body(&s)
      defer { s.sleeping = false }
      return s.sleeping
    }
    if wake {
      var one: UInt64 = 1
      _ = write(wakeUp, &one, 8)
    }
  }

  private func takeWaits(where chosen: (Wait) -> Bool) -> [Wait] {
    state.withLock { s in
      let taken = s.waits.filter(chosen)
      if !taken.isEmpty { s.waits.removeAll(where: chosen) }
      return taken
    }
  }

  private func run(serving executor: UnownedSerialExecutor) {
    while true {
      let (jobs, stopping) = state.withLock { s in
        defer { s.jobs.removeAll(keepingCapacity: true) }
        return (s.jobs, s.stopping)
      }
      for job in jobs { job.runSynchronously(on: executor) }
      if stopping && jobs.isEmpty { break }
      look()
    }
    for wait in takeWaits(where: { _ in true }) { wait.continuation.resume(returning: false) }
  }

  /// Sleeps until there is a job, input or a deadline; only glances at the descriptors when jobs already wait, so
  /// that a stream of jobs does not starve them.
  private func look() {
    let (waits, mayWait) = state.withLock { s in
      s.sleeping = s.jobs.isEmpty && !s.stopping
      return (s.waits.map { ($0.descriptor, $0.events, $0.deadline) }, s.sleeping)
    }
    if waits.isEmpty && !mayWait { return }
    var descriptors = [pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)]
    descriptors += waits.map { pollfd(fd: $0.0, events: $0.1, revents: 0) }
    poll(&descriptors, nfds_t(descriptors.count), mayWait ? timeout(until: waits.map(\.2).min()) : 0)
    state.withLock { $0.sleeping = false }
    if descriptors[0].revents != 0 {
      var count: UInt64 = 0
      _ = read(wakeUp, &count, 8)
    }
    finish(descriptors.dropFirst())
  }

  private func finish(_ descriptors: ArraySlice<pollfd>) {
    func isReady(_ wait: Wait) -> Bool {
      let broken = Int16(POLLERR | POLLHUP | POLLNVAL)
      return descriptors.contains { $0.fd == wait.descriptor && $0.revents & (wait.events | broken) != 0 }
    }
    let now = ContinuousClock.now
    for wait in takeWaits(where: { isReady($0) || $0.deadline <= now }) {
      wait.continuation.resume(returning: isReady(wait))
    }
  }

  private func timeout(until deadline: ContinuousClock.Instant?) -> Int32 {
    guard let deadline else { return wakeUp < 0 ? 1 : -1 }
    let left = ContinuousClock.now.duration(to: deadline).components
    let milliseconds = left.seconds * 1000 + left.attoseconds / 1_000_000_000_000_000 + 1
    return wakeUp < 0 ? 1 : Int32(clamping: max(0, milliseconds))
  }
}
