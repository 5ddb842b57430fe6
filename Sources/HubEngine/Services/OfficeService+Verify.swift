import Logging
import SyncCore
import SyncWire

/// A `hub verify` that a command asked for.
package struct VerifyRun: Sendable {
  package var id: Int64
  /// nil: all active branches.
  package var office: String?
  package var repairs: Bool
  package var deadline: ContinuousClock.Instant

  /// What a command leaves as a request's argument.
  package static func argument(office: String?, repairs: Bool, seconds: Int) -> String {
    "\(seconds) \(repairs ? "repair" : "look") \(office ?? "")"
  }

  init?(_ request: CommandRequest) {
    let parts = request.argument.split(separator: " ")
    guard parts.count >= 2, let seconds = Int64(parts[0]) else { return nil }
    id = request.id
    repairs = parts[1] == "repair"
    office = parts.count > 2 ? String(parts[2]) : nil
    deadline = .now + .seconds(seconds)
  }
}

/// Head: compares its tables with the branches', one after the other, and heals what differs.
extension OfficeService {
  /// Repairs are followed by a comparison; what differs after so many is left to a person.
  private static let repairRounds = 3
  /// An office of which nothing was heard for so long is away: it shows itself every 5 s.
  private static let absentAfter = Duration.seconds(20)

  func verifyLoop() async throws {
    try await verifyBell.serve {
      while let run = verifications.first {
        do {
          let outcome = try await verify(run)
          try await store.finishRequest(run.id, failed: false, outcome: outcome.description)
        } catch let error as HubError where !error.isDisconnect {
          let outcome = JSONValue.fields([
            "error": .string(error.message), "hint": JSONValue(error.hint), "code": .string(error.code.rawValue),
          ])
          try await store.finishRequest(run.id, failed: true, outcome: outcome.description)
        }
        await store.endVerifying()
        verifications.removeFirst()
      }
    }
  }

  private func verify(_ run: VerifyRun) async throws -> JSONValue {
    if let office = run.office, peers[office] == nil {
      throw HubError(.refused, "there is no branch \(office)", hint: "hub branches lists them")
    }
    let offices = peers.filter { $0.value.record.state == .active && (run.office ?? $0.key) == $0.key }.keys.sorted()
    guard !offices.isEmpty || run.office == nil else {
      throw HubError(.notReady, "\(run.office ?? "") has not finished joining", hint: "hub branches shows its state")
    }
    var verified: [String] = []
    // One that is away does not keep the others from being compared.
    var away: [String] = []
    for office in offices {
      do {
        try await verify(office, run)
        verified.append(office)
      } catch let error as HubError where error.code == .timedOut {
        away.append(error.message)
      }
    }
    return .fields([
      "verified": .array(verified.map { .string($0) }), "away": .array(away.map { .string($0) }),
    ])
  }

  private func verify(_ office: String, _ run: VerifyRun) async throws {
    var repaired = 0
    var notes: [String] = []
    for round in 0...Self.repairRounds {
      let comparison = try await compare(office, run)
      let differences = comparison.differences
      let mayRepair = run.repairs && round < Self.repairRounds
      let healed = mayRepair ? try await repair(differences, office, run, &notes) : 0
      repaired += healed
      if healed > 0 {
        try await pass(office, run)
        continue
      }
      try await keep(comparison, office, repaired: repaired, notes: notes)
      return
    }
  }

  private func keep(_ comparison: Verification, _ office: String, repaired: Int, notes: [String]) async throws {
    let digits = String(comparison.digest, radix: 16)
    let differences = comparison.differences.filter(\.counts)
    let certificate = VerifyCertificate(
      office: office, differences: differences.count, local: comparison.differences.count - differences.count,
      moving: comparison.moving, repaired: repaired, tables: comparison.progress.tables, rows: comparison.rows,
      digest: String(repeating: "0", count: max(0, 16 - digits.count)) + digits,
      headBatch: outbound.acknowledged[office] ?? .origin,
      branchBatch: peers[office]?.inbound.position.at ?? .origin, notes: comparison.notes + notes)
    try await store.save(certificate, comparison.differences)
    logger.info(
      "verified",
      metadata: [
        "hub.office": "\(office)", "hub.rows": "\(comparison.rows)", "hub.differences": "\(differences.count)",
      ])
  }

  // MARK: comparing

  private func compare(_ office: String, _ run: VerifyRun) async throws -> Verification {
    while true {
      var comparison = Verification(try await currentCatalogue().tables)
      var action = comparison.begin()
      while true {
        try await report(comparison.progress, office, run)
        switch action {
        case .ask(let question):
          let token = try await put(.compare(question), to: office)
          let ours = try await store.verify(question, with: office)
          let theirs = try await answer(.compare(question), token, of: office, run)
          guard case .compared(let answer) = theirs else { throw Self.unfit(office) }
          action = comparison.answered(head: ours, branch: answer)
        case .pass:
          try await pass(office, run)
          action = comparison.passed()
        case .finish: return comparison
        case .fail(let why): throw HubError(.refused, "\(office) cannot be compared: \(why)")
        case .again: break
        }
        if action == .again { break }
      }
      // The catalogue is on its way.
      try await Task.sleep(for: .milliseconds(500))
      try check(office, run, since: .now)
    }
  }

  /// Returns when all that either office has now was applied by the other.
  private func pass(_ office: String, _ run: VerifyRun) async throws {
    let began = ContinuousClock.now
    let token = try await put(.pass, to: office)
    let ours = try await lastBatchOfAll(since: began) { try self.check(office, run, since: began) }
    guard case .passed(let theirs) = try await answer(.pass, token, of: office, run) else { throw Self.unfit(office) }
    while true {
      if let position = peers[office]?.inbound.position, position.catchUp == nil, position.at.number >= theirs.number,
        outbound.acknowledged[office].map({ $0.number >= ours.number }) ?? (ours == .origin)
      {
        return
      }
      try await Task.sleep(for: .milliseconds(5))
      try check(office, run, since: began)
    }
  }

  /// The last batch, once everything that is in the database now was read for sending.
  func lastBatchOfAll(since began: ContinuousClock.Instant, _ check: () throws -> Void = {}) async throws
    -> BatchReference
  {
    passes += 1
    defer { passes -= 1 }
    while feedReadAt.map({ $0 < began }) ?? true {
      try await Task.sleep(for: .milliseconds(5))
      try check()
    }
    return outbound.last
  }

  // MARK: asking

  private func put(_ request: VerifyRequest, to office: String) async throws -> Int64 {
    let token = Int64.random(in: 1...Int64.max)
    verifyAnswers = [:]
    verifyAwaited = (office, token)
    try await send(.verifyQuestion(token: token, request), to: .office(office))
    return token
  }

  private func answer(_ request: VerifyRequest, _ token: Int64, of office: String, _ run: VerifyRun) async throws
    -> VerifyReply
  {
    defer { verifyAwaited = nil }
    let began = ContinuousClock.now
    var asked = began
    while true {
      if let reply = verifyAnswers.removeValue(forKey: token) {
        if case .refused(let why) = reply { throw HubError(.refused, "\(office) cannot be compared: \(why)") }
        return reply
      }
      try await Task.sleep(for: .milliseconds(2))
      try check(office, run, since: began)
      if asked + Limits.verifyRepeatAfter < .now {
        // The broker may have lost it; a branch that is at work on it passes the second one over.
        try await send(.verifyQuestion(token: token, request), to: .office(office))
        asked = .now
      }
    }
  }

  private func ask(_ request: VerifyRequest, of office: String, _ run: VerifyRun) async throws -> VerifyReply {
    try await answer(request, try await put(request, to: office), of: office, run)
  }

  private static func unfit(_ office: String) -> HubError {
    HubError(.refused, "\(office) cannot be compared: its answer does not fit the question")
  }

  /// Throws when the time is over, or the branch is away.
  private func check(_ office: String, _ run: VerifyRun, since began: ContinuousClock.Instant) throws {
    guard let peer = peers[office] else { throw HubError(.refused, "\(office) was removed") }
    if identity.isPaused { throw HubError(.notReady, "the exchange is paused", hint: "hub resume, then verify again") }
    let heard = max(peer.lastSeen ?? began, began)
    if heard + Self.absentAfter < .now {
      throw HubError(.timedOut, "\(office) is offline or paused")
    }
    if run.deadline < .now { throw HubError(.timedOut, "\(office) was not compared in time") }
  }

  /// An answer is taken from the office asked, once.
  func verifyAnswered(_ token: Int64, _ reply: VerifyReply, by office: String) {
    guard let verifyAwaited, verifyAwaited == (office, token) else { return }
    verifyAnswers[token] = reply
  }

  private func report(_ progress: Verification.Progress, _ office: String, _ run: VerifyRun) async throws {
    guard verifyReportedAt.map({ $0 + .milliseconds(500) < .now }) ?? true else { return }
    verifyReportedAt = .now
    let text = JSONValue.fields([
      "office": .string(office), "table": .string(progress.table), "tables_done": JSONValue(progress.tablesDone),
      "tables": JSONValue(progress.tables), "rows": .integer(progress.rows),
    ])
    guard try await store.report(text.description, on: run.id) else {
      throw HubError(.refused, "nobody waits for this comparison any more")
    }
  }
}

// MARK: repairing

extension OfficeService {
  /// Returns how many rows were written.
  private func repair(
    _ differences: [Difference], _ office: String, _ run: VerifyRun, _ notes: inout [String]
  ) async throws -> Int {
    let tables = Dictionary(uniqueKeysWithValues: try await currentCatalogue().tables.map { ($0.name, $0.options) })
    var written = 0
    for (name, group) in Dictionary(grouping: differences, by: \.table).sorted(by: { $0.key < $1.key }) {
      guard let options = tables[name] else { continue }
      for side in [Repair.headRestates, .branchRestates] {
        var rest = group.filter { Repair.of($0.kind, direction: options.direction) == side }[...]
        while !rest.isEmpty {
          let some = Array(rest.prefix(100))
          rest = rest.dropFirst(some.count)
          written +=
            side == .headRestates
            ? try await headRestates(some, name, office, run, &notes)
            : try await branchRestates(some, name, office, run, &notes)
        }
      }
    }
    return written
  }

  private func headRestates(
    _ differences: [Difference], _ table: String, _ office: String, _ run: VerifyRun, _ notes: inout [String]
  ) async throws -> Int {
    // The branch's rows that go: they are kept in the conflict log.
    let overwritten = differences.filter { $0.kind == .differs || $0.kind == .missingAtHead }
    let contents = try await contents(overwritten.map(\.key), table, office, run)
    let copies = zip(overwritten, contents).filter { !$1.isEmpty }.map { difference, json in
      OverwrittenCopy(key: difference.key, json: json, vector: difference.branch?.vector, kind: difference.kind)
    }
    let unkept = Set(overwritten.map(\.key)).subtracting(copies.map(\.key))
    noteUnkept(unkept.count, table, &notes)
    return try await store.restate(
      differences.filter { !unkept.contains($0.key) }.map {
        RestatedRow(key: $0.key, seen: $0.branch?.vector, expected: $0.head?.vector)
      }, of: table, overwritten: copies, from: office)
  }

  private func branchRestates(
    _ differences: [Difference], _ table: String, _ office: String, _ run: VerifyRun, _ notes: inout [String]
  ) async throws -> Int {
    let overwritten = differences.filter { $0.kind == .differs }
    var copies: [OverwrittenCopy] = []
    let theirs = try await contents(overwritten.map(\.key), table, office, run)
    var at = 0
    let scope = VerifyScope(table: table, columns: [], comparesVersions: false)
    while at < overwritten.count {
      let rows = try await store.contents(scope, overwritten[at...].map(\.key))
      guard !rows.isEmpty else { break }
      for json in rows {
        let difference = overwritten[at]
        if !json.isEmpty {
          copies.append(
            OverwrittenCopy(
              key: difference.key, json: json, vector: difference.head?.vector, kind: .differs, standing: theirs[at],
              standingVector: difference.branch?.vector))
        }
        at += 1
      }
    }
    let unkept = Set(overwritten.map(\.key)).subtracting(copies.map(\.key))
    noteUnkept(unkept.count, table, &notes)
    if !copies.isEmpty { try await store.logOverwritten(copies, of: table, by: office) }
    let rows = differences.filter { !unkept.contains($0.key) }.map {
      RestatedRow(key: $0.key, seen: $0.head?.vector, expected: $0.branch?.vector)
    }
    guard !rows.isEmpty else { return 0 }
    guard case .restated(let count) = try await ask(.restate(table: table, rows), of: office, run) else {
      throw HubError(.refused, "\(office) did not repair its rows")
    }
    return count
  }

  /// What the branch's rows hold; empty of one that cannot be kept.
  private func contents(_ keys: [RowKey], _ table: String, _ office: String, _ run: VerifyRun) async throws -> [String]
  {
    var contents: [String] = []
    let scope = VerifyScope(table: table, columns: [], comparesVersions: false)
    while contents.count < keys.count {
      let asked = Array(keys[contents.count...])
      guard case .contents(let rows) = try await ask(.contents(scope, asked), of: office, run), !rows.isEmpty,
        rows.count <= asked.count
      else { throw HubError(.refused, "\(office) did not say what its rows hold") }
      contents += rows
    }
    return contents
  }

  private func noteUnkept(_ count: Int, _ table: String, _ notes: inout [String]) {
    guard count > 0 else { return }
    let note = "not repaired: rows of \(table) that changed meanwhile, or are too large to keep a copy of"
    if !notes.contains(note) { notes.append(note) }
  }
}
