import Logging
import SyncCore
import SyncWire

/// Tombstones that nobody can contradict any more.
extension OfficeService {
  /// Every few seconds.
  func purge() async throws(HubError) {
    guard isHead else { return try await store.purge(behind: identity.purged) }
    guard !reception.recovery.isRecovering else { return }
    let reached = Horizon.reached(applied: peers.values.map(\.record.applied), last: outbound.last.number)
    (identity.purging, identity.purged) = try await store.purge(reached: reached, keeping: options.keepDeleted)
  }

  /// Head says that its tombstones are gone behind this batch.
  func notePurged(_ number: Int64) {
    if !isHead { identity.purged = max(identity.purged, number) }
  }

  /// Head: this database was put back from before deletes that are forgotten: its rows would come back with it.
  func refuseForgotten(_ hello: Hello, _ office: String) async throws {
    let reason = "the database of office \(office) was put back from before deletes that head has forgotten"
    logger.warning("a database is too old", metadata: ["hub.office": "\(office)", "hub.reason": "\(reason)"])
    try await send(.refused(Refused(nonce: hello.nonce, reason: reason, isFinal: true)), to: .office(office))
  }
}
