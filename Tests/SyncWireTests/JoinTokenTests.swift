import SyncWire
import Testing

@Suite struct JoinTokenTests {
  static let token = JoinToken(
    broker: "amqps://north:p%40ss@broker.example.org:5671/hub",
    authority: "-----BEGIN CERTIFICATE-----\nMIIB0zCCAXmgAwIBAgIUQ4\n-----END CERTIFICATE-----\n",
    office: "north",
    secret: [UInt8](0..<32), head: "head", expiresAt: 1_790_000_000_000_000)

  @Test func aTokenIsOneReadableLineThatGivesItBack() throws {
    let text = try Self.token.text()
    #expect(text.hasPrefix("hub1."))
    #expect(
      text.utf8.dropFirst(5).allSatisfy {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8.contains($0)
      })
    #expect(try JoinToken(text: text) == Self.token)
    #expect(try JoinToken(text: " \t\(text)\r\n") == Self.token)
    var without = Self.token
    for length in 1...5 {
      without.authority = nil
      without.secret = [UInt8](repeating: 255, count: length)
      #expect(try JoinToken(text: without.text()) == without)
    }
  }

  @Test func everyChangeOfOneCharacterIsRefused() throws {
    let text = Array(try Self.token.text().utf8)
    for index in text.indices {
      for character in UInt8(0)...127 where character != text[index] {
        var changed = text
        changed[index] = character
        #expect(throws: JoinTokenError.self, "\(character) at \(index)") {
          try JoinToken(text: String(decoding: changed, as: UTF8.self))
        }
      }
    }
  }

  @Test func everyMissingAddedOrSwappedCharacterIsRefused() throws {
    let text = Array(try Self.token.text().utf8)
    for index in text.indices {
      var shorter = text
      shorter.remove(at: index)
      var longer = text
      longer.insert(text[index], at: index)
      var swapped = text
      if index > 0 { swapped.swapAt(index, index - 1) }
      for changed in [shorter, longer, swapped, Array(text[..<index]), Array(text[index...])]
      where changed != text {
        #expect(throws: JoinTokenError.self, "at \(index)") {
          try JoinToken(text: String(decoding: changed, as: UTF8.self))
        }
      }
    }
  }

  @Test func theErrorSaysWhatToDo() throws {
    let text = try Self.token.text()
    let cases: [(String, String)] = [
      ("", "this is no token: it begins with 'hub1.', as `hub invite` prints it"),
      ("amqp://localhost", "this is no token: it begins with 'hub1.', as `hub invite` prints it"),
      ("hub", "this is no token: it begins with 'hub1.', as `hub invite` prints it"),
      ("hub+1.AAAA", "this is no token: it begins with 'hub1.', as `hub invite` prints it"),
      (
        "hub2." + text.dropFirst(5), "the token has version 2, this hub reads version 1: update the older hub"
      ),
      (
        String(text.dropLast()),
        "the token is incomplete or was changed: copy the whole line that `hub invite` printed"
      ),
      ("hub1.", "the token is incomplete or was changed: copy the whole line that `hub invite` printed"),
    ]
    for (line, message) in cases {
      let error = #expect(throws: JoinTokenError.self) { try JoinToken(text: line) }
      #expect(error?.description == message)
    }
  }

  @Test func aTokenNeverPrintsItsSecret() {
    var printed = "\(Self.token) \(String(reflecting: Self.token))"
    dump(Self.token, to: &printed)
    #expect(!printed.contains("p%40ss") && !printed.contains("31"))
  }

  @Test func whatNoOfficeCanUseIsNotWritten() {
    var token = Self.token
    token.office = "North"
    #expect(throws: JoinTokenError.malformed("an office's name is not 1 to 32 of a-z, 0-9 and -")) {
      try token.text()
    }
    token = Self.token
    token.secret = []
    #expect(throws: JoinTokenError.malformed("the secret is empty or too long")) { try token.text() }
  }

  @Test func aTokenEndsAtItsTime() {
    #expect(!Self.token.isExpired(at: Self.token.expiresAt - 1))
    #expect(Self.token.isExpired(at: Self.token.expiresAt))
  }

  @Test func randomTextIsRefused() {
    var random = SeededRandom(seed: 4)
    for _ in 0..<2_000 {
      let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      let text = String(decoding: bytes, as: UTF8.self)
      #expect(throws: JoinTokenError.self) { try JoinToken(text: text) }
      #expect(throws: JoinTokenError.self) { try JoinToken(text: "hub1." + text) }
    }
  }
}
