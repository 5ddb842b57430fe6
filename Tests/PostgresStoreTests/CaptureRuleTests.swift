import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

/// The triggers do in SQL what SyncCore says of capture, and what the simulation runs: statement by statement.
@Suite struct CaptureRuleTests {
  private static let registers = ["a", "b"]
  private static let counter = 3

  private func read(_ office: Office, _ table: TableInfo) throws -> RowState<RowValues>? {
    var block = RowBlock(table: table.name, columnNames: table.columnNames, keyCount: 1)
    block.actors = [1]
    block.counters = [1]
    block.stamps = [0]
    block.alive = [true]
    block.columns[0].append(Array("1".utf8))
    for at in 1..<block.columns.count { block.columns[at].append(nil as [UInt8]?) }
    return try office.hub.transaction { session in
      let applier = try TableApplier(session: session, table: table, block: block, refusesMissing: true)
      guard let version = try applier.lockVersions()[0] else { return nil }
      let image = RowShape.Image(
        vector: version.vector, dot: version.dot, stamp: version.stamp, values: try applier.localValues(of: [0])[0],
        contributions: version.details.contributions, columnVersions: version.details.columnVersions)
      return try applier.states([image], RowShape(applier))[0]
    }
  }

  private func image(_ values: [Int], _ granularity: Granularity) -> RowImage<Int> {
    RowImage(
      values: granularity == .row ? [0: values[0] * 1000 + values[1]] : [1: values[0], 2: values[1]],
      shown: [Self.counter: values[2]])
  }

  private func number(_ value: RowValues) -> Int {
    Int(String(decoding: (value.first ?? nil) ?? [], as: UTF8.self)) ?? 0
  }

  private func expectEqual(_ found: RowState<RowValues>, _ wanted: RowState<Int>, _ statement: String) {
    #expect(found.vector == wanted.vector && found.isAlive == wanted.isAlive, "\(statement)")
    #expect(found.alive.dot == wanted.alive.dot, "\(statement)")
    #expect(found.registers.mapValues(\.dot) == wanted.registers.mapValues(\.dot), "\(statement)")
    let sums = found.counters[Self.counter]?.contributions.mapValues { [Int64(number($0.sum)), $0.n] }
    #expect(
      sums ?? [:] == (wanted.counters[Self.counter]?.contributions ?? [:]).mapValues { [Int64($0.sum), $0.n] },
      "\(statement)")
    guard wanted.isAlive else { return }
    #expect(
      found.counters[Self.counter].map { number($0.inserted) } == wanted.counters[Self.counter]?.inserted,
      "\(statement)")
  }

  @Test(
    "CAP: random statements leave the version that the rule of capture says", arguments: [Granularity.row, .columns])
  func randomStatements(_ granularity: Granularity) throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(
      "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, qty int NOT NULL)")
    try office.track([("public", "t")]) {
      $0.merge = granularity.rawValue
      $0.counters = ["qty"]
    }
    let table = try #require(office.tables.first)
    let own = ActorID(rawValue: Int64(try office.text("SELECT actor FROM hub.office")) ?? 0)
    var model: RowState<Int>?
    var values = [0, 0, 0]
    for _ in 0..<120 {
      var next = values
      let statement: String
      if !(model?.isAlive ?? false) {
        next = (0..<3).map { _ in Int.random(in: 0...9) }
        statement = "INSERT INTO t VALUES (1, \(next[0]), \(next[1]), \(next[2]))"
      } else if Int.random(in: 0..<10) == 0 {
        statement = "DELETE FROM t"
      } else {
        for at in 0..<3 where Bool.random() { next[at] = Int.random(in: 0...3) }
        let change = next[2] - values[2]
        let quantity = Bool.random() ? "\(next[2])" : "qty + \(change)"
        statement = "UPDATE t SET a = \(next[0]), b = \(next[1]), qty = \(quantity)"
      }
      let before = model
      try office.application.script(statement)
      let found = try #require(try read(office, table))
      let (dot, now) = (Dot(actor: own, n: found.vector[own]), found.latest.stamp)
      if statement.hasPrefix("INSERT") {
        model = .inserted(image(next, granularity), over: before, dot: dot, now: now)
      } else if statement.hasPrefix("DELETE") {
        model = before?.deleted(dot: dot, now: now)
      } else {
        model = before?.updated([image(next, granularity)], dot: dot, now: now, granularity: granularity) ?? before
      }
      let wanted = try #require(model)
      expectEqual(found, wanted, statement)
      // What is written later never looks older.
      if let before, found.alive.dot != before.alive.dot { #expect(found.latest.stamp > before.latest.stamp) }
      values = next
    }
  }
}
