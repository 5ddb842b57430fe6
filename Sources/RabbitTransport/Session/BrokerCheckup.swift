import HubEngine

/// What a look at the broker found.
package struct BrokerFacts: Sendable, Equatable {
  /// As the broker names itself: `RabbitMQ`, `3.10.8`.
  package var product: String
  package var version: String
  /// nil: no office's queue was asked for.
  package var queue: Queue?

  package struct Queue: Sendable, Equatable {
    package var name: String
    /// nil: not looked for, since only head may ask.
    package var type: Topology.QueueType?
    package var messages: Int
    package var consumers: Int
    /// Head: how it differs from what hub would declare, in the broker's words; it is kept all the same.
    package var difference: String?
  }

  /// RabbitMQ 3.10 or later, as far as it says.
  package var isSupported: Bool {
    let parts = version.split(separator: ".").map { Int($0.prefix { $0.isNumber }) ?? 0 }
    guard product == "RabbitMQ", parts.count >= 2 else { return true }
    return (parts[0], parts[1]) >= (3, 10)
  }
}

/// Looks at an office's queue and goes: takes no message and changes nothing.
actor BrokerCheckup {
  private let executor = ConnectionExecutor(name: "hub-checkup")
  private static let channel: UInt16 = 1

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  deinit { executor.stop() }

  func look(_ role: TransportRole?, _ settings: RabbitTransport.Settings) throws(TransportError) -> BrokerFacts {
    do {
      let connection = try AMQPConnection(
        settings.address, name: "\(settings.connectionName) checkup", heartbeat: settings.heartbeat
      ) { _ in }
      defer { connection.sayGoodbye() }
      var facts = BrokerFacts(product: connection.brokerSays("product"), version: connection.brokerSays("version"))
      guard let role else { return facts }
      try connection.openChannel(Self.channel)
      let name = Topology.queue(of: role)
      let (messages, consumers) = try connection.look(at: name, channel: Self.channel)
      facts.queue = BrokerFacts.Queue(name: name, messages: messages, consumers: consumers)
      if case .head = role {
        do {
          // As it is declared at every start: the broker refuses a difference, and names it.
          let queues = Topology.headQueues(offices: [], type: settings.queueType, bytesMax: settings.queueBytesMax)
          for queue in queues where queue.name == name {
            try connection.declareQueue(queue, passive: false, channel: Self.channel)
          }
          facts.queue?.type = settings.queueType
        } catch  where error.scope == .channel && error.code == 406 {
          facts.queue?.difference = error.text
        }
      }
      return facts
    } catch {
      throw error.transportError
    }
  }
}
