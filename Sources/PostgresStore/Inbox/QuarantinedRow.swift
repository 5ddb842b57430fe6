package import HubEngine
import SyncCore

/// A row that could not be applied here, as another office sent it.
package struct QuarantinedRow: Sendable {
  package var id: Int64
  package var peer: String
  package var table: String
  package var sqlstate: String
  package var error: String
  package var attempts: Int
  package var since: String
  package var triedAt: String
  package var keyText: String
  var keyJSON: String
  var rowJSON: String
  /// As it arrived; empty for a row of this office's own that is too large to be sent.
  var state: [UInt8]

  /// The row's columns, for reading: long values are cut.
  package func row(_ session: Session) throws -> [String: String?] { try JSONRow.read(session, rowJSON) ?? [:] }

  package var json: JSONValue {
    .fields([
      "id": .integer(id), "table": .string(table), "key": .raw(keyJSON), "sqlstate": .string(sqlstate),
      "error": .string(error), "row": .raw(rowJSON), "since": .string(since), "peer": .string(peer),
      "attempts": JSONValue(attempts), "tried_at": .string(triedAt),
    ])
  }

  package static func list(_ session: Session) throws -> [QuarantinedRow] { try read(session, "true") }

  /// Of one row, by its key as jsonb.
  static func list(_ session: Session, of table: String, key: String) throws -> [QuarantinedRow] {
    try read(session, "table_name = \(quotedLiteral(table)) AND key = \(quotedLiteral(key))::jsonb")
  }

  package static func find(_ session: Session, _ id: Int64, locking: Bool = false) throws -> QuarantinedRow {
    guard let row = try read(session, "id = \(id)", locking ? "FOR UPDATE" : "").first else {
      throw HubError(.refused, "there is no quarantined row \(id)", hint: "hub quarantine lists them")
    }
    return row
  }

  private static func read(_ session: Session, _ condition: String, _ lock: String = "") throws -> [QuarantinedRow] {
    let rows = try session.script(
      """
      SELECT id, peer, table_name, sqlstate, error, attempts, to_char(since, \(isoFormat)), to_char(tried_at, \(isoFormat)),
        key, "row", \(keyAsText), \(lock.isEmpty ? "''" : "state") FROM hub.quarantine WHERE \(condition) ORDER BY id \(lock)
      """)
    return (0..<rows.count).map { i -> QuarantinedRow in
      let state = rows.bytes(i, 11).map { bytes(hex: $0) }
      return QuarantinedRow(
        id: rows.int64(i, 0), peer: rows.text(i, 1), table: rows.text(i, 2), sqlstate: rows.text(i, 3),
        error: rows.text(i, 4), attempts: rows.int(i, 5), since: rows.text(i, 6), triedAt: rows.text(i, 7),
        keyText: rows.text(i, 10), keyJSON: rows.text(i, 8), rowJSON: rows.text(i, 9), state: state ?? [])
    }
  }
}
