import CLibPQ

/// A statement's result, in text format. Bytes are valid as long as the result lives.
package final class ResultSet {
  private let result: OpaquePointer

  package init(owning result: OpaquePointer) { self.result = result }

  deinit { PQclear(result) }

  package var count: Int { Int(PQntuples(result)) }
  package var columnCount: Int { Int(PQnfields(result)) }

  /// Rows that the statement inserted, updated or deleted.
  package var affected: Int { PQcmdTuples(result).flatMap { Int(String(cString: $0)) } ?? 0 }

  package func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer? {
    let (r, c) = (Int32(truncatingIfNeeded: row), Int32(truncatingIfNeeded: column))
    guard PQgetisnull(result, r, c) == 0, let start = PQgetvalue(result, r, c) else { return nil }
    return UnsafeRawBufferPointer(start: start, count: Int(PQgetlength(result, r, c)))
  }

  package func string(_ row: Int, _ column: Int) -> String? {
    bytes(row, column).map { String(decoding: $0, as: UTF8.self) }
  }

  /// The text, or "" for NULL: for columns that are never NULL.
  package func text(_ row: Int, _ column: Int) -> String { string(row, column) ?? "" }

  package func bool(_ row: Int, _ column: Int) -> Bool { bytes(row, column)?.first == UInt8(ascii: "t") }

  package func integer(_ row: Int, _ column: Int) -> Int64? {
    guard let digits = bytes(row, column), !digits.isEmpty else { return nil }
    var value: Int64 = 0
    let negative = digits[0] == UInt8(ascii: "-")
    for digit in digits.dropFirst(negative ? 1 : 0) {
      guard digit >= 48, digit <= 57 else { return nil }
      let (product, overflow) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = product.subtractingReportingOverflow(Int64(digit - 48))
      if overflow || carry { return nil }
      value = sum
    }
    return negative ? value : (value == .min ? nil : -value)
  }

  package func int64(_ row: Int, _ column: Int) -> Int64 { integer(row, column) ?? 0 }
  package func int(_ row: Int, _ column: Int) -> Int { Int(int64(row, column)) }
}
