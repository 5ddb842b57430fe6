package import HubEngine
import SyncCore

/// The facts of `hub status`, read from the database: true also while no daemon runs.
package struct OfficeStatus: Sendable {
  package struct Branch: Sendable {
    package var name: String
    package var state: String
    package var backlog: Backlog
    package var pending: Int64 { backlog.rows }
    package var isPendingExact: Bool { backlog.isExact }
    /// How fast it takes what is sent.
    package var rate: Traffic.Rate
    package var lastSeen: String?
    package var secondsSinceSeen: Double?
    /// Of the last `hub verify`.
    package var certificate: Certificate?
    /// What it has yet to give back to a head that went back: `awaited`, `greeted`; nil: nothing.
    package var recovery: String?
  }

  package var office: OfficeIdentity
  /// `running`, `paused`, `offline`, `stopped`; `removed`: a branch that head let go.
  package var state: String
  package var isConnected: Bool
  package var isBlocked: Bool
  package var brokerError: String?
  package var note: String?
  /// Of the slowest receiver.
  package var backlog: Backlog
  package var pending: Int64 { backlog.rows }
  package var isPendingExact: Bool { backlog.isExact }
  /// Until every receiver that is there has everything: an estimate; nil: unknown.
  package var secondsLeft: Double?
  package var traffic: Traffic
  package var lagSeconds: Double?
  package var isCatchingUp: Bool
  /// The database went back in time, and has not got back yet what it lost.
  package var isRecovering: Bool
  /// Tracked, and not there: dropped, renamed, or without a primary key.
  package var missingTables: [String]
  /// Head: how far the memory of deleted rows reaches.
  package var horizon: HorizonFacts?
  package var conflicts: Int64
  package var quarantined: Int64
  package var branches: [Branch]
  package var rowsSent: Int64
  package var rowsApplied: Int64

  package static func read(_ session: Session) throws -> OfficeStatus {
    let office = try PostgresStore.readOffice(session)
    let isHead = office.role == .head
    let there = try TableInfo.loadAll(session)
    let tables = there.filter {
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
    let unserved = try HeadSetup.isRemoved(session) ? "removed" : "stopped"
    let traffic = try Traffic.read(session)
    let branches = try peers(session, tables, traffic, isHead: isHead)
    let isConnected = runs && daemon.bool(0, 1)
    let members = branches.filter { $0.state != "invited" && $0.state != "removed" }
    let slowest = members.max { $0.pending < $1.pending }
    return OfficeStatus(
      office: office,
      state: !runs ? unserved : office.isPaused ? "paused" : isConnected ? "running" : "offline",
      isConnected: isConnected, isBlocked: runs && daemon.bool(0, 2), brokerError: runs ? daemon.string(0, 3) : nil,
      note: runs ? daemon.string(0, 4) : nil, backlog: slowest?.backlog ?? Backlog(),
      secondsLeft: isConnected ? Self.secondsLeft(members) : nil, traffic: traffic,
      lagSeconds: isConnected && !counts.bool(0, 3) ? 0 : counts.string(0, 2).flatMap { Double($0) },
      isCatchingUp: counts.bool(0, 3), isRecovering: office.recovers || branches.contains { $0.recovery != nil },
      missingTables: try TableInfo.catalogue(session).map(\.name).filter { name in !there.contains { $0.name == name }
      },
      horizon: isHead ? try HorizonFacts(session) : nil,
      conflicts: counts.int64(0, 0), quarantined: counts.int64(0, 1),
      branches: isHead ? branches : [], rowsSent: daemon.int64(0, 5), rowsApplied: daemon.int64(0, 6))
  }

  private static func secondsLeft(_ members: [Branch]) -> Double? {
    let times = members.filter { $0.state != "offline" }.map(\.secondsLeft)
    return times.contains { $0 == nil } ? nil : times.compactMap { $0 }.max()
  }

  private static func peers(
    _ session: Session, _ tables: [TableInfo], _ traffic: Traffic, isHead: Bool
  ) throws -> [Branch] {
    let rows = try session.query(
      """
      SELECT p.office, p.state, b.position, to_char(p.last_seen, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        extract(epoch FROM now() - p.last_seen),
        p.recovery, b.ahead
      FROM hub.peer p LEFT JOIN hub.batch b ON b.number = p.acked_number AND b.id = p.acked_id
      UNION ALL
      SELECT i.office, 'invited', NULL::pg_snapshot, NULL, NULL::numeric, NULL, NULL FROM hub.invite i
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
        ? Backlog()
        : try Backlog.read(
          session, tables, since: FeedPosition(text: rows.string(i, 2), ahead: rows.string(i, 6)))
      if state == "active" {
        if seconds ?? 1e9 > 60 { state = "offline" } else if counted.rows > 10_000 { state = "behind" }
      }
      return Branch(
        name: rows.text(i, 0), state: state, backlog: counted,
        rate: isHead ? traffic.branches[rows.text(i, 0)] ?? Traffic.Rate() : traffic.outgoing,
        lastSeen: rows.string(i, 3), secondsSinceSeen: seconds, certificate: certificates[rows.text(i, 0)],
        recovery: rows.string(i, 5))
    }
  }

  /// Whether a hub serves this office.
  package var isServed: Bool { state != "stopped" && state != "removed" }

  /// Whether the hub that serves runs and is connected, and the state to name.
  package var health: (isHealthy: Bool, state: String) {
    let state = office.isJoined || !isServed ? self.state : "joining"
    return (state == "running" || state == "paused", state)
  }

  /// Whether all is well on this side of the line: a branch may be offline for most of its day, and of one that head let
  /// go nothing is expected.
  package var isWellLocally: Bool { office.isJoined && state != "stopped" }

  /// Of a catch-up.
  package var incomingSecondsLeft: Double? { isConnected && isCatchingUp ? traffic.incomingSecondsLeft : nil }

  package var json: JSONValue {
    var members: [JSONValue.Member] = [
      .init("office", .string(office.name)), .init("role", .string(office.role.rawValue)),
      .init("state", .string(state)),
      .init(
        "broker",
        .fields([
          "connected": .bool(isConnected), "blocked": .bool(isBlocked), "error": JSONValue(brokerError),
        ])),
      .init("outgoing", backlog.json(traffic.outgoing, secondsLeft: secondsLeft)),
      .init(
        "incoming",
        .fields([
          "lag_seconds": lagSeconds.map { .number($0) } ?? .null, "catching_up": .bool(isCatchingUp),
          "rows_left": JSONValue(traffic.incomingLeft), "rows_per_second": .rounded(traffic.incoming.rowsPerSecond),
          "bytes_per_second": .rounded(traffic.incoming.bytesPerSecond),
          "seconds_left": .rounded(incomingSecondsLeft), "done_at": .time(after: incomingSecondsLeft),
        ])),
      .init("conflicts", .integer(conflicts)), .init("quarantined", .integer(quarantined)),
      .init("rows_sent", .integer(rowsSent)), .init("rows_applied", .integer(rowsApplied)),
      .init("note", JSONValue(note)), .init("window_closes", JSONValue(traffic.windowCloses)),
      .init("recovering", .bool(isRecovering)), .init("missing_tables", .array(missingTables.map { .string($0) })),
    ]
    if office.role == .head {
      members.append(.init("branches", .array(branches.map { $0.json(isConnected: isConnected) })))
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
  /// Until it has everything, at the speed at which it took the last rows: an estimate; nil: unknown.
  package var secondsLeft: Double? { state == "offline" ? nil : backlog.secondsLeft(rate) }

  package func json(isConnected: Bool) -> JSONValue {
    let secondsLeft = isConnected ? secondsLeft : nil
    return .fields([
      "id": .string(name), "name": .string(name), "state": .string(state), "pending": .integer(pending),
      "pending_exact": .bool(isPendingExact), "pending_bytes_estimate": .integer(backlog.bytes),
      "rows_per_second": .rounded(rate.rowsPerSecond), "bytes_per_second": .rounded(rate.bytesPerSecond),
      "seconds_left": .rounded(secondsLeft), "done_at": .time(after: secondsLeft), "last_seen": JSONValue(lastSeen),
      "verified": certificate?.json ?? .null,
      "recovery": JSONValue(recovery),
    ])
  }
}
