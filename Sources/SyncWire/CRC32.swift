/// The CRC-32 of Ethernet and gzip (reflected, 0xEDB88320): finds every burst of up to 32 changed bits, so every
/// changed byte.
///
/// Eight bytes a step, by eight tables. Source: M. Kounavis, F. Berry, "A Systematic Approach to Building
/// High Performance Software-based CRC Generators", ISCC 2005.
enum CRC32 {
  /// 256 entries a table: what a byte does to the sum when 0, 1, … 7 bytes follow it.
  private static let tables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: 8 * 256)
    for byte in 0..<256 {
      var crc = UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
      tables[byte] = crc
    }
    for i in 256..<tables.count {
      let before = tables[i - 256]
      tables[i] = before >> 8 ^ tables[Int(before & 255)]
    }
    return tables
  }()

  static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    tables.withUnsafeBufferPointer { tables in
      var crc = UInt32.max
      let whole = bytes.count / 8 * 8
      for offset in stride(from: 0, to: whole, by: 8) {
        let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self).littleEndian ^ UInt64(crc)
        crc = 0
        for i in 0..<8 { crc ^= tables[(7 - i) * 256 + Int(word >> (8 * i) & 255)] }
      }
      for byte in bytes[whole...] { crc = crc >> 8 ^ tables[Int((crc ^ UInt32(byte)) & 255)] }
      return ~crc
    }
  }
}
