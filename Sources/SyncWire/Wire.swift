import FoundationEssentials
import SwiftProtobuf
package import SyncCore

/// Writes messages and reads them: the only place that knows protobuf and zstd.
///
/// What is read was checked by every rule that the readers of a message rely on (`Checks`), so that nothing which
/// came from a network makes them trap, and what is written is held to the same rules: a sender's mistake shows at
/// the sender.
package enum Wire {
  /// The major version: raised by a change that an older office must not ignore.
  package static let protocolVersion: UInt32 = 1
  /// What a message's properties say of its body.
  package static let contentType = "application/x-protobuf"
  package static let contentEncoding = Compression.encodingName

  package static func encode(_ envelope: Envelope) throws(WireError) -> [UInt8] {
    try Checks.office(envelope.office)
    try Checks.time(envelope.sentAt)
    var wire = Hub_Wire_Envelope()
    wire.protocol = protocolVersion
    wire.office = envelope.office
    wire.incarnation = envelope.incarnation
    wire.sentAt = envelope.sentAt
    wire.message = try envelope.message.wire
    return try Compression.compress(serialized(wire))
  }

  /// - Parameter contentEncoding: the message property of that name.
  package static func decode(_ body: [UInt8], contentEncoding: String?) throws(WireError) -> Envelope {
    guard contentEncoding == Compression.encodingName else { throw .encoding(contentEncoding) }
    let (wire, kind) = try parsed(body)
    guard let message = wire.message, kind != storedKind else { throw .unknownKind(field: kind) }
    try Checks.office(wire.office)
    try Checks.time(wire.sentAt)
    return Envelope(
      office: wire.office, incarnation: wire.incarnation, sentAt: wire.sentAt,
      message: try Message(wire: message))
  }

  /// Rows that an office keeps for itself, staged or in quarantine; not a message.
  package static func encode(rows blocks: [RowBlock]) throws(WireError) -> [UInt8] {
    var stored = Hub_Wire_StoredRows()
    stored.tables = try blocks.wire
    var wire = Hub_Wire_Envelope()
    wire.protocol = protocolVersion
    wire.message = .stored(stored)
    return try Compression.compress(serialized(wire))
  }

  /// The rows of what `encode(rows:)` wrote, or of the whole body of a batch's or window's message: a part may be
  /// staged as it arrived.
  package static func decode(rows body: [UInt8]) throws(WireError) -> [RowBlock] {
    let (wire, kind) = try parsed(body)
    return switch wire.message {
    case .stored(let stored): try [RowBlock](wire: stored.tables)
    case .batch(let batch): try [RowBlock](wire: batch.tables)
    case .window(let window): try [RowBlock](wire: window.tables)
    default: throw .unknownKind(field: kind)
    }
  }

  private static let storedKind = 100

  private static func serialized(_ wire: Hub_Wire_Envelope) throws(WireError) -> [UInt8] {
    do {
      return try wire.serializedBytes()
    } catch {
      // Above 2 GiB, or a string that is no Unicode.
      throw .malformed("protobuf could not write it")
    }
  }

  private static func parsed(_ body: [UInt8]) throws(WireError) -> (Hub_Wire_Envelope, kind: Int?) {
    try parsed(protobuf: Compression.decompress(body))
  }

  private static func parsed(protobuf bytes: [UInt8]) throws(WireError) -> (Hub_Wire_Envelope, kind: Int?) {
    let scan = try bytes.withUnsafeBytes { bytes in
      Result { () throws(WireError) in try WireScan(bytes) }
    }.get()
    var options = BinaryDecodingOptions()
    options.messageDepthLimit = 8
    options.discardUnknownFields = true
    do {
      return (try Hub_Wire_Envelope(serializedBytes: bytes, options: options), scan.kind)
    } catch {
      throw .damaged(.message)
    }
  }
}
