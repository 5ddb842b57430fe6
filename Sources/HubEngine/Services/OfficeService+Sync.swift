import Logging
import SyncCore
import SyncWire

/// What a `sync` came to.
package struct SyncOutcome: Sendable, Equatable {
  package var isQuiet: Bool
  package var quiet: [String]
  /// Not heard of in the last minute, or not done in time.
  package var waiting: [String]
  package var rowsSent: Int64
  package var rowsReceived: Int64

  package var json: JSONValue {
    .fields([
      "quiet": .bool(isQuiet), "offices": .array(quiet.map { .string($0) }),
      "waiting": .array(waiting.map { .string($0) }), "rows_sent": .integer(rowsSent),
      "rows_received": .integer(rowsReceived),
    ])
  }
}

/// Exchanging until both sides are quiet.
extension OfficeService {
  /// Serves the `sync` requests of commands beside this daemon.
  func syncLoop() async throws {
    try await syncBell.serve {
      while let request = syncs.first {
        let outcome = try await synchronise(until: request.deadline)
        try await store.finishRequest(request.id, failed: !outcome.isQuiet, outcome: outcome.json.description)
        syncs.removeFirst()
      }
    }
  }

  /// Returns when the offices heard of in the last minute have everything of each other, or the time is over.
  package func synchronise(until deadline: ContinuousClock.Instant) async throws -> SyncOutcome {
    synchronisations += 1
    defer { synchronisations -= 1 }
    let began = counters
    var quiet: [String] = []
    var isQuiet = false
    while !isQuiet && deadline > .now && failure == nil {
      guard session != nil else {
        try await Task.sleep(for: .milliseconds(50))
        continue
      }
      let offices = peers.filter { office, peer in
        !isHead || peer.lastSeen.map { $0 + .seconds(60) > .now } ?? false
      }.map(\.key)
      let before = (outbound.last, facts.rowsApplied)
      quiet = []
      for office in offices where await hasEverything(office, by: min(deadline, .now + .seconds(5))) {
        quiet.append(office)
      }
      isQuiet =
        quiet.count == offices.count && before == (outbound.last, facts.rowsApplied)
        && (isHead || !offices.isEmpty)
    }
    return SyncOutcome(
      isQuiet: isQuiet, quiet: quiet.sorted(), waiting: peers.keys.filter { !quiet.contains($0) }.sorted(),
      rowsSent: counters.sent - began.sent, rowsReceived: counters.applied - began.applied)
  }

  /// Returns true when head has acknowledged all that was written here, whatever goes on elsewhere; false when the time
  /// is over.
  package func awaitAcknowledged(until deadline: ContinuousClock.Instant) async throws -> Bool {
    synchronisations += 1
    defer { synchronisations -= 1 }
    let began = ContinuousClock.now
    while deadline > .now && failure == nil {
      if session != nil, isGreeted, let look = emptyLookAt, look > began, outbound.resendFrom == nil,
        outbound.isAcknowledged(by: identity.head)
      {
        return true
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    return false
  }

  /// Returns when this branch follows head's live stream and head knows it, or the time is over: under steady traffic
  /// it is never quiet.
  package func awaitLive(until deadline: ContinuousClock.Instant) async throws {
    while deadline > .now && failure == nil {
      if session != nil, let inbound = headPeer?.inbound, !inbound.position.isCatchingUp, inbound.awaited == nil {
        try? await session?.confirmed()
        return
      }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  private func hasEverything(_ office: String, by deadline: ContinuousClock.Instant) async -> Bool {
    let nonce = Int64.random(in: 1...Int64.max)
    // What this office has is said in the question: its answer says that the other side knows.
    let told = applied(of: office)
    do {
      try await send(.beat(beat(for: office, nonce: nonce)), toPeer: office)
      while deadline > .now {
        if let answer = answered[office], answer.nonce == nonce, let peer = peers[office],
          let look = emptyLookAt, look > answer.at
        {
          return answer.last == peer.inbound.position.at && told == applied(of: office)
            && !peer.inbound.position.isCatchingUp
            && outbound.resendFrom == nil && outbound.isAcknowledged(by: office)
        }
        try await Task.sleep(for: .milliseconds(5))
      }
    } catch {
      logger.debug("no answer", metadata: ["hub.office": "\(office)", "hub.error": "\(error)"])
    }
    return false
  }
}
