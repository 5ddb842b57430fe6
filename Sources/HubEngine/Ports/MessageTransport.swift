/// Where a message goes.
package enum Destination: Hashable, Sendable {
  /// The fanout exchange `hub.to-head`.
  case head
  /// The fanout exchange `hub.to-branches`.
  case branches
  /// One office's queue, through the default exchange.
  case office(String)
  /// The queue of somebody who asks to be a member, by the nonce of the request.
  case newcomer(Int64)
}

/// The broker's number of a delivery, unique in one session.
package struct DeliveryTag: Hashable, Sendable, RawRepresentable {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
}

package struct Delivery: Sendable {
  package var tag: DeliveryTag
  package var body: [UInt8]
  package var contentType: String?
  package var contentEncoding: String?
  package var redelivered: Bool
  package var messageID: String?
  /// Validated by the broker when set.
  package var userID: String?
  package var appID: String?

  package init(
    tag: DeliveryTag, body: [UInt8], contentType: String?, contentEncoding: String?, redelivered: Bool,
    messageID: String?, userID: String?, appID: String?
  ) {
    self.tag = tag
    self.body = body
    self.contentType = contentType
    self.contentEncoding = contentEncoding
    self.redelivered = redelivered
    self.messageID = messageID
    self.userID = userID
    self.appID = appID
  }
}

/// Which role this office has at the broker.
package enum TransportRole: Hashable, Sendable {
  /// Declares exchanges, the dead-letter queue, its own queue and one queue for each of `offices`, at every
  /// connection and before anything is published: a wiped broker has none of them.
  case head(offices: [String])
  /// Declares nothing; consumes its own queue.
  /// `empties`: what waits in the queue is of no use, it is dropped however short the queue is.
  case branch(office: String, empties: Bool = false)
  /// Publishes at once, and consumes the queue of its nonce from when head has declared it. No office's queue is
  /// touched: the name that it asks for may be another's.
  case newcomer(nonce: Int64)
}

/// Opens connections to the broker. One session is two connections (publishing, consuming); after any error the
/// session is dead as a whole and the caller opens another: no state is carried over, what was not confirmed is
/// unsent.
package protocol MessageTransport: Sendable {
  func open(_ role: TransportRole) async throws(TransportError) -> any TransportSession
}

package protocol TransportSession: Sendable {
  /// The next delivery of the office's queue; waits. Throws when the session is dead, also when the queue was
  /// deleted or another consumer holds it.
  func next() async throws(TransportError) -> Delivery
  /// Sends persistently; returns once the broker has the message within the confirm window: it waits only
  /// while too many messages are unconfirmed or the broker blocks publishers.
  func publish(_ body: [UInt8], to destination: Destination, messageID: String) async throws(TransportError)
  /// Returns when everything published so far is confirmed.
  func confirmed() async throws(TransportError)
  /// The delivery's work is durable.
  func acknowledge(_ tag: DeliveryTag) async throws(TransportError)
  /// The delivery cannot be understood: to the dead-letter queue.
  func reject(_ tag: DeliveryTag) async throws(TransportError)
  /// Head only: declares and binds a new office's queue.
  func declareOffice(_ name: String) async throws(TransportError)
  /// Head only: declares the queue in which somebody who asks to be a member finds the answer; it goes by itself.
  func declareNewcomer(_ nonce: Int64) async throws(TransportError)
  /// Head only: empties an office's queue that has more messages than the office would read when it comes.
  func shortenQueue(of office: String) async throws(TransportError)
  /// Head only: deletes an office's queue.
  func deleteOffice(_ name: String) async throws(TransportError)
  /// The broker blocks publishers (an alarm): for status.
  var isBlocked: Bool { get async }
  /// A message has come in part: the rest, and what waits behind it, is on its way.
  var isReceiving: Bool { get async }
  /// Published and not yet confirmed by the broker.
  var unconfirmedBytes: Int { get async }
  /// Ends both connections; deliveries not acknowledged go back to the queue. Safe to call twice.
  func close() async
}

/// What the broker, or the way to it, refused.
package struct TransportError: Error, Sendable, CustomStringConvertible {
  package enum Kind: String, Sendable {
    /// Nobody answers, or the connection broke: try again later.
    case unreachable
    /// User, password or virtual host refused.
    case refused
    /// The office's queue does not exist (deleted, or the broker was wiped): head declares it again.
    case queueMissing
    /// Another consumer holds the office's queue.
    case queueInUse
    /// The broker refused an operation (permissions, arguments).
    case notAllowed
    /// The URL cannot be read.
    case badURL
    /// `close` was called.
    case closed
  }

  package var kind: Kind
  package var message: String

  package init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }

  package var description: String { message }
}
