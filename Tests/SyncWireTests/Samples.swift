import SyncCore
import SyncWire

/// A repeatable source of randomness (SplitMix64): a failing round is found again by its seed.
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// Messages of every kind, with every field set to something that is not its default.
enum Sample {
  static let reference = BatchReference(number: 17, id: -4_000_000_000_000_000_001)
  static let position = StreamPosition(
    session: SessionID(rawValue: .min), reference: BatchReference(number: 1 << 62, id: 5))

  static func envelope(_ message: Message) -> Envelope {
    Envelope(
      office: "north-1", incarnation: 7_012_345_678_901_234_567, sentAt: 1_790_000_000_123_456,
      message: message)
  }

  /// Rows of eight columns: alive and dead ones, NULLs, empty values, bytes of every kind, some full vectors.
  static func block(rows: Int, seed: UInt64 = 1) -> RowBlock {
    var random = SeededRandom(seed: seed)
    var block = RowBlock(
      table: "public.stock", columnNames: ["id", "shop", "day", "name", "qty", "price", "note", "data"],
      keyCount: 2)
    for row in 0..<rows {
      block.actors.append(Int64.random(in: 1...Int64.max, using: &random))
      block.counters.append(Int64.random(in: 1...1_000_000_000, using: &random))
      block.stamps.append(1_790_000_000_000_000 + Int64(row))
      let isAlive = row % 7 != 3
      block.alive.append(isAlive)
      if row % 5 == 2 {
        block.vectors[row] = block.vector(row).joined(
          with: VersionVector(Dot(actor: ActorID(rawValue: 9), n: 4)))
      }
      if row % 5 == 2 {
        block.contributions[row] = [
          RowContribution(column: 4, dot: Dot(actor: ActorID(rawValue: 9), n: 4), sum: Array("-5.25".utf8)),
          RowContribution(column: 5, dot: Dot(actor: ActorID(rawValue: 9), n: 3), sum: Array("NaN".utf8)),
        ]
      }
      if row % 5 == 2, isAlive {
        block.columnVersions[row] = [
          ColumnVersion(column: 3, dot: block.dot(row), stamp: 7),
          ColumnVersion(column: 6, dot: Dot(actor: ActorID(rawValue: 9), n: 2), stamp: 1 << 50),
        ]
      }
      for column in block.columns.indices {
        let text = "\(row * 8 + column) value"
        let isNull = column > 1 && (!isAlive || (row + column) % 11 == 0)
        let bytes = column == 6 && row % 3 == 0 ? [] : column == 7 ? [UInt8](0...255) : Array(text.utf8)
        block.columns[column].append(isNull ? nil : bytes)
      }
    }
    return block
  }

  static var batch: BatchPart {
    BatchPart(
      header: BatchHeader(
        session: SessionID(rawValue: -1), reference: reference, previous: BatchReference(number: 16, id: 3),
        isSlice: true),
      catalogueVersion: 4, part: 2, isLast: true, snapshotAt: 1_790_000_000_000_001, applied: position,
      rowsBefore: 12_345, blocks: [block(rows: 23), block(rows: 1, seed: 2)], cursor: [7, 0, 9],
      resumes: BatchReference(number: 15, id: 4), resumedParts: 2)
  }

  static var window: WindowPart {
    WindowPart(
      header: WindowHeader(
        session: SessionID(rawValue: 3), token: PullToken(rawValue: -8), part: 1, isLastPart: true,
        from: .origin,
        cursor: [0, 1, 255], more: true, full: true, target: reference, settlesAfter: 5),
      catalogueVersion: 4, snapshotAt: 1_790_000_000_000_002, rowsTotal: 99, blocks: [block(rows: 9)])
  }

  static var catalogue: Catalogue {
    var options = TrackingOptions()
    options.direction = "up"
    options.merge = "columns"
    options.onConflict = "function:public.decide"
    options.onDelete = "delete"
    options.counters = ["qty", "größe"]
    options.originColumn = ""
    options.originColumn = "office"
    options.keys = "as-is"
    options.foreignWrites = "ignore"
    options.priority = -3
    return Catalogue(
      version: 5,
      tables: [
        CatalogueTable(schemaName: "public", relationName: "stock", options: options),
        CatalogueTable(schemaName: "public", relationName: "Shop \"x\"", options: TrackingOptions()),
      ],
      statements: [
        SchemaStatement(
          kind: "table", name: "public.stock", statement: "CREATE TABLE public.stock (id int PRIMARY KEY)",
          table: "public.stock"),
        SchemaStatement(kind: "schema", name: "other", statement: "CREATE SCHEMA other", table: ""),
      ], stride: 1000)
  }

  private static let scope = VerifyScope(table: "public.stock", columns: ["a", "b"], comparesVersions: true)
  private static let keys = [RowKey([[49], [0, 255]]), RowKey([[], [50, 51]])]
  private static let vector = VersionVector([
    Dot(actor: ActorID(rawValue: 9), n: 4), Dot(actor: ActorID(rawValue: 8), n: 1),
  ])

  static var comparisons: [Message] {
    let questions: [VerifyRequest] = [
      .compare(.describe), .compare(.digests(scope, .root(step: 12))),
      .compare(.keys(scope, BucketSet(bits: 12, step: 0, buckets: [0, 5, 4095]))),
      .compare(.rows(VerifyScope(table: "a.t", columns: ["x"], comparesVersions: false), keys)),
      .contents(VerifyScope(table: "a.t", columns: ["x"], comparesVersions: false), keys), .pass,
      .restate(
        table: "a.t",
        [
          RestatedRow(key: keys[0], seen: nil, expected: vector),
          RestatedRow(key: keys[1], seen: vector, expected: nil),
        ]),
    ]
    let answers: [VerifyReply] = [
      .compared(
        .tables(
          [VerifyTable(name: "a.t", keyColumns: ["x", "y"], columns: ["x", "y", "z"], rows: 7, actors: [5, 1])],
          catalogueVersion: 3, probe: -8)),
      .compared(.digests([.empty, BucketDigest(rows: 5, sum: -7)])),
      .compared(.keys([keys[0]: -5, keys[1]: 6], isCut: true)), .compared(.keys([:], isCut: false)),
      .compared(
        .rows([
          RowLook(isThere: true, vector: nil, isVersionAlive: false, isQuarantined: true, hash: -1),
          RowLook(isThere: false, vector: vector, isVersionAlive: true),
        ])),
      .contents(["", "{\"a\":null}"]), .restated(3), .passed(reference), .refused("no"),
    ]
    return questions.map { .verifyQuestion(token: -3, $0) } + answers.map { .verifyAnswer(token: 4, $0) }
  }

  static var messages: [Message] {
    comparisons + [
      .hello(
        Hello(
          nonce: 5, session: SessionID(rawValue: -6), at: .origin, last: reference, catalogueVersion: 3,
          hubVersion: "1.2", conflicts: 5)),
      .hello(
        Hello(nonce: 5, session: nil, at: reference, last: .origin, catalogueVersion: 0, hubVersion: "")),
      .welcome(
        Welcome(
          nonce: -5, session: SessionID(rawValue: 11), have: reference, headSession: SessionID(rawValue: 12),
          start: .origin, last: BatchReference(number: 18, id: 19), catalogueVersion: 3, hubVersion: "1.3",
          recovers: true, staged: StagedParts(batch: reference, count: 40, cursor: [1, 2]))),
      .refused(Refused(nonce: 8, reason: "another copy of its database serves office a", isFinal: true)),
      .refused(Refused(nonce: -8, reason: "", isFinal: false)),
      .rehello(SessionID(rawValue: -77)),
      .batch(batch),
      .batch(
        BatchPart(
          header: BatchHeader(session: SessionID(rawValue: 1), reference: reference, previous: .origin),
          catalogueVersion: 0, part: 0, isLast: false, snapshotAt: 0, applied: nil, rowsBefore: 0, blocks: [],
          purged: 8)
      ),
      .acknowledgement(Acknowledgement(session: SessionID(rawValue: 2), reference: reference)),
      .beat(
        Beat(
          session: SessionID(rawValue: 2), last: reference, applied: position, nonce: 4, answerTo: 5,
          isPaused: true, conflicts: 77, conflictsFrom: 12, purged: 9)),
      .conflicts(ConflictEntries(after: 7, last: 12, more: true, entries: ["{\"id\":3}", "{}"])),
      .conflicts(ConflictEntries(after: 0, last: 0, more: false, entries: [])),
      .restate(batch.blocks, request: 31),
      .restated(31),
      .beat(Beat(session: SessionID(rawValue: 2), last: .origin, applied: nil)),
      .pull(
        Pull(
          token: PullToken(rawValue: 6), at: reference,
          resumption: Resumption(from: reference, cursor: [9, 8], full: true), catalogueVersion: 2,
          rowsMax: 100,
          bytesMax: 200)),
      .pull(
        Pull(
          token: PullToken(rawValue: 6), at: reference,
          resumption: Resumption(from: .origin, cursor: [], full: false), catalogueVersion: 2, rowsMax: 0,
          bytesMax: 0)),
      .pull(
        Pull(
          token: PullToken(rawValue: 6), at: .origin, resumption: nil, catalogueVersion: 0, rowsMax: 1,
          bytesMax: 1, recovers: true)),
      .window(window),
      .catalogue(catalogue),
      .enrol(Enrol(nonce: 1, secret: [0, 255, 7], office: "b-9", hubVersion: "2")),
      .enrolled(Enrolled(nonce: 1, refusal: nil, head: "head", residue: 3, hubVersion: "2")),
      .enrolled(Enrolled(nonce: 1, refusal: "", head: "head", residue: 0, hubVersion: "")),
      .leave(nonce: -9),
      .removed(nonce: 10, reason: "moved"),
    ]
  }
}

extension ColumnBytes {
  mutating func append(_ bytes: [UInt8]?) {
    if let bytes { bytes.withUnsafeBytes { append($0) } } else { append(nil as UnsafeRawBufferPointer?) }
  }
}

/// Protobuf written by hand, so that tests can say what hub's own writer never would, and so that the format is
/// checked against the .proto by something that was not generated from it.
struct Protobuf {
  private(set) var bytes: [UInt8] = []

  init(_ fill: (inout Protobuf) -> Void = { _ in }) { fill(&self) }

  mutating func varint(_ field: UInt64, _ value: UInt64) {
    raw(field << 3)
    raw(value)
  }

  mutating func fixed64(_ field: UInt64, _ value: Int64) {
    raw(field << 3 | 1)
    withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
  }

  mutating func bytes(_ field: UInt64, _ value: some Collection<UInt8>) {
    raw(field << 3 | 2)
    raw(UInt64(value.count))
    bytes += value
  }

  mutating func text(_ field: UInt64, _ value: String) { bytes(field, Array(value.utf8)) }

  mutating func message(_ field: UInt64, _ fill: (inout Protobuf) -> Void) {
    bytes(field, Protobuf(fill).bytes)
  }

  mutating func raw(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  /// An envelope around one message, compressed.
  static func envelope(version: UInt64 = 1, office: String = "a", _ fill: (inout Protobuf) -> Void) throws
    -> [UInt8]
  {
    try Compression.compress(
      Protobuf {
        $0.varint(1, version)
        $0.text(2, office)
        fill(&$0)
      }.bytes)
  }
}

func decoded(_ body: [UInt8]) throws(WireError) -> Envelope { try Wire.decode(body, contentEncoding: "zstd") }
