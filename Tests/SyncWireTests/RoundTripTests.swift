import SyncCore
import SyncWire
import Testing

@Suite struct RoundTripTests {
  @Test(arguments: Sample.messages.indices)
  func everyKindOfMessageArrivesAsItWasSent(_ index: Int) throws {
    let envelope = Sample.envelope(Sample.messages[index])
    #expect(try decoded(Wire.encode(envelope)) == envelope)
  }

  @Test func rowsThatAreStoredComeBackEqual() throws {
    let blocks = [Sample.block(rows: 40), Sample.block(rows: 0), Sample.block(rows: 8)]
    #expect(try Wire.decode(rows: Wire.encode(rows: blocks)) == blocks)
    #expect(try Wire.decode(rows: Wire.encode(rows: [])) == [])
  }

  @Test func theBodyOfABatchOrWindowMayBeStoredAsItArrived() throws {
    let batch = try Wire.encode(Sample.envelope(.batch(Sample.batch)))
    #expect(try Wire.decode(rows: batch) == Sample.batch.blocks)
    let window = try Wire.encode(Sample.envelope(.window(Sample.window)))
    #expect(try Wire.decode(rows: window) == Sample.window.blocks)
    let leave = try Wire.encode(Sample.envelope(.leave(nonce: 1)))
    #expect(throws: WireError.unknownKind(field: 21)) { try Wire.decode(rows: leave) }
  }

  @Test func storedRowsAreNoMessage() throws {
    let stored = try Wire.encode(rows: [Sample.block(rows: 3)])
    #expect(throws: WireError.unknownKind(field: 100)) { try decoded(stored) }
  }

  @Test func equalMessagesAreEqualBytes() throws {
    let envelope = Sample.envelope(.batch(Sample.batch))
    #expect(try Wire.encode(envelope) == Wire.encode(envelope))
  }

  @Test func aValueOf64MiBThatDoesNotCompressArrives() throws {
    var random = SeededRandom(seed: 3)
    let words = (0..<(Limits.valueBytesMax / 8)).map { _ in random.next() }
    var block = RowBlock(table: "a.b", columnNames: ["id", "v"], keyCount: 1)
    block.actors = [1]
    block.counters = [1]
    block.stamps = [1]
    block.alive = [true]
    block.columns[0].append([49])
    words.withUnsafeBytes { block.columns[1].append($0) }
    let body = try Wire.encode(rows: [block])
    #expect(body.count <= Limits.messageBytesMax)
    let back = try Wire.decode(rows: body)
    #expect(back == [block])

    block.columns[1] = ColumnBytes()
    block.columns[1].append([UInt8](repeating: 65, count: Limits.valueBytesMax + 1))
    #expect(throws: WireError.malformed("a value is longer than 64 MiB")) { try Wire.encode(rows: [block]) }
  }

  @Test func aReasonThatIsTooLongIsShortenedBetweenCharacters() throws {
    let reason = "x" + String(repeating: "é", count: Limits.errorTextBytesMax)
    let envelope = Sample.envelope(.removed(nonce: 1, reason: reason))
    guard case .removed(_, let arrived) = try decoded(Wire.encode(envelope)).message else {
      Issue.record("another message")
      return
    }
    #expect(reason.hasPrefix(arrived))
    #expect(arrived.utf8.count == Limits.errorTextBytesMax - 1)
  }

  @Test func manyTasksMayUseTheCodecAtOnce() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for seed in 0..<32 {
        group.addTask {
          for round in 0..<20 {
            let blocks = [Sample.block(rows: 10 + round, seed: UInt64(seed))]
            guard try Wire.decode(rows: Wire.encode(rows: blocks)) == blocks else {
              throw WireError.malformed("a context was shared")
            }
          }
        }
      }
      try await group.waitForAll()
    }
  }
}
