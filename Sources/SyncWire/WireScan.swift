import SyncCore

/// A first pass over a message's protobuf, before anything is allocated for it: which version and kind it is, and
/// that decoding it costs no more memory than the limits allow. Values are stepped over, not read.
///
/// A few kilobytes of zstd can hold a hundred million empty strings, and protobuf decoders make an object of each.
struct WireScan {
  private(set) var version: UInt32 = 0
  /// The number of the last field that is none of the envelope's own.
  private(set) var kind: Int?
  private var pieces = 0
  private var numbers = 0

  /// - Throws: `.version` before any other complaint, so that a message of another major version may look in any way.
  init(_ body: UnsafeRawBufferPointer) throws(WireError) {
    try walk(body, as: .envelope, versionOnly: true)
    guard version == Wire.protocolVersion else {
      throw .version(theirs: version, ours: Wire.protocolVersion)
    }
    try walk(body, as: .envelope, versionOnly: false)
  }

  /// The messages that hold repeated fields, and their numbers in the .proto.
  private enum Shape {
    case envelope, batch, window, stored, restate, rows, vector, values, contributions, columnVersions, catalogue, table
    case question, buckets, keyRows, answer, tables, tableFacts, digests, keyHashes, looks, contents

    enum Content {
      case message(Shape)
      case varints
      case fixed64
      case piece
    }

    func content(of field: UInt64) -> Content {
      switch (self, field) {
      case (.envelope, 13): .message(.batch)
      case (.envelope, 17): .message(.window)
      case (.envelope, 18): .message(.catalogue)
      case (.envelope, 24): .message(.restate)
      case (.envelope, 30): .message(.question)
      case (.envelope, 31): .message(.answer)
      case (.envelope, 100): .message(.stored)
      case (.batch, 10), (.window, 13), (.stored, 1), (.restate, 1): .message(.rows)
      case (.rows, 4), (.vector, 2), (.contributions, 3), (.columnVersions, 3): .fixed64
      case (.rows, 5), (.rows, 6), (.vector, 3), (.values, 2): .varints
      case (.contributions, 1), (.contributions, 2), (.contributions, 4): .varints
      case (.columnVersions, 1), (.columnVersions, 2), (.columnVersions, 4), (.columnVersions, 5): .varints
      case (.rows, 8): .message(.vector)
      case (.rows, 9), (.contributions, 5): .message(.values)
      case (.rows, 40): .message(.contributions)
      case (.rows, 41): .message(.columnVersions)
      case (.catalogue, 2): .message(.table)
      case (.question, 3), (.question, 4): .message(.buckets)
      case (.question, 5), (.question, 6), (.question, 7): .message(.keyRows)
      case (.answer, 2): .message(.tables)
      case (.answer, 3): .message(.digests)
      case (.answer, 4): .message(.keyHashes)
      case (.answer, 5): .message(.looks)
      case (.answer, 6): .message(.contents)
      case (.tables, 1): .message(.tableFacts)
      case (.buckets, 6), (.digests, 1): .varints
      case (.tableFacts, 5), (.digests, 2), (.keyHashes, 2), (.looks, 2): .fixed64
      case (.keyRows, 3), (.keyHashes, 1): .message(.values)
      case (.keyRows, 4), (.keyRows, 5), (.looks, 3): .message(.vector)
      default: .piece
      }
    }
  }

  private mutating func walk(_ body: UnsafeRawBufferPointer, as shape: Shape, versionOnly: Bool)
    throws(WireError)
  {
    var cursor = Cursor(rest: body[...])
    while !cursor.rest.isEmpty {
      let tag = try cursor.varint()
      let field = tag >> 3
      guard tag <= UInt64(UInt32.max), field > 0 else { throw .damaged(.message) }
      switch tag & 7 {
      case 0:
        let value = try cursor.varint()
        if shape == .envelope, field == 1 { version = UInt32(truncatingIfNeeded: value) }
        numbers += 1
      case 1:
        _ = try cursor.bytes(8)
        numbers += 1
      case 5:
        _ = try cursor.bytes(4)
        numbers += 1
      case 2:
        let bytes = try cursor.bytes(try cursor.varint())
        if versionOnly { continue }
        if shape == .envelope, field >= 10 { kind = Int(field) }
        try enter(UnsafeRawBufferPointer(rebasing: bytes), shape.content(of: field))
      default:
        // Groups, which proto3 does not have.
        throw .damaged(.message)
      }
      if numbers > Limits.messageNumbersMax { throw .malformed("too many numbers in one message") }
    }
  }

  private mutating func enter(_ bytes: UnsafeRawBufferPointer, _ content: Shape.Content) throws(WireError) {
    pieces += 1
    if pieces > Limits.messagePiecesMax { throw .malformed("too many parts in one message") }
    switch content {
    case .piece: break
    case .fixed64: numbers += bytes.count / 8
    case .varints:
      // Each ends with a byte below 128.
      numbers += bytes.reduce(0) { $0 + ($1 < 0x80 ? 1 : 0) }
    case .message(let shape):
      try walk(bytes, as: shape, versionOnly: false)
    }
  }

  private struct Cursor {
    var rest: Slice<UnsafeRawBufferPointer>

    mutating func varint() throws(WireError) -> UInt64 {
      var value: UInt64 = 0
      var shift: UInt64 = 0
      while shift < 64, let byte = rest.first {
        rest = rest.dropFirst()
        value |= UInt64(byte & 0x7F) << shift
        if byte < 0x80 { return value }
        shift += 7
      }
      throw .damaged(.message)
    }

    mutating func bytes(_ count: UInt64) throws(WireError) -> Slice<UnsafeRawBufferPointer> {
      guard count <= UInt64(rest.count) else { throw .damaged(.message) }
      let taken = rest.prefix(Int(count))
      rest = rest.dropFirst(Int(count))
      return taken
    }
  }
}
