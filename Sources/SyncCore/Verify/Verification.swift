/// Head: compares its tables with one branch's, from digests of buckets down to single rows, while both change.
///
/// Pure: the driver puts every question to both databases and hands the two answers over. A bucket that differs is
/// looked into, a row that differs is looked at. Rows on their way differ too, so no row counts before both streams
/// have passed (`pass`: all that either office had when it was looked at has been applied by the other) and both
/// offices still say the very same of it. A row that moved meanwhile is looked at again, `passesMax` times.
package struct Verification: Sendable {
  package enum Action: Hashable, Sendable {
    case ask(VerifyQuestion)
    case pass
    case finish
    /// The branch does not have head's present tables yet: begin again a little later.
    case again
    /// The answers do not fit the question.
    case fail(String)
  }

  package struct Progress: Hashable, Sendable {
    package var table = ""
    package var tablesDone = 0
    package var tables = 0
    package var rows: Int64 = 0
  }

  package struct Limit {
    /// Rows of a bucket of which the keys are asked for.
    static let leafRows: Int64 = 384
    /// What a split aims at.
    static let splitRows: Int64 = 192
    static let bitsMax = 56
    static let stepMax = 12
    static let passesMax = 6
  }

  private let options: [String: TrackingOptions]
  package private(set) var differences: [Difference] = []
  /// What could not be compared, in words.
  package private(set) var notes: [String] = []
  /// Rows of head's that were compared.
  package private(set) var rows: Int64 = 0
  /// Over head's rows, their versions included.
  package private(set) var digest: UInt64 = 0
  /// Rows that were written again and again while they were looked at.
  package private(set) var moving = 0
  package private(set) var progress = Progress()
  private var waiting: [Work] = []
  private var work: Work?
  private var asked: VerifyQuestion?

  package init(_ tables: [CatalogueTable]) {
    options = Dictionary(tables.map { ($0.name, $0.options) }) { first, _ in first }
  }

  package mutating func begin() -> Action { ask(.describe) }

  private mutating func ask(_ question: VerifyQuestion) -> Action {
    asked = question
    return .ask(question)
  }

  package mutating func answered(head: VerifyAnswer, branch: VerifyAnswer) -> Action {
    switch (asked, head, branch) {
    case (.describe, .tables(let ours, let version, let probe), .tables(let theirs, let itsVersion, let itsProbe)):
      guard version == itsVersion else { return .again }
      guard probe == itsProbe else { return .fail("the two servers calculate hashes differently") }
      compare(ours, theirs)
      return next()
    case (.digests(_, let set), .digests(let ours), .digests(let theirs)):
      guard ours.count == set.childCount, theirs.count == set.childCount else { break }
      narrow(set, ours, theirs)
      return next()
    case (.keys(_, let set), .keys(let ours, let isCut), .keys(let theirs, let isTheirsCut)):
      if (isCut || isTheirsCut) && set.bits < Limit.bitsMax {
        work?.pending += set.buckets.map { Bucket(bits: set.bits, number: $0, rows: .max) }
      } else {
        work?.suspect(ours, theirs)
      }
      return next()
    case (.rows(_, let keys), .rows(let ours), .rows(let theirs)):
      guard ours.count == keys.count, theirs.count == keys.count else { break }
      for (at, key) in keys.enumerated() { judge(key, ours[at], theirs[at]) }
      return next()
    default: break
    }
    return .fail("the branch's answer does not fit the question")
  }

  /// Both streams have passed what was looked at before.
  package mutating func passed() -> Action { next() }

  // MARK: tables

  private mutating func compare(_ ours: [VerifyTable], _ theirs: [VerifyTable]) {
    let known = Dictionary(theirs.map { ($0.name, $0) }) { first, _ in first }
    for table in ours.sorted(by: { $0.name < $1.name }) {
      guard let options = options[table.name] else { continue }
      guard let other = known[table.name], other.keyColumns == table.keyColumns else {
        differences.append(
          Difference(table: table.name, keyColumns: table.keyColumns, key: RowKey([]), kind: .missingTable))
        continue
      }
      let shared = Set(table.columns).intersection(other.columns)
      let lone = Set(table.columns).symmetricDifference(other.columns).sorted()
      if !lone.isEmpty {
        notes.append("not compared, only one office has it: \(table.name) \(lone.joined(separator: ", "))")
      }
      let isUp = options.direction == "up"
      let scope = VerifyScope(
        table: table.name, columns: shared.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) },
        comparesVersions: !isUp, actors: isUp ? Set(table.actors + other.actors).sorted() : nil)
      waiting.append(
        Work(scope: scope, keyColumns: table.keyColumns, options: options, rows: isUp ? other.rows : table.rows))
    }
    progress.tables = waiting.count
  }

  private mutating func next() -> Action {
    while true {
      if work == nil {
        guard !waiting.isEmpty else { return .finish }
        work = waiting.removeFirst()
        progress.table = work?.scope.table ?? ""
      }
      switch work?.next() {
      case .ask(let question): return ask(question)
      case .pass: return .pass
      default:
        moving += work?.left.count ?? 0
        if work?.isFull ?? false {
          notes.append("\(work?.scope.table ?? "") differs in more rows than one comparison names")
        }
        work = nil
        progress.tablesDone += 1
      }
    }
  }

  // MARK: buckets

  private mutating func narrow(_ set: BucketSet, _ ours: [BucketDigest], _ theirs: [BucketDigest]) {
    if set.bits == 0 {
      let count = ours.reduce(0) { $0 + $1.rows }
      rows += count
      progress.rows = rows
      let sum = ours.reduce(0) { $0 ^ $1.sum }
      for byte in (work?.scope.table ?? "").utf8 { digest = (digest ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
      digest = (digest ^ UInt64(bitPattern: sum)) &* 0x9E37_79B9_7F4A_7C15
    }
    for at in ours.indices where ours[at] != theirs[at] {
      let number = set.buckets[at >> set.step] << Int64(set.step) | Int64(at & (1 << set.step - 1))
      work?.pending.append(
        Bucket(bits: set.bits + set.step, number: number, rows: max(ours[at].rows, theirs[at].rows)))
    }
  }

  // MARK: rows

  private mutating func judge(_ key: RowKey, _ ours: RowLook, _ theirs: RowLook) {
    guard let work, !Self.agree(ours, theirs, work.scope) else { return }
    guard let before = work.looks[key], before == [ours, theirs] else {
      self.work?.looks[key] = [ours, theirs]
      self.work?.left.append(key)
      return
    }
    differences.append(
      Difference(
        table: work.scope.table, keyColumns: work.keyColumns, key: key, kind: Self.kind(ours, theirs, work.options),
        head: ours, branch: theirs))
  }

  /// Whether nothing is wrong with a row.
  static func agree(_ ours: RowLook, _ theirs: RowLook, _ scope: VerifyScope) -> Bool {
    guard ours.isThere || theirs.isThere else { return true }
    let isEqual = ours.isThere == theirs.isThere && ours.hash == theirs.hash
    if scope.comparesVersions { return isEqual && ours.spoken == theirs.spoken }
    if isEqual { return true }
    // Head has decided between this row and another office's, and the branch is not told.
    guard let mine = ours.spoken, let other = theirs.spoken else { return false }
    return mine != other && mine.dominates(other)
  }

  static func kind(_ ours: RowLook, _ theirs: RowLook, _ options: TrackingOptions) -> Difference.Kind {
    if ours.isQuarantined || theirs.isQuarantined { return .quarantined }
    if options.direction != "both" && options.foreignWrites == "ignore" { return .local }
    if ours.isThere && !theirs.isThere { return .missingAtBranch }
    if theirs.isThere && !ours.isThere { return .missingAtHead }
    return ours.hash == theirs.hash ? .versionDiffers : .differs
  }
}

/// A bucket that differs.
private struct Bucket: Sendable {
  var bits: Int
  var number: Int64
  /// At the side that has more.
  var rows: Int64
}

/// What is left to do in one table.
private struct Work: Sendable {
  var scope: VerifyScope
  var keyColumns: [String]
  var options: TrackingOptions
  /// The first question; nil: it was asked.
  var root: BucketSet?
  var pending: [Bucket] = []
  /// Rows to be looked at, now.
  var open: [RowKey] = []
  /// Rows that differed when they were looked at, and how they looked: head's, the branch's.
  var left: [RowKey] = []
  var looks: [RowKey: [RowLook]] = [:]
  var passes = 0
  var suspects = 0

  init(scope: VerifyScope, keyColumns: [String], options: TrackingOptions, rows: Int64) {
    self.scope = scope
    self.keyColumns = keyColumns
    self.options = options
    root = .root(step: Self.step(rows))
  }

  var isFull: Bool { suspects >= Limits.verifySuspectsMax }

  /// So many bits that a bucket of `rows` falls into small ones.
  private static func step(_ rows: Int64) -> Int {
    var step = 0
    while step < Verification.Limit.stepMax, rows >> Int64(step) > Verification.Limit.splitRows { step += 1 }
    return step
  }

  mutating func next() -> Verification.Action {
    if let set = root {
      root = nil
      return .ask(.digests(scope, set))
    }
    if isFull { pending = [] }
    if let question = narrowing() { return .ask(question) }
    if open.isEmpty, !left.isEmpty, passes < Verification.Limit.passesMax {
      passes += 1
      (open, left) = (left, [])
      return .pass
    }
    guard !open.isEmpty else { return .finish }
    return .ask(.rows(scope, takeOpen()))
  }

  private mutating func narrowing() -> VerifyQuestion? {
    guard let first = pending.last else { return nil }
    func isLeaf(_ bucket: Bucket) -> Bool {
      bucket.rows <= Verification.Limit.leafRows || bucket.bits >= Verification.Limit.bitsMax
    }
    let step = min(
      max(1, Self.step(first.rows)), Verification.Limit.bitsMax - min(first.bits, Verification.Limit.bitsMax))
    var buckets: [Int64] = []
    var rows: Int64 = 0
    while let bucket = pending.last, bucket.bits == first.bits, isLeaf(bucket) == isLeaf(first) {
      if isLeaf(first) {
        guard buckets.isEmpty || rows + bucket.rows <= Int64(Limits.verifyKeysMax) else { break }
      } else {
        guard buckets.isEmpty || (buckets.count + 1) << step <= Limits.verifyDigestsMax else { break }
      }
      rows += min(bucket.rows, Int64(Limits.verifyKeysMax))
      buckets.append(bucket.number)
      pending.removeLast()
    }
    return isLeaf(first)
      ? .keys(scope, BucketSet(bits: first.bits, step: 0, buckets: buckets.sorted()))
      : .digests(scope, BucketSet(bits: first.bits, step: step, buckets: buckets.sorted()))
  }

  /// Keys that one question may hold.
  private mutating func takeOpen() -> [RowKey] {
    var keys: [RowKey] = []
    var bytes = 0
    while let key = open.last, keys.count < Limits.verifyRowsMax {
      bytes += key.values.reduce(8) { $0 + $1.count }
      guard keys.isEmpty || bytes <= Limits.verifyKeyBytesMax else { break }
      keys.append(key)
      open.removeLast()
    }
    return keys
  }

  /// Keys that only one side has, or with another digest.
  mutating func suspect(_ ours: [RowKey: Int64], _ theirs: [RowKey: Int64]) {
    var found = ours.filter { theirs[$0.key] != $0.value }.map(\.key)
    found += theirs.keys.filter { ours[$0] == nil }
    suspects += found.count
    open += found
  }
}
