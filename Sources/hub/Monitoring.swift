import HubDashboard
import HubEngine
import PostgresStore
import ServiceLifecycle

/// `hub run --http`: what a monitor reads. `/metrics` for Prometheus, `/healthz` as `hub health`, both read from the
/// office's database, so that a hot standby says the same as the hub that serves.
struct Monitoring: Service {
  let server: PageServer

  init(listeningAt address: ListenAddress, _ options: DatabaseOptions) async throws {
    let source = StatusSource(url: try options.url())
    server = try await PageServer(
      listeningAt: address,
      pages: [
        "/metrics": {
          let status = try? await source.status()
          return PageServer.Page(
            contentType: Exposition.contentType, OfficeMetrics.text(status, of: await source.office))
        },
        "/healthz": {
          do {
            let (isHealthy, state) = try await source.status().health
            return PageServer.Page(status: isHealthy ? 200 : 503, "\(state)\n")
          } catch {
            return PageServer.Page(status: 503, "\((error as? HubError)?.message ?? "\(error)")\n")
          }
        },
      ])
  }

  func run() async throws {
    try await cancelWhenGracefulShutdown { try await server.run() }
  }
}

/// The office's facts, read at most once a second however many ask; nobody waits longer than `patience` for them.
private actor StatusSource {
  private static let freshness: Duration = .seconds(1)
  private static let patience: Duration = .seconds(8)

  private let connection: PostgresConnection
  private var latest: (at: ContinuousClock.Instant, outcome: Result<OfficeStatus, HubError>)?
  private var isReading = false
  /// The office's name, once it is known: it stays known while the database is away.
  private(set) var office: String?

  init(url: String) { connection = PostgresConnection(url: url, name: "hub monitor") }

  func status() async throws(HubError) -> OfficeStatus {
    let asked = ContinuousClock.now
    if let latest, latest.at + Self.freshness > asked { return try latest.outcome.get() }
    if !isReading {
      isReading = true
      // Not of whoever asked: a database that hangs must not hold them.
      Task { await read() }
    }
    while isReading, asked + Self.patience > .now { try? await Task.sleep(for: .milliseconds(5)) }
    guard let latest, latest.at >= asked else { throw HubError(.database, "the database does not answer") }
    return try latest.outcome.get()
  }

  private func read() async {
    let outcome: Result<OfficeStatus, HubError>
    do {
      outcome = .success(
        try await connection.run { session in
          try session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { try OfficeStatus.read($0) }
        })
    } catch {
      outcome = .failure(error)
    }
    if case .success(let status) = outcome { office = status.office.name }
    latest = (.now, outcome)
    isReading = false
  }
}

/// An office's facts as metrics, each with the office's name: one monitor may watch many. Names follow
/// https://prometheus.io/docs/practices/naming/: base units, `_total` counts.
enum OfficeMetrics {
  static func text(_ status: OfficeStatus?, of office: String?) -> String {
    var page = Exposition(office.map { [("office", $0)] } ?? [])
    page.gauge("hub_database_up", "Whether the office's database answers and holds an office.", status != nil)
    guard let status else { return page.text }
    page.gauge(
      "hub_info", "This office.",
      [.init([("role", status.office.role.rawValue), ("version", Hub.version)], 1)])
    page.gauge("hub_healthy", "Whether hub health would say so.", status.health.isHealthy)
    page.gauge("hub_running", "Whether a hub serves this office.", status.isServed)
    page.gauge("hub_paused", "Whether hub pause was said.", status.office.isPaused)
    page.gauge("hub_broker_connected", "Whether the hub that serves is connected to the broker.", status.isConnected)
    page.gauge("hub_broker_blocked", "Whether an alarm at the broker holds back what is sent.", status.isBlocked)
    page.gauge("hub_catching_up", "Whether rows are loaded that came before the live traffic.", status.isCatchingUp)
    page.gauge(
      "hub_recovering", "Whether this database went back in time and awaits what it lost.", status.isRecovering)
    page.gauge(
      "hub_outgoing_pending_rows", "Rows that the slowest receiver has not acknowledged; counted up to a bound.",
      Double(status.pending))
    page.gauge(
      "hub_outgoing_pending_bytes", "About how many bytes these rows are.", Double(status.backlog.bytes))
    page.gauge(
      "hub_outgoing_left_seconds", "Until every receiver that is there has everything, estimated.", status.secondsLeft)
    page.gauge("hub_incoming_lag_seconds", "Age of the oldest state that was applied from a sender.", status.lagSeconds)
    page.counter(
      "hub_rows_sent_total", "Rows sent since the hub that serves began.", Double(status.rowsSent))
    page.counter(
      "hub_rows_applied_total", "Rows applied since the hub that serves began.", Double(status.rowsApplied))
    page.gauge("hub_conflicts", "Entries of the conflict log; all of them are decided.", Double(status.conflicts))
    page.gauge("hub_quarantined_rows", "Rows that cannot be applied and wait for somebody.", Double(status.quarantined))
    addBranches(status, &page)
    return page.text
  }

  private static func addBranches(_ status: OfficeStatus, _ page: inout Exposition) {
    func each(_ value: (OfficeStatus.Branch) -> Double?) -> [Exposition.Sample] {
      status.branches.compactMap { branch in value(branch).map { .init([("branch", branch.name)], $0) } }
    }
    page.gauge(
      "hub_branch_state", "The branch's state: its series is 1.",
      status.branches.map { .init([("branch", $0.name), ("state", $0.state)], 1) })
    let members = { (branch: OfficeStatus.Branch) in branch.state != "invited" && branch.state != "removed" }
    page.gauge(
      "hub_branch_pending_rows", "Rows that the branch has not acknowledged; counted up to a bound.",
      each { members($0) ? Double($0.pending) : nil })
    page.gauge(
      "hub_branch_pending_bytes", "About how many bytes these rows are.",
      each { members($0) ? Double($0.backlog.bytes) : nil })
    page.gauge(
      "hub_branch_silent_seconds", "Since head last heard of the branch.",
      each { members($0) ? $0.secondsSinceSeen : nil })
    page.gauge(
      "hub_branch_verified_equal", "Whether the last hub verify found the branch equal.",
      each { $0.certificate.map { $0.isEqual ? 1 : 0 } })
    page.gauge(
      "hub_branch_verified_seconds", "Since the last hub verify of the branch.", each { $0.certificate?.secondsAgo })
  }
}
