import HubEngine
import SyncCore

/// A table's own policy: a function `NAME(local jsonb, incoming jsonb) RETURNS jsonb` of head's database.
///
/// - `local` is head's row, `incoming` the one that arrived. It returns the row that wins, or a third one; members
///   that it leaves out are head's, and NULL keeps head's row. The key must stay; a member that is no column is refused.
/// - It decides and does not write: it is called read only, under a savepoint that is always rolled back, because hub's
///   transaction is not captured. It may be volatile: only head asks it, and its answer is a write of head's.
/// - An error, its time limit, or an answer that does not fit refuses the incoming row alone.
/// - A value that it passes on unchanged stays what it was, text by text: jsonb would lose a `json`'s spacing.
struct ConflictFunction {
  /// The function's answer is none; the row goes to quarantine.
  struct Refused: Error {
    var refusal: Refusal
  }

  let applier: TableApplier

  /// The row that stands; values in the block's columns.
  func answer(local: RowValues, incoming: RowValues) throws -> RowValues {
    let session = applier.session
    try session.script(
      """
      SAVEPOINT hub_function; SET LOCAL transaction_read_only = on; SET LOCAL search_path = pg_catalog, pg_temp;
      SET LOCAL statement_timeout = '\(Limits.functionTimeout.components.seconds)s'
      """)
    let answer: Answer
    do {
      answer = try call(incoming)
    } catch let error as PostgresError {
      guard session.isUsable, !error.isTransient else { throw error }
      try end()
      throw Refused(refusal: Refusal(sqlstate: error.sqlstate ?? "", error: "\(name): \(error)"))
    }
    try end()
    return try row(answer, local, incoming)
  }

  private func end() throws {
    try applier.session.script("ROLLBACK TO SAVEPOINT hub_function; RELEASE SAVEPOINT hub_function")
  }

  private var name: String { "function \(applier.table.options.conflictFunction ?? "")" }

  /// What the function said of each shared column.
  private struct Answer {
    enum Source: String {
      case local = "l"
      case incoming = "i"
      case own = "o"
    }

    var isNull = false
    var isObject = true
    var strangers = ""
    var columns: [(source: Source, value: [UInt8]?)] = []
  }

  private func call(_ incoming: RowValues) throws -> Answer {
    let shared = applier.shared
    guard let function = applier.table.options.conflictFunction.flatMap(TrackCheck.function(named:)) else {
      throw PostgresError(sqlstate: "42883", message: "it has no name")
    }
    let given = shared.indices.map {
      "$\($0 + 1)::\(shared[$0].column.castType) AS \(quotedName(shared[$0].column.name))"
    }
    let key = applier.table.keyJoin(
      { "hub_row.\(quotedName($1.name))" }, { index, column in "$\(index + 1)::\(column.castType)" })
    let sources = shared.map { shared in
      let name = quotedLiteral(shared.column.name)
      return """
        CASE WHEN c.own ? \(name) THEN 'o' WHEN a.r ? \(name) AND a.r -> \(name) <> a.l -> \(name) THEN 'i' ELSE 'l' END
        """
    }
    let values = shared.map { "p.\(quotedName($0.column.name))" }
    let rows = try applier.session.query(
      SQL(
        unsafe: """
          WITH given AS MATERIALIZED (
            SELECT hub_row AS base, to_jsonb(hub_row) AS l,
              (SELECT to_jsonb(hub_in) FROM (SELECT \(given.joined(separator: ", "))) AS hub_in) AS i
            FROM \(applier.table.quoted) AS hub_row WHERE \(key)
          ), a AS MATERIALIZED (
            SELECT given.*, \(quotedName(function.schema)).\(quotedName(function.name))(given.l, given.i) AS r FROM given
          )
          SELECT a.r IS NULL, coalesce(jsonb_typeof(a.r) = 'object', true), coalesce(c.strangers, ''),
            \((sources + values).joined(separator: ", "))
          FROM a CROSS JOIN LATERAL (
            SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') AS own,
              string_agg(e.key, ', ') FILTER (WHERE NOT a.l ? e.key) AS strangers
            FROM jsonb_each(CASE WHEN jsonb_typeof(a.r) = 'object' THEN a.r ELSE '{}' END) AS e
            WHERE e.value IS DISTINCT FROM a.l -> e.key AND e.value IS DISTINCT FROM a.i -> e.key
          ) AS c CROSS JOIN LATERAL jsonb_populate_record(a.base, c.own) AS p
          """, shared.map { incoming[$0.at].map { .bytes($0) } ?? .null }))
    guard rows.count == 1 else { throw Raced(table: applier.table.name) }
    var answer = Answer(isNull: rows.bool(0, 0), isObject: rows.bool(0, 1), strangers: rows.text(0, 2))
    for column in shared.indices {
      let value = rows.bytes(0, 3 + shared.count + column).map(Array.init)
      answer.columns.append((Answer.Source(rawValue: rows.text(0, 3 + column)) ?? .local, value))
    }
    return answer
  }

  private func row(_ answer: Answer, _ local: RowValues, _ incoming: RowValues) throws -> RowValues {
    func refuse(_ what: String) -> Refused {
      Refused(refusal: Refusal(sqlstate: "22023", error: "\(name) \(what)"))
    }
    guard !answer.isNull else { return local }
    guard answer.isObject else { throw refuse("returned something else than a row") }
    guard answer.strangers.isEmpty else {
      throw refuse("returned what is no column of \(applier.table.name): \(answer.strangers)")
    }
    var values = local
    for (shared, column) in zip(applier.shared, answer.columns) {
      switch column.source {
      case .local: break
      case .incoming: values[shared.at] = incoming[shared.at]
      case .own:
        guard shared.at >= applier.block.keyCount else { throw refuse("changed the key") }
        values[shared.at] = column.value
      }
    }
    return values
  }
}
