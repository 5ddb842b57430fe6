import CRabbitMQ
import Glibc

/// What hub writes on a message.
struct OutgoingProperties: Hashable, Sendable {
  var messageID: String?
  var userID: String
  var contentType: String? = "application/x-protobuf"
  var contentEncoding: String? = "zstd"
  var headers: [Header] = []

  struct Header: Hashable, Sendable {
    var name: String
    var value: AMQPValue
  }
}

/// Sending. Each call sends at most one frame of body, which the socket has room for if it takes output at all.
extension AMQPConnection {
  /// Sends a whole message that fits one frame; the library joins its frames into one write.
  func publish(
    _ body: [UInt8], to route: (exchange: String, key: String), mandatory: Bool,
    _ properties: OutgoingProperties,
    channel: amqp_channel_t
  ) throws(AMQPFault) {
    var arena = AMQPArena()
    let (exchange, key) = (arena.bytes(route.exchange), arena.bytes(route.key))
    var basic = basicProperties(properties, &arena)
    let status = body.withUnsafeBytes { bytes in
      timed {
        amqp_basic_publish(
          state, channel, exchange, key, mandatory ? 1 : 0, 0, &basic,
          amqp_bytes_t(len: bytes.count, bytes: UnsafeMutableRawPointer(mutating: bytes.baseAddress)))
      }
    }
    if let fault = AMQPFault.status(status, doing: "publish") { throw fault }
  }

  /// Announces a message whose body follows in several frames (`sendBody`), with nothing else on that channel
  /// in between.
  func beginPublish(
    size: Int, to route: (exchange: String, key: String), mandatory: Bool, _ properties: OutgoingProperties,
    channel: amqp_channel_t
  ) throws(AMQPFault) {
    var arena = AMQPArena()
    var method = amqp_basic_publish_t()
    method.exchange = arena.bytes(route.exchange)
    method.routing_key = arena.bytes(route.key)
    method.mandatory = mandatory ? 1 : 0
    let sent = timed { amqp_send_method(state, channel, HUB_BASIC_PUBLISH, &method) }
    if let fault = AMQPFault.status(sent, doing: "publish") { throw fault }
    var basic = basicProperties(properties, &arena)
    let status = withUnsafeMutablePointer(to: &basic) { pointer in
      var frame = amqp_frame_t()
      frame.frame_type = UInt8(AMQP_FRAME_HEADER)
      frame.channel = channel
      frame.payload.properties.class_id = UInt16(AMQP_BASIC_CLASS)
      frame.payload.properties.body_size = UInt64(size)
      frame.payload.properties.decoded = UnsafeMutableRawPointer(pointer)
      return timed { amqp_send_frame(state, &frame) }
    }
    if let fault = AMQPFault.status(status, doing: "publish") { throw fault }
  }

  func sendBody(_ part: ArraySlice<UInt8>, channel: amqp_channel_t) throws(AMQPFault) {
    let status = part.withUnsafeBytes { bytes in
      var frame = amqp_frame_t()
      frame.frame_type = UInt8(AMQP_FRAME_BODY)
      frame.channel = channel
      frame.payload.body_fragment = amqp_bytes_t(
        len: bytes.count, bytes: UnsafeMutableRawPointer(mutating: bytes.baseAddress))
      return timed { amqp_send_frame(state, &frame) }
    }
    if let fault = AMQPFault.status(status, doing: "publish") { throw fault }
  }

  func acknowledge(_ tag: UInt64, channel: amqp_channel_t) throws(AMQPFault) {
    let status = timed { amqp_basic_ack(state, channel, tag, 0) }
    if let fault = AMQPFault.status(status, doing: "acknowledge a delivery") { throw fault }
  }

  private func basicProperties(
    _ properties: OutgoingProperties, _ arena: inout AMQPArena
  ) -> amqp_basic_properties_t {
    var basic = amqp_basic_properties_t()
    basic._flags = HUB_FLAG_DELIVERY_MODE | HUB_FLAG_TIMESTAMP | HUB_FLAG_APP_ID | HUB_FLAG_USER_ID
    basic.delivery_mode = UInt8(AMQP_DELIVERY_PERSISTENT.rawValue)
    basic.timestamp = UInt64(max(0, time(nil)))
    basic.app_id = arena.bytes("hub")
    basic.user_id = arena.bytes(properties.userID)
    if let text = properties.contentType {
      basic._flags |= HUB_FLAG_CONTENT_TYPE
      basic.content_type = arena.bytes(text)
    }
    if let text = properties.contentEncoding {
      basic._flags |= HUB_FLAG_CONTENT_ENCODING
      basic.content_encoding = arena.bytes(text)
    }
    if let text = properties.messageID {
      basic._flags |= HUB_FLAG_MESSAGE_ID
      basic.message_id = arena.bytes(text)
    }
    if !properties.headers.isEmpty {
      basic._flags |= HUB_FLAG_HEADERS
      basic.headers = arena.table(properties.headers.map { ($0.name, $0.value) })
    }
    return basic
  }
}
