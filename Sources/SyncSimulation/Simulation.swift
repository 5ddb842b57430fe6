/// Runs schedules: each seed is one world, with its faults, from its first write to silence.
package enum Simulation {
  package struct Finding: Sendable {
    package var seed: Int
    package var violation: Violation
  }

  package struct Summary: Sendable {
    package var schedules = 0
    /// The first seed that broke a promise.
    package var finding: Finding?
    /// What was exercised, so that a world in which nothing happens is noticed.
    package var writes = 0
    package var conflicts = 0
    package var batches = 0
    /// Rows that a database refused, parents that came back, decisions of people.
    package var refusals = 0
    package var revived = 0
    package var verdicts = 0
    package var restores = 0
    package var tombstonesPurged = 0
    /// Batches that left rows for a later one, and that went on with one that was cut.
    package var slices = 0
    package var resumed = 0
  }

  /// One schedule; with `traces`, what happened in it.
  package static func run(seed: Int, traces: Bool = false) -> (summary: Summary, trace: [String]) {
    let world = World(seed: seed, traces: traces)
    let violation = world.run()
    var summary = Summary(schedules: 1)
    summary.finding = violation.map { Finding(seed: seed, violation: $0) }
    summary.writes = world.ledger.writes.count
    summary.conflicts = world.ledger.conflicts
    summary.refusals = world.ledger.refusals
    summary.revived = world.ledger.revived
    summary.verdicts = world.ledger.verdicts
    summary.batches = world.broker.batchesSent
    summary.restores = world.restores
    summary.tombstonesPurged = world.tombstonesPurged
    summary.slices = world.slicesSent
    summary.resumed = world.resumed
    return (summary, world.trace ?? [])
  }

  /// `count` schedules from `first` on, in `workers` tasks; ends early once one broke a promise.
  package static func run(
    schedules count: Int, from first: Int = 0, workers: Int = 2
  ) async -> Summary {
    var total = Summary()
    var next = first
    let end = first + count
    let chunk = 250
    await withTaskGroup(of: Summary.self) { group in
      func add() {
        guard next < end, total.finding == nil else { return }
        let seeds = next..<min(next + chunk, end)
        next = seeds.upperBound
        group.addTask { runAll(seeds) }
      }
      for _ in 0..<workers { add() }
      for await summary in group {
        total.add(summary)
        add()
      }
    }
    return total
  }

  private static func runAll(_ seeds: Range<Int>) -> Summary {
    var total = Summary()
    for seed in seeds where total.finding == nil { total.add(run(seed: seed).summary) }
    return total
  }
}

extension Simulation.Summary {
  fileprivate mutating func add(_ other: Self) {
    schedules += other.schedules
    writes += other.writes
    conflicts += other.conflicts
    batches += other.batches
    refusals += other.refusals
    revived += other.revived
    verdicts += other.verdicts
    restores += other.restores
    tombstonesPurged += other.tombstonesPurged
    slices += other.slices
    resumed += other.resumed
    if let theirs = other.finding, theirs.seed < finding?.seed ?? Int.max { finding = theirs }
  }
}
