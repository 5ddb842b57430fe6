import Testing

@testable import SyncCore

/// An office's table in memory, answering as a database does.
private struct Shelf {
  struct Row: Hashable {
    var value: String?
    var vector: VersionVector?
    var isVersionAlive = true
    var isQuarantined = false
  }

  var rows: [Int: Row] = [:]

  static func hash(_ text: String) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
    hash = (hash ^ hash >> 31) &* 0x9E37_79B9_7F4A_7C15
    return hash ^ hash >> 29
  }

  static func key(_ number: Int) -> RowKey { RowKey([Array(String(number).utf8)]) }
  static func number(_ key: RowKey) -> Int { Int(String(decoding: key.values[0], as: UTF8.self)) ?? -1 }

  func look(_ key: Int) -> RowLook {
    let row = rows[key]
    return RowLook(
      isThere: row?.value != nil, vector: row?.vector,
      isVersionAlive: row?.vector != nil && row?.isVersionAlive == true,
      isQuarantined: row?.isQuarantined ?? false,
      hash: row?.value.map { Int64(bitPattern: Self.hash($0)) } ?? 0)
  }

  func answer(_ question: VerifyQuestion, keysMax: Int = Limits.verifyKeysMax) -> VerifyAnswer {
    func digests(_ scope: VerifyScope) -> [(key: Int, place: UInt64, sum: Int64)] {
      rows.filter { $0.value.value != nil }.filter { row in
        scope.actors.map { actors in row.value.vector?.dots.contains { actors.contains($0.actor.rawValue) } ?? false }
          ?? true
      }.map { key, row in
        let version = scope.comparesVersions ? "\(look(key).spoken?.dots ?? [])" : ""
        return (key, Self.hash("k\(key)"), Int64(bitPattern: Self.hash("\(key) \(row.value ?? "") \(version)")))
      }
    }
    switch question {
    case .describe:
      let actors = Set(rows.values.flatMap { $0.vector?.dots.map(\.actor.rawValue) ?? [] }).sorted()
      return .tables(
        [VerifyTable(name: "a.t", keyColumns: ["id"], columns: ["v", "id"], rows: Int64(rows.count), actors: actors)],
        catalogueVersion: 1, probe: 1)
    case .digests(let scope, let set):
      var out = Array(repeating: BucketDigest.empty, count: set.childCount)
      let places = Dictionary(uniqueKeysWithValues: set.buckets.enumerated().map { ($1, $0) })
      for row in digests(scope) {
        let number = set.bits + set.step == 0 ? 0 : row.place >> UInt64(64 - set.bits - set.step)
        guard let at = places[Int64(number >> UInt64(set.step))] else { continue }
        let child = at << set.step | Int(number & UInt64(1 << set.step - 1))
        out[child].rows += 1
        out[child].sum ^= row.sum
      }
      return .digests(out)
    case .keys(let scope, let set):
      let wanted = Set(set.buckets)
      let found = digests(scope).filter { row in
        wanted.contains(set.bits == 0 ? 0 : Int64(row.place >> UInt64(64 - set.bits)))
      }
      let pairs = found.prefix(keysMax).map { (Self.key($0.key), $0.sum) }
      return .keys(Dictionary(uniqueKeysWithValues: pairs), isCut: found.count > keysMax)
    case .rows(_, let keys): return .rows(keys.map { look(Self.number($0)) })
    }
  }
}

private struct Comparison {
  var head = Shelf()
  var branch = Shelf()
  var direction = "both"
  var foreignWrites = "refuse"
  var keysMax = Limits.verifyKeysMax
  /// What happens while the streams pass.
  var onPass: (inout Comparison, Int) -> Void = { _, _ in }
  var asked: [VerifyQuestion] = []
  var passes = 0

  mutating func fill(_ count: Int, actor: Int64 = 1) {
    for key in 0..<count {
      let row = Shelf.Row(
        value: "row \(key)", vector: VersionVector(Dot(actor: ActorID(rawValue: actor), n: Int64(key + 1))))
      head.rows[key] = row
      branch.rows[key] = row
    }
  }

  mutating func run() throws -> Verification {
    var options = TrackingOptions()
    options.direction = direction
    options.foreignWrites = foreignWrites
    var verification = Verification([CatalogueTable(schemaName: "a", relationName: "t", options: options)])
    var action = verification.begin()
    for _ in 0..<10_000 {
      switch action {
      case .ask(let question):
        asked.append(question)
        var ours = head.answer(question, keysMax: keysMax)
        // Whose actors head's rows bear, head does not know by looking at them.
        if case .tables(var tables, let version, let probe) = ours {
          for at in tables.indices { tables[at].actors = [] }
          ours = .tables(tables, catalogueVersion: version, probe: probe)
        }
        var unscoped = question
        if case .digests(var scope, let set) = question {
          scope.actors = nil
          unscoped = .digests(scope, set)
        } else if case .keys(var scope, let set) = question {
          scope.actors = nil
          unscoped = .keys(scope, set)
        }
        action = verification.answered(head: ours, branch: branch.answer(unscoped, keysMax: keysMax))
      case .pass:
        passes += 1
        onPass(&self, passes)
        action = verification.passed()
      case .finish: return verification
      case .fail(let why): throw Failure(why: why)
      case .again: throw Failure(why: "the catalogue is the same")
      }
    }
    throw Failure(why: "no end")
  }

  struct Failure: Error { var why: String }
}

@Suite struct VerificationTests {
  private func kinds(_ verification: Verification) -> [Int: Difference.Kind] {
    Dictionary(uniqueKeysWithValues: verification.differences.map { (Shelf.number($0.key), $0.kind) })
  }

  @Test(arguments: [0, 1, 300, 20_000])
  func equalTablesCostOneQuestionATable(_ count: Int) throws {
    var comparison = Comparison()
    comparison.fill(count)
    let verification = try comparison.run()
    #expect(verification.differences.isEmpty && verification.rows == count && verification.moving == 0)
    #expect(comparison.asked.count == 2 && comparison.passes == 0)
  }

  @Test func oneAlteredRowOfManyIsNamedAfterFewQuestions() throws {
    var comparison = Comparison()
    comparison.fill(50_000)
    comparison.branch.rows[777]?.value = "altered"
    #expect(kinds(try comparison.run()) == [777: .differs])
    // describe, digests, keys, the row, and once more after the streams passed.
    #expect(comparison.asked.count == 5 && comparison.passes == 1)
  }

  @Test func everyKindOfDriftIsNamed() throws {
    var comparison = Comparison()
    comparison.fill(5_000)
    comparison.branch.rows[1]?.value = "altered at the branch"
    comparison.head.rows[2]?.value = "altered at head"
    comparison.branch.rows[3]?.value = nil
    comparison.head.rows[4]?.value = nil
    comparison.branch.rows[9_000] = Shelf.Row(value: "added at the branch")
    comparison.head.rows[9_001] = Shelf.Row(value: "added at head")
    comparison.branch.rows[5]?.vector = VersionVector(dot(2, 2))
    comparison.head.rows[6] = Shelf.Row(value: "x", vector: VersionVector(dot(1, 7)), isQuarantined: true)
    comparison.head.rows[7]?.value = nil
    comparison.branch.rows[7]?.value = nil
    let verification = try comparison.run()
    #expect(
      kinds(verification) == [
        1: .differs, 2: .differs, 3: .missingAtBranch, 4: .missingAtHead, 9_000: .missingAtHead,
        9_001: .missingAtBranch, 5: .versionDiffers, 6: .quarantined,
      ])
  }

  @Test func rowsOnTheirWayAreNoDifferences() throws {
    var comparison = Comparison()
    comparison.fill(2_000)
    for key in 0..<50 {
      comparison.head.rows[key] = Shelf.Row(
        value: "new \(key)", vector: VersionVector([dot(1, 1), dot(9, Int64(key + 1))]))
    }
    comparison.branch.rows[5_000] = Shelf.Row(value: "inserted", vector: VersionVector(dot(3, 1)))
    comparison.head.rows[60] = Shelf.Row(value: nil, vector: VersionVector(dot(1, 99)), isVersionAlive: false)
    comparison.branch.rows[70]?.value = "drift"
    comparison.onPass = { comparison, pass in
      guard pass == 1 else { return }
      for key in 0..<50 { comparison.branch.rows[key] = comparison.head.rows[key] }
      comparison.head.rows[5_000] = comparison.branch.rows[5_000]
      comparison.branch.rows[60] = comparison.head.rows[60]
    }
    #expect(kinds(try comparison.run()) == [70: .differs])
  }

  @Test func aRowThatIsWrittenAllTheTimeIsCountedAndNotAccused() throws {
    var comparison = Comparison()
    comparison.fill(100)
    comparison.head.rows[1]?.vector = VersionVector(dot(1, 1_000))
    comparison.onPass = { comparison, pass in
      comparison.branch.rows[1] = comparison.head.rows[1]
      comparison.head.rows[1] = Shelf.Row(value: "\(pass)", vector: VersionVector(dot(1, Int64(1_000 + pass))))
    }
    let verification = try comparison.run()
    #expect(verification.differences.isEmpty && verification.moving == 1)
  }

  @Test func aDifferenceThatAppearsWhileItIsLookedAtHasToLast() throws {
    var comparison = Comparison()
    comparison.fill(100)
    comparison.branch.rows[1]?.value = "one"
    comparison.onPass = { comparison, pass in comparison.branch.rows[1]?.value = pass < 3 ? "\(pass)" : "row 1" }
    #expect(try comparison.run().differences.isEmpty)
  }

  @Test func aTableThatDiffersEverywhereIsNamedInFull() throws {
    var comparison = Comparison()
    comparison.fill(4_000)
    for key in 0..<4_000 { comparison.branch.rows[key]?.value = "other" }
    let verification = try comparison.run()
    #expect(verification.differences.count == 4_000 && Set(verification.differences.map(\.kind)) == [.differs])
  }

  @Test func bucketsThatHoldMoreThanExpectedAreSplit() throws {
    var comparison = Comparison()
    comparison.fill(3_000)
    comparison.keysMax = 40
    comparison.branch.rows[5]?.value = "x"
    #expect(kinds(try comparison.run()) == [5: .differs])
  }

  @Test func anEmptyHeadIsComparedWithAFullBranch() throws {
    var comparison = Comparison()
    comparison.fill(3_000)
    comparison.head.rows = [:]
    let verification = try comparison.run()
    #expect(
      verification.differences.count == 3_000 && verification.differences.allSatisfy { $0.kind == .missingAtHead })
  }

  @Test func ofATableThatBranchesWriteOnlyThisBranchesRowsAreCompared() throws {
    var comparison = Comparison()
    comparison.fill(500, actor: 5)
    comparison.direction = "up"
    // Another branch's rows; one that head stamped again; one that head decided; one that is gone at head.
    for key in 1_000..<1_400 {
      comparison.head.rows[key] = Shelf.Row(value: "b", vector: VersionVector(dot(6, Int64(key))))
    }
    comparison.head.rows[1]?.vector = VersionVector([dot(5, 2), dot(9, 1)])
    comparison.head.rows[2] = Shelf.Row(value: "decided", vector: VersionVector([dot(5, 3), dot(6, 1), dot(9, 2)]))
    comparison.head.rows[3]?.value = nil
    comparison.branch.rows[4]?.value = "altered"
    comparison.branch.rows[5]?.value = nil
    let verification = try comparison.run()
    #expect(kinds(verification) == [3: .missingAtHead, 4: .differs, 5: .missingAtBranch])
    #expect(verification.rows == 499)
  }

  @Test func writesThatATableAllowsAgainstItsDirectionAreLocal() throws {
    var comparison = Comparison()
    comparison.fill(50)
    comparison.direction = "down"
    comparison.foreignWrites = "ignore"
    comparison.branch.rows[1]?.value = "mine"
    comparison.branch.rows[100] = Shelf.Row(value: "mine")
    let verification = try comparison.run()
    #expect(kinds(verification) == [1: .local, 100: .local] && verification.differences.allSatisfy { !$0.counts })
  }

  @Test func whatCannotBeComparedIsSaid() {
    func first(_ theirs: VerifyAnswer) -> (Verification, Verification.Action) {
      var verification = Verification([CatalogueTable(schemaName: "a", relationName: "t", options: .init())])
      _ = verification.begin()
      let ours = VerifyAnswer.tables(
        [VerifyTable(name: "a.t", keyColumns: ["id"], columns: ["id", "x", "y"], rows: 9)], catalogueVersion: 3,
        probe: 1)
      let action = verification.answered(head: ours, branch: theirs)
      return (verification, action)
    }
    func table(_ name: String, _ key: String, _ columns: [String]) -> [VerifyTable] {
      [VerifyTable(name: name, keyColumns: [key], columns: columns, rows: 9)]
    }
    let (missing, end) = first(.tables([], catalogueVersion: 3, probe: 1))
    #expect(missing.differences.map(\.kind) == [.missingTable] && end == .finish)
    let (other, _) = first(.tables(table("a.t", "x", ["id", "x"]), catalogueVersion: 3, probe: 1))
    #expect(other.differences.map(\.kind) == [.missingTable])
    let (lone, ask) = first(.tables(table("a.t", "id", ["z", "y", "id"]), catalogueVersion: 3, probe: 1))
    #expect(lone.notes == ["not compared, only one office has it: a.t x, z"])
    guard case .ask(.digests(let scope, _)) = ask else {
      Issue.record("\(ask)")
      return
    }
    #expect(scope.columns == ["id", "y"])
    #expect(first(.tables(table("a.t", "id", ["id"]), catalogueVersion: 2, probe: 1)).1 == .again)
    for theirs in [.tables(table("a.t", "id", ["id"]), catalogueVersion: 3, probe: 2), .digests([])] as [VerifyAnswer] {
      guard case .fail = first(theirs).1 else {
        Issue.record("\(theirs) passed")
        return
      }
    }
  }

  @Test func anAnswerOfAnotherSizeEndsTheComparison() {
    var verification = Verification([CatalogueTable(schemaName: "a", relationName: "t", options: .init())])
    _ = verification.begin()
    let tables = VerifyAnswer.tables(
      [VerifyTable(name: "a.t", keyColumns: ["id"], columns: ["id"], rows: 100_000)], catalogueVersion: 3, probe: 1)
    guard case .ask(.digests(_, let set)) = verification.answered(head: tables, branch: tables) else {
      Issue.record("no digests are asked for")
      return
    }
    let ours = VerifyAnswer.digests(Array(repeating: .empty, count: set.childCount))
    guard case .fail = verification.answered(head: ours, branch: .digests([.empty])) else {
      Issue.record("a short answer passed")
      return
    }
  }

  @Test func whoHealsADifference() {
    func heals(_ kind: Difference.Kind) -> [Repair] { ["both", "down", "up"].map { Repair.of(kind, direction: $0) } }
    #expect(heals(.differs) == [.headRestates, .headRestates, .branchRestates])
    #expect(heals(.versionDiffers) == [.headRestates, .headRestates, .branchRestates])
    #expect(heals(.missingAtBranch) == [.headRestates, .headRestates, .none])
    #expect(heals(.missingAtHead) == [.branchRestates, .headRestates, .branchRestates])
    for kind in [Difference.Kind.quarantined, .local, .missingTable] { #expect(heals(kind) == [.none, .none, .none]) }
  }
}
