import Glibc
import HubEngine

/// Shows a load's progress: a bar on a terminal, a line every few seconds elsewhere.
final class ProgressMeter: Sendable {
  private let name: String
  private let isTerminal = isatty(2) == 1
  private let last = MutexBox(ContinuousClock.now - .seconds(10))

  init(name: String) { self.name = name }

  func show(_ progress: CatchUpProgress) {
    let total = max(progress.total, progress.rows)
    let percent = progress.isDone ? 100 : total == 0 ? 0 : Int(progress.rows * 100 / total)
    guard last.update(every: isTerminal ? .milliseconds(100) : .seconds(2)) || progress.isDone else { return }
    if isTerminal {
      let filled = percent * 30 / 100
      let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 30 - filled)
      writeError("\r\(name) [\(bar)] \(percent) %  \(progress.rows) rows")
    } else {
      writeError("\(name): \(percent) %, \(progress.rows) of \(total) rows\n")
    }
  }

  func finish() { if isTerminal { writeError("\n") } }
}
