import RabbitTransport
import Testing

@Suite struct ConfirmWindowTests {
  @Test func theWindowIsFullAtItsNumberOfMessages() {
    var window = ConfirmWindow(messagesMax: 2, bytesMax: 100)
    let first = window.published(size: 1)
    #expect(window.hasRoom(for: 1))
    let second = window.published(size: 1)
    #expect([first, second] == [1, 2])
    #expect(!window.hasRoom(for: 1))
    expect(window.confirmed(1, multiple: false))
    #expect(window.hasRoom(for: 1))
  }

  @Test func theWindowIsFullAtItsBytes() {
    var window = ConfirmWindow(messagesMax: 10, bytesMax: 100)
    window.published(size: 60)
    #expect(window.hasRoom(for: 40))
    #expect(!window.hasRoom(for: 41))
    #expect(window.bytes == 60)
  }

  @Test func aMessageLargerThanTheWindowGoesAlone() {
    var window = ConfirmWindow(messagesMax: 10, bytesMax: 100)
    #expect(window.hasRoom(for: 500))
    window.published(size: 500)
    #expect(!window.hasRoom(for: 0))
    expect(window.confirmed(1, multiple: false))
    #expect(window.hasRoom(for: 500))
  }

  @Test("BRK-04: a confirm of several settles all up to its number")
  func aConfirmOfSeveralSettlesAllUpToItsNumber() {
    var window = ConfirmWindow(messagesMax: 10, bytesMax: 100)
    for _ in 1...5 { window.published(size: 10) }
    expect(window.confirmed(3, multiple: true))
    #expect(window.isSettled(through: 3))
    #expect(!window.isSettled(through: 4))
    #expect(window.bytes == 20)
    expect(window.confirmed(0, multiple: true))
    #expect(window.isSettled(through: 5))
    #expect(window.unconfirmed == 0)
  }

  @Test func nothingIsSettledBeyondTheFirstUnconfirmedMessage() {
    var window = ConfirmWindow(messagesMax: 10, bytesMax: 100)
    for _ in 1...3 { window.published(size: 1) }
    expect(window.confirmed(3, multiple: false))
    expect(window.confirmed(2, multiple: false))
    #expect(!window.isSettled(through: 1))
    expect(window.confirmed(1, multiple: false))
    #expect(window.isSettled(through: 3))
  }

  @Test func nothingPublishedIsSettled() {
    #expect(ConfirmWindow(messagesMax: 1, bytesMax: 1).isSettled(through: 0))
  }

  @Test func aConfirmOfWhatWasNeverSentIsNoticed() {
    var window = ConfirmWindow(messagesMax: 10, bytesMax: 100)
    expect(window.confirmed(1, multiple: false), false)
    expect(window.confirmed(9, multiple: true), false)
    window.published(size: 1)
    expect(window.confirmed(1, multiple: false))
    expect(window.confirmed(1, multiple: false), false)
    expect(window.confirmed(UInt64.max, multiple: true), false)
  }

  @Test func anyOrderOfConfirmsEmptiesTheWindow() {
    var random = SystemRandomNumberGenerator()
    for _ in 1...200 {
      var window = ConfirmWindow(messagesMax: 50, bytesMax: 5000)
      var open = (1...50).map { _ in window.published(size: 7) }
      while let number = open.randomElement(using: &random) {
        let multiple = Bool.random(using: &random)
        expect(window.confirmed(number, multiple: multiple))
        open.removeAll { multiple ? $0 <= number : $0 == number }
        #expect(window.unconfirmed == open.count)
        #expect(window.bytes == open.count * 7)
        #expect(window.isSettled(through: (open.min() ?? 51) - 1))
      }
      #expect(window.isSettled(through: 50))
    }
  }

  /// `#expect` cannot hold a mutating call.
  private func expect(_ known: Bool, _ wanted: Bool = true, at location: SourceLocation = #_sourceLocation) {
    #expect(known == wanted, sourceLocation: location)
  }
}
