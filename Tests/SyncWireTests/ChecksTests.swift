import SyncCore
import SyncWire
import Testing

/// Each rule that a message is held to, broken alone: by a sender of ours, and by bytes made by hand.
@Suite struct ChecksTests {
  // MARK: Rows

  private static let rules: [(String, @Sendable (inout RowBlock) -> Void)] = [
    ("a table's name is empty, too long or has a NUL", { $0.table = "" }),
    ("a table's name is empty, too long or has a NUL", { $0.table = String(repeating: "x", count: 128) }),
    ("a table's name is empty, too long or has a NUL", { $0.table = "a\0b" }),
    ("a column's name is empty, too long or has a NUL", { $0.columnNames[3] = "" }),
    (
      "a column's name is empty, too long or has a NUL",
      { $0.columnNames[3] = String(repeating: "é", count: 32) }
    ),
    ("a table has two columns of one name", { $0.columnNames[3] = $0.columnNames[0] }),
    ("a table has no columns, too many, or not as many names as columns", { $0.columnNames.removeLast() }),
    ("a table has no columns, too many, or not as many names as columns", { $0.columns.removeLast() }),
    (
      "a table has no columns, too many, or not as many names as columns",
      {
        $0.columnNames = []
        $0.columns = []
        $0.keyCount = 0
      }
    ),
    ("a table's key has no columns, or too many", { $0.keyCount = 0 }),
    ("a table's key has no columns, or too many", { $0.keyCount = 9 }),
    ("rows without version, or versions without row", { $0.counters.removeLast() }),
    ("rows without version, or versions without row", { $0.stamps.append(4) }),
    ("a row without an actor", { $0.actors[1] = 0 }),
    ("a row without an actor", { $0.actors[1] = .min }),
    ("a row's counter is out of range", { $0.counters[1] = 0 }),
    ("a row's counter is out of range", { $0.counters[1] = .max }),
    ("a row's stamp is out of range", { $0.stamps[1] = -1 }),
    ("a row's stamp is out of range", { $0.stamps[1] = .max }),
    ("a vector without a row", { $0.vectors[$0.count] = $0.vector(0) }),
    (
      "a vector without the row's own dot",
      { $0.vectors[0] = VersionVector(Dot(actor: ActorID(rawValue: 1), n: 1)) }
    ),
    (
      "a vector's entry is out of range",
      { $0.vectors[0] = $0.vector(0).joined(with: VersionVector(Dot(actor: ActorID(rawValue: -1), n: 1))) }
    ),
    (
      "a vector's entry is out of range",
      { $0.vectors[0] = $0.vector(0).joined(with: VersionVector(Dot(actor: ActorID(rawValue: 1), n: .max))) }
    ),
    ("a contribution without a row", { $0.contributions[3] = [] }),
    ("contributions are not in their order", { $0.contributions[2]?.swapAt(0, 1) }),
    ("a column's write is of a column that is not there", { $0.contributions[2]?[0].column = 1 }),
    ("a column's write is of a column that is not there", { $0.contributions[2]?[1].column = 8 }),
    ("a column's write is not in the row's vector", { $0.contributions[2]?[0].dot.n = 5 }),
    ("a column's write is not in the row's vector", { $0.columnVersions[2]?[1].dot.n = 0 }),
    ("a contribution is not a number", { $0.contributions[2]?[0].sum = Array("5.".utf8) }),
    ("a contribution is not a number", { $0.contributions[2]?[0].sum = [] }),
    ("a contribution is not a number", { $0.contributions[2]?[0].sum = Array("5'".utf8) }),
    ("a column's version without a row", { $0.columnVersions[-1] = [] }),
    ("columns' versions are not in their order", { $0.columnVersions[2]?[0].column = 6 }),
    ("a column's stamp is out of range", { $0.columnVersions[2]?[0].stamp = -1 }),
    ("a column has not as many values as there are rows", { $0.columns[4].lengths.removeLast() }),
    ("a value's length is negative", { $0.columns[4].lengths[0] = -2 }),
    ("a key is NULL", { $0.columns[1].lengths[0] = -1 }),
    ("values' lengths do not sum up to their bytes", { $0.columns[4].blob.append(0) }),
    ("values' lengths do not sum up to their bytes", { $0.columns[4].lengths[0] += 1 }),
    ("a value is longer than 64 MiB", { $0.columns[4].lengths[0] = .max }),
    ("a deleted row has values besides its key", { $0.alive[0] = false }),
  ]

  @Test(arguments: rules.indices)
  func aBlockThatBreaksARuleIsNotWritten(_ index: Int) {
    var block = Sample.block(rows: 3)
    Self.rules[index].1(&block)
    #expect(throws: WireError.malformed(Self.rules[index].0)) { try Wire.encode(rows: [block]) }
  }

  /// One row of two columns, each field of which may be replaced.
  private static func rows(
    columns: [String] = ["id", "v"], key: UInt64 = 1, actor: Int64 = 5, counters: [UInt64] = [3],
    stamp: UInt64 = 9,
    alive: [UInt8] = [1], vectors: [(row: UInt64, actors: [Int64], counters: [UInt64])] = [],
    id: [UInt64] = [2], v: [UInt64] = [4], blob: String = "ab"
  ) throws -> [UInt8] {
    try Protobuf.envelope {
      $0.message(100) {
        $0.message(1) { table in
          table.text(1, "public.t")
          for column in columns { table.text(2, column) }
          table.varint(3, key)
          table.fixed64(4, actor)
          for counter in counters { table.varint(5, counter) }
          table.varint(6, stamp)
          table.bytes(7, alive)
          for vector in vectors {
            table.message(8) {
              $0.varint(1, vector.row)
              for actor in vector.actors { $0.fixed64(2, actor) }
              for counter in vector.counters { $0.varint(3, counter) }
            }
          }
          table.message(9) {
            $0.text(1, "1")
            for length in id { $0.varint(2, length) }
          }
          table.message(9) {
            $0.text(1, blob)
            $0.bytes(2, Protobuf { for length in v { $0.raw(length) } }.bytes)
          }
        }
      }
    }
  }

  @Test func rowsWrittenByHandAreUnderstood() throws {
    let block = try #require(
      try Wire.decode(rows: Self.rows(vectors: [(0, [5, 6], [3, 7])])).first)
    #expect(block.table == "public.t" && block.columnNames == ["id", "v"] && block.keyCount == 1)
    #expect(
      block.dot(0) == Dot(actor: ActorID(rawValue: 5), n: 3) && block.stamps == [9] && block.alive == [true])
    #expect(block.vector(0).dots == [block.dot(0), Dot(actor: ActorID(rawValue: 6), n: 7)])
    #expect(
      block.columns == [ColumnBytes(blob: [49], lengths: [1]), ColumnBytes(blob: [97, 98], lengths: [2])])
    let deleted = try #require(try Wire.decode(rows: Self.rows(alive: [0], v: [1], blob: "")).first)
    #expect(deleted.alive == [false] && deleted.columns[1].lengths == [-1])
  }

  @Test func rowsThatBreakARuleAreRefused() throws {
    let cases: [(String, [UInt8])] = [
      ("a table has two columns of one name", try Self.rows(columns: ["id", "id"])),
      ("a table's key has no columns, or too many", try Self.rows(key: 0)),
      ("a table's key has no columns, or too many", try Self.rows(key: .max)),
      ("a row without an actor", try Self.rows(actor: -5)),
      ("rows without version, or versions without row", try Self.rows(counters: [1, 2])),
      ("a row's counter is out of range", try Self.rows(counters: [.max])),
      ("a row's stamp is out of range", try Self.rows(stamp: 1 << 63)),
      ("there are not as many alive bits as rows", try Self.rows(alive: [])),
      ("there are not as many alive bits as rows", try Self.rows(alive: [1, 0])),
      ("there are more alive bits than rows", try Self.rows(alive: [3])),
      ("a vector without a row", try Self.rows(vectors: [(1, [5], [3])])),
      ("a vector without the row's own dot", try Self.rows(vectors: [(0, [5], [2])])),
      ("a vector without the row's own dot", try Self.rows(vectors: [(0, [], [])])),
      ("vectors are not in the order of their rows", try Self.rows(vectors: [(0, [5], [3]), (0, [5], [3])])),
      (
        "vectors are not in the order of their rows", try Self.rows(vectors: [(UInt64(UInt32.max), [5], [3])])
      ),
      ("a vector's actors do not grow", try Self.rows(vectors: [(0, [5, 5], [3, 4])])),
      (
        "a vector has too many entries, or not as many actors as counters",
        try Self.rows(vectors: [(0, [5], [3, 4])])
      ),
      (
        "a vector has too many entries, or not as many actors as counters",
        try Self.rows(vectors: [(0, Array(5...261), [UInt64](repeating: 3, count: 257))])
      ),
      ("a key is NULL", try Self.rows(id: [1])),
      ("a value's length is negative", try Self.rows(v: [3])),
      ("a value is longer than 64 MiB", try Self.rows(v: [0xFFFF_FFFE])),
      ("values' lengths do not sum up to their bytes", try Self.rows(blob: "abc")),
      ("a column has not as many values as there are rows", try Self.rows(v: [2, 2])),
      ("a deleted row has values besides its key", try Self.rows(alive: [0])),
    ]
    for (rule, body) in cases {
      #expect(throws: WireError.malformed(rule)) { try Wire.decode(rows: body) }
    }
  }

  // MARK: Versions and kinds

  @Test func anotherMajorVersionIsNamedTogetherWithOurs() throws {
    let body = try Protobuf.envelope(version: 7) { $0.text(4, "not a time in this version") }
    let error = #expect(throws: WireError.version(theirs: 7, ours: 1)) { try decoded(body) }
    #expect(error?.description == "a message has protocol version 7, this hub speaks 1: update the older hub")
    #expect(throws: WireError.version(theirs: 0, ours: 1)) { try decoded(Compression.compress([])) }
  }

  @Test func aKindOfMessageThatIsNotKnownIsToldApartFromDamage() throws {
    let body = try Protobuf.envelope { $0.message(61) { $0.varint(1, 5) } }
    let error = #expect(throws: WireError.unknownKind(field: 61)) { try decoded(body) }
    #expect(error?.description == "a message of an unknown kind (field 61): the sender's hub is newer")
    #expect(throws: WireError.unknownKind(field: nil)) { try decoded(Protobuf.envelope { _ in }) }
  }

  @Test func fieldsThatAreNotKnownAreIgnored() throws {
    let body = try Protobuf.envelope {
      $0.fixed64(4, 6)
      $0.text(9, "newer")
      $0.varint(50, 1)
      $0.message(21) {
        $0.fixed64(1, 77)
        $0.text(2, "why")
      }
    }
    #expect(try decoded(body) == Envelope(office: "a", incarnation: 0, sentAt: 6, message: .leave(nonce: 77)))
  }

  // MARK: Bombs

  @Test func aHundredMillionEmptyPartsAreRefusedBeforeTheyBecomeObjects() throws {
    let tables = [UInt8](repeating: 0, count: 1 << 20).flatMap { _ in [0x0A, 0x00] as [UInt8] }
    let body = try Protobuf.envelope {
      $0.message(100) { for _ in 0..<4 { $0.bytes(1, tables) } }
      $0.bytes(100, tables)
    }
    #expect(body.count < 20_000)
    #expect(throws: WireError.malformed("too many parts in one message")) { try Wire.decode(rows: body) }
    #expect(throws: WireError.malformed("too many parts in one message")) { try decoded(body) }
  }

  @Test func aHundredMillionNumbersAreRefusedBeforeTheyBecomeArrays() throws {
    let lengths = [UInt8](repeating: 0, count: 40 << 20)
    let body = try Protobuf.envelope {
      $0.message(13) { $0.message(10) { $0.message(9) { $0.bytes(2, lengths) } } }
    }
    #expect(body.count < 20_000)
    #expect(throws: WireError.malformed("too many numbers in one message")) { try decoded(body) }
  }

  @Test func tooManyRowsAreRefused() throws {
    var block = RowBlock(table: "a.b", columnNames: ["id"], keyCount: 1)
    let count = (1 << 18) + 1
    block.actors = Array(repeating: 1, count: count)
    block.counters = block.actors
    block.stamps = block.actors
    block.alive = Array(repeating: true, count: count)
    block.columns[0] = ColumnBytes(blob: [], lengths: Array(repeating: 0, count: count))
    #expect(throws: WireError.malformed("too many rows in one message")) { try Wire.encode(rows: [block]) }
  }

  // MARK: Everything else

  @Test(arguments: ["", "Head", "a_b", "a/b", "ä", "a\n", String(repeating: "a", count: 33)])
  func anOfficeNameIsHeldToItsAlphabet(_ name: String) throws {
    let rule = WireError.malformed("an office's name is not 1 to 32 of a-z, 0-9 and -")
    let body = try Protobuf.envelope(office: name) { $0.message(21) { _ in } }
    #expect(throws: rule) { try decoded(body) }
    #expect(throws: rule) {
      try Wire.encode(Envelope(office: name, incarnation: 1, sentAt: 1, message: .leave(nonce: 1)))
    }
    #expect(throws: rule) {
      try Wire.encode(Sample.envelope(.enrol(Enrol(nonce: 1, secret: [1], office: name, hubVersion: ""))))
    }
  }

  private static func refused(_ message: Message) -> String? {
    do {
      _ = try Wire.encode(Sample.envelope(message))
      return nil
    } catch {
      return error.description
    }
  }

  @Test func whatASenderMayNotSayIsNotWritten() {
    func batch(_ change: (inout BatchPart) -> Void) -> Message {
      var part = Sample.batch
      change(&part)
      return .batch(part)
    }
    func window(_ change: (inout WindowPart) -> Void) -> Message {
      var part = Sample.window
      change(&part)
      return .window(part)
    }
    func catalogue(_ change: (inout Catalogue) -> Void) -> Message {
      var catalogue = Sample.catalogue
      change(&catalogue)
      return .catalogue(catalogue)
    }
    let cases: [(String, Message)] = [
      ("a batch's number is out of range", batch { $0.header.reference.number = -1 }),
      ("a batch's number is out of range", batch { $0.header.previous.number = .max }),
      ("a batch's number is out of range", batch { $0.applied?.reference.number = .max }),
      ("a part's number is out of range", batch { $0.part = -1 }),
      ("a part's number is out of range", window { $0.header.part = Limits.partsMax }),
      ("a time is out of range", batch { $0.snapshotAt = .max }),
      ("a time is out of range", window { $0.snapshotAt = -1 }),
      ("a batch's rows is out of range", batch { $0.rowsBefore = .max }),
      ("a catalogue's version is out of range", window { $0.catalogueVersion = -1 }),
      (
        "a catch-up's cursor is too long",
        window { $0.header.cursor = [UInt8](repeating: 0, count: Limits.cursorBytesMax + 1) }
      ),
      ("a stride is out of range", catalogue { $0.stride = 0 }),
      ("a catalogue has a table twice", catalogue { $0.tables.append($0.tables[0]) }),
      (
        "a table's direction has a word that this version does not know",
        catalogue { $0.tables[0].options.direction = "sideways" }
      ),
      (
        "a table's on-conflict has a word that this version does not know",
        catalogue { $0.tables[0].options.onConflict = "newest" }
      ),
      (
        "an object's statement is empty, too long or has a NUL",
        catalogue { $0.statements[0].statement = String(repeating: "x", count: (1 << 20) + 1) }
      ),
      (
        "an enrolment's secret is empty or too long",
        .enrol(Enrol(nonce: 1, secret: [], office: "a", hubVersion: ""))
      ),
      (
        "a residue is out of range",
        .enrolled(Enrolled(nonce: 1, refusal: nil, head: "head", residue: -1, hubVersion: ""))
      ),
    ]
    for (rule, message) in cases {
      #expect(Self.refused(message) == "a message breaks the protocol: \(rule)")
    }
  }

  @Test func whatASenderMayNotSayIsNotRead() throws {
    let huge = UInt64(Int64.max)
    let cases: [(String, [UInt8])] = [
      ("a batch's reference is missing", try Protobuf.envelope { $0.message(14) { $0.fixed64(1, 5) } }),
      (
        "a batch's number is out of range",
        try Protobuf.envelope { $0.message(14) { $0.message(2) { $0.varint(1, huge) } } }
      ),
      (
        "a batch's number is out of range",
        try Protobuf.envelope { $0.message(14) { $0.message(2) { $0.varint(1, .max) } } }
      ),
      (
        "a part's number is out of range",
        try Protobuf.envelope {
          $0.message(13) {
            $0.message(2) { _ in }
            $0.message(3) { _ in }
            $0.varint(5, UInt64(UInt32.max))
          }
        }
      ),
      (
        "a window's rows is out of range",
        try Protobuf.envelope {
          $0.message(16) {
            $0.message(2) { _ in }
            $0.varint(5, huge)
          }
        }
      ),
      (
        "a catch-up's cursor is too long",
        try Protobuf.envelope {
          $0.message(16) {
            $0.message(2) { _ in }
            $0.message(3) {
              $0.message(1) { _ in }
              $0.bytes(2, [UInt8](repeating: 1, count: Limits.cursorBytesMax + 1))
            }
          }
        }
      ),
      (
        "a time is out of range",
        try Protobuf.envelope {
          $0.fixed64(4, .max)
          $0.message(21) { _ in }
        }
      ),
      ("a stride is out of range", try Protobuf.envelope { $0.message(18) { $0.varint(4, huge) } }),
      (
        "a reason is empty, too long or has a NUL",
        try Protobuf.envelope {
          $0.message(22) { $0.text(2, String(repeating: "x", count: Limits.errorTextBytesMax + 1)) }
        }
      ),
    ]
    for (rule, body) in cases { #expect(throws: WireError.malformed(rule)) { try decoded(body) } }
  }

  @Test func anErrorIsOneLineWithoutControlCharacters() {
    let text = WireError.encoding("gzip\n\u{1B}[31m" + String(repeating: "x", count: 500)).description
    #expect(text.utf8.count < 200 && text.unicodeScalars.allSatisfy { $0.value >= 32 })
  }
}
