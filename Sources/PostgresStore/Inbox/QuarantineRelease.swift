package import HubEngine
import SyncCore

/// How a person ends a row's quarantine other than by trying it again. Inside the caller's transaction.
package struct QuarantineRelease {
  private let session: Session
  private let entry: QuarantinedRow
  private let refused: RowBlock?
  private let table: TableInfo?
  private let isHead: Bool

  package init(_ session: Session, _ id: Int64, coder: RowCoder) throws {
    self.session = session
    try session.script("SET LOCAL lock_timeout = '10s'")
    let entry = try QuarantinedRow.find(session, id, locking: true)
    self.entry = entry
    refused = entry.state.isEmpty ? nil : try coder.decode(entry.state).first
    table = try TableInfo.loadAll(session).first { $0.name == entry.table }
    isHead = try PostgresStore.readOffice(session).role == .head
  }

  /// What becomes of a discarded row.
  package enum Discarded: String, Sendable {
    /// Head's own row, or that it has none, goes to every branch.
    case restated
    /// Head is asked for its present row.
    case asked
    /// The row stays different here and there until somebody writes it again.
    case dropped
  }

  /// Lets go of the row. Head restates its own under a version that has seen the refused one, so that the branch takes
  /// it; a branch asks head for its present one. Rows that only branches write are theirs: head just forgets.
  package func discard(coder: RowCoder) throws -> Discarded {
    try session.query("DELETE FROM hub.quarantine WHERE id = \(entry.id)")
    guard let refused, let table, refused.keyCount == table.keyCount, table.options.direction != "up" else {
      return .dropped
    }
    let keys = Self.keysAlone(refused)
    if isHead {
      try absorb(refused, table)
      return .restated
    }
    try session.query("INSERT INTO hub.restate (rows) VALUES (\(binary: try coder.encode(keys)))")
    return .asked
  }

  /// Writes the refused row with some of its values replaced, as an application of this office would; `json` null
  /// deletes it. The other office takes the outcome.
  package func edit(_ json: String) throws {
    guard let refused, let table else {
      throw HubError(
        .refused,
        table == nil
          ? "table \(entry.table) is not tracked any more" : "the row is one of this office, too large to send",
        hint: table == nil ? "hub quarantine discard \(entry.id)" : "change the row itself")
    }
    let names = refused.columnNames
    var row: [String: String?] = [:]
    for (at, name) in names.enumerated() {
      row.updateValue(refused.columns[at].value(0).map { String(decoding: $0, as: UTF8.self) }, forKey: name)
    }
    let key = row.filter { names.prefix(refused.keyCount).contains($0.key) }
    let changes = try JSONRow.read(session, json)
    guard refused.alive[0] || changes == nil else {
      throw HubError(
        .refused, "the refused write is a delete, which has no columns to edit",
        hint: "give null to delete the row, or hub quarantine discard \(entry.id) to keep it")
    }
    let edited = changes.map { row.merging($0) { $1 } }
    let write = try PlainWrite(session, table, key: key, row: edited)
    try absorb(refused, table)
    try session.script("SET LOCAL hub.applying = ''; SET LOCAL session_replication_role = origin")
    let (exists, _) = try write.lock()
    if try !write.isThere(exists) { try write.write(exists: exists) }
    try session.query("DELETE FROM hub.quarantine WHERE id = \(entry.id)")
  }

  /// The row here, or its absence, gets a version of this office's own that has seen the refused one.
  private func absorb(_ refused: RowBlock, _ table: TableInfo) throws {
    try session.script("SET LOCAL session_replication_role = replica")
    try ApplyTransaction.passCapture(session)
    let applier = try TableApplier(
      session: session, table: table, block: Self.keysAlone(refused, in: table), refusesMissing: true)
    let exists = try applier.lockRows()[0]
    let local = try applier.lockVersions()[0]
    let facts = try session.query(
      """
      SELECT hub.current_actor(), nextval('hub.dot'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      """)
    let dot = Dot(actor: ActorID(rawValue: facts.int64(0, 0)), n: facts.int64(0, 1))
    func latest(_ stamp: Int64, _ columns: [ColumnVersion]?) -> Stamp {
      Stamp(rawValue: (columns ?? []).reduce(stamp) { max($0, $1.stamp) })
    }
    let arbiter = Arbiter(dot: dot, now: Stamp(rawValue: facts.int64(0, 2)))
    guard
      let (vector, version) = arbiter.absorbed(
        refused.vector(0), stamp: latest(refused.stamps[0], refused.columnVersions[0]),
        over: local.map { ($0.vector, latest($0.stamp, $0.details.columnVersions)) })
    else { return }
    try applier.writeVersions([
      PlannedWrite(
        row: 0, content: .none, isAlive: exists, dot: dot, stamp: version.stamp.rawValue,
        vector: vector.dots.count > 1 ? vector : nil,
        contributions: joined(local?.details.contributions ?? [], refused, applier.block),
        columnVersions: exists ? local.map { kept($0, refused, table, applier.block) } ?? [] : [],
        hasVersion: local != nil, echo: false)
    ])
  }

  /// Merged by column: the columns that keep the write that they have; the others bear the row's new one.
  private func kept(
    _ local: TableApplier.LocalVersion, _ refused: RowBlock, _ table: TableInfo, _ block: RowBlock
  ) -> [ColumnVersion] {
    guard table.isMergedByColumn else { return [] }
    return block.columnNames.indices.dropFirst(block.keyCount).compactMap { at in
      guard !table.options.counters.contains(block.columnNames[at]) else { return nil }
      let theirs = refused.columnNames.firstIndex(of: block.columnNames[at]).flatMap { column -> Dot? in
        guard refused.alive[0] else { return nil }
        return refused.columnVersions[0]?.first { $0.column == column }?.dot ?? refused.dot(0)
      }
      guard Arbiter.keepsItsWrite(refused: theirs, local: local.vector) else { return nil }
      return local.details.columnVersions.first { $0.column == at }
        ?? ColumnVersion(column: at, dot: local.dot, stamp: local.stamp)
    }
  }

  /// What others counted is in the row, or let go of with the refused one: without it it would count again.
  private func joined(
    _ mine: [RowContribution], _ refused: RowBlock, _ block: RowBlock
  ) -> [RowContribution] {
    var theirs = refused.contributions[0] ?? []
    theirs = theirs.compactMap { share in
      guard let at = block.columnNames.firstIndex(of: refused.columnNames[share.column]) else { return nil }
      return RowContribution(column: at, dot: share.dot, sum: share.sum)
    }
    var joined = mine
    for share in theirs {
      let place = joined.firstIndex { $0.column == share.column && $0.dot.actor == share.dot.actor }
      if let place {
        if joined[place].dot.n < share.dot.n { joined[place] = share }
      } else {
        joined.append(share)
      }
    }
    return joined.sorted { ($0.column, $0.dot.actor) < ($1.column, $1.dot.actor) }
  }

  /// With a place for each of the table's columns, to which details of the version refer.
  private static func keysAlone(_ block: RowBlock, in table: TableInfo) -> RowBlock {
    var keys = keysAlone(block)
    for column in table.columns.dropFirst(keys.keyCount) {
      keys.columnNames.append(column.name)
      var empty = ColumnBytes()
      empty.lengths = keys.actors.map { _ in -1 }
      keys.columns.append(empty)
    }
    return keys
  }

  private static func keysAlone(_ block: RowBlock) -> RowBlock {
    var keys = RowBlock(
      table: block.table, columnNames: Array(block.columnNames.prefix(block.keyCount)), keyCount: block.keyCount)
    keys.actors = block.actors
    keys.counters = block.counters
    keys.stamps = block.stamps
    keys.alive = block.alive.map { _ in false }
    keys.columns = Array(block.columns.prefix(block.keyCount))
    return keys
  }
}
