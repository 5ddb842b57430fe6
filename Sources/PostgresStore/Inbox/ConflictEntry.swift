package import HubEngine
package import SyncCore

/// A decided conflict as the log keeps it: at head all of them, at a branch those of its own writes.
package struct ConflictEntry: Sendable {
  /// One of the two copies.
  package struct Copy: Sendable {
    package var office: String
    /// Whether the row is there in this copy; else it is deleted.
    package var isAlive: Bool
    /// Read for single entries alone.
    package var row: [String: String?]?
    package var vector: VersionVector
    package var stamp: Stamp
    /// The stamp as people read times.
    package var writtenAt: String
    package var actor: ActorID
    var json: String
  }

  package var id: Int64
  package var at: String
  package var table: String
  /// The key's values for people: `sku=tea`.
  package var keyText: String
  package var kind: ConflictKind?
  package var type: String
  package var policy: String
  package var reason: String
  package var winner: Copy
  package var loser: Copy
  /// The winner is the copy that head held when the other arrived.
  package var headWon: Bool
  package var isResolved: Bool
  /// `head`, `branch` or `row`: what a person kept; nil: nobody looked at it.
  package var kept: String?
  package var reviewedAt: String?
  /// A column is in conflict, not the row as a whole.
  package var isOfOneColumn: Bool
  /// A function answered with a row of its own: both copies lost to it.
  package var hasOwnAnswer: Bool
  /// The column in conflict, of a table merged by column; read for single entries alone.
  package var column: String?
  var decided: Dot?
  var keyJSON: String

  package var headCopy: Copy { headWon ? winner : loser }
  package var branchCopy: Copy { headWon ? loser : winner }

  package var json: JSONValue {
    .fields([
      "id": .integer(id), "table": .string(table), "key": .raw(keyJSON), "type": .string(type),
      "policy": .string(policy), "reason": .string(reason), "winner": .raw(winner.json), "loser": .raw(loser.json),
      "head_copy": .string(headWon ? "winner" : "loser"), "resolved": .bool(isResolved), "kept": JSONValue(kept),
      "reviewed_at": JSONValue(reviewedAt), "at": .string(at),
    ])
  }
}

// MARK: reading

extension ConflictEntry {
  /// The log, oldest first.
  package static func list(_ session: Session) throws -> [ConflictEntry] { try read(session, "true") }

  /// Of one row, by its key as jsonb.
  static func list(_ session: Session, of table: String, key: String) throws -> [ConflictEntry] {
    try read(session, "table_name = \(quotedLiteral(table)) AND key = \(quotedLiteral(key))::jsonb")
  }

  /// One entry with both rows; `locking`: it is to be changed.
  package static func find(_ session: Session, _ id: Int64, locking: Bool = false) throws -> ConflictEntry {
    guard var entry = try read(session, "id = \(id)", locking ? "FOR UPDATE" : "").first else {
      throw HubError(.refused, "there is no conflict \(id)", hint: "hub conflicts lists them")
    }
    let rows = try session.query(
      "SELECT winner -> 'row', loser -> 'row', winner ->> 'column' FROM hub.conflict WHERE id = \(id)")
    entry.column = rows.string(0, 2)
    entry.winner.row = try JSONRow.read(session, rows.text(0, 0))
    entry.loser.row = try JSONRow.read(session, rows.text(0, 1))
    return entry
  }

  private static func read(_ session: Session, _ condition: String, _ lock: String = "") throws -> [ConflictEntry] {
    func copy(_ name: String) -> String {
      """
      \(name) ->> 'office', jsonb_typeof(\(name) -> 'row') = 'object', \(name) ->> 'stamp', \(name) ->> 'actor',
        ARRAY(SELECT unnest(ARRAY[key::bigint, value::bigint]) FROM jsonb_each_text(\(name) -> 'vector')), \(name),
        to_char(to_timestamp((\(name) ->> 'stamp')::float8 / 1000000), \(isoFormat))
      """
    }
    let rows = try session.script(
      """
      SELECT id, to_char(at, \(isoFormat)), table_name, key, \(keyAsText), type, policy, reason, head_copy = 'winner',
        resolved, kept, to_char(reviewed_at, \(isoFormat)), decided_actor, decided_n, \(copy("winner")), \(copy("loser")),
        winner ? 'column', winner ? 'answer'
      FROM hub.conflict WHERE \(condition) ORDER BY id \(lock)
      """)
    return (0..<rows.count).map { i in
      func copy(_ at: Int) -> Copy {
        Copy(
          office: rows.text(i, at), isAlive: rows.bool(i, at + 1),
          vector: VersionVector(postgres: rows.text(i, at + 4)),
          stamp: Stamp(rawValue: rows.int64(i, at + 2)), writtenAt: rows.text(i, at + 6),
          actor: ActorID(rawValue: rows.int64(i, at + 3)),
          json: rows.text(i, at + 5))
      }
      return ConflictEntry(
        id: rows.int64(i, 0), at: rows.text(i, 1), table: rows.text(i, 2), keyText: rows.text(i, 4),
        kind: ConflictKind(rawValue: rows.text(i, 5)), type: rows.text(i, 5), policy: rows.text(i, 6),
        reason: rows.text(i, 7), winner: copy(14), loser: copy(21), headWon: rows.bool(i, 8),
        isResolved: rows.bool(i, 9), kept: rows.string(i, 10), reviewedAt: rows.string(i, 11),
        isOfOneColumn: rows.bool(i, 28), hasOwnAnswer: rows.bool(i, 29),
        decided: rows.integer(i, 12).map { Dot(actor: ActorID(rawValue: $0), n: rows.int64(i, 13)) },
        keyJSON: rows.text(i, 3))
    }
  }
}

/// Of a jsonb column `key`, as people read it.
let keyAsText = "(SELECT string_agg(k || '=' || v, ', ' ORDER BY k) FROM jsonb_each_text(key) AS part (k, v))"

/// `2026-11-21T08:00:00.123Z`, for to_char.
let isoFormat = #"'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"#

/// A row as a JSON object of texts, as the log, the quarantine and people's files have it.
package enum JSONRow {
  /// Columns by name, values as texts, as PostgreSQL reads them out of JSON; nil: JSON's null, a deleted row.
  package static func read(_ session: Session, _ json: String) throws -> [String: String?]? {
    let kind = try session.hot("SELECT jsonb_typeof(\(json)::jsonb)").text(0, 0)
    if kind == "null" { return nil }
    guard kind == "object" else {
      throw HubError(.refused, "a row is a JSON object of its columns, or null; this is a JSON \(kind)")
    }
    let rows = try session.hot("SELECT key, value FROM jsonb_each_text(\(json)::jsonb)")
    var row: [String: String?] = [:]
    for i in 0..<rows.count { row.updateValue(rows.string(i, 1), forKey: rows.text(i, 0)) }
    return row
  }
}
