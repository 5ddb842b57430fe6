/// Which messages of one channel the broker has not confirmed yet, and whether another may go.
///
/// The broker numbers the messages of a channel from 1 in the order in which they were published and confirms one
/// number, or all up to one. A message larger than the whole window goes alone.
package struct ConfirmWindow: Sendable {
  package let messagesMax: Int
  package let bytesMax: Int
  /// Number of the latest message published; 0 before the first.
  package private(set) var lastPublished: UInt64 = 0
  package private(set) var bytes = 0
  private var sizes: [UInt64: Int] = [:]
  /// Everything below is confirmed.
  private var oldest: UInt64 = 1

  package init(messagesMax: Int, bytesMax: Int) {
    self.messagesMax = max(1, messagesMax)
    self.bytesMax = max(1, bytesMax)
  }

  package var unconfirmed: Int { sizes.count }

  package func hasRoom(for size: Int) -> Bool {
    sizes.isEmpty || (sizes.count < messagesMax && bytes + size <= bytesMax)
  }

  /// Whether everything up to that message is confirmed.
  package func isSettled(through number: UInt64) -> Bool { oldest > number }

  /// Call it before the message is sent. Returns the message's number.
  @discardableResult
  package mutating func published(size: Int) -> UInt64 {
    lastPublished += 1
    sizes[lastPublished] = size
    bytes += size
    return lastPublished
  }

  /// Returns false for a number that was never given, or was confirmed before: the broker and hub disagree.
  package mutating func confirmed(_ number: UInt64, multiple: Bool) -> Bool {
    // 0 with `multiple` means everything outstanding.
    let last = multiple && number == 0 ? lastPublished : number
    guard last <= lastPublished else { return false }
    var known = false
    for each in (multiple ? oldest : last)..<(last + 1) {
      guard let size = sizes.removeValue(forKey: each) else { continue }
      bytes -= size
      known = true
    }
    while oldest <= lastPublished, sizes[oldest] == nil { oldest += 1 }
    return known || (multiple && number == 0)
  }
}
