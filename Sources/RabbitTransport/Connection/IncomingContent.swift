import HubEngine

/// A message that is arriving: the method came, then a header with the properties, then frames of the body until
/// the announced size is reached.
///
/// Of a body beyond `bodyBytesMax` the first part is kept: the receiver cannot decode it and rejects it, which is
/// what such a message deserves, and it never fills the memory.
struct IncomingContent {
  static let bodyBytesMax = 16 << 20

  enum Purpose {
    case delivery(tag: UInt64, redelivered: Bool)
    /// The broker could not route what hub published.
    case returned(code: Int, text: String)
  }

  var purpose: Purpose
  private var size: UInt64?
  private var received: UInt64 = 0
  private(set) var delivery: Delivery

  init(_ purpose: Purpose) {
    self.purpose = purpose
    var tag: UInt64 = 0
    var redelivered = false
    if case .delivery(let number, let again) = purpose { (tag, redelivered) = (number, again) }
    delivery = Delivery(
      tag: DeliveryTag(rawValue: tag), body: [], contentType: nil, contentEncoding: nil,
      redelivered: redelivered,
      messageID: nil, userID: nil, appID: nil)
  }

  var isComplete: Bool { size.map { received >= $0 } ?? false }

  mutating func begin(size: UInt64, _ properties: (inout Delivery) -> Void) {
    self.size = size
    delivery.body.reserveCapacity(Int(min(size, UInt64(Self.bodyBytesMax))))
    properties(&delivery)
  }

  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    received += UInt64(bytes.count)
    delivery.body.append(contentsOf: bytes.prefix(Self.bodyBytesMax - delivery.body.count))
  }
}
