package import HubEngine
package import SyncCore
import Synchronization

/// Comparing this office's tables with another's: each question is answered from one snapshot.
extension PostgresStore {
  package func verify(_ question: VerifyQuestion, with office: String?) async throws(HubError) -> VerifyAnswer {
    try await verifier.run { session in
      session.rollBack()
      return try session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
        try session.script("SET LOCAL work_mem = '64MB'")
        return try TableComparison(session: session, office: office).answer(question)
      }
    }
  }

  package func endVerifying() async { await verifier.disconnect() }

  package func contents(_ scope: VerifyScope, _ keys: [RowKey]) async throws(HubError) -> [String] {
    try await verifier.run { session in
      let table = try TableComparison(session: session, office: nil).table(scope.table)
      let applier = try RowRestatement.applier(session, table, keys)
      let values = try applier.localValues(of: Array(keys.indices))
      var rows: [String] = []
      var bytes = 0
      for at in keys.indices {
        let row = values[at].map { JSONValue.row(applier.block.columnNames, $0).description } ?? ""
        let isKept = row.utf8.count <= Limits.conflictEntryBytesMax / 2
        bytes += isKept ? row.utf8.count : 0
        guard rows.isEmpty || bytes <= Limits.conflictBytesMax else { break }
        rows.append(isKept ? row : "")
      }
      return rows
    }
  }

  package func restate(
    _ rows: [RestatedRow], of table: String, overwritten: [OverwrittenCopy], from office: String
  ) async throws(HubError) -> Int {
    var attempt = 0
    while true {
      do {
        return try await verifier.run { session in
          try session.transaction { session in
            let table = try TableComparison(session: session, office: nil).table(table)
            return try RowRestatement(session: session, table: table).run(rows, overwritten, from: office)
          }
        }
      } catch {
        // An application writes these rows: hub gives way.
        guard error.isTransient, !error.isDisconnect, attempt < 30 else { throw error }
        attempt += 1
        do {
          try await Task.sleep(for: .milliseconds(Int.random(in: 20...200)))
        } catch {
          throw HubError(.database, "stopped", isTransient: true)
        }
      }
    }
  }

  package func logOverwritten(
    _ copies: [OverwrittenCopy], of table: String, by office: String
  ) async throws(HubError) {
    try await verifier.perform { session in
      try session.transaction { session in
        let table = try TableComparison(session: session, office: nil).table(table)
        for copy in copies {
          try RepairLog(session: session, table: table).write(copy, standing: nil, office: office)
        }
      }
    }
  }

  package func save(_ certificate: VerifyCertificate, _ differences: [Difference]) async throws(HubError) {
    try await verifier.perform { session in
      try session.transaction { session in
        try session.query(
          """
          INSERT INTO hub.certificate (office, equal, differences, local_rows, moving, repaired, tables, rows, digest,
            head_number, branch_number, notes)
          VALUES (\(certificate.office), \(certificate.isEqual)::bool, \(certificate.differences), \(certificate.local),
            \(certificate.moving), \(certificate.repaired), \(certificate.tables), \(certificate.rows),
            \(certificate.digest), \(certificate.headBatch.number), \(certificate.branchBatch.number),
            \(.column(ColumnBytes(texts: certificate.notes)))::text[])
          ON CONFLICT (office) DO UPDATE SET at = now(), equal = EXCLUDED.equal, differences = EXCLUDED.differences,
            local_rows = EXCLUDED.local_rows, moving = EXCLUDED.moving, repaired = EXCLUDED.repaired,
            tables = EXCLUDED.tables, rows = EXCLUDED.rows, digest = EXCLUDED.digest,
            head_number = EXCLUDED.head_number, branch_number = EXCLUDED.branch_number, notes = EXCLUDED.notes
          """)
        try session.query("DELETE FROM hub.difference WHERE office = \(certificate.office)")
        for group in Swift.stride(from: 0, to: differences.count, by: 1_000) {
          let some = differences[group..<min(differences.count, group + 1_000)]
          try session.query(
            """
            INSERT INTO hub.difference (office, table_name, key, kind)
            SELECT \(certificate.office), u.name, u.key::jsonb, u.kind FROM unnest(
              \(.column(ColumnBytes(texts: some.map(\.table))))::text[],
              \(.column(ColumnBytes(texts: some.map(\.keyJSON.description))))::text[],
              \(.column(ColumnBytes(texts: some.map(\.kind.rawValue))))::text[]) WITH ORDINALITY AS u (name, key, kind, i)
            ORDER BY u.i
            """)
        }
      }
    }
  }

  package func report(_ progress: String, on request: Int64) async throws(HubError) -> Bool {
    try await control.run { session in
      try session.query(
        "UPDATE hub.request SET outcome = \(progress)::jsonb WHERE id = \(request) AND state = 'waiting'"
      ).affected == 1
    }
  }
}

extension Difference {
  /// `{}` of a table that is missing.
  var keyJSON: JSONValue {
    key.values.isEmpty ? .object([]) : .row(keyColumns, key.values.map { $0 })
  }
}
