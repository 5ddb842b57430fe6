import SyncCore
import Testing

@testable import SyncWire

/// What a comparison's messages are held to.
@Suite struct VerifyChecksTests {
  private func question(_ field: UInt64, _ fill: (inout Protobuf) -> Void) throws -> [UInt8] {
    try Protobuf.envelope {
      $0.message(30) {
        $0.fixed64(1, 7)
        $0.message(field, fill)
      }
    }
  }

  private func answer(_ field: UInt64, _ fill: (inout Protobuf) -> Void) throws -> [UInt8] {
    try Protobuf.envelope {
      $0.message(31) {
        $0.fixed64(1, 7)
        $0.message(field, fill)
      }
    }
  }

  private func buckets(_ bits: UInt64, _ step: UInt64, _ numbers: [UInt64]) throws -> [UInt8] {
    try question(3) {
      $0.text(1, "public.t")
      $0.text(2, "id")
      $0.varint(4, bits)
      $0.varint(5, step)
      for number in numbers { $0.varint(6, number) }
    }
  }

  @Test func questionsWrittenByHandAreUnderstood() throws {
    #expect(
      try decoded(buckets(4, 2, [1, 15])).message
        == .verifyQuestion(
          token: 7,
          .compare(
            .digests(
              VerifyScope(table: "public.t", columns: ["id"], comparesVersions: false),
              BucketSet(bits: 4, step: 2, buckets: [1, 15])))))
  }

  @Test func questionsThatBreakARuleAreRefused() throws {
    let cases: [(String, [UInt8])] = [
      ("a bucket has too many bits", try buckets(57, 0, [1])), ("a bucket has too many bits", try buckets(50, 7, [1])),
      ("a bucket has too many bits", try buckets(0, 17, [0])),
      ("a bucket's bits is out of range", try buckets(99, 0, [1])),
      ("too many buckets in one message, or none", try buckets(4, 2, [])),
      ("too many buckets in one message, or none", try buckets(8, 16, [1, 2])),
      ("buckets are not in their order, or out of range", try buckets(4, 2, [2, 1])),
      ("buckets are not in their order, or out of range", try buckets(4, 2, [1, 1])),
      ("buckets are not in their order, or out of range", try buckets(4, 2, [16])),
      ("buckets are not in their order, or out of range", try buckets(4, 2, [.max])),
      (
        "a table has too many columns, or two of one name",
        try question(3) {
          $0.text(1, "public.t")
          for _ in 0..<2 { $0.text(2, "id") }
          $0.varint(6, 0)
        }
      ),
      (
        "a key lacks a column",
        try question(5) {
          $0.text(1, "public.t")
          for lengths in [[2, 2], [2]] as [[UInt64]] {
            $0.message(3) {
              $0.text(1, "ab")
              for length in lengths { $0.varint(2, length) }
            }
          }
        }
      ),
      (
        "values' lengths do not sum up to their bytes",
        try question(5) {
          $0.text(1, "public.t")
          $0.message(3) {
            $0.text(1, "ab")
            $0.varint(2, 0xFFFF_FFFE)
          }
        }
      ),
    ]
    for (rule, body) in cases { #expect(throws: WireError.malformed(rule), "\(rule)") { try decoded(body) } }
  }

  @Test func answersThatBreakARuleAreRefused() throws {
    let cases: [(String, [UInt8])] = [
      ("digests without rows", try answer(3) { $0.varint(1, 3) }),
      (
        "a bucket's rows is out of range",
        try answer(3) {
          $0.varint(1, UInt64(bitPattern: -1))
          $0.fixed64(2, 3)
        }
      ),
      (
        "too many digests in one message",
        try answer(3) {
          $0.bytes(1, [UInt8](repeating: 1, count: Limits.verifyDigestsMax + 1))
          $0.bytes(2, [UInt8](repeating: 0, count: 8 * (Limits.verifyDigestsMax + 1)))
        }
      ),
      ("rows without state, or in an unknown one", try answer(5) { $0.bytes(1, [1]) }),
      (
        "a row's version is missing",
        try answer(5) {
          $0.bytes(1, [3])
          $0.fixed64(2, 3)
        }
      ),
      (
        "a key is there twice",
        try answer(4) {
          $0.message(1) {
            $0.text(1, "aa")
            for _ in 0..<2 { $0.varint(2, 2) }
          }
          for _ in 0..<2 { $0.fixed64(2, 3) }
        }
      ),
      ("keys without digests", try answer(4) { $0.fixed64(2, 3) }),
    ]
    for (rule, body) in cases { #expect(throws: WireError.malformed(rule), "\(rule)") { try decoded(body) } }
    #expect(throws: WireError.unknownKind(field: nil)) { try decoded(Protobuf.envelope { $0.message(31) { _ in } }) }
  }
}
