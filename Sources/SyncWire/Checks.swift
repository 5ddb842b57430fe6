import SyncCore

/// The rules that messages are held to, both ways. Numbers are bounded so that the sums and differences that their
/// readers make cannot overflow.
enum Checks {
  /// `[a-z0-9-]{1,32}`: the name is part of a queue's name and of a broker user's permissions.
  static func office(_ name: String) throws(WireError) {
    let bytes = name.utf8
    guard !bytes.isEmpty, bytes.count <= Limits.officeNameBytesMax, bytes.allSatisfy(isOfficeByte) else {
      throw .malformed("an office's name is not 1 to 32 of a-z, 0-9 and -")
    }
  }

  private static func isOfficeByte(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
      || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
      || byte == UInt8(ascii: "-")
  }

  /// A text with bounds, without the NUL that neither PostgreSQL nor C takes.
  static func text(_ text: String, _ what: StaticString, max: Int, mayBeEmpty: Bool = false) throws(WireError) {
    let bytes = text.utf8
    guard bytes.count <= max, mayBeEmpty || !bytes.isEmpty, !bytes.contains(0) else {
      throw .malformed("\(what) is empty, too long or has a NUL")
    }
  }

  static func number(
    _ number: Int64, _ what: StaticString, from least: Int64 = 0, to most: Int64 = Limits.numberMax
  )
    throws(WireError)
  {
    guard number >= least, number <= most else { throw .malformed("\(what) is out of range") }
  }

  static func int(_ number: Int64, _ what: StaticString, from least: Int64 = 0, to most: Int64)
    throws(WireError) -> Int
  {
    try Checks.number(number, what, from: least, to: most)
    guard let int = Int(exactly: number) else { throw .malformed("\(what) is out of range") }
    return int
  }

  static func time(_ microseconds: Int64) throws(WireError) {
    try number(microseconds, "a time", to: Limits.sumMax)
  }

  static func part(_ part: Int) throws(WireError) {
    guard part >= 0, part < Limits.partsMax else { throw .malformed("a part's number is out of range") }
  }

  static func cursor(_ cursor: [UInt8]) throws(WireError) {
    guard cursor.count <= Limits.cursorBytesMax else { throw .malformed("a catch-up's cursor is too long") }
  }

  static func word(_ word: String, _ what: StaticString, _ known: Set<String>) throws(WireError) {
    guard known.contains(word) else { throw .malformed("\(what) has a word that this version does not know") }
  }

  /// No more than `max` bytes, cut between characters: for texts that only people read.
  static func shortened(_ text: String, to max: Int) -> String {
    guard text.utf8.count > max else { return text }
    var end = text.utf8.index(text.startIndex, offsetBy: max)
    while end > text.startIndex, end.samePosition(in: text.unicodeScalars) == nil {
      end = text.utf8.index(before: end)
    }
    return String(text[..<end])
  }
}
