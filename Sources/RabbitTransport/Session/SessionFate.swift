import HubEngine
import Synchronization

/// Whether a session lives, shared by its two connections: the first error ends both, wakes everybody who waits,
/// and shuts the sockets down so that a thread stuck in one of them comes back.
final class SessionFate: Sendable {
  private struct State {
    var error: TransportError?
    var allowsFarewell = false
    var sockets: [SocketHandle] = []
    var signals: [Signal] = []
  }

  /// A thread is stuck when one call of the library took so long. Longer than every time-out of a request.
  static let stuckAfter: Duration = .seconds(30)
  /// A call that takes longer than this waits for the broker.
  private static let lingersAfter: Duration = .milliseconds(50)

  private let state = Mutex(State())

  /// Why the session ended; nil while it lives.
  var error: TransportError? { state.withLock { $0.error } }

  func add(_ socket: SocketHandle) {
    let ended = state.withLock { s in
      s.sockets.append(socket)
      return s.error != nil
    }
    if ended { socket.shutDown() }
  }

  /// `signal` fires when the session ends.
  func tell(_ signal: Signal) { state.withLock { $0.signals.append(signal) } }

  /// Ends the session unless it has ended; returns the reason that holds. With `politely` the connections may still
  /// take leave of the broker, except those whose thread waits inside a call.
  @discardableResult
  func end(_ error: TransportError, politely: Bool = false) -> TransportError {
    let (reason, sockets, signals) = state.withLock { s in
      let reason = s.error ?? error
      if s.error == nil { s.allowsFarewell = politely }
      s.error = reason
      return (reason, s.sockets, s.signals)
    }
    for socket in sockets where !politely || socket.busyFor > Self.lingersAfter { socket.shutDown() }
    for signal in signals { signal.fire() }
    return reason
  }

  /// Whether a connection may take leave of the broker before it goes.
  var allowsFarewell: Bool { state.withLock { $0.allowsFarewell } }

  /// The sockets still open.
  var sockets: [SocketHandle] { state.withLock { $0.sockets } }

  func shutDownSockets() {
    for socket in sockets { socket.shutDown() }
  }

  /// The connection has let its socket go.
  func remove(_ socket: SocketHandle) {
    socket.shutDown()
    state.withLock { $0.sockets.removeAll { $0 === socket } }
  }

  /// The watchdog: each connection looks after the other, since a stuck thread cannot look after itself.
  func endIfStuck(after limit: Duration = SessionFate.stuckAfter) {
    guard sockets.contains(where: { $0.busyFor > limit }) else { return }
    end(TransportError(.unreachable, "the broker has taken no data for \(limit.components.seconds) s"))
  }
}
