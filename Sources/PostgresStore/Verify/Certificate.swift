package import HubEngine

/// What the last comparison with a branch came to, as it is kept: dated, with how far both sides were.
package struct Certificate: Sendable {
  package var office: String
  package var at: String
  package var secondsAgo: Double
  package var isEqual: Bool
  package var differences: Int64
  package var local: Int64
  package var moving: Int64
  package var repaired: Int64
  package var tables: Int64
  package var rows: Int64
  package var digest: String
  package var headBatch: Int64
  package var branchBatch: Int64
  package var notes: [String]

  /// By branch.
  package static func all(_ session: Session) throws -> [String: Certificate] {
    let rows = try session.query(
      """
      SELECT office, to_char(at, \(unsafe: isoFormat)), extract(epoch FROM now() - at), equal, differences, local_rows,
        moving, repaired, tables, rows, digest, head_number, branch_number, array_to_string(notes, chr(10))
      FROM hub.certificate
      """)
    var found: [String: Certificate] = [:]
    for i in 0..<rows.count {
      found[rows.text(i, 0)] = Certificate(
        office: rows.text(i, 0), at: rows.text(i, 1), secondsAgo: rows.string(i, 2).flatMap { Double($0) } ?? 0,
        isEqual: rows.bool(i, 3), differences: rows.int64(i, 4), local: rows.int64(i, 5), moving: rows.int64(i, 6),
        repaired: rows.int64(i, 7), tables: rows.int64(i, 8), rows: rows.int64(i, 9), digest: rows.text(i, 10),
        headBatch: rows.int64(i, 11), branchBatch: rows.int64(i, 12),
        notes: rows.text(i, 13).split(separator: "\n").map(String.init))
    }
    return found
  }

  /// For one cell of a table.
  package var summary: String {
    let age =
      switch secondsAgo {
      case ..<120: "\(Int(secondsAgo)) s ago"
      case ..<7_200: "\(Int(secondsAgo / 60)) min ago"
      case ..<172_800: "\(Int(secondsAgo / 3_600)) h ago"
      default: "\(Int(secondsAgo / 86_400)) days ago"
      }
    return "\(isEqual ? "equal" : "\(differences) differ"), \(age)"
  }

  /// For people, in a sentence.
  package var sentence: String {
    let verdict =
      isEqual ? "is equal to head" : "differs from head in \(differences) \(differences == 1 ? "row" : "rows")"
    var more = ""
    if repaired > 0 { more += ", \(repaired) repaired" }
    if local > 0 { more += ", \(local) with local writes that their tables allow" }
    if moving > 0 { more += ", \(moving) written all the time and not compared" }
    return "\(office) \(verdict): \(rows) rows in \(tables) tables\(more), digest \(digest), \(at), "
      + "at head's batch \(headBatch) and its own \(branchBatch)"
  }

  package var json: JSONValue {
    .fields([
      "at": .string(at), "equal": .bool(isEqual), "differences": .integer(differences), "local": .integer(local),
      "moving": .integer(moving), "repaired": .integer(repaired), "tables": .integer(tables), "rows": .integer(rows),
      "digest": .string(digest),
      "position": .fields(["head": .integer(headBatch), "branch": .integer(branchBatch)]),
      "notes": .array(notes.map { .string($0) }),
    ])
  }
}

/// A row that differed when its office was compared last.
package struct KeptDifference: Sendable {
  package var id: Int64
  package var office: String
  package var table: String
  package var keyText: String
  package var keyJSON: String
  package var kind: String

  package static func list(_ session: Session, _ office: String) throws -> [KeptDifference] {
    let rows = try session.query(
      """
      SELECT id, table_name, \(unsafe: keyAsText), key, kind FROM hub.difference WHERE office = \(office)
      ORDER BY table_name, id
      """)
    return (0..<rows.count).map { i in
      KeptDifference(
        id: rows.int64(i, 0), office: office, table: rows.text(i, 1), keyText: rows.text(i, 2),
        keyJSON: rows.text(i, 3),
        kind: rows.text(i, 4))
    }
  }

  package var json: JSONValue {
    .fields([
      "id": .integer(id), "office": .string(office), "table": .string(table), "key": .raw(keyJSON),
      "kind": .string(kind),
    ])
  }
}
