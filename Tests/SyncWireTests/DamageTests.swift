import SyncCore
import SyncWire
import Testing

/// Bytes that changed on the way are refused: protobuf itself refused 4 of 2 000 such messages.
@Suite struct DamageTests {
  static let bodies: [[UInt8]] = [
    .leave(nonce: 4), .beat(Beat(session: SessionID(rawValue: 4), last: Sample.reference, applied: nil)),
    .catalogue(Sample.catalogue), .batch(Sample.batch),
  ].map { (try? Wire.encode(Sample.envelope($0))) ?? [] }

  @Test func everySingleBitThatFlipsIsNoticed() {
    for body in Self.bodies {
      for index in body.indices {
        for bit in 0..<8 {
          var garbled = body
          garbled[index] ^= 1 << UInt8(bit)
          #expect(throws: WireError.self, "byte \(index), bit \(bit) of \(body.count)") {
            try decoded(garbled)
          }
        }
      }
    }
  }

  @Test func ofTwoThousandMessagesWithAChangedByteNoneIsAccepted() {
    var random = SeededRandom(seed: 2026)
    var accepted = 0
    for round in 0..<2_000 {
      var garbled = Self.bodies[round % Self.bodies.count]
      let index = Int.random(in: garbled.indices, using: &random)
      garbled[index] ^= UInt8.random(in: 1...255, using: &random)
      if (try? decoded(garbled)) != nil { accepted += 1 }
    }
    #expect(accepted == 0)
  }

  @Test func ofTwoThousandMessagesWithSeveralChangedBytesNoneIsAccepted() {
    var random = SeededRandom(seed: 77)
    var accepted = 0
    for round in 0..<2_000 {
      let body = Self.bodies[round % Self.bodies.count]
      var garbled = body
      for _ in 0..<Int.random(in: 1...20, using: &random) {
        garbled[Int.random(in: garbled.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if garbled != body, (try? decoded(garbled)) != nil { accepted += 1 }
    }
    #expect(accepted == 0)
  }

  @Test func everyTruncationIsNoticed() {
    for body in Self.bodies {
      for count in 0..<body.count {
        #expect(throws: WireError.self, "\(count) of \(body.count)") { try decoded(Array(body[..<count])) }
      }
    }
  }

  @Test func whatFollowsTheFrameIsNoticed() throws {
    for body in Self.bodies {
      #expect(throws: WireError.self) { try decoded(body + [0]) }
      #expect(throws: WireError.self) { try decoded(body + body) }
      // A skippable frame, which zstd would pass over.
      #expect(throws: WireError.self) { try decoded(body + [0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]) }
    }
  }

  @Test(arguments: [nil, "", "gzip", "zstd ", "ZSTD"])
  func anotherContentEncodingIsRefused(_ encoding: String?) throws {
    #expect(throws: WireError.encoding(encoding)) {
      try Wire.decode(Self.bodies[0], contentEncoding: encoding)
    }
  }

  @Test func aFrameThatClaimsTooMuchIsRefusedBeforeAnythingIsAllocated() {
    // magic; descriptor: eight bytes of size, one segment, checksum; 2^62 bytes; an empty last block.
    let head: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE4]
    let size: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0x40]
    #expect(throws: WireError.tooLarge(bytes: 1 << 62, max: Limits.messageBytesDecompressedMax)) {
      try decoded(Self.withTrailer(head + size + [1, 0, 0, 0, 0, 0, 0]))
    }
  }

  @Test func aFrameWithoutSizeOrChecksumIsRefused() {
    // descriptor 0x04: checksum, but a window and no size; 0x20: one segment with size, but no checksum.
    #expect(throws: WireError.damaged(.unprotected)) {
      try decoded(Self.withTrailer([0x28, 0xB5, 0x2F, 0xFD, 0x04, 0x00, 1, 0, 0, 0, 0, 0, 0]))
    }
    #expect(throws: WireError.damaged(.unprotected)) {
      try decoded(Self.withTrailer([0x28, 0xB5, 0x2F, 0xFD, 0x20, 0, 1, 0, 0]))
    }
  }

  @Test func aFrameThatLiesAboutItsSizeIsRefused() throws {
    let content = [UInt8](repeating: 7, count: 200)
    var frame = Array(try Compression.compress(content).dropLast(12))
    #expect(frame[5] == 200)
    for claimed: UInt8 in [0, 1, 199, 201, 255] {
      frame[5] = claimed
      #expect(throws: WireError.damaged(.content)) { try Compression.decompress(Self.withTrailer(frame)) }
    }
  }

  @Test func anythingButOneFrameAndItsChecksumIsRefused() throws {
    let frame = Array(Self.bodies[0].dropLast(12))
    #expect(try decoded(Self.withTrailer(frame)).message == .leave(nonce: 4))
    #expect(throws: WireError.damaged(.content)) { try decoded(Self.withTrailer(frame + frame)) }
    #expect(throws: WireError.damaged(.unprotected)) { try decoded(frame) }
    #expect(throws: WireError.damaged(.content)) { try decoded(Self.withTrailer(Self.bodies[0])) }
  }

  /// What `Compression` appends, computed a bit at a time.
  private static func withTrailer(_ frame: [UInt8]) -> [UInt8] {
    var crc = UInt32.max
    for byte in frame {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    return frame + [0x5B, 0x2A, 0x4D, 0x18, 4, 0, 0, 0]
      + (0..<4).map { UInt8(truncatingIfNeeded: ~crc >> (8 * $0)) }
  }

  @Test func aBodyAboveTheLimitIsRefusedUnread() {
    let body = [UInt8](repeating: 0, count: Limits.messageBytesMax + 1)
    #expect(throws: WireError.tooLarge(bytes: UInt64(body.count), max: Limits.messageBytesMax)) {
      try decoded(body)
    }
  }

  @Test func randomBytesAreRefused() {
    var random = SeededRandom(seed: 5)
    for _ in 0..<2_000 {
      let bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      #expect(throws: WireError.self) { try decoded(bytes) }
      #expect(throws: WireError.self) { try decoded([0x28, 0xB5, 0x2F, 0xFD] + bytes) }
    }
  }
}
