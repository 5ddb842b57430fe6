package import HubEngine
package import SyncCore
import Synchronization

/// The conflict log on its way to the branches.
extension PostgresStore {
  package func numberConflicts() async throws(HubError) -> [String] {
    try await control.run { session in
      guard try session.hot("SELECT EXISTS (SELECT FROM hub.conflict_notice WHERE number IS NULL)").bool(0, 0)
      else { return [] }
      let rows = try session.hot(
        """
        WITH numbered AS (
          UPDATE hub.conflict_notice SET number = nextval('hub.conflict_number') WHERE number IS NULL RETURNING office)
        SELECT DISTINCT office FROM numbered
        """)
      return (0..<rows.count).map { rows.text($0, 0) }
    }
  }

  package func conflicts(for office: String, after: Int64) async throws(HubError) -> ConflictEntries? {
    try await control.run { session in
      // A branch that has more than there is: head's database went back. Everything goes out again, under new numbers.
      try session.hot(
        """
        WITH back AS (SELECT setval('hub.conflict_number', \(after)::bigint + 1)
          FROM hub.conflict_number WHERE last_value < \(after)::bigint)
        UPDATE hub.conflict_notice SET number = NULL FROM back WHERE office = \(office)
        """)
      let rows = try session.hot(
        """
        SELECT n.number, CASE WHEN octet_length(c.winner::text) + octet_length(c.loser::text) < \(Self.wholeEntryBytes)::int
          THEN to_jsonb(c) ELSE to_jsonb(c) || jsonb_build_object('winner', hub.shortened(c.winner, 256),
            'loser', hub.shortened(c.loser, 256)) END
        FROM hub.conflict_notice n JOIN hub.conflict c ON c.id = n.conflict
        WHERE n.office = \(office) AND n.number > \(after)::bigint ORDER BY n.number
        LIMIT \(Limits.conflictEntriesMax + 1)::int
        """)
      var entries = ConflictEntries(after: after, last: after, more: false, entries: [])
      var bytes = 0
      for i in 0..<rows.count {
        let entry = rows.text(i, 1)
        bytes += entry.utf8.count
        guard i == 0 || bytes <= Limits.conflictBytesMax && i < Limits.conflictEntriesMax else {
          entries.more = true
          break
        }
        entries.entries.append(entry)
        entries.last = rows.int64(i, 0)
      }
      return entries.entries.isEmpty ? nil : entries
    }
  }

  /// Of entries with larger copies only the values' beginnings go to a branch: 256 characters of 1600 columns twice
  /// stay under `Limits.conflictEntryBytesMax`.
  private static let wholeEntryBytes = 1 << 20

  package func save(_ entries: ConflictEntries) async throws(HubError) {
    let head = state.withLock { $0.office?.head ?? "" }
    let list = "[" + entries.entries.joined(separator: ",") + "]"
    try await control.perform { session in
      try session.transaction { session in
        try session.query(
          "DELETE FROM hub.conflict WHERE id IN (SELECT (e ->> 'id')::bigint FROM jsonb_array_elements(\(list)::jsonb) e)"
        )
        try session.query(
          """
          INSERT INTO hub.conflict OVERRIDING SYSTEM VALUE
          SELECT (jsonb_populate_record(NULL::hub.conflict, e)).* FROM jsonb_array_elements(\(list)::jsonb) e
          """)
        try session.query("UPDATE hub.peer SET conflicts_at = \(entries.last) WHERE office = \(head)")
      }
    }
  }
}

/// How long entries of the conflict log are kept.
extension PostgresStore {
  package func pruneConflicts() async throws(HubError) -> Int64 {
    try await control.run { try ConflictRetention.read($0).prune($0) }
  }

  package func dropConflicts(before id: Int64) async throws(HubError) {
    try await control.perform { try $0.hot("DELETE FROM hub.conflict WHERE id < \(id)::bigint") }
  }
}

/// Quarantine as the daemon sees it.
extension PostgresStore {
  package func quarantineCause() async throws(HubError) -> String? {
    try await control.run { session in
      guard try session.hot("SELECT EXISTS (SELECT FROM hub.quarantine WHERE state <> '')").bool(0, 0) else {
        return nil
      }
      return try session.hot(
        """
        WITH tracked AS (
          SELECT c.oid, c.xmin FROM hub.tracked t JOIN pg_namespace s ON s.nspname = t.schema_name
          JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.relation_name)
        SELECT md5(string_agg(object, ' ' ORDER BY object)) FROM (
          SELECT 'table ' || oid || ' ' || xmin FROM tracked
          UNION ALL SELECT 'column ' || attrelid || ' ' || attnum || ' ' || a.xmin
            FROM pg_attribute a JOIN tracked t ON t.oid = a.attrelid WHERE attnum > 0
          UNION ALL SELECT 'constraint ' || c.oid || ' ' || c.xmin
            FROM pg_constraint c JOIN tracked t ON t.oid = c.conrelid
          UNION ALL SELECT 'index ' || indexrelid || ' ' || i.xmin FROM pg_index i JOIN tracked t ON t.oid = i.indrelid
          UNION ALL SELECT 'trigger ' || g.oid || ' ' || g.xmin FROM pg_trigger g JOIN tracked t ON t.oid = g.tgrelid
        ) AS objects (object)
        """
      ).text(0, 0)
    }
  }

  /// Rows that one try takes together.
  private static let quarantinedRowsTried = 500

  package func retryQuarantine(only id: Int64? = nil) async throws(HubError) -> Int {
    let signature = try await control.run { try Self.signature($0) }
    if signature != state.withLock({ $0.signature }) { try await reload() }
    let peers = try await writer.run { session in
      let rows = try session.hot(
        "SELECT DISTINCT peer FROM hub.quarantine WHERE state <> '' AND (\(id)::bigint IS NULL OR id = \(id)::bigint)")
      return (0..<rows.count).map { rows.text($0, 0) }
    }
    var released = 0
    for peer in peers {
      let coder = coder
      let before = try await quarantined(from: peer)
      _ = try await applyPatiently(
        from: peer,
        blocks: { session, apply in
          let rows = try session.hot(
            """
            UPDATE hub.quarantine SET tried_at = '-infinity' WHERE id IN (
              SELECT id FROM hub.quarantine WHERE peer = \(peer) AND state <> ''
                AND (\(id)::bigint IS NULL OR id = \(id)::bigint)
              ORDER BY tried_at, id LIMIT \(Self.quarantinedRowsTried)::int FOR UPDATE)
            RETURNING state
            """)
          for i in 0..<rows.count {
            guard let text = rows.bytes(i, 0) else { continue }
            for block in try coder.decode(bytes(hex: text)) { try apply(block) }
          }
        },
        finish: { session in
          // What was refused again bears the time again; what does not is in.
          try session.hot("DELETE FROM hub.quarantine WHERE peer = \(peer) AND tried_at = '-infinity'")
        })
      released += max(0, before - (try await quarantined(from: peer)))
    }
    return released
  }

  package func refusedRows(from office: String) async throws(HubError) -> [[RowBlock]] {
    let (coder, partBytes) = (coder, partBytes)
    let tables = Dictionary(uniqueKeysWithValues: sentTables(againstDirection: true).map { ($0.name, $0) })
    return try await control.run { session in
      let rows = try session.query(
        "SELECT state FROM hub.quarantine WHERE peer = \(office) AND state <> '' ORDER BY id")
      var parts: [[RowBlock]] = []
      var size = partBytes
      for i in 0..<rows.count {
        guard let text = rows.bytes(i, 0) else { continue }
        let state = bytes(hex: text)
        // What is written here meanwhile, and is in conflict with it, goes to head by itself and is not put aside for it.
        let blocks = try coder.decode(state).filter { block in
          guard let table = tables[block.table] else { return false }
          let applier = try TableApplier(session: session, table: table, block: block, refusesMissing: false)
          return try applier.readVersions()[0].map { block.vector(0).dominates($0.vector) } ?? true
        }
        guard !blocks.isEmpty else { continue }
        if size >= partBytes {
          parts.append([])
          size = 0
        }
        parts[parts.count - 1] += blocks
        size += state.count
      }
      return parts
    }
  }

  private func quarantined(from peer: String) async throws(HubError) -> Int {
    try await writer.run { try $0.hot("SELECT count(*) FROM hub.quarantine WHERE peer = \(peer)").int(0, 0) }
  }

  package func restate(_ blocks: [RowBlock]) async throws(HubError) {
    let tables = Dictionary(uniqueKeysWithValues: sentTables().map { ($0.name, $0) })
    try await writer.perform { session in
      try session.transaction { session in
        // The branch is told afterwards that this is done.
        try session.script("SET LOCAL synchronous_commit = on")
        for block in blocks {
          guard let table = tables[block.table], block.keyCount == table.keyCount else { continue }
          try TableApplier(session: session, table: table, block: block, refusesMissing: true)
            .touchVersions(of: Array(0..<block.count))
        }
      }
    }
  }

  package func restates() async throws(HubError) -> [Int64] {
    try await control.run { session in
      let rows = try session.hot("SELECT id FROM hub.restate ORDER BY id LIMIT \(Self.restatesAsked)::int")
      return (0..<rows.count).map { rows.int64($0, 0) }
    }
  }

  /// Requests that wait for head's answer at a time.
  private static let restatesAsked = 100

  package func restate(_ request: Int64) async throws(HubError) -> [RowBlock]? {
    let coder = coder
    return try await control.run { session in
      let rows = try session.hot("SELECT rows FROM hub.restate WHERE id = \(request)::bigint")
      guard rows.count == 1, let text = rows.bytes(0, 0) else { return nil }
      return try coder.decode(bytes(hex: text))
    }
  }

  package func finishRestate(_ request: Int64) async throws(HubError) {
    try await control.perform { try $0.hot("DELETE FROM hub.restate WHERE id = \(request)::bigint") }
  }
}
