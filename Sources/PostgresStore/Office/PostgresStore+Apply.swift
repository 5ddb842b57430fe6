package import HubEngine
package import SyncCore
import Synchronization

extension PostgresStore {
  package func stage(
    _ body: [UInt8], of batch: BatchReference, part: Int, rows: Int, cursor: [UInt8], from peer: String, reset: Bool
  ) async throws(HubError) {
    try await writer.run { session in
      try session.transaction { session in
        if reset { try session.hot("DELETE FROM hub.stage WHERE peer = \(peer)") }
        try session.hot(
          """
          INSERT INTO hub.stage (peer, number, id, part, rows, body, cursor)
          VALUES (\(peer), \(batch.number)::bigint, \(batch.id)::bigint, \(part)::int, \(rows)::int, \(binary: body),
            \(binary: cursor))
          """)
      }
    }
  }

  package func stagedParts(from peer: String) async throws(HubError) -> StagedParts? {
    try await writer.run { session -> StagedParts? in
      let rows = try session.query(
        """
        SELECT number, id, count(*), (array_agg(cursor ORDER BY part DESC))[1] FROM hub.stage WHERE peer = \(peer)
        GROUP BY 1, 2 HAVING max(part) = count(*) - 1 ORDER BY 1 DESC LIMIT 1
        """)
      guard rows.count == 1 else { return nil }
      return StagedParts(
        batch: BatchReference(number: rows.int64(0, 0), id: rows.int64(0, 1)), count: rows.int(0, 2),
        cursor: rows.bytes(0, 3).map { bytes(hex: $0) } ?? [])
    }
  }

  package func adoptStaged(_ count: Int, as batch: BatchReference, from peer: String) async throws(HubError) {
    try await writer.perform { session in
      try session.transaction { session in
        try session.query("DELETE FROM hub.stage WHERE peer = \(peer) AND part >= \(count)::int")
        try session.query(
          "UPDATE hub.stage SET number = \(batch.number)::bigint, id = \(batch.id)::bigint WHERE peer = \(peer)")
      }
    }
  }

  package func dropStaged(from peer: String) async throws(HubError) {
    try await writer.perform { try $0.query("DELETE FROM hub.stage WHERE peer = \(peer)") }
  }

  package func apply(
    _ rows: AppliedRows, from peer: String, position: InboundPosition, snapshotAt: Int64, returns: Bool
  ) async throws(HubError) -> AppliedCounts {
    let groups = try await groups(of: rows, from: peer)
    var counts = AppliedCounts()
    for (number, group) in groups.enumerated() {
      let isLast = number == groups.count - 1
      counts += try await applyPatiently(
        from: peer, returns: returns,
        blocks: { session, apply in try Self.read(rows, group, peer, self.coder, session, apply) },
        finish: { session in
          guard isLast else { return }
          try Self.save(position, of: peer, session)
          if snapshotAt > 0 {
            try session.hot(
              """
              UPDATE hub.peer SET applied_snapshot_at = to_timestamp(\(snapshotAt)::bigint / 1000000.0)
              WHERE office = \(peer)
              """)
          }
          if case .staged = rows { try session.hot("DELETE FROM hub.stage WHERE peer = \(peer)") }
        })
    }
    return counts
  }

  /// Whole batches are one transaction; larger ones than `batchRowsMax` are cut, in the order sent.
  private func groups(of rows: AppliedRows, from peer: String) async throws(HubError) -> [Range<Int>] {
    guard case .staged(let batch, let parts) = rows else { return [0..<1] }
    let sizes = try await writer.run { session in
      let rows = try session.query(
        """
        SELECT rows FROM hub.stage WHERE peer = \(peer) AND number = \(batch.number) AND id = \(batch.id) ORDER BY part
        """)
      return (0..<rows.count).map { rows.int($0, 0) }
    }
    guard sizes.count == parts else {
      throw HubError(.damaged, "staged parts of a batch are gone", hint: "the batch is asked for again")
    }
    guard sizes.reduce(0, +) > batchRowsMax else { return [0..<sizes.count] }
    var groups: [Range<Int>] = []
    var start = 0
    var sum = 0
    for (part, size) in sizes.enumerated() {
      if sum + size > batchRowsMax && part > start {
        groups.append(start..<part)
        (start, sum) = (part, 0)
      }
      sum += size
    }
    return groups + [start..<sizes.count]
  }

  private static func read(
    _ rows: AppliedRows, _ parts: Range<Int>, _ peer: String, _ coder: RowCoder, _ session: Session,
    _ apply: (RowBlock) throws -> Void
  ) throws {
    switch rows {
    case .blocks(let blocks):
      for block in blocks { try apply(block) }
    case .staged(let batch, _):
      for part in parts {
        let stored = try session.hot(
          """
          SELECT body FROM hub.stage WHERE peer = \(peer) AND number = \(batch.number)::bigint
            AND id = \(batch.id)::bigint AND part = \(part)::int
          """)
        guard stored.count == 1, let text = stored.bytes(0, 0) else {
          throw HubError(.damaged, "staged parts of a batch are gone", hint: "the batch is asked for again")
        }
        for block in try coder.decode(bytes(hex: text)) { try apply(block) }
      }
    }
  }

  /// Tries until applications are out of the way: hub gives way, never they.
  func applyPatiently(
    from peer: String, returns: Bool = false,
    blocks: @escaping @Sendable (Session, (RowBlock) throws -> Void) throws -> Void,
    finish: @escaping @Sendable (Session) throws -> Void
  ) async throws(HubError) -> AppliedCounts {
    let (tables, isHead, coder) = (tablesByName, isHead, coder)
    var attempt = 0
    while true {
      let refusesMissing = attempt >= 8
      do {
        return try await writer.run { session in
          let transaction = ApplyTransaction(
            session: session, tables: tables, isHead: isHead, peer: peer, coder: coder,
            returns: returns, refusesMissing: refusesMissing)
          do {
            let counts = try transaction.run({ apply in try blocks(session, apply) }, finish: finish)
            CrashPoint.rowsCommitted.passed()
            try ApplyTransaction.flush(session)
            CrashPoint.rowsFlushed.passed()
            return counts
          } catch let raced as Raced {
            throw HubError(
              .database, "an application writes the same rows of \(raced.table)", sqlstate: "40001",
              isTransient: true)
          }
        }
      } catch {
        guard error.isTransient, error.sqlstate != nil, !error.isDisconnect, attempt < 1000 else { throw error }
        attempt += 1
        let milliseconds = min(1000, 10 << min(attempt, 6))
        do {
          try await Task.sleep(for: .milliseconds(Int.random(in: milliseconds / 2...milliseconds)))
        } catch {
          throw HubError(.database, "stopped", isTransient: true)
        }
      }
    }
  }

  // MARK: positions

  package func savePosition(_ position: InboundPosition, of peer: String) async throws(HubError) {
    try await writer.run { try Self.save(position, of: peer, $0) }
  }

  static func save(_ position: InboundPosition, of peer: String, _ session: Session) throws {
    let catchUp = position.catchUp
    try session.hot(
      """
      UPDATE hub.peer SET session = \(position.session?.rawValue)::bigint, at_number = \(position.at.number)::bigint,
        at_id = \(position.at.id)::bigint, catch_from_number = \(catchUp?.from.number)::bigint,
        catch_from_id = \(catchUp?.from.id)::bigint, catch_cursor = \(binary: catchUp?.cursor),
        catch_full = \(catchUp?.full ?? false)::bool, catch_target_number = \(catchUp?.target.number)::bigint,
        catch_target_id = \(catchUp?.target.id)::bigint, unsettled_until = \(position.unsettledUntil)::bigint,
        last_seen = now()
      WHERE office = \(peer)
      """)
  }
}

/// `\x…` as bytea_output=hex writes it.
func bytes(hex text: UnsafeRawBufferPointer) -> [UInt8] {
  func digit(_ byte: UInt8) -> UInt8 { byte < 58 ? byte &- 48 : (byte | 32) &- 87 }
  guard text.count >= 2 else { return [] }
  return [UInt8](unsafeUninitializedCapacity: (text.count - 2) / 2) { out, count in
    var at = 2
    while at + 1 < text.count {
      out[count] = digit(text[at]) << 4 | digit(text[at + 1])
      count += 1
      at += 2
    }
  }
}
