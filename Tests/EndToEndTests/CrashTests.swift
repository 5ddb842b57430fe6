import Foundation
import Testing

/// Hubs that end themselves at a named step, by `HUB_CRASH_AT`.
private struct Crash {
  static let onlyAtHead = ["window-read", "window-sent", "hello-saved", "welcome-sent", "conflicts-sent"]
  static let onlyAtBranches = ["window-applied", "hello-sent", "welcome-saved", "conflicts-saved"]

  let company: Company
  let victim: Office
  let other: Office
  let point: String

  /// The names of all points, as hub lists them when it is given another one.
  static func points(_ office: Office) throws -> [String] {
    let program = try office.launch(["run"], as: "nowhere", with: ["HUB_CRASH_AT": "nowhere:1"])
    defer { program.murder() }
    #expect(try program.wait(20) == 2)
    return (program.errorText.components(separatedBy: "points are ").last ?? "")
      .components(separatedBy: CharacterSet(charactersIn: ", )\n")).filter { !$0.isEmpty }
  }

  /// Both write while the victim is away, and it comes back to just that point.
  func happen() throws {
    switch point {
    case "window-read", "window-sent": try lose(at: other)
    case "pull-sent", "window-applied": try lose(at: victim)
    default: break
    }
    victim.murder()
    // A branch that greets is told what to send again: only one that goes on is asked for what is missing.
    let goesOn = victim.name != "head" || point == "pull-sent"
    if !goesOn { other.murder() }
    for office in [victim, other] { try office.run("UPDATE shared SET v = v + 1, who = '\(office.name)' WHERE id = 1") }
    let program = try victim.start(with: ["HUB_CRASH_AT": "\(point):1"])
    if !goesOn { try other.start() }
    // A branch that nobody acknowledged for long sends twice a minute.
    try until(60, "\(victim.name) ends at \(point): \(program.errorText)", every: 0.1) {
      if program.isRunning && point == "staged" {
        // More than one part.
        try other.run("INSERT INTO photo (body) SELECT repeat(md5(g::text), 20000) FROM generate_series(1, 4) g")
        usleep(300_000)
      }
      return !program.isRunning
    }
    #expect(program.ended == -SIGKILL, "\(victim.name) at \(point): \(program.errorText)")
    try victim.start()
  }

  /// What comes while an office's hub is dead is lost.
  private func lose(at office: Office) throws {
    let sender = try (office === victim ? other : victim).connect()
    let receiver = try office.connect()
    let position = { try receiver.number("SELECT max(at_number) FROM hub.peer") }
    let before = try position()
    try until(60, "\(office.name) goes on") { try position() > before }
    office.murder()
    // What it has applied may be in the queue, too: it would not be missed.
    let applied = try position()
    try until(60, "\(office.name) is behind") {
      try sender.number("SELECT max(number) FROM hub.batch") > applied + 2
    }
    let queue = office.name == "head" ? "hub.head" : "hub.office.\(office.name)"
    _ = try Broker.ctl(["-p", company.virtualHost, "purge_queue", queue])
  }
}

extension EndToEnd {
  @Suite(.serialized)
  struct CrashTests {
    @Test("a hub that ends at any step between reading the feed and acknowledging: nothing lost, nothing twice")
    func everyStepMayBeTheLast() throws {
      let schema = HistoryKeeper.schema + "CREATE TABLE photo (id bigserial PRIMARY KEY, body text NOT NULL);"
      try Company.with(branches: 1, schema: schema, tracks: [["ledger"], ["shared"], ["photo"]]) { company in
        let (head, a) = (company.head, company["a"])
        let points = try Crash.points(head)
        #expect(Set(points).isSuperset(of: Crash.onlyAtHead + Crash.onlyAtBranches) && points.count >= 24)
        let keepers = company.offices.map { HistoryKeeper($0, pause: 5000) }
        for keeper in keepers { keeper.begin() }
        let began = monotonic()
        var crashes = 0
        do {
          for (victim, other, without) in [(head, a, Crash.onlyAtBranches), (a, head, Crash.onlyAtHead)] {
            for point in points where !without.contains(point) {
              try Crash(company: company, victim: victim, other: other, point: point).happen()
              crashes += 1
            }
          }
        } catch {
          for keeper in keepers { try? keeper.end() }
          throw error
        }
        let took = monotonic() - began
        for keeper in keepers { try keeper.end() }
        try HistoryKeeper.judge(keepers, company)
        try company.settle(["photo"])
        say("\(crashes) crashes in \(Int(took)) s, \(keepers.map(\.done)) writes")
      }
    }
  }
}
