import FoundationEssentials
import SyncCore

extension VerifyRequest {
  var wire: Hub_Wire_VerifyQuestion {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_VerifyQuestion()
      switch self {
      case .compare(.describe): out.describe = .init()
      case .compare(.digests(let scope, let set)): out.digests = Hub_Wire_VerifyBuckets(scope, set)
      case .compare(.keys(let scope, let set)): out.keys = Hub_Wire_VerifyBuckets(scope, set)
      case .compare(.rows(let scope, let keys)): out.rows = Hub_Wire_VerifyRows(scope, keys)
      case .contents(let scope, let keys): out.contents = Hub_Wire_VerifyRows(scope, keys)
      case .restate(let table, let rows):
        var restate = Hub_Wire_VerifyRows()
        restate.table = table
        restate.keys = rows.map(\.key).wire
        restate.seen = rows.map(\.seen).wire
        restate.expected = rows.map(\.expected).wire
        out.restate = restate
      case .pass: out.pass = .init()
      }
      return out
    }
  }

  init(wire: Hub_Wire_VerifyQuestion) throws(WireError) {
    switch wire.question {
    case .describe: self = .compare(.describe)
    case .digests(let message): self = .compare(.digests(message.scope, try message.set))
    case .keys(let message): self = .compare(.keys(message.scope, try message.set))
    case .rows(let message): self = .compare(.rows(message.scope, try [RowKey](wire: message.keys)))
    case .contents(let message): self = .contents(message.scope, try [RowKey](wire: message.keys))
    case .restate(let message):
      let keys = try [RowKey](wire: message.keys)
      let seen = try [VersionVector?](wire: message.seen, count: keys.count)
      let expected = try [VersionVector?](wire: message.expected, count: keys.count)
      self = .restate(
        table: message.table,
        keys.indices.map { RestatedRow(key: keys[$0], seen: seen[$0], expected: expected[$0]) })
    case .pass: self = .pass
    case nil: throw .unknownKind(field: nil)
    }
    try check()
  }

  private func check() throws(WireError) {
    switch self {
    case .compare(.describe), .pass: break
    case .compare(.digests(let scope, let set)):
      try VerifyChecks.buckets(scope, set, childrenMax: Limits.verifyDigestsMax)
    case .compare(.keys(let scope, let set)): try VerifyChecks.buckets(scope, set, childrenMax: Limits.verifyDigestsMax)
    case .compare(.rows(let scope, let keys)), .contents(let scope, let keys):
      try VerifyChecks.scope(scope)
      try VerifyChecks.keys(keys, max: Limits.verifyRowsMax)
    case .restate(let table, let rows):
      try Checks.text(table, "a table's name", max: Limits.tableNameBytesMax)
      try VerifyChecks.keys(rows.map(\.key), max: Limits.verifyRowsMax)
      for row in rows {
        try VerifyChecks.vector(row.seen)
        try VerifyChecks.vector(row.expected)
      }
    }
  }
}

extension VerifyReply {
  var wire: Hub_Wire_VerifyAnswer {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_VerifyAnswer()
      switch self {
      case .compared(.tables(let tables, let version, let probe)):
        out.tables.tables = tables.map(Hub_Wire_VerifyTable.init)
        out.tables.catalogueVersion = version
        out.tables.probe = probe
      case .compared(.digests(let digests)):
        out.digests.rows = digests.map(\.rows)
        out.digests.sums = digests.map(\.sum)
      case .compared(.keys(let keys, let isCut)):
        out.keys.keys = Array(keys.keys).wire
        out.keys.hashes = Array(keys.values)
        out.keys.cut = isCut
      case .compared(.rows(let looks)):
        out.looks.states = Data(looks.map(\.state))
        out.looks.hashes = looks.map(\.hash)
        out.looks.vectors = looks.map(\.vector).wire
      case .contents(let rows): out.contents.rows = rows
      case .restated(let count): out.restated = Int64(count)
      case .passed(let reference): out.passed = try reference.wire
      case .refused(let why): out.refusal = Checks.shortened(why, to: Limits.errorTextBytesMax)
      }
      return out
    }
  }

  init(wire: Hub_Wire_VerifyAnswer) throws(WireError) {
    switch wire.answer {
    case .tables(let message):
      self = .compared(
        .tables(message.tables.map(VerifyTable.init), catalogueVersion: message.catalogueVersion, probe: message.probe))
    case .digests(let message):
      guard message.rows.count == message.sums.count else { throw .malformed("digests without rows") }
      self = .compared(.digests(zip(message.rows, message.sums).map { BucketDigest(rows: $0, sum: $1) }))
    case .keys(let message):
      let keys = try [RowKey](wire: message.keys)
      guard keys.count == message.hashes.count else { throw .malformed("keys without digests") }
      let pairs = Dictionary(zip(keys, message.hashes)) { first, _ in first }
      guard pairs.count == keys.count else { throw .malformed("a key is there twice") }
      self = .compared(.keys(pairs, isCut: message.cut))
    case .looks(let message): self = .compared(.rows(try [RowLook](wire: message)))
    case .contents(let message): self = .contents(message.rows)
    case .restated(let count): self = .restated(try Checks.int(count, "a number of rows", to: Limits.sumMax))
    case .passed(let reference): self = .passed(try BatchReference(wire: reference, isThere: true))
    case .refusal(let why):
      try Checks.text(why, "a reason", max: Limits.errorTextBytesMax, mayBeEmpty: true)
      self = .refused(why)
    case nil: throw .unknownKind(field: nil)
    }
    try check()
  }

  private func check() throws(WireError) {
    switch self {
    case .compared(.tables(let tables, let version, _)):
      try Checks.number(version, "a catalogue's version")
      guard tables.count <= Limits.tablesMax else { throw .malformed("too many tables in one message") }
      for table in tables { try VerifyChecks.table(table) }
    case .compared(.digests(let digests)):
      guard digests.count <= Limits.verifyDigestsMax else { throw .malformed("too many digests in one message") }
      for digest in digests { try Checks.number(digest.rows, "a bucket's rows", to: Limits.sumMax / (1 << 17)) }
    case .compared(.keys(let keys, _)): try VerifyChecks.keys(Array(keys.keys), max: Limits.verifyKeysMax)
    case .compared(.rows(let looks)):
      guard looks.count <= Limits.verifyRowsMax else { throw .malformed("too many rows in one message") }
      for look in looks { try VerifyChecks.vector(look.vector) }
    case .contents(let rows):
      guard rows.count <= Limits.verifyRowsMax else { throw .malformed("too many rows in one message") }
      for row in rows { try Checks.text(row, "a row", max: Limits.conflictEntryBytesMax, mayBeEmpty: true) }
    case .restated(let count): try Checks.number(Int64(count), "a number of rows", to: Limits.sumMax)
    case .passed, .refused: break
    }
  }
}

/// The rules that the messages of a comparison are held to, both ways.
private enum VerifyChecks {
  static func scope(_ scope: VerifyScope) throws(WireError) {
    try Checks.text(scope.table, "a table's name", max: Limits.tableNameBytesMax)
    try names(scope.columns)
  }

  static func names(_ names: [String]) throws(WireError) {
    guard names.count <= Limits.columnsMax, Set(names).count == names.count else {
      throw .malformed("a table has too many columns, or two of one name")
    }
    for name in names { try Checks.text(name, "a column's name", max: Limits.columnNameBytesMax) }
  }

  static func buckets(_ scope: VerifyScope, _ set: BucketSet, childrenMax: Int) throws(WireError) {
    try self.scope(scope)
    guard (0...56).contains(set.bits), (0...16).contains(set.step), set.bits + set.step <= 56 else {
      throw .malformed("a bucket has too many bits")
    }
    guard !set.buckets.isEmpty, set.buckets.count <= childrenMax >> set.step else {
      throw .malformed("too many buckets in one message, or none")
    }
    guard zip(set.buckets, set.buckets.dropFirst()).allSatisfy(<),
      set.buckets.allSatisfy({ $0 >= 0 && $0 >> Int64(set.bits) == 0 })
    else { throw .malformed("buckets are not in their order, or out of range") }
  }

  static func keys(_ keys: [RowKey], max: Int) throws(WireError) {
    guard keys.count <= max else { throw .malformed("too many keys in one message") }
    guard let width = keys.first?.values.count else { return }
    guard (1...Limits.keyColumnsMax).contains(width), keys.allSatisfy({ $0.values.count == width }) else {
      throw .malformed("a table's key has no columns, or too many")
    }
  }

  static func table(_ table: VerifyTable) throws(WireError) {
    try Checks.text(table.name, "a table's name", max: Limits.tableNameBytesMax)
    try names(table.columns)
    try names(table.keyColumns)
    guard (1...Limits.keyColumnsMax).contains(table.keyColumns.count) else {
      throw .malformed("a table's key has no columns, or too many")
    }
    try Checks.number(table.rows, "a table's rows", to: Limits.sumMax)
    guard table.actors.count <= Limits.verifyActorsMax, table.actors.allSatisfy({ $0 > 0 }) else {
      throw .malformed("a table has too many actors, or one that is none")
    }
  }

  static func vector(_ vector: VersionVector?) throws(WireError) {
    guard let vector else { return }
    guard !vector.dots.isEmpty, vector.dots.count <= Limits.messageVectorEntriesMax else {
      throw .malformed("a vector is empty or too long")
    }
    guard vector.dots.allSatisfy({ $0.actor.rawValue > 0 && $0.n > 0 && $0.n <= Limits.numberMax }) else {
      throw .malformed("a vector's entry is out of range")
    }
  }
}

// MARK: parts

extension Hub_Wire_VerifyBuckets {
  fileprivate init(_ scope: VerifyScope, _ set: BucketSet) {
    self.init()
    table = scope.table
    columns = scope.columns
    versions = scope.comparesVersions
    bits = UInt32(set.bits)
    step = UInt32(set.step)
    buckets = set.buckets
  }

  fileprivate var scope: VerifyScope { VerifyScope(table: table, columns: columns, comparesVersions: versions) }

  fileprivate var set: BucketSet {
    get throws(WireError) {
      BucketSet(
        bits: try Checks.int(Int64(bits), "a bucket's bits", to: 64),
        step: try Checks.int(Int64(step), "a bucket's bits", to: 64), buckets: buckets)
    }
  }
}

extension Hub_Wire_VerifyRows {
  fileprivate init(_ scope: VerifyScope, _ keys: [RowKey]) {
    self.init()
    table = scope.table
    columns = scope.columns
    self.keys = keys.wire
  }

  fileprivate var scope: VerifyScope { VerifyScope(table: table, columns: columns, comparesVersions: false) }
}

extension Hub_Wire_VerifyTable {
  fileprivate init(_ table: VerifyTable) {
    self.init()
    name = table.name
    keyColumns = table.keyColumns
    columns = table.columns
    rows = table.rows
    actors = table.actors
  }
}

extension VerifyTable {
  fileprivate init(wire: Hub_Wire_VerifyTable) {
    self.init(
      name: wire.name, keyColumns: wire.keyColumns, columns: wire.columns, rows: wire.rows, actors: wire.actors)
  }
}

extension RowLook {
  fileprivate var state: UInt8 {
    (isThere ? 1 : 0) | (vector != nil ? 2 : 0) | (isVersionAlive ? 4 : 0) | (isQuarantined ? 8 : 0)
  }
}

extension [RowLook] {
  fileprivate init(wire: Hub_Wire_VerifyLooks) throws(WireError) {
    let states = [UInt8](wire.states)
    guard states.count == wire.hashes.count, states.allSatisfy({ $0 < 16 }) else {
      throw .malformed("rows without state, or in an unknown one")
    }
    let vectors = try [VersionVector?](wire: wire.vectors, count: states.count)
    guard zip(states, vectors).allSatisfy({ ($0 & 2 != 0) == ($1 != nil) }) else {
      throw .malformed("a row's version is missing")
    }
    self = states.indices.map { at in
      RowLook(
        isThere: states[at] & 1 != 0, vector: vectors[at], isVersionAlive: states[at] & 4 != 0,
        isQuarantined: states[at] & 8 != 0, hash: wire.hashes[at])
    }
  }
}

extension [RowKey] {
  /// A column of the key each.
  fileprivate var wire: [Hub_Wire_ColumnValues] {
    (0..<(first?.values.count ?? 0)).map { column in
      var out = Hub_Wire_ColumnValues()
      for key in self {
        out.blob.append(contentsOf: key.values[column])
        out.lengths.append(Int32(truncatingIfNeeded: key.values[column].count))
      }
      return out
    }
  }

  fileprivate init(wire: [Hub_Wire_ColumnValues]) throws(WireError) {
    guard wire.count <= Limits.keyColumnsMax else { throw .malformed("a table's key has no columns, or too many") }
    let count = wire.first?.lengths.count ?? 0
    var columns: [[[UInt8]]] = []
    for column in wire {
      guard column.lengths.count == count else { throw .malformed("a key lacks a column") }
      let blob = [UInt8](column.blob)
      var values: [[UInt8]] = []
      values.reserveCapacity(count)
      var at = 0
      for length in column.lengths {
        guard length >= 0, Int(length) <= blob.count - at else {
          throw .malformed("values' lengths do not sum up to their bytes")
        }
        values.append([UInt8](blob[at..<at + Int(length)]))
        at += Int(length)
      }
      guard at == blob.count else { throw .malformed("values' lengths do not sum up to their bytes") }
      columns.append(values)
    }
    self = (0..<count).map { row in RowKey(columns.map { $0[row] }) }
  }
}

extension [VersionVector?] {
  fileprivate var wire: [Hub_Wire_Vector] {
    enumerated().compactMap { row, vector in
      guard let vector else { return nil }
      var out = Hub_Wire_Vector()
      out.row = UInt32(row)
      out.actors = vector.dots.map(\.actor.rawValue)
      out.counters = vector.dots.map(\.n)
      return out
    }
  }

  fileprivate init(wire: [Hub_Wire_Vector], count: Int) throws(WireError) {
    self = Array(repeating: nil, count: count)
    var next: UInt32 = 0
    for entry in wire {
      guard entry.row >= next, entry.row < UInt32(clamping: count) else {
        throw .malformed("vectors are not in the order of their rows")
      }
      next = entry.row + 1
      self[Int(entry.row)] = try VersionVector(wire: entry)
    }
  }
}
