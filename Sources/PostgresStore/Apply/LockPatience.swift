/// How long hub waits for a lock while it holds others.
///
/// PostgreSQL ends the one of a deadlock who has waited for `deadlock_timeout` (1 s) first. That must be hub. So hub looks
/// for deadlocks early where it may (`deadlock_timeout` of its own), waits less than that for any one lock, and, once its
/// transaction is so old that an application may have waited for it for long, hardly at all while one does.
package struct LockPatience {
  private static let usual = Duration.milliseconds(400)
  private static let hurried = Duration.milliseconds(10)
  /// Nobody can have waited for hub for longer; with `usual` it stays below a second.
  private static let young = Duration.milliseconds(300)

  private let began = ContinuousClock.now
  private var isHurried = false

  static func begin(_ session: Session) throws(PostgresError) {
    session.patience = LockPatience()
    try set(usual, session)
    // Only a superuser, or who was granted it (PostgreSQL 15), may set this one.
    if session.serverVersion >= 150_000 {
      try session.hot(
        """
        SELECT set_config('deadlock_timeout', '50ms', true)
        WHERE has_parameter_privilege('deadlock_timeout', 'SET')
        """)
    }
  }

  fileprivate mutating func beforeWaiting(_ session: Session) throws(PostgresError) {
    guard began.duration(to: .now) > Self.young else { return }
    let isAwaited = try session.hot(
      """
      SELECT EXISTS (SELECT FROM pg_locks l WHERE NOT l.granted AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid)))
      """
    ).bool(0, 0)
    guard isAwaited != isHurried else { return }
    isHurried = isAwaited
    try Self.set(isAwaited ? Self.hurried : Self.usual, session)
  }

  private static func set(_ timeout: Duration, _ session: Session) throws(PostgresError) {
    let milliseconds = timeout / .milliseconds(1)
    try session.script("SET LOCAL lock_timeout = \(Int(milliseconds))")
  }
}

extension Session {
  /// `hot` for a statement of an apply transaction that may wait for an application's lock.
  @discardableResult
  func patiently(_ sql: SQL) throws(PostgresError) -> ResultSet {
    try patience?.beforeWaiting(self)
    return try hot(sql)
  }
}
