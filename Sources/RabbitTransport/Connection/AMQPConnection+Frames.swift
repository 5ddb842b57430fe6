import CRabbitMQ
import Glibc
import HubEngine

/// What the broker said of its own accord.
enum AMQPEvent: Sendable {
  case delivered(Delivery)
  /// What hub published reached no queue; its confirm follows.
  case returned(channel: UInt16, code: Int, text: String)
  case confirmed(channel: UInt16, number: UInt64, multiple: Bool)
  case notConfirmed(channel: UInt16, number: UInt64)
  /// The broker ended the consumer: its queue was deleted.
  case consumerCancelled
  case blocked(reason: String)
  case unblocked
  case channelClosed(channel: UInt16, AMQPFault)
  case connectionClosed(AMQPFault)
}

/// Reading. Messages are put together here, not by `amqp_read_message`: that one waits for the rest of the body
/// with the thread, and in 0.11 loses queued frames of other channels.
extension AMQPConnection {
  /// The library read input that waits in its memory, where poll(2) does not see it.
  var hasInputInMemory: Bool { amqp_frames_enqueued(state) != 0 || amqp_data_in_buffer(state) != 0 }

  /// The next event, nil when no more has arrived. Never waits; sends and checks heartbeats when they are due.
  func nextEvent() throws(AMQPFault) -> AMQPEvent? {
    while true {
      amqp_maybe_release_buffers(state)
      var frame = amqp_frame_t()
      var now = timeval(tv_sec: 0, tv_usec: 0)
      let status = timed { amqp_simple_wait_frame_noblock(state, &frame, &now) }
      if status == AMQP_STATUS_TIMEOUT.rawValue { return nil }
      if let fault = AMQPFault.status(status, doing: "stay connected to the broker") { throw fault }
      if let event = event(of: frame) { return event }
    }
  }

  private func event(of frame: amqp_frame_t) -> AMQPEvent? {
    switch Int32(frame.frame_type) {
    case AMQP_FRAME_METHOD: return event(of: frame.payload.method, channel: frame.channel)
    case AMQP_FRAME_HEADER:
      let header = frame.payload.properties
      guard let decoded = header.decoded else { return nil }
      let basic = decoded.assumingMemoryBound(to: amqp_basic_properties_t.self).pointee
      incoming[frame.channel]?.begin(size: header.body_size) { $0.read(basic) }
    case AMQP_FRAME_BODY:
      let part = frame.payload.body_fragment
      incoming[frame.channel]?.add(UnsafeRawBufferPointer(start: part.bytes, count: part.len))
    default: return nil
    }
    guard let content = incoming[frame.channel], content.isComplete else { return nil }
    incoming[frame.channel] = nil
    switch content.purpose {
    case .delivery: return .delivered(content.delivery)
    case .returned(let code, let text): return .returned(channel: frame.channel, code: code, text: text)
    }
  }

  private func event(of method: amqp_method_t, channel: UInt16) -> AMQPEvent? {
    guard let decoded = method.decoded else { return nil }
    switch method.id {
    case HUB_BASIC_DELIVER:
      let deliver = decoded.assumingMemoryBound(to: amqp_basic_deliver_t.self).pointee
      incoming[channel] = IncomingContent(
        .delivery(tag: deliver.delivery_tag, redelivered: deliver.redelivered != 0))
    case HUB_BASIC_RETURN:
      let back = decoded.assumingMemoryBound(to: amqp_basic_return_t.self).pointee
      incoming[channel] = IncomingContent(
        .returned(code: Int(back.reply_code), text: String(back.reply_text)))
    case HUB_BASIC_ACK:
      let ack = decoded.assumingMemoryBound(to: amqp_basic_ack_t.self).pointee
      return .confirmed(channel: channel, number: ack.delivery_tag, multiple: ack.multiple != 0)
    case HUB_BASIC_NACK:
      let nack = decoded.assumingMemoryBound(to: amqp_basic_nack_t.self).pointee
      return .notConfirmed(channel: channel, number: nack.delivery_tag)
    case HUB_BASIC_CANCEL: return .consumerCancelled
    case HUB_CONNECTION_BLOCKED:
      let blocked = decoded.assumingMemoryBound(to: amqp_connection_blocked_t.self).pointee
      return .blocked(reason: String(blocked.reason))
    case HUB_CONNECTION_UNBLOCKED: return .unblocked
    case HUB_CHANNEL_CLOSE:
      let fault = Self.fault(in: method, doing: "use the channel")
      incoming[channel] = nil
      confirmChannelClosed(channel)
      return .channelClosed(channel: channel, fault)
    case HUB_CONNECTION_CLOSE:
      let fault = Self.fault(in: method, doing: "stay connected to the broker")
      var closed = amqp_connection_close_ok_t()
      if socket.takesOutput { _ = timed { amqp_send_method(state, 0, HUB_CONNECTION_CLOSE_OK, &closed) } }
      return .connectionClosed(fault)
    default: break
    }
    return nil
  }
}

extension Delivery {
  fileprivate mutating func read(_ basic: amqp_basic_properties_t) {
    func text(_ flag: UInt32, _ bytes: amqp_bytes_t) -> String? {
      basic._flags & flag == 0 ? nil : String(bytes)
    }
    contentType = text(HUB_FLAG_CONTENT_TYPE, basic.content_type)
    contentEncoding = text(HUB_FLAG_CONTENT_ENCODING, basic.content_encoding)
    messageID = text(HUB_FLAG_MESSAGE_ID, basic.message_id)
    userID = text(HUB_FLAG_USER_ID, basic.user_id)
    appID = text(HUB_FLAG_APP_ID, basic.app_id)
  }
}
