import HubEngine
import SyncCore

/// What a receiver has not acknowledged yet.
package struct Backlog: Sendable {
  package var rows: Int64 = 0
  /// An estimate: the rows by the average size of their tables' rows on disk. Messages are compressed, and may be smaller.
  package var bytes: Int64 = 0
  package var isExact = true

  /// Counting stops here: `rows` is an estimate from below above it.
  static let countedMax = 100_000

  package init() {}

  /// Counts by the index on transactions; sizes are those of files. No table is read.
  static func read(_ session: Session, _ tables: [TableInfo], since: FeedPosition) throws -> Backlog {
    var backlog = Backlog()
    let since = since.under(tables)
    for table in tables {
      let counted = try session.script(
        """
        SELECT rows, CASE WHEN rows = 0 THEN 0 ELSE
          (least(1, rows / greatest(CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE rows END, 1))
            * pg_table_size(c.oid))::bigint END
        FROM (SELECT count(*)::float8 AS rows FROM (SELECT FROM \(table.versions) v
          WHERE (\(since.isNew("v", table))) AND NOT v.echo LIMIT \(countedMax + 1)) AS counted) AS one
          JOIN pg_class c ON c.oid = \(table.relationID)::oid
        """)
      guard counted.count == 1 else { continue }
      backlog.rows += Int64(Double(counted.text(0, 0)) ?? 0)
      backlog.bytes += counted.int64(0, 1)
    }
    if backlog.rows > countedMax {
      backlog.rows = Int64(countedMax)
      backlog.isExact = false
    }
    return backlog
  }

  /// An estimate; nil: no speed was measured.
  package func secondsLeft(_ rate: Traffic.Rate) -> Double? {
    if rows == 0 { return 0 }
    guard let speed = rate.bytesPerSecond, speed > 0 else { return nil }
    return Double(max(0, bytes - rate.underWay)) / speed
  }

  func json(_ rate: Traffic.Rate, secondsLeft: Double?) -> JSONValue {
    .fields([
      "pending": .integer(rows), "pending_exact": .bool(isExact), "pending_bytes_estimate": .integer(bytes),
      "rows_per_second": .rounded(rate.rowsPerSecond), "bytes_per_second": .rounded(rate.bytesPerSecond),
      "seconds_left": .rounded(secondsLeft), "done_at": .time(after: secondsLeft),
    ])
  }
}

/// What the daemon measured of its line, and keeps while it does not run.
package struct Traffic: Sendable {
  package struct Rate: Sendable {
    /// Of what is under way, bytes that have left: with the broker, not acknowledged.
    package var underWay: Int64 = 0
    /// Bytes that have not.
    package var unconfirmed: Int64 = 0
    package var rowsPerSecond: Double?
    package var bytesPerSecond: Double?

    package init() {}
  }

  package var outgoing = Rate()
  package var incoming = Rate()
  /// Rows that a catch-up has yet to bring, as head said.
  package var incomingLeft: Int64?
  /// Head: what each branch acknowledges.
  package var branches: [String: Rate] = [:]
  /// All that was found is handed over to the broker.
  package var isAllSent = true
  /// Of the hours in which the office connects.
  package var windowCloses: String?

  static func read(_ session: Session) throws -> Traffic {
    let rows = try session.query(
      """
      SELECT d.traffic ->> 'in_left', d.traffic ->> 'window_closes', line.way, line.name, line.rate ->> 'under_way',
        line.rate ->> 'unconfirmed', line.rate ->> 'rows_per_second', line.rate ->> 'bytes_per_second',
        coalesce((d.traffic -> 'all_sent')::bool, true)
      FROM hub.daemon d, LATERAL (SELECT 'out' AS way, NULL AS name, d.traffic -> 'out' AS rate
        UNION ALL SELECT 'in', NULL, d.traffic -> 'in'
        UNION ALL SELECT 'branch', * FROM jsonb_each(d.traffic -> 'branches')) AS line
      """)
    var traffic = Traffic()
    for row in 0..<rows.count {
      var rate = Rate()
      rate.underWay = rows.integer(row, 4) ?? 0
      rate.unconfirmed = rows.integer(row, 5) ?? 0
      rate.rowsPerSecond = rows.string(row, 6).flatMap { Double($0) }
      rate.bytesPerSecond = rows.string(row, 7).flatMap { Double($0) }
      switch rows.text(row, 2) {
      case "out": traffic.outgoing = rate
      case "in": traffic.incoming = rate
      default: traffic.branches[rows.text(row, 3)] = rate
      }
      traffic.isAllSent = rows.bool(row, 8)
      traffic.incomingLeft = rows.integer(row, 0)
      traffic.windowCloses = rows.string(row, 1)
    }
    return traffic
  }

  /// An estimate, by what head said that a catch-up brings.
  package var incomingSecondsLeft: Double? {
    guard let incomingLeft, let speed = incoming.rowsPerSecond, speed > 0 else { return nil }
    return Double(incomingLeft) / speed
  }
}

extension JSONValue {
  static func rounded(_ number: Double?) -> JSONValue { JSONValue(number.map { Int64($0.rounded()) }) }
  static func time(after seconds: Double?) -> JSONValue { JSONValue(seconds.map { SystemClock.utc(after: $0) }) }
}
