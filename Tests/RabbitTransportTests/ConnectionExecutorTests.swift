import Glibc
import HubEngine
import Testing

/// The executor lives in HubEngine; it is tested here, beside the connections that lean on it most.
@Suite struct ConnectionExecutorTests {
  private actor Worker {
    nonisolated let executor = ConnectionExecutor(name: "hub-test")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    var count = 0

    func thread() -> UInt { UInt(bitPattern: pthread_self().hashValue) }
    func add() { count += 1 }
    func readable(_ descriptor: Int32, within limit: Duration) async -> Bool {
      let before = thread()
      let result = await executor.readable(descriptor, within: limit)
      return before == thread() && result
    }
    func writable(_ descriptor: Int32, within limit: Duration) async -> Bool {
      await executor.writable(descriptor, within: limit)
    }
  }

  private struct Pair: ~Copyable {
    let near: Int32
    let far: Int32
    init() throws {
      var ends: [Int32] = [0, 0]
      let made = socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &ends)
      try #require(made == 0)
      (near, far) = (ends[0], ends[1])
    }
    func speak() {
      var byte: UInt8 = 1
      _ = write(far, &byte, 1)
    }
    deinit {
      close(near)
      close(far)
    }
  }

  @Test func allJobsRunOnOneThreadThatIsTheActorsOwn() async {
    let worker = Worker()
    let thread = await worker.thread()
    for _ in 1...100 { #expect(await worker.thread() == thread) }
    #expect(await Worker().thread() != thread)
  }

  @Test func manyCallersAtOnceLoseNoJob() async {
    let worker = Worker()
    await withTaskGroup(of: Void.self) { group in
      for _ in 1...50 { group.addTask { for _ in 1...200 { await worker.add() } } }
    }
    #expect(await worker.count == 10_000)
  }

  @Test func inputWakesTheWaitingTaskAndOthersRunMeanwhile() async throws {
    let worker = Worker()
    let pair = try Pair()
    let descriptor = pair.near
    async let waiting = worker.readable(descriptor, within: .seconds(10))
    for _ in 1...100 { await worker.add() }
    #expect(await worker.count == 100)
    pair.speak()
    #expect(await waiting)
  }

  @Test func aWaitEndsInTime() async throws {
    let worker = Worker()
    let pair = try Pair()
    let start = ContinuousClock.now
    #expect(await !worker.readable(pair.near, within: .milliseconds(100)))
    let took = start.duration(to: .now)
    #expect(took >= .milliseconds(100) && took < .seconds(2))
  }

  @Test func aWaitCanBeInterrupted() async throws {
    let worker = Worker()
    let pair = try Pair()
    let descriptor = pair.near
    let start = ContinuousClock.now
    async let waiting = worker.readable(descriptor, within: .seconds(30))
    let interrupting = Task {
      // An interruption ends the waits that there are; this one may not have begun yet.
      while !Task.isCancelled {
        worker.executor.interrupt(descriptor)
        await worker.add()
      }
    }
    #expect(await !waiting)
    interrupting.cancel()
    #expect(start.duration(to: .now) < .seconds(15))
  }

  /// Believed: a turn with jobs may skip poll(2). Then a busy actor never heard its socket.
  @Test func aStreamOfJobsDoesNotStarveTheDescriptor() async throws {
    let worker = Worker()
    let pair = try Pair()
    let descriptor = pair.near
    let waiting = Task { await worker.readable(descriptor, within: .seconds(30)) }
    let busy = (1...4).map { _ in Task { while !Task.isCancelled { await worker.add() } } }
    try await Task.sleep(for: .milliseconds(50))
    pair.speak()
    #expect(try await within(.seconds(5)) { await waiting.value })
    for task in busy { task.cancel() }
  }

  @Test func aFullSocketIsWritableOnceItIsRead() async throws {
    let worker = Worker()
    let pair = try Pair()
    let block = [UInt8](repeating: 0, count: 65_536)
    while block.withUnsafeBytes({ write(pair.near, $0.baseAddress, $0.count) }) > 0 {}
    let descriptor = pair.near
    #expect(await !worker.writable(descriptor, within: .milliseconds(50)))
    async let waiting = worker.writable(descriptor, within: .seconds(10))
    var buffer = block
    while buffer.withUnsafeMutableBytes({ read(pair.far, $0.baseAddress, $0.count) }) > 0 {}
    #expect(await waiting)
  }

  @Test("BRK-14: a thread ends with its actor")
  func aThreadEndsWithItsActor() async throws {
    for _ in 1...200 { await Worker().add() }
    try await eventually { try Resources.threads(named: "hub-test") < 20 }
  }
}
