import Dispatch
import Glibc
import HubDashboard
import HubEngine
import Testing

@Suite(.serialized)
struct PageServerTests {
  /// A server on a free port while `body` runs, on a thread that may wait.
  private func with(_ body: @escaping @Sendable (UInt16) throws -> Void) async throws {
    let server = try await PageServer(
      listeningAt: try #require(ListenAddress("0")), pages: ["/page": { .init("hello\n") }])
    let port = try #require(ListenAddress(server.address)?.port)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try? await server.run() }
      try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(with: Result { try body(UInt16(port)) }) }
      }
      group.cancelAll()
    }
  }

  @Test("a page, its head alone, and what is not there")
  func pages() async throws {
    try await with { port in
      let page = try ask(port, "GET /page?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      #expect(page.hasPrefix("HTTP/1.1 200 OK\r\n"))
      #expect(page.contains("content-length: 6\r\n") && page.contains("cache-control: no-store\r\n"))
      #expect(page.hasSuffix("\r\n\r\nhello\n"))
      let head = try ask(port, "HEAD /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      #expect(head.contains("content-length: 6\r\n") && head.hasSuffix("\r\n\r\n"))
      let none = try ask(port, "GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      #expect(none.hasPrefix("HTTP/1.1 404 ") && none.contains("/page"))
    }
  }

  @Test("several requests on one connection are answered in order")
  func keptAlive() async throws {
    try await with { port in
      let both = try ask(
        port,
        "GET /page HTTP/1.1\r\nhost: x\r\n\r\nGET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      let first = try #require(both.firstRange(of: "200 OK"))
      let second = try #require(both.firstRange(of: "404 Not Found"))
      #expect(first.lowerBound < second.lowerBound)
    }
  }

  @Test(
    "nothing but reading is allowed",
    arguments: [
      ("POST /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
      ("DELETE /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
      ("POST /page HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", "413"),
      ("GET /page HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "413"),
      ("\u{16}\u{3}\u{1} this is no HTTP\r\n\r\n", "400"),
    ])
  func refused(request: String, status: String) async throws {
    try await with { port in
      let (refusal, next) = (try ask(port, request), try ask(port, "GET /page HTTP/1.0\r\n\r\n"))
      #expect(refusal.hasPrefix("HTTP/1.1 \(status) "), "\(refusal)")
      #expect(next.hasSuffix("hello\n"))
    }
  }

  @Test("more clients than a monitor has are sent away, and the others are served")
  func crowd() async throws {
    try await with { port in
      let waiting = try (0..<64).map { _ in try open(port) }
      // The server takes them one after the other.
      for client in waiting {
        try send(client, "GET /page HTTP/1.1\r\nhost: x\r\n\r\n")
        let answer = try receive(client, until: "hello\n")
        #expect(answer.hasSuffix("hello\n"))
      }
      let turnedAway = try ask(port, "GET /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
      #expect(turnedAway == "")
      for client in waiting { close(client) }
      var answer = ""
      for _ in 0..<500 where answer.isEmpty {
        answer = try ask(port, "GET /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        if answer.isEmpty { usleep(10_000) }
      }
      #expect(answer.hasSuffix("hello\n"))
    }
  }

  @Test("an address that is taken is a clear error")
  func taken() async throws {
    let server = try await PageServer(listeningAt: try #require(ListenAddress("0")), pages: [:])
    let address = try #require(ListenAddress(server.address))
    let error = await #expect(throws: HubError.self) { _ = try await PageServer(listeningAt: address, pages: [:]) }
    #expect(error?.message.hasPrefix("cannot listen at \(address): ") == true, "\(String(describing: error))")
    #expect(error?.message.contains("Address already in use") == true, "\(String(describing: error))")
  }
}

private struct Failed: Error { var what: String }

/// What comes back until the server closes; a reset after it is an end, too.
private func ask(_ port: UInt16, _ request: String) throws -> String {
  let descriptor = try open(port)
  defer { close(descriptor) }
  try? send(descriptor, request)
  return try receive(descriptor, until: nil)
}

private func open(_ port: UInt16) throws -> Int32 {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var patience = timeval(tv_sec: 20, tv_usec: 0)
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
  let connected = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
    }
  }
  guard connected else { throw Failed(what: "no connection") }
  return descriptor
}

private func send(_ descriptor: Int32, _ text: String) throws {
  let bytes = Array(text.utf8)
  guard send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
    throw Failed(what: "not sent")
  }
}

private func receive(_ descriptor: Int32, until end: String?) throws -> String {
  var received: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count < 0 && errno == EAGAIN { throw Failed(what: "nothing came for 20 s") }
    if count <= 0 { break }
    received += buffer[..<count]
    if let end, String(decoding: received, as: UTF8.self).hasSuffix(end) { break }
  }
  return String(decoding: received, as: UTF8.self)
}
