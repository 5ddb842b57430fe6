import SyncCore
import SyncWire
import Testing

/// What somebody sends who knows the format: content that was changed *before* it was compressed, so that every
/// checksum is right. It is understood or refused, and never traps.
@Suite struct MutationTests {
  #if DEBUG
    static let rounds = 3_000
  #else
    static let rounds = 100_000
  #endif

  static let contents: [[UInt8]] = Sample.messages.compactMap {
    try? Compression.decompress(Wire.encode(Sample.envelope($0)))
  }

  @Test func mutatedMessagesNeverTrap() throws {
    #expect(Self.contents.count == Sample.messages.count)
    var random = SeededRandom(seed: 42)
    var (accepted, refused) = (0, 0)
    for _ in 0..<Self.rounds {
      let content = Self.mutated(Self.contents, &random)
      let body = try Compression.compress(content)
      do {
        let envelope = try decoded(body)
        // Whatever was understood can be written again, and means the same.
        #expect(try decoded(Wire.encode(envelope)) == envelope)
        Self.use(envelope)
        accepted += 1
      } catch {
        refused += 1
      }
      _ = try? Wire.decode(rows: body)
    }
    #expect(
      accepted > Self.rounds / 50 && refused > Self.rounds / 50, "\(accepted) accepted, \(refused) refused")
  }

  /// Reads rows as an applier does: trusting the block's invariants.
  private static func use(_ envelope: Envelope) {
    let blocks: [RowBlock]
    switch envelope.message {
    case .batch(let batch): blocks = batch.blocks
    case .window(let window): blocks = window.blocks
    default: return
    }
    var sum = 0
    for block in blocks {
      for row in 0..<block.count {
        sum &+= block.vector(row).contains(block.dot(row)) && block.alive[row] ? 1 : 0
      }
      for column in block.columns {
        var start = 0
        for length in column.lengths where length >= 0 {
          sum &+= column.blob[start..<(start + Int(length))].count
          start += Int(length)
        }
      }
    }
    #expect(sum >= 0)
  }

  private static func mutated(_ contents: [[UInt8]], _ random: inout SeededRandom) -> [UInt8] {
    var content = contents[Int.random(in: contents.indices, using: &random)]
    for _ in 0..<Int.random(in: 1...4, using: &random) where !content.isEmpty {
      let index = Int.random(in: content.indices, using: &random)
      switch Int.random(in: 0..<8, using: &random) {
      case 0: content[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 1: content[index] = UInt8.random(in: 0...255, using: &random)
      case 2: content[index] = [0, 1, 127, 128, 254, 255][Int.random(in: 0..<6, using: &random)]
      case 3: content.remove(at: index)
      case 4: content.insert(UInt8.random(in: 0...255, using: &random), at: index)
      case 5:
        content.removeSubrange(index..<min(content.count, index + Int.random(in: 1...40, using: &random)))
      case 6:
        let end = min(content.count, index + Int.random(in: 1...40, using: &random))
        content.insert(contentsOf: content[index..<end], at: Int.random(in: content.indices, using: &random))
      default:
        let other = contents[Int.random(in: contents.indices, using: &random)]
        content += other[Int.random(in: other.indices, using: &random)...]
      }
    }
    return content
  }
}
