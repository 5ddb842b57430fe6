import SyncCore

// What a trace says of things.

extension Dot {
  var text: String { "\(actor.rawValue % 997).\(n)" }
}

extension BatchReference {
  var text: String { "#\(number)/\(id % 997)" }
}

extension BatchHeader {
  var text: String { "\(previous.text)→\(reference.text) session \(session.rawValue % 997)" }
}

extension RowState<Int> {
  var text: String {
    let vector = vector.dots.map(\.text).joined(separator: " ")
    let columns = registers.sorted { $0.key < $1.key }
      .map { "\($0.key)=\($0.value.value)@\($0.value.dot.text)" }.joined(separator: " ")
    let sums = counters.values.map { counter in
      "\(counter.inserted)"
        + counter.contributions.sorted { $0.key < $1.key }
        .map { "+\($0.value.sum)@\($0.key.rawValue % 997).\($0.value.n)" }.joined()
    }
    return "[\(vector)] \(isAlive ? "alive" : "dead")@\(alive.dot.text) \(columns) \(sums)"
  }
}

extension Payload {
  var summary: String {
    switch self {
    case .hello(let hello): "hello at \(hello.at.text) last \(hello.last.text)"
    case .welcome(let welcome, let staged):
      "welcome have \(welcome.have.text) start \(welcome.start.text)"
        + (staged.map { " staged \($0.count) of \($0.batch.text)" } ?? "")
    case .rehello: "rehello"
    case .batch(let header, let part, let isLast, let rows, _, let resuming):
      "batch \(header.text) part \(part)\(isLast ? " last" : "")\(header.isSlice ? " slice" : "") keys \(rows.map(\.key))"
        + (resuming.cut.map { " resumes \($0.text)" } ?? "")
    case .acknowledgement(let position): "acknowledgement \(position.reference.text)"
    case .beat(_, let last, _, let asks): "beat \(last.text)\(asks ? " asks" : "")"
    case .pull(let pull): "pull at \(pull.at.text) \(pull.resumed.map { "resumes \($0.cursor)" } ?? "")"
    case .conflicts(let entries): "conflicts after \(entries.after): \(entries.entries)"
    case .restate(let request, let key): "restate \(request) key \(key)"
    case .restated(let request): "restated \(request)"
    case .window(let header, let rows):
      "window \(header.part) from \(header.from.text) to \(header.target.text) more \(header.more) keys \(rows.map(\.key))"
    }
  }
}

extension MergeOutcome<Int> {
  var text: String {
    switch self {
    case .keepLocal: "kept"
    case .takeIncoming: "taken"
    case .held(let conflicts): "held, \(conflicts.count) conflicts"
    case .merged(let merged): "\(merged.row.text), \(merged.decided.count) decided"
    }
  }
}
