package import HubEngine
package import SyncCore
import Synchronization

extension PostgresStore {
  package func peers() async throws(HubError) -> [PeerRecord] {
    try await control.run { try Self.readPeers($0) }
  }

  package func invited() async throws(HubError) -> [String] {
    try await control.run { session in
      let rows = try session.query(
        "SELECT DISTINCT office FROM hub.invite WHERE \(unsafe: Invitations.pending)")
      return (0..<rows.count).map { rows.text($0, 0) }
    }
  }

  static func readPeers(_ session: Session) throws -> [PeerRecord] {
    let rows = try session.query(
      """
      SELECT office, state, residue, session, at_number, at_id, catch_from_number, catch_from_id, catch_cursor,
        catch_full, catch_target_number, catch_target_id, unsettled_until, acked_number, acked_id, incarnation,
        conflicts_at, recovery, purge_number
      FROM hub.peer WHERE state <> 'removed' ORDER BY office
      """)
    return (0..<rows.count).map { i in
      func reference(_ column: Int) -> BatchReference {
        BatchReference(number: rows.int64(i, column), id: rows.int64(i, column + 1))
      }
      let catchUp = rows.integer(i, 6).map { _ in
        CatchUp(
          from: reference(6), cursor: rows.bytes(i, 8).map { bytes(hex: $0) } ?? [], full: rows.bool(i, 9),
          target: reference(10))
      }
      var record = PeerRecord(
        office: rows.text(i, 0), state: PeerRecord.State(rawValue: rows.text(i, 1)) ?? .active,
        residue: rows.int(i, 2),
        inbound: InboundPosition(
          session: rows.integer(i, 3).map { SessionID(rawValue: $0) }, at: reference(4), catchUp: catchUp,
          unsettledUntil: rows.integer(i, 12)),
        acknowledged: reference(13), incarnation: rows.integer(i, 15))
      record.conflictsAt = rows.int64(i, 16)
      record.recovery = rows.string(i, 17).flatMap { RecoveryMachine.Progress(rawValue: $0) }
      record.applied = rows.int64(i, 18)
      return record
    }
  }

  package func saveSession(
    _ session: SessionID?, head: InboundPosition, acknowledged: BatchReference
  ) async throws(HubError) {
    let name = state.withLock { $0.office?.head ?? "" }
    try await writer.perform { connection in
      try connection.transaction { connection in
        try connection.query("UPDATE hub.office SET session = \(session?.rawValue)::bigint")
        try Self.forgetMarks(connection, beyond: head.at)
        try Self.save(head, of: name, connection)
        try connection.query(
          """
          UPDATE hub.peer SET acked_number = \(acknowledged.number), acked_id = \(acknowledged.id)
          WHERE office = \(name)
          """)
      }
    }
    state.withLock { $0.office?.session = session }
  }

  package func saveAcknowledged(_ reference: BatchReference, by peer: String) async throws(HubError) {
    try await control.perform { session in
      // One that a crash forgets only makes the sender look again.
      try session.script(
        """
        SET LOCAL synchronous_commit = off;
        UPDATE hub.peer SET acked_number = \(reference.number), acked_id = \(reference.id),
          state = CASE WHEN state = 'joining' THEN 'active' ELSE state END, last_seen = now()
        WHERE office = \(quotedLiteral(peer))
        """)
    }
  }

  package func saveHandshake(
    of peer: String, inbound: InboundPosition, acknowledged: BatchReference, incarnation: Int64, hubVersion: String,
    conflicts: Int64, recovery: RecoveryMachine.Progress?, applied: Int64
  ) async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        try Self.save(inbound, of: peer, session)
        try session.query(
          """
          UPDATE hub.peer SET acked_number = \(acknowledged.number), acked_id = \(acknowledged.id),
            incarnation = \(incarnation), hub_version = \(hubVersion), recovery = \(recovery?.rawValue),
            purge_number = \(applied), last_seen = now() WHERE office = \(peer)
          """)
        // A head that went back must not give numbers again under which the branch has other entries.
        try session.query(
          """
          SELECT setval('hub.conflict_number', \(conflicts)) FROM hub.conflict_number WHERE last_value < \(conflicts)
          """)
      }
    }
  }

  package func joined() async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        // The rows came after the sequences were set: an office of this residue may have been here before.
        try Self.passKeys(session)
        try session.query("UPDATE hub.office SET joined = true")
      }
    }
  }

  /// Sets the sequences behind the keys that are there.
  static func passKeys(_ session: Session) throws {
    let office = try readOffice(session)
    let stride = try stride(session)
    for table in try TableInfo.loadAll(session)
    where table.options.keys == "stride" && (office.role == .head || table.options.direction != "down") {
      try KeyStride.apply(session, table, residue: office.residue, stride: stride)
    }
  }

  package func saveResidue(_ residue: Int) async throws(HubError) {
    try await control.perform { try $0.query("UPDATE hub.office SET residue = \(residue)") }
  }

  package func savePurgePosition(_ reference: BatchReference, of peer: String) async throws(HubError) {
    try await control.perform {
      try $0.hot("UPDATE hub.peer SET purge_number = \(reference.number)::bigint WHERE office = \(peer)")
    }
  }

  package func saveSeen(_ offices: [String]) async throws(HubError) {
    try await control.perform { session in
      for office in offices { try session.hot("UPDATE hub.peer SET last_seen = now() WHERE office = \(office)") }
    }
  }

  package func removePeer(_ office: String) async throws(HubError) {
    try await control.perform { session in
      try session.transaction { session in
        try session.query(
          """
          UPDATE hub.peer SET state = 'removed', session = NULL, recovery = NULL WHERE office = \(office)
          """)
        try session.query("DELETE FROM hub.invite WHERE office = \(office) AND NOT reusable")
        try session.query("DELETE FROM hub.stage WHERE peer = \(office)")
      }
    }
  }

  package func wasRemoved(_ office: String) async throws(HubError) -> Bool {
    try await control.run { session in
      try session.query("SELECT EXISTS (SELECT FROM hub.peer WHERE office = \(office) AND state = 'removed')").bool(
        0, 0)
    }
  }

  package func leave() async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        for table in try TableInfo.loadAll(session) where table.options.keys == "stride" {
          try KeyStride.release(session, table)
        }
        // The triggers go with their functions.
        try session.script("DROP SCHEMA hub CASCADE")
      }
    }
  }

  // MARK: requests and facts

  package func requests() async throws(HubError) -> [CommandRequest] {
    try await control.run { session in
      let rows = try session.query(
        "SELECT id, kind, argument FROM hub.request WHERE state = 'waiting' ORDER BY id LIMIT 20")
      return (0..<rows.count).map {
        CommandRequest(id: rows.int64($0, 0), kind: rows.text($0, 1), argument: rows.text($0, 2))
      }
    }
  }

  package func finishRequest(_ id: Int64, failed: Bool, outcome: String) async throws(HubError) {
    try await control.perform { session in
      try session.query(
        """
        UPDATE hub.request SET state = \(failed ? "failed" : "done"), outcome = \(outcome)::jsonb, finished_at = now()
        WHERE id = \(id)
        """)
      try session.query("DELETE FROM hub.request WHERE created_at < now() - interval '1 day'")
    }
  }

  package func publish(_ facts: DaemonFacts) async throws(HubError) {
    try await control.perform { session in
      try session.hot(
        """
        INSERT INTO hub.daemon (pid, state, broker_connected, broker_blocked, broker_error, lag_seconds, note, rows_sent,
          rows_applied, traffic)
        VALUES (pg_backend_pid(), \(facts.state), \(facts.isConnected)::bool, \(facts.isBlocked)::bool,
          \(facts.brokerError), \(facts.lagSeconds.map { "\($0)" })::float8, \(facts.note), \(facts.rowsSent)::bigint,
          \(facts.rowsApplied)::bigint, \(facts.traffic.description)::jsonb)
        ON CONFLICT (only_row) DO UPDATE SET pid = EXCLUDED.pid, state = EXCLUDED.state,
          broker_connected = EXCLUDED.broker_connected, broker_blocked = EXCLUDED.broker_blocked,
          broker_error = EXCLUDED.broker_error, lag_seconds = EXCLUDED.lag_seconds, note = EXCLUDED.note,
          rows_sent = EXCLUDED.rows_sent, rows_applied = EXCLUDED.rows_applied, traffic = EXCLUDED.traffic,
          at = now()
        """)
    }
  }
}
