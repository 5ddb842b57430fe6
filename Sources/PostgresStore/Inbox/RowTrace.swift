package import HubEngine
package import SyncCore

/// Where the last write of one row is, as far as this office knows: the answer to "the price did not arrive".
package struct RowTrace: Sendable {
  /// The last write as this office has it.
  package struct Version: Sendable {
    package var office: String
    package var dot: Dot
    package var writtenAt: String
    package var isAlive: Bool
    package var vector: String
    /// It came from head as it stands: a branch does not send it.
    package var isEcho: Bool
    /// The first batch, of those still recorded, that has it; nil: none yet.
    package var batch: Int64?
  }

  /// An office that the write goes to.
  package struct Peer: Sendable {
    package var office: String
    /// It acknowledged a batch that has the write, or a later state of the row.
    package var hasIt: Bool
    /// Batches sent that it has not acknowledged.
    package var unacknowledged: Int64
    package var lastSeen: String?
  }

  package var table: String
  package var keyText: String
  package var keyJSON: String
  package var office: OfficeIdentity
  package var version: Version?
  package var isThere: Bool
  package var peers: [Peer] = []
  package var quarantined: [QuarantinedRow] = []
  package var conflicts: [ConflictEntry] = []
  /// Branch: since when the row is in conflict with what head sent, and head has not decided.
  package var heldSince: String?
}

// MARK: reading

extension RowTrace {
  /// - Parameter key: the key's value; of a composite key the values between commas, or a JSON object by column.
  package static func read(_ session: Session, table name: String, key: String) throws -> RowTrace {
    let office = try PostgresStore.readOffice(session)
    let (schema, relation) = try TrackCheck.resolve(session, name)
    let catalogueName = TableInfo.catalogueName(schema, relation)
    guard let table = try TableInfo.loadAll(session).first(where: { $0.name == catalogueName }) else {
      throw HubError(.refused, "table \(catalogueName) is not tracked", hint: "hub tables lists the tracked ones")
    }
    let values = try canonical(session, table, try keyValues(session, table, key))
    let members = zip(table.keyColumns, values).map { JSONValue.Member($0.name, .string($1)) }
    let json = try session.query("SELECT \(JSONValue.object(members).description)::jsonb").text(0, 0)
    let parameters = values.map { SQLValue.text($0) }
    func condition(_ column: (Int, TableInfo.Column) -> String) -> String {
      table.keyJoin(column, { "$\($0 + 1)::\($1.castType)" })
    }
    let exists = try session.query(
      SQL(
        unsafe: "SELECT EXISTS (SELECT FROM \(table.quoted) t WHERE \(condition { "t.\(quotedName($1.name))" }))",
        parameters))
    var trace = RowTrace(
      table: table.name, keyText: zip(table.keyColumns, values).map { "\($0.name)=\($1)" }.joined(separator: ", "),
      keyJSON: json, office: office, version: nil, isThere: exists.bool(0, 0))
    let versions = try session.query(
      SQL(
        unsafe: """
          SELECT v.actor, v.n, to_char(to_timestamp(v.stamp / 1000000.0), \(isoFormat)), v.alive, v.vector, v.echo, v.xid,
            (SELECT min(number) FROM hub.batch b WHERE pg_visible_in_snapshot(v.xid, b.position))
          FROM \(table.versions) v WHERE \(condition { index, _ in "v.k\(index + 1)" })
          """, parameters))
    if versions.count > 0 {
      trace.version = try version(session, versions, office)
      trace.peers = try peers(session, table, xid: versions.text(0, 6), office, isEcho: versions.bool(0, 5))
    }
    trace.heldSince = try heldSince(session, table.name, json, versions)
    trace.quarantined = try QuarantinedRow.list(session, of: table.name, key: json)
    trace.conflicts = try ConflictEntry.list(session, of: table.name, key: json)
    guard trace.version != nil || trace.isThere || !trace.quarantined.isEmpty || !trace.conflicts.isEmpty else {
      throw HubError(
        .refused, "\(office.name) never had a row \(trace.keyText) in \(table.name)",
        hint: "ask the office that wrote it: what it has not sent yet is known there alone")
    }
    return trace
  }

  private static func version(_ session: Session, _ rows: ResultSet, _ office: OfficeIdentity) throws -> Version {
    let names = try ActorNames(session)
    let dot = Dot(actor: ActorID(rawValue: rows.int64(0, 0)), n: rows.int64(0, 1))
    let vector = rows.string(0, 4).map { VersionVector(postgres: $0) } ?? VersionVector(dot)
    return Version(
      // A branch knows its own actors alone.
      office: names[dot.actor] ?? (office.role == .branch ? "another office" : "an office that left"), dot: dot,
      writtenAt: rows.text(0, 2), isAlive: rows.bool(0, 3), vector: names.text(vector), isEcho: rows.bool(0, 5),
      batch: rows.integer(0, 7))
  }

  /// A version that has seen what arrived ends it.
  private static func heldSince(
    _ session: Session, _ table: String, _ key: String, _ versions: ResultSet
  ) throws -> String? {
    let held = try session.query(
      """
      SELECT to_char(since, \(unsafe: isoFormat)), vector FROM hub.held
      WHERE table_name = \(table) AND key = \(key)::jsonb
      """)
    guard held.count > 0, versions.count > 0 else { return nil }
    let dot = Dot(actor: ActorID(rawValue: versions.int64(0, 0)), n: versions.int64(0, 1))
    let mine = versions.string(0, 4).map { VersionVector(postgres: $0) } ?? VersionVector(dot)
    return mine.dominates(VersionVector(postgres: held.text(0, 1))) ? nil : held.text(0, 0)
  }

  private static func peers(
    _ session: Session, _ table: TableInfo, xid: String, _ office: OfficeIdentity, isEcho: Bool
  ) throws -> [Peer] {
    let sent = table.options.direction == "both" || (table.options.direction == "down") == (office.role == .head)
    guard sent, !isEcho else { return [] }
    let rows = try session.query(
      """
      SELECT p.office, coalesce(pg_visible_in_snapshot(\(xid)::xid8, b.position), false),
        (SELECT count(*) FROM hub.batch s WHERE s.number > p.acked_number), to_char(p.last_seen, \(unsafe: isoFormat))
      FROM hub.peer p LEFT JOIN hub.batch b ON b.number = p.acked_number AND b.id = p.acked_id
      WHERE p.state IN ('joining', 'active') ORDER BY 1
      """)
    return (0..<rows.count).map {
      Peer(
        office: rows.text($0, 0), hasIt: rows.bool($0, 1), unacknowledged: rows.int64($0, 2),
        lastSeen: rows.string($0, 3))
    }
  }

  /// The values given, in the key's order.
  private static func keyValues(_ session: Session, _ table: TableInfo, _ key: String) throws -> [String] {
    let names = table.keyColumns.map(\.name)
    func wrong(_ what: String) -> HubError {
      HubError(
        .usage, "the key of \(table.name) is \(names.joined(separator: ", ")); \(what)",
        hint: "give \(names.joined(separator: ",")) as values between commas, or {\"\(names[0])\": …}")
    }
    if key.first == "{", let row = try? session.inSavepoint({ try JSONRow.read($0, key) }) {
      guard Set(row.keys) == Set(names) else { throw wrong("\(row.keys.sorted().joined(separator: ", ")) was given") }
      return try names.map { name in
        guard let value = row[name] ?? nil else { throw wrong("\(name) is never NULL") }
        return value
      }
    }
    guard names.count > 1 else { return [key] }
    let values = key.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard values.count == names.count else { throw wrong("\(values.count) values were given") }
    return values
  }

  /// As the types write them: `01` is `1`.
  private static func canonical(_ session: Session, _ table: TableInfo, _ values: [String]) throws -> [String] {
    let list = table.keyColumns.enumerated().map { "$\($0 + 1)::\($1.castType)" }.joined(separator: ", ")
    do {
      let row = try session.query(SQL(unsafe: "SELECT \(list)", values.map { .text($0) }))
      return values.indices.map { row.text(0, $0) }
    } catch {
      guard error.isAboutRows else { throw error }
      throw HubError(.usage, "\(values.joined(separator: ", ")) is no key of \(table.name): \(error.message)")
    }
  }
}

extension Session {
  /// An error leaves the transaction usable.
  fileprivate func inSavepoint<T>(_ body: (Session) throws -> T) throws -> T {
    try script("SAVEPOINT hub_try")
    do {
      let result = try body(self)
      try script("RELEASE SAVEPOINT hub_try")
      return result
    } catch {
      try script("ROLLBACK TO SAVEPOINT hub_try; RELEASE SAVEPOINT hub_try")
      throw error
    }
  }
}
