import HubEngine
import PostgresStore

/// What is left, how fast it passes and when it will be done, in words. All but the rows are estimates.
enum Plan {
  static func outgoing(_ status: OfficeStatus) -> String {
    guard status.backlog.rows > 0 else { return "0 rows pending" }
    return rows(status) + speed(status.traffic.outgoing) + left(status.secondsLeft)
  }

  private static func rows(_ status: OfficeStatus) -> String {
    let backlog = status.backlog
    return "\(backlog.isExact ? "" : "more than ")\(backlog.rows) rows pending, about \(bytes(Double(backlog.bytes)))"
  }

  /// Begins with a comma, or is empty.
  static func incoming(_ status: OfficeStatus) -> String {
    guard status.isCatchingUp, let rows = status.traffic.incomingLeft else { return "" }
    return ", about \(rows) rows to come" + speed(status.traffic.incoming) + left(status.incomingSecondsLeft)
  }

  /// What `hub sync` says while it works; nil: nothing is left.
  static func progress(_ status: OfficeStatus) -> String? {
    var parts: [String] = []
    if status.pending > 0 {
      let sent = status.traffic.outgoing.underWay
      let done = sent > 0 ? "; \(bytes(Double(sent))) with the broker" : ""
      parts.append("sending: \(outgoing(status))\(done)")
    }
    if status.isCatchingUp { parts.append("receiving\(incoming(status))") }
    return parts.isEmpty ? nil : "\(status.office.name) \(parts.joined(separator: "; "))"
  }

  /// What was not done in time, and where it is.
  struct Left {
    var place: String
    var text: String
    var json: JSONValue
  }

  static func left(_ status: OfficeStatus) -> Left {
    let peer = status.office.role == .head ? "every branch" : "head"
    let (place, what) =
      if !status.isConnected {
        ("not connected", "not connected: \(status.brokerError ?? "no broker"); not sent: \(rows(status))")
      } else if status.state == "paused" {
        ("paused", "the exchange is paused: \(rows(status))")
      } else if !status.traffic.isAllSent || status.traffic.outgoing.unconfirmed > 0 {
        ("not sent", "not sent: \(rows(status))\(underWay(status))")
      } else {
        ("with the broker", "with the broker, not yet acknowledged by \(peer): \(rows(status))")
      }
    let away = status.branches.filter { $0.state == "offline" }.map(\.name)
    var text = what
    if status.isCatchingUp {
      text += "; to come: \(status.traffic.incomingLeft.map { "about \($0) rows" } ?? "more")"
    }
    if !away.isEmpty { text += "; not heard of: \(away.joined(separator: ", "))" }
    return Left(
      place: place, text: text,
      json: .fields([
        "where": .string(place), "pending": .integer(status.pending), "pending_exact": .bool(status.isPendingExact),
        "pending_bytes_estimate": .integer(status.backlog.bytes), "catching_up": .bool(status.isCatchingUp),
        "rows_to_come": JSONValue(status.isCatchingUp ? status.traffic.incomingLeft : 0),
        "not_heard_of": .array(away.map { .string($0) }),
      ]))
  }

  private static func underWay(_ status: OfficeStatus) -> String {
    let sent = status.traffic.outgoing.underWay
    return sent > 0 ? ", of which \(bytes(Double(sent))) is with the broker" : ""
  }

  private static func speed(_ rate: Traffic.Rate) -> String {
    guard let rows = rate.rowsPerSecond, let size = rate.bytesPerSecond else { return "" }
    return "; \(Int(rows)) rows/s, \(bytes(size))/s measured"
  }

  private static func left(_ seconds: Double?) -> String {
    seconds.map { "; about \(time($0)) left, until \(SystemClock.hour(after: $0))" } ?? ""
  }

  static func bytes(_ number: Double) -> String {
    switch number {
    case ..<1000: "\(Int(number)) B"
    case ..<1_000_000: "\(Int(number / 1000)) kB"
    case ..<1e9: "\(tenths(number / 1e6)) MB"
    default: "\(tenths(number / 1e9)) GB"
    }
  }

  private static func tenths(_ number: Double) -> String {
    let tenths = Int((number * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }

  static func time(_ seconds: Double) -> String {
    let whole = Int(min(seconds.rounded(.up), 1e9))
    if whole < 120 { return "\(whole) s" }
    return whole < 7200 ? "\((whole + 59) / 60) min" : "\((whole + 3599) / 3600) h"
  }
}
