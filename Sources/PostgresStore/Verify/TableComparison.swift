import HubEngine
import SyncCore

/// Answers one question of a comparison, inside the caller's transaction.
struct TableComparison {
  let session: Session
  /// At head: the branch that is compared with.
  let office: String?

  func answer(_ question: VerifyQuestion) throws -> VerifyAnswer {
    switch question {
    case .describe: return try describe()
    case .digests(let scope, let set): return .digests(try digests(scope, set))
    case .keys(let scope, let set): return try keys(scope, set)
    case .rows(let scope, let keys): return .rows(try looks(scope, keys))
    }
  }

  /// A tracked table by its name.
  func table(_ name: String) throws -> TableInfo {
    guard let table = try TableInfo.loadAll(session).first(where: { $0.name == name }) else {
      throw HubError(.refused, "table \(name) is not tracked here")
    }
    return table
  }

  private func digest(_ scope: VerifyScope) throws -> TableDigest {
    // At the branch all of its rows are meant, also those that no actor of its own has written.
    var scope = scope
    if office == nil { scope.actors = nil }
    guard let digest = TableDigest(try table(scope.table), scope) else {
      throw HubError(.refused, "the columns of table \(scope.table) were altered meanwhile", isTransient: true)
    }
    return digest
  }

  // MARK: answers

  private func describe() throws -> VerifyAnswer {
    let facts = try session.query(
      "SELECT catalogue_version, \(unsafe: TableDigest.hash("'hub compares tables'")) FROM hub.office")
    let tables = try TableInfo.loadAll(session).map { table in
      VerifyTable(
        name: table.name, keyColumns: table.keyColumns.map(\.name), columns: table.columnNames,
        rows: try estimate(table), actors: table.options.direction == "up" ? try actors(table) : [])
    }
    return .tables(tables, catalogueVersion: facts.int64(0, 0), probe: facts.int64(0, 1))
  }

  /// As the planner estimates: rows a page when it looked last, and the pages of now.
  private func estimate(_ table: TableInfo) throws -> Int64 {
    try session.query(
      """
      SELECT greatest(0, CASE WHEN relpages > 0 AND reltuples > 0
        THEN reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::int)
        ELSE pg_relation_size(oid) / 100 END)::bigint FROM pg_class WHERE oid = \(table.relationID)::oid
      """
    ).int64(0, 0)
  }

  /// Who wrote a table that only branches write: at head what it knows of the branch, there what the rows say.
  private func actors(_ table: TableInfo) throws -> [Int64] {
    let rows =
      if let office {
        try session.query("SELECT actor FROM hub.actor WHERE office = \(office) LIMIT \(Limits.verifyActorsMax)")
      } else {
        try session.query(
          "SELECT DISTINCT actor FROM \(unsafe: table.versions) LIMIT \(Limits.verifyActorsMax)")
      }
    return (0..<rows.count).map { rows.int64($0, 0) }
  }

  private func digests(_ scope: VerifyScope, _ set: BucketSet) throws -> [BucketDigest] {
    let rows = try session.query(try digest(scope).digests(set))
    var out = [BucketDigest](repeating: .empty, count: set.childCount)
    let places = Dictionary(set.buckets.enumerated().map { ($1, $0) }) { first, _ in first }
    for i in 0..<rows.count {
      let number = rows.int64(i, 0)
      guard let at = places[number >> Int64(set.step)] else { continue }
      out[at << set.step | Int(number & (Int64(1) << Int64(set.step) - 1))] = BucketDigest(
        rows: rows.int64(i, 1), sum: rows.int64(i, 2))
    }
    return out
  }

  private func keys(_ scope: VerifyScope, _ set: BucketSet) throws -> VerifyAnswer {
    let digest = try digest(scope)
    let rows = try session.query(digest.keys(set))
    let width = digest.table.keyCount
    let count = min(rows.count, Limits.verifyKeysMax)
    var keys: [RowKey: Int64] = [:]
    for i in 0..<count {
      keys[RowKey((0..<width).map { rows.bytes(i, $0).map(Array.init) ?? [] })] = rows.int64(i, width)
    }
    return .keys(keys, isCut: rows.count > count)
  }

  private func looks(_ scope: VerifyScope, _ keys: [RowKey]) throws -> [RowLook] {
    let digest = try digest(scope)
    guard keys.allSatisfy({ $0.values.count == digest.table.keyCount }) else {
      throw HubError(.refused, "the key of table \(scope.table) differs here")
    }
    try session.script(RowRestatement.byKey)
    let rows = try session.query(digest.looks(keys))
    var looks = keys.map { _ in RowLook(isThere: false, vector: nil, isVersionAlive: false) }
    for i in 0..<rows.count {
      let vector = rows.integer(i, 2).map { actor in
        rows.string(i, 4).map { VersionVector(postgres: $0) }
          ?? VersionVector(Dot(actor: ActorID(rawValue: actor), n: rows.int64(i, 3)))
      }
      looks[rows.int(i, 0) - 1] = RowLook(
        isThere: rows.bool(i, 1), vector: vector, isVersionAlive: rows.bool(i, 5), isQuarantined: rows.bool(i, 7),
        hash: rows.int64(i, 6))
    }
    return looks
  }
}
