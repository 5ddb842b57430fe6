import SyncCore

/// What kind of world a seed is: its tables' rules, its sizes and what may go wrong in it.
struct Scenario: Sendable {
  enum Fault: CaseIterable, Sendable {
    case loss, duplication, wipe, crash, members, outage, locks, restore
  }

  var policy: Policy
  var keys: Int
  /// Columns that are no counters; with row granularity one register holds them all.
  var registers: Int
  var branches: Int
  /// Few values, so that two offices write the same one by chance.
  var valuesAreFew: Bool
  var partRows: Int
  var windowRows: Int
  var windowPartRows: Int
  /// Tombstones go. Few rows are counted there: those that were keep theirs.
  var purges = false
  /// Rows below these keys pass first, if there is too much for one part; of several, sometimes below one and sometimes
  /// below another.
  var firstKeys: [Int] = []
  var queueMessagesMax: Int
  var faults: [Fault]
  var steps: Int
  /// A branch's clock may run ahead by an hour.
  var clocksAreWrong: Bool
  /// Watches for minutes whether rest lasts.
  var watchesSilence: Bool
  /// Foreign keys and unique values.
  var constraints: Constraints?
  /// The table's function may answer with a row of its own.
  var functionInvents: Bool
  /// … or fail, which refuses the row.
  var functionFails: Bool
  /// People look at what was refused and decided before the end.
  var hasPeople: Bool

  init(_ random: inout SplitMix64) {
    policy = Policy(
      conflict: random.pick(ConflictPolicy.allCases), granularity: random.pick(Granularity.allCases),
      onDelete: random.pick(DeletePolicy.allCases))
    keys = random.int(1...5)
    registers = policy.granularity == .row ? 1 : 2
    branches = random.int(1...3)
    valuesAreFew = random.chance(40)
    partRows = random.pick([1, 2, 100])
    windowRows = random.pick([1, 2, 9])
    windowPartRows = random.pick([1, 9])
    queueMessagesMax = random.pick([3, 6, 1000, 1000])
    faults = []
    for fault in Fault.allCases where fault != .restore && random.chance(55) { faults.append(fault) }
    steps = random.int(40...220)
    clocksAreWrong = random.chance(20)
    watchesSilence = random.chance(30)
    if random.chance(25) {
      // Long catch-ups under live batches that get lost.
      keys = 8
      windowRows = 1
      steps += 100
    }
    functionInvents = random.chance(50)
    functionFails = random.chance(30)
    hasPeople = random.chance(60)
    constraints = nil
    guard random.chance(60) else { return }
    constraints = Constraints(&random)
    keys = max(3, keys)
    if policy.granularity == .columns { registers = 3 }
  }

  /// Rows refer to rows with lower keys: what is referred to passes no later. In a circle all pass together.
  mutating func rank(_ random: inout SplitMix64) {
    guard keys > 1, constraints?.hasCircles != true, random.chance(50) else { return }
    firstKeys = [random.int(1...keys - 1)]
    if random.chance(30) { firstKeys.append(random.int(0...keys - 1)) }
  }

  /// Rows of one transaction arrive together if these are the same. What is referred to passes early while it lives, and late
  /// when it is deleted by then.
  func company(of key: Int) -> [Int] {
    let isReferredTo = constraints?.hasReferences ?? false
    return firstKeys.map { key >= $0 ? -1 : isReferredTo ? key : -2 }
  }

  /// Batches that one scan of the feed can become.
  var batchesOfScan: Int { firstKeys.isEmpty ? 1 : 2 }
}
