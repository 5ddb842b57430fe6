package import HubEngine

/// How far head's memory of deleted rows reaches, and who holds it back.
package struct HorizonFacts: Sendable, Equatable {
  /// Every branch has told that it had applied this batch.
  package var batch: Int64
  /// Head's last one.
  package var last: Int64
  /// Behind this one deleted rows are forgotten.
  package var purged: Int64
  /// The branches without which it would be further, if it is not at the last batch.
  package var heldBy: [String]

  init(_ session: Session) throws {
    let rows = try session.query(
      """
      SELECT o.purged, coalesce((SELECT max(number) FROM hub.batch), 0), p.office, p.purge_number
      FROM hub.office o LEFT JOIN hub.peer p ON p.state IN ('joining', 'active') ORDER BY p.purge_number, p.office
      """)
    purged = rows.int64(0, 0)
    last = rows.int64(0, 1)
    let least = rows.integer(0, 3) ?? last
    batch = least
    heldBy = least == last ? [] : (0..<rows.count).filter { rows.integer($0, 3) == least }.map { rows.text($0, 2) }
  }

  package var json: JSONValue {
    .fields([
      "batch": .integer(batch), "last": .integer(last), "purged": .integer(purged),
      "held_by": .array(heldBy.map { .string($0) }),
    ])
  }
}
