import Glibc
import Synchronization

/// A second descriptor of a connection's socket, owned by hub: the library closes its own when it likes (heartbeat or
/// request timed out), after which the number may belong to another file. Polling and `shutdown` from another
/// thread use this one, which lives as long as somebody can name it.
final class SocketHandle: Sendable {
  let descriptor: Int32
  /// Since when the connection's thread has been inside a call of the library that may block.
  private let enteredAt = Mutex<ContinuousClock.Instant?>(nil)

  init?(duplicating original: Int32) {
    descriptor = fcntl(original, F_DUPFD_CLOEXEC, 0)
    guard descriptor >= 0 else { return nil }
    // A fixed size makes POLLOUT mean room for a frame: the kernel says so with a third of the buffer free.
    var size = Int32(1 << 20)
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
  }

  deinit { close(descriptor) }

  /// Ends the connection at once, also under a thread that is stuck in it; callable from any thread.
  func shutDown() { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }

  var takesOutput: Bool {
    var look = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    return poll(&look, 1, 0) == 1
  }

  func entering() { enteredAt.withLock { $0 = .now } }
  func left() { enteredAt.withLock { $0 = nil } }

  /// How long the connection's thread has been inside the library.
  var busyFor: Duration {
    enteredAt.withLock { $0.map { $0.duration(to: .now) } ?? .zero }
  }
}
