import CRabbitMQ

/// Requests: the thread waits for the broker's answer. A fault of scope `.channel` has ended that channel only.
extension AMQPConnection {
  func openChannel(_ channel: amqp_channel_t) throws(AMQPFault) {
    _ = timed { amqp_channel_open(state, channel) }
    try check("open a channel", channel)
  }

  func closeChannel(_ channel: amqp_channel_t) throws(AMQPFault) {
    let reply = timed { amqp_channel_close(state, channel, AMQP_REPLY_SUCCESS) }
    if let fault = Self.fault(in: reply, doing: "close a channel") { throw fault }
  }

  func selectConfirms(_ channel: amqp_channel_t) throws(AMQPFault) {
    _ = timed { amqp_confirm_select(state, channel) }
    try check("ask for publisher confirms", channel)
  }

  func declareExchange(_ name: String, channel: amqp_channel_t) throws(AMQPFault) {
    var arena = AMQPArena()
    let (exchange, kind) = (arena.bytes(name), arena.bytes("fanout"))
    _ = timed { amqp_exchange_declare(state, channel, exchange, kind, 0, 1, 0, 0, amqp_empty_table) }
    try check("declare exchange \(name)", channel)
  }

  /// With `passive` the broker only says whether the queue exists (404 if not).
  func declareQueue(_ queue: Topology.Queue, passive: Bool, channel: amqp_channel_t) throws(AMQPFault) {
    var arena = AMQPArena()
    let name = arena.bytes(queue.name)
    let arguments = passive ? amqp_empty_table : arena.table(queue.arguments(brokerMajor: brokerMajor))
    _ = timed { amqp_queue_declare(state, channel, name, passive ? 1 : 0, 1, 0, 0, arguments) }
    try check("declare queue \(queue.name)", channel)
  }

  func bind(queue: String, to exchange: String, channel: amqp_channel_t) throws(AMQPFault) {
    var arena = AMQPArena()
    let (name, source) = (arena.bytes(queue), arena.bytes(exchange))
    _ = timed { amqp_queue_bind(state, channel, name, source, amqp_empty_bytes, amqp_empty_table) }
    try check("bind queue \(queue) to exchange \(exchange)", channel)
  }

  func deleteQueue(_ name: String, channel: amqp_channel_t) throws(AMQPFault) {
    var arena = AMQPArena()
    let queue = arena.bytes(name)
    _ = timed { amqp_queue_delete(state, channel, queue, 0, 0) }
    try check("delete queue \(name)", channel)
  }

  /// Messages that wait in a queue, and who reads it.
  func look(at name: String, channel: amqp_channel_t) throws(AMQPFault) -> (messages: Int, consumers: Int) {
    var arena = AMQPArena()
    let queue = arena.bytes(name)
    let answer = timed { amqp_queue_declare(state, channel, queue, 1, 1, 0, 0, amqp_empty_table) }
    try check("look at queue \(name)", channel)
    return answer.map { (Int($0.pointee.message_count), Int($0.pointee.consumer_count)) } ?? (0, 0)
  }

  func purge(_ name: String, channel: amqp_channel_t) throws(AMQPFault) {
    var arena = AMQPArena()
    let queue = arena.bytes(name)
    _ = timed { amqp_queue_purge(state, channel, queue) }
    try check("purge queue \(name)", channel)
  }

  /// Starts deliveries, at most `prefetch` of them unacknowledged.
  func consume(
    queue: String, exclusively: Bool, prefetch: UInt16, channel: amqp_channel_t
  ) throws(AMQPFault) {
    _ = timed { amqp_basic_qos(state, channel, 0, prefetch, 0) }
    try check("limit deliveries to \(prefetch)", channel)
    var arena = AMQPArena()
    let name = arena.bytes(queue)
    _ = timed {
      amqp_basic_consume(state, channel, name, amqp_empty_bytes, 0, 0, exclusively ? 1 : 0, amqp_empty_table)
    }
    try check("consume queue \(queue)", channel)
  }

  private func check(_ doing: String, _ channel: amqp_channel_t) throws(AMQPFault) {
    guard let fault = Self.fault(in: amqp_get_rpc_reply(state), doing: doing) else { return }
    if fault.scope == .channel { confirmChannelClosed(channel) }
    throw fault
  }

  /// The broker keeps a channel it closed until hub has said that it knows.
  func confirmChannelClosed(_ channel: amqp_channel_t) {
    var closed = amqp_channel_close_ok_t()
    _ = timed { amqp_send_method(state, channel, HUB_CHANNEL_CLOSE_OK, &closed) }
  }
}

extension Topology.Queue {
  func arguments(brokerMajor: Int) -> [(String, AMQPValue)] {
    var list: [(String, AMQPValue)] = [
      ("x-queue-type", .text(type.rawValue)), ("x-max-length-bytes", .number(bytesMax)),
      ("x-overflow", .text("drop-head")),
    ]
    if let expires { list.append(("x-expires", .number(expires.components.seconds * 1000))) }
    // Quorum queues know no exclusive consumer.
    if type == .quorum { list.append(("x-single-active-consumer", .truth(true))) }
    // From 4.0 on they drop a message after 20 deliveries unless told -1. Earlier ones have no limit, and take -1 for
    // one: 3.10 drops a message when its consumer goes away (seen).
    if type == .quorum, brokerMajor >= 4 { list.append(("x-delivery-limit", .number(-1))) }
    return list
  }
}
