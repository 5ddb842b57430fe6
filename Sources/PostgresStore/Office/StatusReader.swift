package import HubEngine
import SyncCore

/// The facts of `hub status`, read from the database: true also while no daemon runs.
package struct OfficeStatus: Sendable {
  package struct Branch: Sendable {
    package var name: String
    package var state: String
    package var pending: Int64
    package var isPendingExact: Bool
    package var lastSeen: String?
    package var secondsSinceSeen: Double?
    /// Of the last `hub verify`.
    package var certificate: Certificate?
    /// What it has yet to give back to a head that went back: `awaited`, `greeted`; nil: nothing.
    package var recovery: String?
  }

  package var office: OfficeIdentity
  package var state: String
  package var isConnected: Bool
  package var isBlocked: Bool
  package var brokerError: String?
  package var note: String?
  package var pending: Int64
  package var isPendingExact: Bool
  package var lagSeconds: Double?
  package var isCatchingUp: Bool
  /// The database went back in time, and has not got back yet what it lost.
  package var isRecovering: Bool
  /// Head: how far the memory of deleted rows reaches.
  package var horizon: HorizonFacts?
  package var conflicts: Int64
  package var quarantined: Int64
  package var branches: [Branch]
  package var rowsSent: Int64
  package var rowsApplied: Int64

  /// Counting stops here: `pending` is an estimate from below above it.
  static let countedMax = 100_000

  package static func read(_ session: Session) throws -> OfficeStatus {
    let office = try PostgresStore.readOffice(session)
    let isHead = office.role == .head
    let tables = try TableInfo.loadAll(session).filter {
      $0.options.direction == "both" || ($0.options.direction == "down") == isHead
    }
    let daemon = try session.query(
      """
      SELECT state, broker_connected, broker_blocked, broker_error, note, rows_sent, rows_applied
      FROM (SELECT) AS one LEFT JOIN hub.daemon ON true
      """)
    let runs = try PostgresStore.daemonRuns(session)
    let counts = try session.query(
      """
      SELECT (SELECT count(*) FROM hub.conflict), (SELECT count(*) FROM hub.quarantine),
        (SELECT extract(epoch FROM now() - min(applied_snapshot_at)) FROM hub.peer WHERE state = 'active'),
        EXISTS (SELECT FROM hub.peer WHERE catch_from_number IS NOT NULL OR unsettled_until IS NOT NULL)
      """)
    let branches = try peers(session, tables, isHead: isHead)
    let isConnected = runs && daemon.bool(0, 1)
    let slowest = branches.filter { $0.state != "invited" && $0.state != "removed" }.max { $0.pending < $1.pending }
    return OfficeStatus(
      office: office,
      state: !runs ? "stopped" : office.isPaused ? "paused" : isConnected ? "running" : "offline",
      isConnected: isConnected, isBlocked: runs && daemon.bool(0, 2), brokerError: runs ? daemon.string(0, 3) : nil,
      note: runs ? daemon.string(0, 4) : nil, pending: slowest?.pending ?? 0,
      isPendingExact: slowest?.isPendingExact ?? true,
      lagSeconds: isConnected && !counts.bool(0, 3) ? 0 : counts.string(0, 2).flatMap { Double($0) },
      isCatchingUp: counts.bool(0, 3), isRecovering: office.recovers || branches.contains { $0.recovery != nil },
      horizon: isHead ? try HorizonFacts(session) : nil,
      conflicts: counts.int64(0, 0), quarantined: counts.int64(0, 1),
      branches: isHead ? branches : [], rowsSent: daemon.int64(0, 5), rowsApplied: daemon.int64(0, 6))
  }

  private static func peers(_ session: Session, _ tables: [TableInfo], isHead: Bool) throws -> [Branch] {
    let rows = try session.query(
      """
      SELECT p.office, p.state, b.position, to_char(p.last_seen, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        extract(epoch FROM now() - p.last_seen),
        p.recovery
      FROM hub.peer p LEFT JOIN hub.batch b ON b.number = p.acked_number AND b.id = p.acked_id
      UNION ALL
      SELECT i.office, 'invited', NULL::pg_snapshot, NULL, NULL::numeric, NULL FROM hub.invite i
      WHERE \(unsafe: Invitations.pending)
        AND NOT EXISTS (SELECT FROM hub.peer p WHERE p.office = i.office AND p.state <> 'removed')
      GROUP BY i.office
      ORDER BY 1, 2
      """)
    let certificates = try Certificate.all(session)
    return try (0..<rows.count).map { i in
      var state = rows.text(i, 1)
      let seconds = rows.string(i, 4).flatMap { Double($0) }
      let counted =
        state == "removed" || state == "invited"
        ? (0, true) : try pending(session, tables, FeedPosition(text: rows.string(i, 2)), echoes: isHead)
      if state == "active" {
        if seconds ?? 1e9 > 60 { state = "offline" } else if counted.0 > 10_000 { state = "behind" }
      }
      return Branch(
        name: rows.text(i, 0), state: state, pending: counted.0, isPendingExact: counted.1,
        lastSeen: rows.string(i, 3), secondsSinceSeen: seconds, certificate: certificates[rows.text(i, 0)],
        recovery: rows.string(i, 5))
    }
  }

  private static func pending(
    _ session: Session, _ tables: [TableInfo], _ since: FeedPosition, echoes: Bool
  ) throws -> (Int64, Bool) {
    var sum: Int64 = 0
    for table in tables {
      sum += try session.script(
        """
        SELECT count(*) FROM (SELECT FROM \(table.versions) v WHERE \(since.isNew("v")) AND NOT v.echo
          LIMIT \(countedMax + 1)) AS counted
        """
      ).int64(0, 0)
    }
    return sum > countedMax ? (Int64(countedMax), false) : (sum, true)
  }

  package var json: JSONValue {
    var members: [JSONValue.Member] = [
      .init("office", .string(office.name)), .init("role", .string(office.role.rawValue)),
      .init("state", .string(state)),
      .init(
        "broker",
        .fields([
          "connected": .bool(isConnected), "blocked": .bool(isBlocked), "error": JSONValue(brokerError),
        ])),
      .init("outgoing", .fields(["pending": .integer(pending), "pending_exact": .bool(isPendingExact)])),
      .init(
        "incoming",
        .fields(["lag_seconds": lagSeconds.map { .number($0) } ?? .null, "catching_up": .bool(isCatchingUp)])),
      .init("conflicts", .integer(conflicts)), .init("quarantined", .integer(quarantined)),
      .init("rows_sent", .integer(rowsSent)), .init("rows_applied", .integer(rowsApplied)),
      .init("note", JSONValue(note)), .init("recovering", .bool(isRecovering)),
    ]
    if office.role == .head {
      members.append(.init("branches", .array(branches.map(\.json))))
      members.append(.init("horizon", horizon?.json ?? .null))
    } else {
      members.append(.init("head", .string(office.head)))
    }
    return .object(members)
  }
}

extension PostgresStore {
  /// Whether a hub holds the office's lock: asked of the lock, not of the age of a row.
  package static func daemonRuns(_ session: Session) throws -> Bool {
    try session.query(
      """
      SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint) = \(lockKey)::bigint)
      """
    ).bool(0, 0)
  }
}

extension OfficeStatus.Branch {
  package var json: JSONValue {
    .fields([
      "id": .string(name), "name": .string(name), "state": .string(state), "pending": .integer(pending),
      "pending_exact": .bool(isPendingExact), "last_seen": JSONValue(lastSeen),
      "verified": certificate?.json ?? .null,
      "recovery": JSONValue(recovery),
    ])
  }
}
