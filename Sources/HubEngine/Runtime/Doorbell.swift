/// Wakes the one loop that waits for work. Rings while nobody waits are remembered, as one.
struct Doorbell: Sendable {
  private let rings: AsyncStream<Void>
  private let bell: AsyncStream<Void>.Continuation

  init() { (rings, bell) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1)) }

  func ring() { bell.yield() }

  /// Calls `work` at once and after every ring, until the task is cancelled.
  nonisolated(nonsending) func serve(_ work: () async throws -> Void) async throws {
    try await work()
    for await _ in rings { try await work() }
    throw CancellationError()
  }
}
