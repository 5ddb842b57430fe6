/// The true names of writes that a copy of a row has really seen: what hub itself does not know.
struct WriteSet: Hashable {
  private var words: [UInt64] = []

  func contains(_ write: Int) -> Bool {
    let word = write >> 6
    return word < words.count && words[word] & (1 << UInt64(write & 63)) != 0
  }

  mutating func insert(_ write: Int) {
    let word = write >> 6
    while words.count <= word { words.append(0) }
    words[word] |= 1 << UInt64(write & 63)
  }

  mutating func formUnion(_ other: WriteSet) {
    while words.count < other.words.count { words.append(0) }
    for (i, word) in other.words.enumerated() { words[i] |= word }
  }

  func isSubset(of other: WriteSet) -> Bool {
    for (i, word) in words.enumerated() {
      let theirs = i < other.words.count ? other.words[i] : 0
      if word & ~theirs != 0 { return false }
    }
    return true
  }

  func visit(_ body: (Int) -> Void) {
    for (i, word) in words.enumerated() {
      var rest = word
      while rest != 0 {
        body(i << 6 + rest.trailingZeroBitCount)
        rest &= rest - 1
      }
    }
  }

  static func == (a: WriteSet, b: WriteSet) -> Bool { a.isSubset(of: b) && b.isSubset(of: a) }

  func hash(into hasher: inout Hasher) { visit { hasher.combine($0) } }
}
