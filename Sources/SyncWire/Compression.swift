import CZstd
import SyncCore
import Synchronization

/// Writes and reads a message's bytes: one zstd frame, which states its content's size, so that a reader knows what
/// it would allocate, and ends with a checksum of its content; then a skippable frame with the CRC-32 of the first.
///
/// The second checksum is not for the content but for the bytes: zstd has several ways to write the same content,
/// and of 10 000 flipped bits 31 made another one of them. Any zstd decoder passes over a skippable frame.
/// Contexts are reused and safe from any thread.
package enum Compression {
  package static let encodingName = "zstd"
  fileprivate static let level: Int32 = 3
  private static let compressors = ContextPool { Compressor() }
  private static let decompressors = ContextPool { Decompressor() }
  /// Magic number and size of the skippable frame (RFC 8878, 3.1.2), then four bytes of CRC, low byte first.
  private static let trailerHead: [UInt8] = [0x5B, 0x2A, 0x4D, 0x18, 4, 0, 0, 0]
  private static let trailerBytes = 12

  package static func compress(_ content: [UInt8]) throws(WireError) -> [UInt8] {
    guard content.count <= Limits.messageBytesDecompressedMax else {
      throw .tooLarge(bytes: UInt64(content.count), max: Limits.messageBytesDecompressedMax)
    }
    let context = try compressors.take()
    defer { compressors.give(context) }
    let capacity = ZSTD_compressBound(content.count) + trailerBytes
    let body = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
      let written = content.withUnsafeBytes {
        ZSTD_compress2(context.pointer, buffer.baseAddress, capacity - trailerBytes, $0.baseAddress, $0.count)
      }
      guard ZSTD_isError(written) == 0 else { return }
      let checksum = CRC32.of(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<written]))
      let trailer = trailerHead + (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) }
      for (i, byte) in trailer.enumerated() { buffer.initializeElement(at: written + i, to: byte) }
      count = written + trailerBytes
    }
    guard !body.isEmpty else { throw .malformed("zstd could not compress it") }
    guard body.count <= Limits.messageBytesMax else {
      throw .tooLarge(bytes: UInt64(body.count), max: Limits.messageBytesMax)
    }
    return body
  }

  package static func decompress(_ body: [UInt8]) throws(WireError) -> [UInt8] {
    guard body.count <= Limits.messageBytesMax else {
      throw .tooLarge(bytes: UInt64(body.count), max: Limits.messageBytesMax)
    }
    return try body.withUnsafeBytes { body in
      Result { () throws(WireError) in try decompress(frame: checked(body)) }
    }.get()
  }

  private static func decompress(frame: UnsafeRawBufferPointer) throws(WireError) -> [UInt8] {
    let size = ZSTD_getFrameContentSize(frame.baseAddress, frame.count)
    guard size < .max - 1 else { throw .damaged(.frame) }
    guard let capacity = Int(exactly: size), capacity <= Limits.messageBytesDecompressedMax else {
      throw .tooLarge(bytes: size, max: Limits.messageBytesDecompressedMax)
    }
    let frameBytes = ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count)
    guard ZSTD_isError(frameBytes) == 0, frameBytes == frame.count else { throw .damaged(.content) }
    let context = try decompressors.take()
    defer { decompressors.give(context) }
    // Room for one byte more: a frame without content needs a destination too. An error is a very large count.
    var written = 0
    let content = [UInt8](unsafeUninitializedCapacity: capacity + 1) { buffer, count in
      written = ZSTD_decompressDCtx(
        context.pointer, buffer.baseAddress, capacity, frame.baseAddress, frame.count)
      count = ZSTD_isError(written) == 0 ? written : 0
    }
    guard written == capacity else { throw .damaged(.content) }
    return content
  }

  /// The zstd frame in a body, when the trailer is there and its checksum right, and the frame's first bytes are what
  /// they must be where zstd is lenient: the descriptor says size and checksum, no dictionary, and its two spare bits
  /// are 0 (RFC 8878, 3.1.1.1.1).
  private static func checked(_ body: UnsafeRawBufferPointer) throws(WireError) -> UnsafeRawBufferPointer {
    guard body.count > 5 + trailerBytes, body[..<4].elementsEqual([0x28, 0xB5, 0x2F, 0xFD]) else {
      throw .damaged(.frame)
    }
    let frame = UnsafeRawBufferPointer(rebasing: body[..<(body.count - trailerBytes)])
    let trailer = body[frame.count...]
    guard trailer.starts(with: trailerHead) else { throw .damaged(.unprotected) }
    let checksum = trailer.suffix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    guard CRC32.of(frame) == checksum else { throw .damaged(.content) }
    let descriptor = frame[4]
    let (statesSize, isSingleSegment) = (descriptor & 0xC0 != 0, descriptor & 0x20 != 0)
    guard descriptor & 0x1B == 0 else { throw .damaged(.frame) }
    guard descriptor & 0x04 != 0, statesSize || isSingleSegment else { throw .damaged(.unprotected) }
    return frame
  }
}

/// One caller's use of a libzstd context at a time.
///
/// Proof of Sendable, here and below: the pointer never changes; a context is in the pool or with the one caller
/// that took it, never both; and the pool's lock orders one use before the next.
private final class Compressor: @unchecked Sendable {
  let pointer: OpaquePointer

  /// nil when memory is short.
  init?() {
    guard let made = ZSTD_createCCtx() else { return nil }
    pointer = made
    _ = ZSTD_CCtx_setParameter(made, ZSTD_c_compressionLevel, Compression.level)
    _ = ZSTD_CCtx_setParameter(made, ZSTD_c_checksumFlag, 1)
    _ = ZSTD_CCtx_setParameter(made, ZSTD_c_contentSizeFlag, 1)
  }

  deinit { _ = ZSTD_freeCCtx(pointer) }
}

private final class Decompressor: @unchecked Sendable {
  let pointer: OpaquePointer

  init?() {
    guard let made = ZSTD_createDCtx() else { return nil }
    pointer = made
  }

  deinit { _ = ZSTD_freeDCtx(pointer) }
}

/// Contexts that wait for their next use.
private final class ContextPool<Context: Sendable>: Sendable {
  private let free = Mutex<[Context]>([])
  private let make: @Sendable () -> Context?

  init(make: @escaping @Sendable () -> Context?) { self.make = make }

  func take() throws(WireError) -> Context {
    if let context = free.withLock({ $0.popLast() }) { return context }
    guard let context = make() else { throw .malformed("there is no memory for zstd") }
    return context
  }

  /// Keeps four; more callers than that at once pay for a context each.
  func give(_ context: Context) {
    free.withLock { if $0.count < 4 { $0.append(context) } }
  }
}
