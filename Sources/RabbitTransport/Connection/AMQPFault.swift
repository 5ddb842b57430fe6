import CRabbitMQ
import HubEngine

/// What the broker or the library said against an operation, before hub gives it a meaning.
struct AMQPFault: Error, Hashable, Sendable {
  enum Scope: Hashable, Sendable {
    /// The library, or the way to the broker; `code` is an `amqp_status_enum`.
    case library
    /// The broker closed the channel; `code` is AMQP's (404, 403, …).
    case channel
    /// The broker closed the connection.
    case connection
  }

  var scope: Scope
  var code: Int
  var text: String
  /// What hub was doing: "log in", "declare queue hub.head".
  var doing: String

  /// The fault of a library call, nil if it succeeded.
  static func status(_ status: Int32, doing: String) -> AMQPFault? {
    guard status < 0 else { return nil }
    return AMQPFault(
      scope: .library, code: Int(status), text: String(cString: amqp_error_string2(status)), doing: doing)
  }

  var transportError: TransportError {
    let line = String("cannot \(doing): \(text)".map { $0.isNewline ? " " : $0 })
    return TransportError(kind, scope == .library ? line : "\(line) (\(code))")
  }

  private var kind: TransportError.Kind {
    switch (scope, code) {
    case (.library, _): Self.refusals.contains(code) ? .refused : .unreachable
    case (.connection, 403), (.connection, 530): .refused
    case (.connection, 540): .notAllowed
    // 320: an operator closed the connection, or the broker stops.
    case (.connection, _): .unreachable
    case (.channel, 404): .queueMissing
    case (.channel, 403) where text.contains("exclusive"): .queueInUse
    case (.channel, 405): .queueInUse
    // A delivery was not acknowledged within the broker's 30 minutes: it comes again.
    case (.channel, 406) where text.contains("acknowledgement") && text.contains("timed out"): .unreachable
    case (.channel, _): .notAllowed
    }
  }

  /// What trying again does not change: the broker's certificate, and a broker without password logins.
  private static let refusals: Set<Int> = [
    Int(AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED.rawValue), Int(AMQP_STATUS_SSL_PEER_VERIFY_FAILED.rawValue),
    Int(AMQP_STATUS_BROKER_UNSUPPORTED_SASL_METHOD.rawValue),
  ]
}
