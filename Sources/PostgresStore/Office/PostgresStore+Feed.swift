package import HubEngine
package import SyncCore
import Synchronization

extension PostgresStore {
  package func look() async throws(HubError) -> FeedState {
    let look = try await feed.run { session in
      let rows = try session.hot(
        """
        SELECT pg_current_snapshot(), o.catalogue_version, o.paused,
          EXISTS (SELECT FROM hub.request WHERE state = 'waiting') FROM hub.office o
        """)
      guard rows.count == 1 else { throw HubError(.notReady, "this database is no office any more") }
      return FeedState(
        snapshot: rows.text(0, 0), catalogueVersion: rows.int64(0, 1), isPaused: rows.bool(0, 2),
        hasRequests: rows.bool(0, 3))
    }
    return look
  }

  package func openFeed(
    since previous: BatchReference?, echoes: Bool, returns: Bool, slices: Bool, staged: StagedParts?,
    catalogueVersion: Int64
  ) async throws(HubError) -> FeedOpening {
    let scanned = previous == nil ? state.withLock { $0.scanned } : nil
    let tables = sentTables(againstDirection: returns)
    let (partBytes, signature) = (partBytes, state.withLock { $0.signature })
    let opened = try await feed.run { session in
      try Self.beginScan(session, catalogueVersion, signature) { session -> OpenedFeed in
        let since = try scanned ?? Self.position(session, after: previous)
        let cut = try slices ? Self.resumption(session, of: staged, at: previous) : nil
        if since.text != nil { try session.script("SET LOCAL enable_seqscan = off") }
        let snapshot = try session.query("SELECT pg_current_snapshot()").text(0, 0)
        let scan = FeedScan(
          session: session, tables: tables, since: since, echoes: echoes, slices: slices, resumption: cut,
          partBytes: partBytes)
        var part = try scan.next()
        session.attachment = scan
        guard part.rows == 0 && part.isLast && !part.more && !scan.resumes else {
          let position = Self.describe(&part, scan, snapshot)
          return OpenedFeed(
            snapshot: snapshot, part: part, position: position,
            readAt: scan.resumes ? cut?.readAt.text ?? snapshot : snapshot, laterReadAt: cut?.readAt.text)
        }
        try Self.reportOversized(session)
        session.rollBack()
        return OpenedFeed(snapshot: snapshot, part: nil, position: FeedPosition(text: snapshot), readAt: snapshot)
      }
    }
    guard let opened else { return .stale }
    state.withLock {
      if opened.part == nil { $0.scanned = opened.position }
      $0.openSnapshot = opened.snapshot
      $0.openPosition = opened.position
      $0.openReadAt = opened.readAt
      $0.cutReadAt = opened.laterReadAt
    }
    return opened.part.map { .rows($0) } ?? .nothing
  }

  /// Runs `body` in a transaction whose only snapshot shows the tables that were loaded, and the catalogue under which
  /// their rows go out; nil: another one. Looked at before the transaction, a table tracked in between would be missing
  /// from the scan and behind its position.
  private static func beginScan<T>(
    _ session: Session, _ catalogueVersion: Int64, _ signature: String, _ body: (Session) throws -> T
  ) throws -> T? {
    session.rollBack()
    try session.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    do {
      let version = try session.hot("SELECT catalogue_version FROM hub.office").int64(0, 0)
      guard try version == catalogueVersion && Self.signature(session) == signature else {
        session.rollBack()
        return nil
      }
      return try body(session)
    } catch {
      session.rollBack()
      throw error
    }
  }

  private struct OpenedFeed: Sendable {
    var snapshot: String
    var part: FeedPart?
    var position: FeedPosition
    var readAt: String
    var laterReadAt: String?
  }

  private static func describe(_ part: inout FeedPart, _ scan: FeedScan, _ snapshot: String) -> FeedPosition {
    let position = scan.position(at: snapshot)
    part.isWhole = position.isWhole
    part.keepsStaged = scan.keepsStaged
    part.goesOn = scan.resumes
    return position
  }

  /// What a receiver that stands at `at` has of a batch on top of that is good if this office made the batch.
  private static func resumption(
    _ session: Session, of staged: StagedParts?, at: BatchReference?
  ) throws -> FeedScan.Resumption? {
    guard let staged, let at, let cursor = WindowCursor(staged.cursor) else { return nil }
    let rows = try session.query(
      """
      SELECT read_at FROM hub.batch WHERE number = \(staged.batch.number) AND id = \(staged.batch.id)
        AND previous = \(at.id) AND read_at IS NOT NULL
      """)
    return rows.count == 0 ? nil : FeedScan.Resumption(cursor: cursor, readAt: FeedPosition(text: rows.text(0, 0)))
  }

  package func batchesOfScan() async -> Int { Set(sentTables().flatMap { [$0.rank, $0.deleteRank] }).count }

  /// The feed position that a batch led to; of the last batch when none is named. Unknown: the beginning.
  static func position(_ session: Session, after reference: BatchReference?) throws -> FeedPosition {
    let rows =
      if let reference {
        try session.query(
          "SELECT position, ahead FROM hub.batch WHERE number = \(reference.number) AND id = \(reference.id)")
      } else {
        try session.query("SELECT position, ahead FROM hub.batch ORDER BY number DESC LIMIT 1")
      }
    return rows.count == 0 ? .beginning : FeedPosition(text: rows.string(0, 0), ahead: rows.string(0, 1))
  }

  package func nextFeedPart() async throws(HubError) -> FeedPart {
    guard let snapshot = state.withLock({ $0.openSnapshot }) else { return .empty }
    let (part, position) = try await feed.run { session -> (FeedPart, FeedPosition) in
      var part = try Self.nextPart(session, rowsMax: .max)
      guard let scan = session.attachment as? FeedScan else { return (part, FeedPosition(text: snapshot)) }
      let position = Self.describe(&part, scan, snapshot)
      return (part, position)
    }
    state.withLock {
      $0.openPosition = position
      $0.openReadAt = part.goesOn ? $0.cutReadAt ?? snapshot : snapshot
    }
    return part
  }

  private static func nextPart(_ session: Session, rowsMax: Int) throws -> FeedPart {
    guard let scan = session.attachment as? FeedScan else {
      throw HubError(.database, "the scan was lost with its connection", isTransient: true)
    }
    return try scan.next(rowsMax: rowsMax)
  }

  package func closeFeed() async { await Self.closeScan(feed) }

  private static func closeScan(_ connection: PostgresConnection) async {
    try? await connection.perform { session in
      session.rollBack()
      try reportOversized(session)
      session.attachment = nil
    }
  }

  /// Rows with a value beyond the limit stay here, in quarantine, by table, key and size.
  private static func reportOversized(_ session: Session) throws {
    guard let scan = session.attachment as? FeedScan, !scan.oversized.isEmpty else { return }
    session.rollBack()
    for row in scan.oversized {
      try session.query(
        """
        INSERT INTO hub.quarantine (peer, table_name, key, sqlstate, error, "row", state)
        SELECT name, \(row.table), \(row.key.description)::jsonb, '54000',
          \("a value of \(row.bytes) bytes is larger than \(Limits.valueBytesMax): the row stays here"), '{}', ''
        FROM hub.office
        ON CONFLICT (peer, table_name, jsonb_hash_extended(key, 0), jsonb_hash_extended(key, 1)) DO UPDATE SET error = EXCLUDED.error, tried_at = now()
        """)
    }
  }

  package func record(_ header: BatchHeader, applied: Int64?, startsSession: Bool) async throws(HubError) {
    let open = state.withLock { ($0.openPosition, $0.openReadAt) }
    guard let position = open.0, let readAt = open.1 else { return }
    let marksAt = isMarkDue ? applied : nil
    let isMarked = try await control.run { session in
      // Committing flushes everything that the snapshot can see, also what users committed asynchronously.
      try session.transaction { session in
        try session.script("SET LOCAL synchronous_commit = on")
        let isMarked = try marksAt.map { try Self.mark(session, applied: $0, after: header.previous) } ?? false
        try session.hot(
          """
          INSERT INTO hub.batch (number, id, previous, position, ahead, read_at, applied)
          VALUES (\(header.reference.number)::bigint, \(header.reference.id)::bigint, \(header.previous.id)::bigint,
            \(position.storedText)::pg_snapshot, \(position.aheadText), \(readAt)::pg_snapshot,
            coalesce(\(applied)::bigint, (SELECT applied FROM hub.batch ORDER BY number DESC LIMIT 1), 0))
          """)
        if startsSession { try session.hot("UPDATE hub.office SET session = \(header.session.rawValue)::bigint") }
        return isMarked
      }
    }
    if isMarked { state.withLock { $0.markedAt = .now } }
    state.withLock { $0.scanned = position }
  }

  // MARK: catch-up

  package func openWindow(
    from: BatchReference, cursor: [UInt8], returning office: String?, catalogueVersion: Int64
  ) async throws(HubError) -> FeedOpening {
    let tables = sentTables(againstDirection: office != nil)
    let (partBytes, signature) = (partBytes, state.withLock { $0.signature })
    let part = try await window.run { session in
      try Self.beginScan(session, catalogueVersion, signature) { session in
        let since = from == .origin ? .beginning : try Self.position(session, after: from)
        let after = cursor.isEmpty ? nil : WindowCursor(cursor)
        let scan = FeedScan(
          session: session, tables: tables, since: since, echoes: true, isKeyed: true, after: after, returning: office,
          partBytes: partBytes)
        session.attachment = scan
        return try scan.next()
      }
    }
    return part.map { .rows($0) } ?? .stale
  }

  package func nextWindowPart(rowsMax: Int) async throws(HubError) -> FeedPart {
    try await window.run { try Self.nextPart($0, rowsMax: rowsMax) }
  }

  package func closeWindow() async { await Self.closeScan(window) }

  package func countWindow(from: BatchReference) async throws(HubError) -> Int64 {
    let tables = sentTables()
    return try await window.run { session in
      session.rollBack()
      let since = try (from == .origin ? .beginning : Self.position(session, after: from)).under(tables)
      return try tables.reduce(0) { sum, table in
        sum
          + (try session.script("SELECT count(*) FROM \(table.versions) v WHERE \(since.isNew("v", table))").int64(0, 0))
      }
    }
  }

  package func lastBatch() async throws(HubError) -> BatchReference {
    try await control.run { session in
      let rows = try session.query("SELECT number, id FROM hub.batch ORDER BY number DESC LIMIT 1")
      return rows.count == 0 ? .origin : BatchReference(number: rows.int64(0, 0), id: rows.int64(0, 1))
    }
  }

  package func knowsBatch(_ reference: BatchReference) async throws(HubError) -> Bool {
    if reference == .origin { return true }
    return try await control.run { session in
      try session.query(
        "SELECT EXISTS (SELECT FROM hub.batch WHERE number = \(reference.number) AND id = \(reference.id))"
      ).bool(0, 0)
    }
  }

  /// Records kept for the sake of an absent office; beyond, only the very positions that offices acknowledged.
  private static let batchRecordsMax: Int64 = 100_000

  package func pruneBatches() async throws(HubError) {
    try await control.perform { session in
      try session.query(
        """
        DELETE FROM hub.batch b WHERE number < (SELECT max(number) FROM hub.batch)
          AND (number < (SELECT min(CASE o.role WHEN 'head' THEN least(acked_number, purge_number) ELSE acked_number END)
              FROM hub.peer, hub.office o WHERE state IN ('joining', 'active'))
            OR number < (SELECT max(number) FROM hub.batch) - \(Self.batchRecordsMax)
              AND NOT EXISTS (SELECT FROM hub.peer p WHERE p.purge_number = b.number
                OR p.acked_number = b.number AND p.acked_id = b.id))
        """)
    }
  }
}
