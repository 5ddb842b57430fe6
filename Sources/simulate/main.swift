import Glibc
import SyncSimulation

/// The command line: `simulate --schedules N [--start S]`, or `simulate --seed S [--trace]`.
struct Options {
  var schedules = 1000
  var start = 0
  var seed: Int?
  var trace = false

  init?(_ arguments: [String]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--trace": trace = true
      case "--schedules", "--start", "--seed":
        guard let value = rest.popFirst().flatMap({ Int($0) }), value >= 0 else { return nil }
        if argument == "--schedules" { schedules = value }
        if argument == "--start" { start = value }
        if argument == "--seed" { seed = value }
      default: return nil
      }
    }
  }
}

/// What to say, and the exit code.
func simulate(_ arguments: [String]) async -> Int32 {
  guard let options = Options(arguments) else {
    print("usage: simulate --schedules N [--start S] | simulate --seed S [--trace]")
    return 2
  }
  let summary: Simulation.Summary
  if let seed = options.seed {
    let (one, trace) = Simulation.run(seed: seed, traces: options.trace)
    for line in trace { print(line) }
    summary = one
  } else {
    summary = await Simulation.run(schedules: options.schedules, from: options.start)
  }
  if let finding = summary.finding {
    print("seed \(finding.seed) breaks \(finding.violation)")
    return 1
  }
  print(
    "\(summary.schedules) schedules kept every promise: \(summary.writes) writes,",
    "\(summary.batches) batches, \(summary.conflicts) conflicts, \(summary.refusals) rows refused,",
    "\(summary.revived) parents back, \(summary.verdicts) verdicts of people, \(summary.restores) databases put back,",
    "\(summary.tombstonesPurged) tombstones purged, \(summary.slices) batches in slices, \(summary.resumed) gone on with"
  )
  return 0
}

exit(await simulate(Array(CommandLine.arguments.dropFirst())))
