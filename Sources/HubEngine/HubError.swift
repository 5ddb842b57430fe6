/// What went wrong, for the person who ran hub: one line, and how to mend it.
package struct HubError: Error, Sendable, CustomStringConvertible {
  package enum Code: String, Sendable {
    case usage, database, broker, notReady, refused, conflict, unsupported, timedOut, damaged
  }

  package var code: Code
  package var message: String
  /// What to do next; names the command to run where one helps.
  package var hint: String?
  /// Five characters, when PostgreSQL said so.
  package var sqlstate: String?
  /// Passes by itself: worth trying again.
  package var isTransient: Bool

  package init(
    _ code: Code, _ message: String, hint: String? = nil, sqlstate: String? = nil, isTransient: Bool = false
  ) {
    self.code = code
    self.message = message
    self.hint = hint
    self.sqlstate = sqlstate
    self.isTransient = isTransient
  }

  package var description: String {
    let line = hint.map { "\(message): \($0)" } ?? message
    return String(line.map { $0 == "\n" ? " " : $0 })
  }

  /// The connection is gone, not only a statement refused.
  package var isDisconnect: Bool {
    guard let sqlstate else { return code == .database && isTransient }
    return sqlstate.hasPrefix("08") || sqlstate.hasPrefix("57P")
  }

  /// 0 done, 1 failed, 2 usage, 3 timed out with work left.
  package var exitCode: Int32 {
    switch code {
    case .usage, .unsupported: 2
    case .timedOut: 3
    default: 1
    }
  }
}
