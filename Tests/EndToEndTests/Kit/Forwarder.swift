import Foundation
import Glibc

/// A TCP forwarder between one office and the broker: counts what passes, publishes by reading AMQP frames, and can
/// cut the line as a site's router does, or make it thin.
final class Forwarder: @unchecked Sendable {
  // Proof: everything that changes is read and written under `lock`.
  let port: UInt16
  private let upstream: UInt16
  private let listener: Int32
  private let lock = NSLock()
  private var isOpen = true
  private var isEnded = false
  private var sockets: Set<Int32> = []
  private var counted = Counts()
  private var rate: Int?
  private var cutAt: (up: Int, down: Int)?

  struct Counts {
    /// Bytes and basic.publish frames from the office.
    var up = 0
    var publishes = 0
    /// Bytes to the office.
    var down = 0
  }

  init(to upstream: UInt16) throws {
    self.upstream = upstream
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var yes: Int32 = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
    var address = Self.loopback(0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let listener = listener
    let bound = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, length) == 0 && listen(listener, 16) == 0 && getsockname(listener, $0, &length) == 0
      }
    }
    guard bound else { throw Failed("no port for a forwarder") }
    port = UInt16(bigEndian: address.sin_port)
    Thread { [self] in accepting() }.start()
  }

  var counts: Counts { lock.withLock { counted } }

  /// Cuts every line and takes no new one.
  func cut() {
    lock.withLock {
      isOpen = false
      for descriptor in sockets { shutdown(descriptor, Int32(SHUT_RDWR)) }
    }
  }

  func mend() { lock.withLock { isOpen = true } }

  /// Each direction of every connection passes no more bytes a second; nil: as they come.
  func throttle(_ bytesPerSecond: Int?) { lock.withLock { rate = bytesPerSecond } }

  /// Cuts when so many bytes have passed.
  func cut(atBytesUp up: Int = .max, down: Int = .max) { lock.withLock { cutAt = (up, down) } }

  var isCut: Bool { lock.withLock { !isOpen } }

  func end() {
    cut()
    lock.withLock { isEnded = true }
    shutdown(listener, Int32(SHUT_RDWR))
  }

  private static func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }

  private func accepting() {
    while true {
      let client = accept(listener, nil, nil)
      if client < 0 {
        if lock.withLock({ isEnded }) || errno != EINTR { break }
        continue
      }
      guard lock.withLock({ isOpen }) else {
        close(client)
        continue
      }
      let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      var address = Self.loopback(upstream)
      let connected = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
        }
      }
      guard connected else {
        close(client)
        close(server)
        continue
      }
      var yes: Int32 = 1
      setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4)
      setsockopt(server, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4)
      lock.withLock {
        sockets.insert(client)
        sockets.insert(server)
      }
      let remaining = Countdown()
      Thread { [self] in pump(client, server, isUp: true, remaining) }.start()
      Thread { [self] in pump(server, client, isUp: false, remaining) }.start()
    }
    close(listener)
  }

  private final class Countdown: @unchecked Sendable {
    var left = 2
  }

  private func pump(_ from: Int32, _ to: Int32, isUp: Bool, _ remaining: Countdown) {
    var buffer = [UInt8](repeating: 0, count: 65536)
    var frames = FrameScan()
    while true {
      let rate = lock.withLock { self.rate }
      let count = read(from, &buffer, rate == nil ? buffer.count : 8192)
      if count <= 0 { break }
      if let rate { usleep(useconds_t(count * 1_000_000 / rate)) }
      let publishes = isUp ? frames.publishes(in: buffer[..<count]) : 0
      lock.withLock {
        if isUp { counted.up += count } else { counted.down += count }
        counted.publishes += publishes
      }
      let isDue = lock.withLock { cutAt.map { counted.up >= $0.up || counted.down >= $0.down } ?? false }
      if isDue {
        lock.withLock { cutAt = nil }
        cut()
        break
      }
      var sent = 0
      while sent < count {
        let written = buffer.withUnsafeBytes { send(to, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL)) }
        if written <= 0 { break }
        sent += written
      }
      if sent < count { break }
    }
    shutdown(from, Int32(SHUT_RDWR))
    shutdown(to, Int32(SHUT_RDWR))
    lock.withLock {
      remaining.left -= 1
      guard remaining.left == 0 else { return }
      sockets.remove(from)
      sockets.remove(to)
      close(from)
      close(to)
    }
  }
}

/// Counts basic.publish (class 60, method 40) in a stream of AMQP 0-9-1 frames: type, channel, size, payload, 0xCE.
struct FrameScan {
  private var head: [UInt8] = []
  private var skip = 8
  private var payloadLeft = 0

  mutating func publishes(in bytes: ArraySlice<UInt8>) -> Int {
    var found = 0
    var index = bytes.startIndex
    while index < bytes.endIndex {
      if skip > 0 {
        let step = min(skip, bytes.endIndex - index)
        skip -= step
        index += step
        continue
      }
      // Header of seven bytes and the first four of the payload, which every method frame has.
      let wanted = head.count < 7 ? 7 : 7 + min(4, payloadLeft)
      if head.count < wanted {
        head.append(bytes[index])
        index += 1
        if head.count == 7 { payloadLeft = head[3...6].reduce(0) { $0 << 8 | Int($1) } }
        if head.count < 7 || head.count < 7 + min(4, payloadLeft) { continue }
      }
      if head[0] == 1, head.count == 11, head[7...10].elementsEqual([0, 60, 0, 40]) { found += 1 }
      skip = payloadLeft - (head.count - 7) + 1
      head = []
    }
    return found
  }
}
