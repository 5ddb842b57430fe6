import CRabbitMQ
import Glibc
import HubEngine

/// One connection to the broker: thin calls into rabbitmq-c with typed results and faults.
///
/// Not `Sendable`: it lives inside one actor, on that actor's thread. Requests block the thread for at most
/// `Limits.request`; frames are read without blocking (`AMQPConnection+Frames.swift`).
final class AMQPConnection {
  enum Limits {
    static let connect: Duration = .seconds(6)
    static let login: Duration = .seconds(8)
    static let request: Duration = .seconds(10)
    static let farewell: Duration = .seconds(1)
    /// Well below a third of the socket's buffer, see `SocketHandle`.
    static let frameBytesMax = 64 << 10
  }

  let state: amqp_connection_state_t
  let socket: SocketHandle
  /// Bytes of a body in one frame.
  let frameBodyMax: Int
  /// Messages that are arriving, by channel.
  var incoming: [amqp_channel_t: IncomingContent] = [:]

  /// Connects and logs in; `connected` hears of the socket before the login.
  init(
    _ address: BrokerAddress, name: String, heartbeat: Duration, connected: (SocketHandle) -> Void
  ) throws(AMQPFault) {
    guard let state = amqp_new_connection() else {
      throw AMQPFault(
        scope: .library, code: Int(AMQP_STATUS_NO_MEMORY.rawValue), text: "out of memory", doing: "connect")
    }
    do {
      socket = try Self.connect(state, address)
      connected(socket)
      try Self.logIn(state, address, name: name, heartbeat: heartbeat)
    } catch {
      amqp_destroy_connection(state)
      throw error
    }
    self.state = state
    frameBodyMax = Int(amqp_get_frame_max(state)) - 8
    Self.withTimeval(Limits.request) { _ = amqp_set_rpc_timeout(state, $0) }
  }

  deinit { amqp_destroy_connection(state) }

  /// Tells the broker, so that what was sent before surely arrives and its log shows no lost connection.
  func sayGoodbye() {
    guard amqp_get_sockfd(state) >= 0 else { return }
    Self.withTimeval(Limits.farewell) { _ = amqp_set_rpc_timeout(state, $0) }
    _ = timed { amqp_connection_close(state, AMQP_REPLY_SUCCESS) }
  }

  /// Runs a call that may block, seen by the watchdog (`SessionFate.endIfStuck`).
  func timed<Result>(_ call: () -> Result) -> Result {
    socket.entering()
    defer { socket.left() }
    return call()
  }

  /// 3 for RabbitMQ 3.10.8; 0 when the broker does not say.
  var brokerMajor: Int { Int(brokerSays("version").prefix { $0.isNumber }) ?? 0 }

  /// One of the broker's properties, as text; empty when it does not say.
  func brokerSays(_ property: String) -> String {
    guard let table = amqp_get_server_properties(state)?.pointee, let entries = table.entries else { return "" }
    for index in 0..<Int(table.num_entries) where String(entries[index].key) == property {
      return String(hub_text(entries[index].value))
    }
    return ""
  }

  // MARK: Opening

  private static func connect(
    _ state: amqp_connection_state_t, _ address: BrokerAddress
  ) throws(AMQPFault) -> SocketHandle {
    let place = address.host.contains(":") ? "[\(address.host)]" : address.host
    let doing = "reach the broker at \(place):\(address.port)"
    guard let socket = try address.isEncrypted ? encryptedSocket(state, address) : amqp_tcp_socket_new(state)
    else {
      throw AMQPFault(
        scope: .library, code: Int(AMQP_STATUS_NO_MEMORY.rawValue), text: "no socket", doing: doing)
    }
    var status: Int32 = 0
    withTimeval(Limits.connect) {
      status = amqp_socket_open_noblock(socket, address.host, Int32(address.port), $0)
    }
    if var fault = AMQPFault.status(status, doing: doing) {
      if status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED.rawValue {
        fault.text +=
          "; its certificate must name the host as the URL does, by DNS name: no IP address is accepted"
      } else if status == AMQP_STATUS_SOCKET_ERROR.rawValue {
        fault.text = "nobody answers there"
      }
      throw fault
    }
    guard let handle = SocketHandle(duplicating: amqp_get_sockfd(state)) else {
      throw AMQPFault(
        scope: .library, code: Int(AMQP_STATUS_SOCKET_ERROR.rawValue), text: "out of file descriptors",
        doing: doing)
    }
    return handle
  }

  /// TLS 1.2 or later, certificate and host name verified.
  private static func encryptedSocket(
    _ state: amqp_connection_state_t, _ address: BrokerAddress
  ) throws(AMQPFault) -> OpaquePointer? {
    guard let socket = amqp_ssl_socket_new(state) else { return nil }
    amqp_ssl_socket_set_verify_peer(socket, 1)
    amqp_ssl_socket_set_verify_hostname(socket, 1)
    let versions = amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST)
    if let fault = AMQPFault.status(versions, doing: "ask for TLS 1.2") { throw fault }
    // rabbitmq-c 0.11 loads no authorities of its own.
    let file = address.authorityFile ?? "/etc/ssl/certs/ca-certificates.crt"
    let authorities = amqp_ssl_socket_set_cacert(socket, file)
    if let fault = AMQPFault.status(authorities, doing: "read the certificate authorities in \(file)") {
      throw fault
    }
    return socket
  }

  private static func logIn(
    _ state: amqp_connection_state_t, _ address: BrokerAddress, name: String, heartbeat: Duration
  ) throws(AMQPFault) {
    withTimeval(Limits.login) { _ = amqp_set_handshake_timeout(state, $0) }
    let reply = hub_login(
      state, address.virtualHost, Int32(Limits.frameBytesMax), Int32(clamping: heartbeat.components.seconds),
      name,
      address.user, address.password)
    if let fault = fault(in: reply, doing: "log in as \(address.user) at virtual host \(address.virtualHost)") {
      throw fault
    }
  }

  static func withTimeval(_ duration: Duration, _ body: (UnsafePointer<timeval>) -> Void) {
    let parts = duration.components
    var value = timeval(tv_sec: Int(parts.seconds), tv_usec: Int(parts.attoseconds / 1_000_000_000_000))
    withUnsafePointer(to: &value, body)
  }

  static func fault(in reply: amqp_rpc_reply_t, doing: String) -> AMQPFault? {
    switch reply.reply_type {
    case AMQP_RESPONSE_NORMAL: nil
    case AMQP_RESPONSE_SERVER_EXCEPTION: fault(in: reply.reply, doing: doing)
    default: AMQPFault.status(min(-1, reply.library_error), doing: doing)
    }
  }

  /// The reason in a channel.close or connection.close.
  static func fault(in method: amqp_method_t, doing: String) -> AMQPFault {
    let scope: AMQPFault.Scope = method.id == HUB_CHANNEL_CLOSE ? .channel : .connection
    guard let decoded = method.decoded else {
      return AMQPFault(scope: scope, code: 0, text: "no reason given", doing: doing)
    }
    if scope == .channel {
      let close = decoded.assumingMemoryBound(to: amqp_channel_close_t.self).pointee
      return AMQPFault(
        scope: scope, code: Int(close.reply_code), text: String(close.reply_text), doing: doing)
    }
    let close = decoded.assumingMemoryBound(to: amqp_connection_close_t.self).pointee
    return AMQPFault(scope: scope, code: Int(close.reply_code), text: String(close.reply_text), doing: doing)
  }
}
