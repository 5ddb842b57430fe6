package import HubEngine
package import SyncCore
import Synchronization

/// Databases that went back in time: what tells, and what of the stored positions still holds.
extension PostgresStore {
  /// Of the server, the database and the port: a copy beside the original is another one.
  package func databaseIdentity() async throws(HubError) -> String {
    try await control.run { session in
      try session.query(
        """
        SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || oid || '-' || current_setting('port')
        FROM pg_database WHERE datname = current_database()
        """
      ).text(0, 0)
    }
  }

  package func isValid() async throws(HubError) -> Bool {
    try await control.run { try $0.query("SELECT hub.current_actor() = actor FROM hub.office").bool(0, 0) }
  }

  package func shownCount() async throws(HubError) -> Int64 {
    try await control.run { try $0.hot("SELECT shown FROM hub.office").int64(0, 0) }
  }

  package func countShown() async throws(HubError) -> Int64 {
    try await control.run { session in
      // Committing flushes everything that was read before, also what users committed asynchronously.
      try session.transaction { session in
        try session.script("SET LOCAL synchronous_commit = on")
        return try session.hot("UPDATE hub.office SET shown = shown + 1 RETURNING shown").int64(0, 0)
      }
    }
  }

  package func take(_ lineage: Lineage, isNew: Bool) async throws(HubError) {
    state.withLock {
      $0.scanned = nil
      $0.openSnapshot = nil
    }
    try await control.perform { session in
      try session.transaction { session in
        // What is on its way was made for a database that had more: a branch leaves out what came from that head.
        try session.script("UPDATE hub.peer SET session = NULL WHERE (SELECT role FROM hub.office) = 'head'")
        switch lineage {
        case .unproven: break
        case .continued: try Self.makeValid(session, actor: "actor")
        case .forked: try Self.fork(session, isNew: isNew)
        }
      }
    }
  }

  private static func makeValid(_ session: Session, actor: String) throws {
    try session.script(
      """
      UPDATE hub.office SET actor = \(actor), server_started = pg_postmaster_start_time(), table_identity = tableoid,
        place = pg_relation_filepath(tableoid)
      """)
  }

  private static func fork(_ session: Session, isNew: Bool) throws {
    if try areTransactionsOfAnother(session) { try rebase(session) }
    try makeValid(session, actor: isNew ? "\(Int64.random(in: 1...Int64.max))" : "hub.current_actor()")
    try countOn(session)
    try session.script(
      """
      UPDATE hub.peer SET purge_number = 0;
      UPDATE hub.peer SET recovery = 'awaited'
      WHERE state IN ('joining', 'active') AND (SELECT role FROM hub.office) = 'head';
      -- A catalogue's number names one catalogue: branches may know later ones than this database does.
      UPDATE hub.office SET session = NULL,
        recovers = role = 'branch' OR EXISTS (SELECT FROM hub.peer WHERE recovery IS NOT NULL),
        catalogue_version = CASE role WHEN 'head'
          THEN greatest(catalogue_version + 1, extract(epoch FROM now())::bigint) ELSE catalogue_version END;
      -- So does an entry's of the conflict log; branches keep those that head lost.
      SELECT setval('hub.conflict_number', last_value + 100000) FROM hub.conflict_number;
      SELECT setval(pg_get_serial_sequence('hub.conflict', 'id'), (SELECT coalesce(max(id), 0) FROM hub.conflict) + 100000)
      FROM hub.office WHERE role = 'head';
      UPDATE hub.request SET state = 'interrupted' WHERE state = 'waiting';
      DELETE FROM hub.stage
      """)
  }

  /// Head: an empty batch, from which it counts on (``SyncCore/BatchReference/afterFork(at:id:)``).
  private static func countOn(_ session: Session) throws {
    let state = try session.query(
      """
      SELECT role = 'head', (extract(epoch FROM now()) * 1000)::bigint,
        coalesce(b.number, 0), coalesce(b.id, 0), coalesce(b.position, \(FeedPosition.beginningText)::pg_snapshot)
      FROM hub.office LEFT JOIN (SELECT * FROM hub.batch ORDER BY number DESC LIMIT 1) b ON true
      """)
    guard state.bool(0, 0) else { return }
    let last = BatchReference(number: state.int64(0, 2), id: state.int64(0, 3))
    let first = last.afterFork(at: state.int64(0, 1), id: .random(in: 1...Int64.max))
    try session.query(
      """
      INSERT INTO hub.batch (number, id, previous, position)
      VALUES (\(first.number), \(first.id), \(last.id), \(state.string(0, 4))::pg_snapshot)
      """)
  }

  /// Dumped and loaded into another cluster: the numbers of transactions begin anew, so positions say nothing.
  private static func areTransactionsOfAnother(_ session: Session) throws -> Bool {
    try session.query(
      """
      SELECT tableoid <> table_identity OR EXISTS (SELECT FROM hub.batch
        WHERE pg_snapshot_xmax(position) > pg_snapshot_xmax(pg_current_snapshot())) FROM hub.office
      """
    ).bool(0, 0)
  }

  /// Forgets every position but where the stream goes on; the handshake finds them unknown and sends all.
  private static func rebase(_ session: Session) throws {
    for table in try TableInfo.loadAll(session) {
      // Older than anything that is read from now on.
      try session.script("UPDATE \(table.versions) SET xid = '3' WHERE xid <> '3'")
    }
    try session.script("DELETE FROM hub.horizon; DELETE FROM hub.mark")
    try session.query(
      """
      WITH gone AS (DELETE FROM hub.batch RETURNING number)
      INSERT INTO hub.batch (number, id, previous, position)
      SELECT coalesce(max(number), 0) + 1, \(Int64.random(in: 1...Int64.max)), 0, pg_current_snapshot() FROM gone
      """)
  }

  package func recovered() async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        // The sequences went back, too: they would give keys that came back.
        try Self.passKeys(session)
        try session.script("UPDATE hub.office SET recovers = false")
      }
    }
  }

  package func saveRecovery(
    of peer: String, _ progress: RecoveryMachine.Progress?
  ) async throws(HubError) {
    try await control.perform {
      try $0.query("UPDATE hub.peer SET recovery = \(progress?.rawValue) WHERE office = \(peer)")
    }
  }

  package func wasIncarnation(_ incarnation: Int64, of peer: String) async throws(HubError) -> Bool {
    try await control.run {
      try $0.query(
        "SELECT EXISTS (SELECT FROM hub.actor WHERE actor = \(incarnation)::bigint AND office = \(peer))"
      ).bool(0, 0)
    }
  }
}
