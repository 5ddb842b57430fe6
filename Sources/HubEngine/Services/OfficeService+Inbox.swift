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
    CrashPoint.conflictsSent.passed()
  }

  /// Branch: entries that follow what is here are kept; others come again after the next beat.
  func conflictsCame(_ entries: ConflictEntries) async throws {
    guard let head = headPeer, entries.follows(head.record.conflictsAt) else { return }
    do {
      try await store.save(entries)
      CrashPoint.conflictsSaved.passed()
    } catch {
      guard !error.isTransient else { throw error }
      logger.error("cannot keep entries of the conflict log", metadata: ["hub.error": "\(error)"])
      facts.note = "cannot keep entries of head's conflict log: \(error)"
      return
    }
    peers[identity.head]?.record.conflictsAt = entries.last
    if entries.more { pace.beatWanted(at: uptime) }
  }

  /// Branch: head keeps no entry before this one.
  func dropConflicts(before id: Int64) async throws {
    guard id > conflictsFrom else { return }
    try await store.dropConflicts(before: id)
    conflictsFrom = id
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

  /// Branch: asks head for the present state of rows that were discarded here, until it has answered.
  func askAgain() async throws {
    guard isGreeted else { return }
    let unanswered = try await store.restates()
    for request in restates.due(unanswered, at: uptime) {
      guard let blocks = try await store.restate(request) else { continue }
      try await send(.restate(blocks, request: request), to: .head)
    }
  }
}
