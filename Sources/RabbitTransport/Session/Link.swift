import HubEngine

/// What both connections of a session share: they live on a thread of their own, read what the broker sends, serve
/// heartbeats while nothing happens, and die with the session.
protocol Link: Actor {
  nonisolated var executor: ConnectionExecutor { get }
  nonisolated var fate: SessionFate { get }
  var connection: AMQPConnection? { get set }
  /// Blocked by an alarm: the broker would not hear a farewell.
  var isDeaf: Bool { get }
  func handle(_ event: AMQPEvent)
}

extension Link {
  /// How long an idle link sleeps between looks at its heartbeats and at the other link's thread.
  private var glance: Duration { .seconds(1) }

  /// Runs calls on the living connection; a fault ends the session.
  func attempt<Value>(
    _ calls: (AMQPConnection) throws(AMQPFault) -> Value
  ) throws(TransportError) -> Value {
    if let error = fate.error { throw error }
    guard let connection else { throw TransportError(.closed, "not connected") }
    do {
      return try calls(connection)
    } catch {
      throw fate.end(error.transportError)
    }
  }

  /// Handles everything that has arrived.
  func drain() throws(TransportError) {
    while let event = try attempt({ (c) throws(AMQPFault) in try c.nextEvent() }) {
      handle(event)
    }
    if let error = fate.error { throw error }
  }

  /// Calls of the library may have read input beside their own; poll(2) would not tell the pump of it.
  func drainMemory() throws(TransportError) {
    if connection?.hasInputInMemory == true { try drain() }
  }

  /// Lives as long as the session: reads, and at the end takes leave and lets the connection go.
  func pump() async {
    guard let socket = connection?.socket else { return }
    while fate.error == nil {
      do { try drain() } catch { break }
      _ = await executor.readable(socket.descriptor, within: glance)
      fate.endIfStuck()
    }
    if fate.allowsFarewell, !isDeaf { connection?.sayGoodbye() }
    connection = nil
    fate.remove(socket)
  }
}
