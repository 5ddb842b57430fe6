import Logging
import SyncCore
import SyncWire

/// What waits for a person: the conflict log on its way to the branches concerned, and rows in quarantine.
extension OfficeService {
  // MARK: conflict log

  /// Head: entries that are new, or were reviewed, go to the branches that they concern.
  func sendConflicts() async throws {
    for office in try await store.numberConflicts() {
      if let after = peers[office]?.conflicts.logged() { try await sendConflicts(after: after, to: office) }
    }
  }

  /// Head: a branch said which entry is its last.
  func conflictsArrived(_ number: Int64, at office: String) async throws {
    if let after = peers[office]?.conflicts.arrived(number, at: uptime) {
      try await sendConflicts(after: after, to: office)
    }
  }

  private func sendConflicts(after: Int64, to office: String) async throws {
    guard let entries = try await store.conflicts(for: office, after: after) else { return }
    peers[office]?.conflicts.sent(through: entries.last, at: uptime)
    try await send(.conflicts(entries), to: .office(office))
  }

  /// Branch: entries that follow what is here are kept; others come again after the next beat.
  func conflictsCame(_ entries: ConflictEntries) async throws {
    guard let head = headPeer, entries.after == head.record.conflictsAt else { return }
    do {
      try await store.save(entries)
    } catch {
      guard !error.isTransient else { throw error }
      logger.error("cannot keep entries of the conflict log", metadata: ["hub.error": "\(error)"])
      facts.note = "cannot keep entries of head's conflict log: \(error)"
      return
    }
    peers[identity.head]?.record.conflictsAt = entries.last
    if entries.more { pace.beatWanted(at: uptime) }
  }

  // MARK: quarantine

  /// Tries the rows in quarantine when it is worth it.
  func retryQuarantine() async throws {
    let began = uptime
    guard quarantine.looked(try await store.quarantineCause(), at: began) else { return }
    let released = try await store.retryQuarantine(only: nil)
    if released > 0 { logger.info("rows left quarantine", metadata: ["hub.rows": "\(released)"]) }
    quarantine.tried(released: released, from: began, to: uptime)
  }

  /// Branch: asks head for the present state of rows, `text` in hexadecimal as the database keeps them.
  func sendRestate(_ text: String) async throws {
    var text = text
    let body = text.withUTF8 { digits in
      stride(from: 0, to: digits.count - 1, by: 2).map { at in
        UInt8(String(decoding: digits[at..<at + 2], as: UTF8.self), radix: 16) ?? 0
      }
    }
    do {
      try await send(.restate(try Wire.decode(rows: body)), to: .head)
    } catch let error as WireError {
      throw HubError(.damaged, "\(error)")
    }
  }
}
