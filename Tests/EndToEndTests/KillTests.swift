import Foundation
import Testing

/// An application that keeps the history of what it did, so that the end can be judged without asking hub.
///
/// It owns the rows with its own `who`: nobody else writes them, so their last acknowledged state is what every
/// office must hold. Rows of `shared` are written by everybody.
final class HistoryKeeper: @unchecked Sendable {
  // Proof: `rows` and the counters change on the worker's thread alone and are read after `stop`.
  enum Fate {
    case present(Int)
    case gone
    case unknown([String])
  }

  static let schema = """
    CREATE TABLE ledger (id bigserial PRIMARY KEY, who text NOT NULL, what text NOT NULL, v int NOT NULL);
    CREATE TABLE shared (id int PRIMARY KEY, v int NOT NULL, who text);
    INSERT INTO shared SELECT g, 0, 'head' FROM generate_series(1, 30) g;
    """

  let office: Office
  private(set) var rows: [String: Fate] = [:]
  private(set) var done = 0
  private(set) var failed: [String] = []
  private var worker: Worker?
  private let pause: UInt32

  init(_ office: Office, pause: UInt32 = 2000) {
    self.office = office
    self.pause = pause
  }

  func begin() {
    worker = Worker { [self] worker in
      var application: Application?
      var next = 0
      while !worker.isStopping {
        usleep(pause)
        guard let connected = application, connected.isAlive else {
          application = try? office.connect()
          continue
        }
        write(connected, &next)
      }
    }
  }

  func end() throws { try worker?.stop() }

  private func write(_ application: Application, _ next: inout Int) {
    let mine = "\(office.name)-\(next)"
    next += 1
    attempt(
      mine, "INSERT INTO ledger (who, what, v) VALUES ('\(office.name)', '\(mine)', 0)", application, .present(0),
      new: true)
    if let (name, fate) = rows.randomElement(), case .present(let v) = fate {
      if Int.random(in: 0..<4) == 0 {
        attempt(name, "DELETE FROM ledger WHERE what = '\(name)'", application, .gone)
      } else {
        attempt(name, "UPDATE ledger SET v = \(v + 1) WHERE what = '\(name)'", application, .present(v + 1))
      }
    }
    if next % 3 == 0 {
      _ = try? application.run(
        "UPDATE shared SET v = v + 1, who = '\(office.name)' WHERE id = \(Int.random(in: 1...30))")
    }
  }

  private func text(_ fate: Fate) -> String {
    switch fate {
    case .present(let v): "\(v)"
    case .gone: "gone"
    case .unknown(let states): states.joined(separator: "|")
    }
  }

  private func attempt(_ name: String, _ sql: String, _ application: Application, _ then: Fate, new: Bool = false) {
    do {
      try application.run(sql)
      rows[name] = then
      done += 1
    } catch let error as Application.Refused {
      if error.isUnknown {
        rows[name] = .unknown([new ? "gone" : text(rows[name] ?? .gone), text(then)])
      } else {
        failed.append("\(sql): \(error)")
      }
    } catch { failed.append("\(sql): \(error)") }
  }

  /// Nothing lost, nothing twice, at this office's database.
  func judge(at other: Office) throws {
    var seen: [String: [String]] = [:]
    for row in try other.run("SELECT what, v FROM ledger WHERE who = '\(office.name)'") {
      seen[row[0] ?? "", default: []].append(row[1] ?? "")
    }
    var wrong: [String] = []
    for (name, fate) in rows {
      let found = seen.removeValue(forKey: name) ?? []
      if found.count > 1 { wrong.append("\(name) twice: \(found)") }
      let state = found.first ?? "gone"
      let wanted = text(fate).split(separator: "|").map(String.init)
      if !wanted.contains(state) { wrong.append("\(name) is \(state), not \(text(fate))") }
    }
    for name in seen.keys { wrong.append("\(name) was never written") }
    #expect(wrong.isEmpty, "\(office.name)'s \(rows.count) rows at \(other.name): \(wrong.prefix(5)) of \(wrong.count)")
    #expect(
      failed.isEmpty, "a statement at \(office.name) failed because of hub: \(failed.prefix(3)) of \(failed.count)")
  }

  static func judge(_ keepers: [HistoryKeeper], _ company: Company, within seconds: Double = 120) throws {
    try company.settle(["ledger", "shared"], within: seconds)
    for keeper in keepers { for office in company.offices { try keeper.judge(at: office) } }
    for office in company.offices {
      #expect(try office.connect().value("SELECT count(*) FROM hub.quarantine") == "0", "quarantine at \(office.name)")
    }
  }
}

extension EndToEnd {
  @Suite(.serialized)
  struct KillTests {
    @Test("any hub killed with -9 at any moment, any number of times: nothing lost, nothing twice")
    func nothingIsLostWhenHubsAreKilled() throws {
      let kills = Servers.isFull ? 200 : 30
      try Company.with(branches: 2, schema: HistoryKeeper.schema, tracks: [["ledger"], ["shared"]]) { company in
        let keepers = company.offices.map { HistoryKeeper($0) }
        for keeper in keepers { keeper.begin() }
        var count = 0
        while count < kills {
          // Only while rows move: some row has arrived at some other office since the last kill.
          let victim = company.offices[count % 3]
          try moves(company)
          usleep(UInt32.random(in: 0...60_000))
          victim.murder()
          if Bool.random() { usleep(UInt32.random(in: 0...300_000)) }
          try victim.start()
          count += 1
        }
        for keeper in keepers { try keeper.end() }
        try HistoryKeeper.judge(keepers, company)
        say("\(count) kills, \(keepers.map(\.done)) writes")
      }
    }

    private func moves(_ company: Company) throws {
      func arrived() throws -> [String] {
        try company.offices.map { try $0.connect().value("SELECT count(*) FROM ledger WHERE who <> '\($0.name)'") }
      }
      let before = try arrived()
      try until(60, "rows move: \(before)", every: 0.01) { try arrived() != before }
    }
  }
}
