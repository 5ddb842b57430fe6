package import HubEngine
import Synchronization

/// Keeps the connections of a hub that lost its office from doing anything more, and those of one hub to one server.
///
/// Every connection of the hub that serves holds a shared advisory lock, taken when it connects, and compares the
/// office's epoch after that. A hub that takes the office raises the epoch, then ends whatever connection still holds
/// the lock. So an old hub, stopped for minutes and going on in the middle of its work, has no connection any more, and
/// gets no other: it costs nothing in each transaction. Source: M. Kleppmann, "How to do distributed locking" (fencing
/// tokens); here the server compares the token once a connection.
///
/// Behind one URL there may be several servers: a new primary and the one before it, which nobody has stopped. What one
/// connection reads of the one and another writes to the other would be lost, so every new connection must be to
/// the server that the first one met, as it was started.
final class Fence: Sendable {
  private struct State {
    var epoch: Int64?
    var server: String?
  }
  private let state = Mutex(State())
  /// The lock's key; beside `PostgresStore.lockKey`.
  static let key: Int64 = 0x6875_6200_6665_6e63
  private static let patience: Duration = .seconds(10)

  var isRaised: Bool { state.withLock { $0.epoch != nil } }

  /// The next connection says which server it is.
  func forgetServer() { state.withLock { $0.server = nil } }

  /// For every new connection of this hub.
  func enter(_ session: Session) throws {
    guard let mine = state.withLock({ $0.epoch }) else { return }
    try session.query("SELECT pg_advisory_lock_shared(\(Self.key))")
    // A statement of its own: it sees what was committed before the lock was given.
    let current = try session.query("SELECT epoch, \(unsafe: Self.server) FROM hub.office")
    guard current.count == 1, current.int64(0, 0) == mine else {
      throw HubError(.conflict, "another hub serves this office now", hint: "only one hub run an office is active")
    }
    let answers = current.string(0, 1)
    let expected = state.withLock { state in
      if state.server == nil { state.server = answers }
      return state.server
    }
    guard answers == expected else {
      throw HubError(
        .database, "another server answers for this database, or the same one was started anew", isTransient: true)
    }
  }

  /// The office's lock was given to `session`: nobody else acts for it after this.
  func raise(_ session: Session) throws {
    let office = try session.query(
      "UPDATE hub.office SET epoch = epoch + 1 RETURNING epoch, \(unsafe: Self.server)")
    let (mine, server) = (office.int64(0, 0), office.string(0, 1))
    let deadline = ContinuousClock.now + Self.patience
    while true {
      try session.query(
        """
        SELECT pg_terminate_backend(pid) FROM (\(unsafe: Self.holders(Self.key))) AS held
        WHERE pid <> pg_backend_pid()
        """)
      if try session.query("SELECT pg_try_advisory_lock(\(Self.key))").bool(0, 0) { break }
      guard deadline > .now else {
        throw HubError(
          .conflict, "an earlier hub's connections to this database do not end",
          hint: "end them: SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hub %'",
          isTransient: true)
      }
      try session.query("SELECT pg_sleep(0.02)")
    }
    try session.query("SELECT pg_advisory_lock_shared(\(Self.key))")
    try session.query("SELECT pg_advisory_unlock(\(Self.key))")
    state.withLock { $0 = State(epoch: mine, server: server) }
  }

  /// A server since its start, to the microsecond, and a database there.
  private static let server = """
    extract(epoch FROM pg_postmaster_start_time()) || ' '
      || (SELECT oid FROM pg_database WHERE datname = current_database())
    """

  /// The process ids that hold the advisory lock `key` in this database.
  static func holders(_ key: Int64) -> String {
    """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = \(key)
    """
  }
}

extension PostgresStore {
  package func lockOffice() async throws(HubError) -> Bool {
    let fence = fence
    guard try await control.run({ try $0.query("SELECT pg_try_advisory_lock(\(Self.lockKey))").bool(0, 0) }) else {
      return false
    }
    guard !fence.isRaised else { return true }
    try await control.perform { try fence.raise($0) }
    // What was open before is not fenced.
    for connection in [feed, window, writer, verifier] { await connection.disconnect() }
    return true
  }

  /// The hub that holds the office does nothing, not even what it does every few seconds: stopped, or cut off in a way
  /// that the server has not noticed. Ends its connection; returns whether it did.
  package func endSilentHolder() async throws(HubError) -> Bool {
    try await control.run { session in
      try session.query(
        """
        SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
        WHERE a.pid IN (\(unsafe: Fence.holders(Self.lockKey))) AND a.state = 'idle'
          AND a.state_change < now() - make_interval(secs => \(Self.silenceMax)::int)
        """
      ).count > 0
    }
  }

  /// Seconds; a hub that serves uses the connection that holds its lock every five.
  private static let silenceMax = 60
}
