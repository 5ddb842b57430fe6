import CZstd
import SyncCore
import Synchronization

/// Writes and reads the one zstd frame that a message is: with its content's size, so that a reader knows what it
/// would allocate, and with a checksum, because protobuf does not notice damage.
///
/// Contexts are reused and safe from any thread.
enum Compression {
  static let encodingName = "zstd"
  fileprivate static let level: Int32 = 3
  private static let compressors = ContextPool { Compressor() }
  private static let decompressors = ContextPool { Decompressor() }

  static func compress(_ bytes: [UInt8]) throws(WireError) -> [UInt8] {
    guard bytes.count <= Limits.messageBytesDecompressedMax else {
      throw .tooLarge(bytes: UInt64(bytes.count), max: Limits.messageBytesDecompressedMax)
    }
    let context = try compressors.take()
    defer { compressors.give(context) }
    var written = 0
    let out = [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(bytes.count)) { buffer, count in
      written = bytes.withUnsafeBytes {
        ZSTD_compress2(context.pointer, buffer.baseAddress, buffer.count, $0.baseAddress, $0.count)
      }
      count = ZSTD_isError(written) == 0 ? written : 0
    }
    guard ZSTD_isError(written) == 0, !out.isEmpty else { throw .malformed("zstd could not compress it") }
    guard out.count <= Limits.messageBytesMax else {
      throw .tooLarge(bytes: UInt64(out.count), max: Limits.messageBytesMax)
    }
    return out
  }

  static func decompress(_ frame: [UInt8]) throws(WireError) -> [UInt8] {
    guard frame.count <= Limits.messageBytesMax else {
      throw .tooLarge(bytes: UInt64(frame.count), max: Limits.messageBytesMax)
    }
    try checkHeader(frame)
    let (size, frameBytes) = frame.withUnsafeBytes {
      (
        ZSTD_getFrameContentSize($0.baseAddress, $0.count),
        ZSTD_findFrameCompressedSize($0.baseAddress, $0.count)
      )
    }
    guard size < .max - 1 else { throw .damaged(.frame) }
    guard let capacity = Int(exactly: size), capacity <= Limits.messageBytesDecompressedMax else {
      throw .tooLarge(bytes: size, max: Limits.messageBytesDecompressedMax)
    }
    guard ZSTD_isError(frameBytes) == 0, frameBytes == frame.count else { throw .damaged(.content) }
    let context = try decompressors.take()
    defer { decompressors.give(context) }
    var written = 0
    // Room for one byte more: a frame without content needs a destination too.
    let out = [UInt8](unsafeUninitializedCapacity: capacity + 1) { buffer, count in
      written = frame.withUnsafeBytes {
        ZSTD_decompressDCtx(context.pointer, buffer.baseAddress, capacity, $0.baseAddress, $0.count)
      }
      count = ZSTD_isError(written) == 0 ? written : 0
    }
    guard ZSTD_isError(written) == 0, out.count == capacity else { throw .damaged(.content) }
    return out
  }

  /// The frame's first bytes, where zstd is lenient: the descriptor must ask for size and checksum, must not ask for
  /// a dictionary, and its two spare bits are 0 (RFC 8878, 3.1.1.1.1).
  private static func checkHeader(_ frame: [UInt8]) throws(WireError) {
    guard frame.count > 5, frame[0...3].elementsEqual([0x28, 0xB5, 0x2F, 0xFD]) else {
      throw .damaged(.frame)
    }
    let descriptor = frame[4]
    let (statesSize, isSingleSegment) = (descriptor & 0xC0 != 0, descriptor & 0x20 != 0)
    guard descriptor & 0x1B == 0 else { throw .damaged(.frame) }
    guard descriptor & 0x04 != 0, statesSize || isSingleSegment else { throw .damaged(.unprotected) }
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
