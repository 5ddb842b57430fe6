import HubEngine
import Synchronization

/// Deliveries between the consumer's thread and whoever calls `next`. Holds at most `prefetch` of them: the broker
/// sends no more before one is acknowledged.
final class Inbox: Sendable {
  private let deliveries = Mutex<[Delivery]>([])
  private let fate: SessionFate
  private let arrived = Signal()

  init(fate: SessionFate) {
    self.fate = fate
    fate.tell(arrived)
  }

  func put(_ delivery: Delivery) {
    deliveries.withLock { $0.append(delivery) }
    arrived.fire()
  }

  nonisolated(nonsending) func next() async throws(TransportError) -> Delivery {
    while true {
      let seen = arrived.generation
      if let error = fate.error { throw error }
      if Task.isCancelled { throw TransportError(.closed, "waiting for a delivery was cancelled") }
      if let delivery = deliveries.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) { return delivery }
      await arrived.wait(after: seen)
    }
  }
}
