import FoundationEssentials
import SyncCore

extension Message {
  var wire: Hub_Wire_Envelope.OneOf_Message {
    get throws(WireError) {
      switch self {
      case .hello(let message): return .hello(try message.wire)
      case .welcome(let message): return .welcome(try message.wire)
      case .rehello(let session):
        var out = Hub_Wire_Rehello()
        out.session = session.rawValue
        return .rehello(out)
      case .batch(let message): return .batch(try message.wire)
      case .acknowledgement(let message): return .acknowledgement(try message.wire)
      case .beat(let message): return .beat(try message.wire)
      case .pull(let message): return .pull(try message.wire)
      case .window(let message): return .window(try message.wire)
      case .catalogue(let message): return .catalogue(try message.wire)
      case .enrol(let message): return .enrol(try message.wire)
      case .enrolled(let message): return .enrolled(try message.wire)
      case .leave(let nonce):
        var out = Hub_Wire_Leave()
        out.nonce = nonce
        return .leave(out)
      case .refused(let refused): return .refused(refused.wire)
      case .removed(let nonce, let reason):
        var out = Hub_Wire_Removed()
        out.nonce = nonce
        out.reason = Checks.shortened(reason, to: Limits.errorTextBytesMax)
        return .removed(out)
      case .conflicts(let message): return .conflicts(try message.wire)
      case .restate(let blocks, let request):
        try Checks.number(request, "a request's number")
        var out = Hub_Wire_Restate()
        out.tables = try blocks.wire
        out.request = request
        return .restate(out)
      case .verifyQuestion(let token, let request):
        var out = try request.wire
        out.token = token
        return .verifyQuestion(out)
      case .verifyAnswer(let token, let reply):
        var out = try reply.wire
        out.token = token
        return .verifyAnswer(out)
      case .restated(let request):
        try Checks.number(request, "a request's number")
        var out = Hub_Wire_Restated()
        out.request = request
        return .restated(out)
      }
    }
  }

  init(wire: Hub_Wire_Envelope.OneOf_Message) throws(WireError) {
    switch wire {
    case .hello(let message): self = .hello(try Hello(wire: message))
    case .welcome(let message): self = .welcome(try Welcome(wire: message))
    case .rehello(let message): self = .rehello(SessionID(rawValue: message.session))
    case .batch(let message): self = .batch(try BatchPart(wire: message))
    case .acknowledgement(let message): self = .acknowledgement(try Acknowledgement(wire: message))
    case .beat(let message): self = .beat(try Beat(wire: message))
    case .pull(let message): self = .pull(try Pull(wire: message))
    case .window(let message): self = .window(try WindowPart(wire: message))
    case .catalogue(let message): self = .catalogue(try Catalogue(wire: message))
    case .enrol(let message): self = .enrol(try Enrol(wire: message))
    case .enrolled(let message): self = .enrolled(try Enrolled(wire: message))
    case .leave(let message): self = .leave(nonce: message.nonce)
    case .refused(let message): self = .refused(try Refused(wire: message))
    case .removed(let message):
      try Checks.text(message.reason, "a reason", max: Limits.errorTextBytesMax, mayBeEmpty: true)
      self = .removed(nonce: message.nonce, reason: message.reason)
    case .conflicts(let message): self = .conflicts(try ConflictEntries(wire: message))
    case .verifyQuestion(let message): self = .verifyQuestion(token: message.token, try VerifyRequest(wire: message))
    case .verifyAnswer(let message): self = .verifyAnswer(token: message.token, try VerifyReply(wire: message))
    case .restate(let message):
      try Checks.number(message.request, "a request's number")
      self = .restate(try [RowBlock](wire: message.tables), request: message.request)
    case .restated(let message):
      try Checks.number(message.request, "a request's number")
      self = .restated(message.request)
    case .stored: throw .unknownKind(field: nil)
    }
  }
}

extension BatchReference {
  var wire: Hub_Wire_BatchReference {
    get throws(WireError) {
      try Checks.number(number, "a batch's number")
      var out = Hub_Wire_BatchReference()
      out.number = number
      out.id = id
      return out
    }
  }

  /// - Parameter isThere: whether the field was in the message; origin, too, is said and not left out.
  init(wire: Hub_Wire_BatchReference, isThere: Bool) throws(WireError) {
    guard isThere else { throw .malformed("a batch's reference is missing") }
    try Checks.number(wire.number, "a batch's number")
    self.init(number: wire.number, id: wire.id)
  }
}

extension StreamPosition {
  fileprivate var wire: Hub_Wire_StreamPosition {
    get throws(WireError) {
      var out = Hub_Wire_StreamPosition()
      out.session = session.rawValue
      out.reference = try reference.wire
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_StreamPosition) throws(WireError) {
    self.init(
      session: SessionID(rawValue: wire.session),
      reference: try BatchReference(wire: wire.reference, isThere: wire.hasReference))
  }
}

extension Hello {
  fileprivate var wire: Hub_Wire_Hello {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Hello()
      out.nonce = nonce
      out.session = session?.rawValue ?? 0
      out.at = try at.wire
      out.last = try last.wire
      out.catalogueVersion = catalogueVersion
      out.hubVersion = hubVersion
      out.conflicts = conflicts
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Hello) throws(WireError) {
    self.init(
      nonce: wire.nonce, session: wire.session == 0 ? nil : SessionID(rawValue: wire.session),
      at: try BatchReference(wire: wire.at, isThere: wire.hasAt),
      last: try BatchReference(wire: wire.last, isThere: wire.hasLast),
      catalogueVersion: wire.catalogueVersion, hubVersion: wire.hubVersion, conflicts: wire.conflicts)
    try check()
  }

  private func check() throws(WireError) {
    try Checks.number(catalogueVersion, "a catalogue's version")
    try Checks.text(hubVersion, "hub's version", max: Limits.wordBytesMax, mayBeEmpty: true)
    try Checks.number(conflicts, "a conflict entry's number")
  }
}

extension Welcome {
  fileprivate var wire: Hub_Wire_Welcome {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Welcome()
      out.nonce = nonce
      out.session = session.rawValue
      out.have = try have.wire
      out.headSession = headSession.rawValue
      out.start = try start.wire
      out.last = try last.wire
      out.catalogueVersion = catalogueVersion
      out.hubVersion = hubVersion
      out.recovers = recovers
      if let staged {
        out.staged.batch = try staged.batch.wire
        out.staged.count = UInt32(staged.count)
        out.staged.cursor = Data(staged.cursor)
      }
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Welcome) throws(WireError) {
    var staged: StagedParts?
    if wire.hasStaged {
      staged = StagedParts(
        batch: try BatchReference(wire: wire.staged.batch, isThere: wire.staged.hasBatch),
        count: Int(wire.staged.count), cursor: [UInt8](wire.staged.cursor))
    }
    self.init(
      nonce: wire.nonce, session: SessionID(rawValue: wire.session),
      have: try BatchReference(wire: wire.have, isThere: wire.hasHave),
      headSession: SessionID(rawValue: wire.headSession),
      start: try BatchReference(wire: wire.start, isThere: wire.hasStart),
      last: try BatchReference(wire: wire.last, isThere: wire.hasLast),
      catalogueVersion: wire.catalogueVersion, hubVersion: wire.hubVersion, recovers: wire.recovers, staged: staged)
    try check()
  }

  private func check() throws(WireError) {
    if let staged {
      try Checks.part(staged.count)
      try Checks.cursor(staged.cursor)
    }
    try Checks.number(catalogueVersion, "a catalogue's version")
    try Checks.text(hubVersion, "hub's version", max: Limits.wordBytesMax, mayBeEmpty: true)
  }
}

extension Refused {
  fileprivate var wire: Hub_Wire_Refused {
    var out = Hub_Wire_Refused()
    out.nonce = nonce
    out.reason = Checks.shortened(reason, to: Limits.errorTextBytesMax)
    out.isFinal = isFinal
    return out
  }

  fileprivate init(wire: Hub_Wire_Refused) throws(WireError) {
    try Checks.text(wire.reason, "a reason", max: Limits.errorTextBytesMax, mayBeEmpty: true)
    self.init(nonce: wire.nonce, reason: wire.reason, isFinal: wire.isFinal)
  }
}

extension BatchPart {
  fileprivate var wire: Hub_Wire_BatchPart {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_BatchPart()
      out.session = header.session.rawValue
      out.reference = try header.reference.wire
      out.previous = try header.previous.wire
      out.catalogueVersion = catalogueVersion
      out.part = UInt32(part)
      out.last = isLast
      out.snapshotAt = snapshotAt
      if let applied { out.applied = try applied.wire }
      out.rowsBefore = rowsBefore
      out.purged = purged
      out.tables = try blocks.wire
      out.cursor = Data(cursor)
      if let resumes { out.resumes = try resumes.wire }
      out.resumedParts = UInt32(resumedParts)
      out.slice = header.isSlice
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_BatchPart) throws(WireError) {
    self.init(
      header: BatchHeader(
        session: SessionID(rawValue: wire.session),
        reference: try BatchReference(wire: wire.reference, isThere: wire.hasReference),
        previous: try BatchReference(wire: wire.previous, isThere: wire.hasPrevious), isSlice: wire.slice),
      catalogueVersion: wire.catalogueVersion, part: Int(wire.part), isLast: wire.last,
      snapshotAt: wire.snapshotAt, applied: wire.hasApplied ? try StreamPosition(wire: wire.applied) : nil,
      rowsBefore: wire.rowsBefore, blocks: try [RowBlock](wire: wire.tables), purged: wire.purged,
      cursor: [UInt8](wire.cursor),
      resumes: wire.hasResumes ? try BatchReference(wire: wire.resumes, isThere: true) : nil,
      resumedParts: Int(wire.resumedParts))
    try check()
  }

  private func check() throws(WireError) {
    try Checks.cursor(cursor)
    try Checks.number(catalogueVersion, "a catalogue's version")
    try Checks.number(purged, "a batch's number")
    try Checks.part(part)
    try Checks.part(resumedParts)
    try Checks.time(snapshotAt)
    try Checks.number(rowsBefore, "a batch's rows", to: Limits.sumMax)
  }
}

extension Acknowledgement {
  fileprivate var wire: Hub_Wire_Acknowledgement {
    get throws(WireError) {
      var out = Hub_Wire_Acknowledgement()
      out.session = session.rawValue
      out.reference = try reference.wire
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Acknowledgement) throws(WireError) {
    self.init(
      session: SessionID(rawValue: wire.session),
      reference: try BatchReference(wire: wire.reference, isThere: wire.hasReference))
  }
}

extension Beat {
  fileprivate var wire: Hub_Wire_Beat {
    get throws(WireError) {
      var out = Hub_Wire_Beat()
      out.session = session.rawValue
      out.last = try last.wire
      if let applied { out.applied = try applied.wire }
      out.nonce = nonce
      out.answerTo = answerTo
      out.paused = isPaused
      try Checks.number(conflicts, "a conflict entry's number")
      try Checks.number(conflictsFrom, "a conflict entry's id")
      try Checks.number(purged, "a batch's number")
      out.purged = purged
      out.conflicts = conflicts
      out.conflictsFrom = conflictsFrom
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Beat) throws(WireError) {
    self.init(
      session: SessionID(rawValue: wire.session),
      last: try BatchReference(wire: wire.last, isThere: wire.hasLast),
      applied: wire.hasApplied ? try StreamPosition(wire: wire.applied) : nil, nonce: wire.nonce,
      answerTo: wire.answerTo, isPaused: wire.paused, conflicts: wire.conflicts, conflictsFrom: wire.conflictsFrom,
      purged: wire.purged)
    try Checks.number(conflicts, "a conflict entry's number")
    try Checks.number(conflictsFrom, "a conflict entry's id")
    try Checks.number(purged, "a batch's number")
  }
}

extension ConflictEntries {
  fileprivate var wire: Hub_Wire_ConflictEntries {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_ConflictEntries()
      out.after = after
      out.last = last
      out.more = more
      out.entries = entries
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_ConflictEntries) throws(WireError) {
    self.init(after: wire.after, last: wire.last, more: wire.more, entries: wire.entries)
    try check()
  }

  private func check() throws(WireError) {
    try Checks.number(after, "a conflict entry's number")
    try Checks.number(last, "a conflict entry's number", from: after)
    for entry in entries { try Checks.text(entry, "a conflict entry", max: Limits.conflictEntryBytesMax) }
  }
}

extension Pull {
  fileprivate var wire: Hub_Wire_Pull {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Pull()
      out.token = token.rawValue
      out.at = try at.wire
      if let resumption {
        out.resumption.from = try resumption.from.wire
        out.resumption.cursor = Data(resumption.cursor)
        out.resumption.full = resumption.full
      }
      out.catalogueVersion = catalogueVersion
      out.rowsMax = rowsMax
      out.bytesMax = bytesMax
      out.recovers = recovers
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Pull) throws(WireError) {
    var resumption: Resumption?
    if wire.hasResumption {
      resumption = Resumption(
        from: try BatchReference(wire: wire.resumption.from, isThere: wire.resumption.hasFrom),
        cursor: [UInt8](wire.resumption.cursor), full: wire.resumption.full)
    }
    self.init(
      token: PullToken(rawValue: wire.token), at: try BatchReference(wire: wire.at, isThere: wire.hasAt),
      resumption: resumption, catalogueVersion: wire.catalogueVersion, rowsMax: wire.rowsMax,
      bytesMax: wire.bytesMax, recovers: wire.recovers)
    try check()
  }

  private func check() throws(WireError) {
    try Checks.number(catalogueVersion, "a catalogue's version")
    try Checks.number(rowsMax, "a window's rows", to: Limits.sumMax)
    try Checks.number(bytesMax, "a window's bytes", to: Limits.sumMax)
    if let resumption { try Checks.cursor(resumption.cursor) }
  }
}

extension WindowPart {
  fileprivate var wire: Hub_Wire_WindowPart {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_WindowPart()
      out.session = header.session.rawValue
      out.token = header.token.rawValue
      out.part = UInt32(header.part)
      out.lastPart = header.isLastPart
      out.from = try header.from.wire
      out.cursor = Data(header.cursor)
      out.more = header.more
      out.full = header.full
      out.target = try header.target.wire
      out.catalogueVersion = catalogueVersion
      out.snapshotAt = snapshotAt
      out.rowsTotal = rowsTotal
      out.settlesAfter = header.settlesAfter == 2 ? 0 : header.settlesAfter
      out.tables = try blocks.wire
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_WindowPart) throws(WireError) {
    self.init(
      header: WindowHeader(
        session: SessionID(rawValue: wire.session), token: PullToken(rawValue: wire.token),
        part: Int(wire.part),
        isLastPart: wire.lastPart, from: try BatchReference(wire: wire.from, isThere: wire.hasFrom),
        cursor: [UInt8](wire.cursor), more: wire.more, full: wire.full,
        target: try BatchReference(wire: wire.target, isThere: wire.hasTarget),
        settlesAfter: wire.settlesAfter == 0 ? 2 : wire.settlesAfter),
      catalogueVersion: wire.catalogueVersion, snapshotAt: wire.snapshotAt, rowsTotal: wire.rowsTotal,
      blocks: try [RowBlock](wire: wire.tables))
    try check()
  }

  private func check() throws(WireError) {
    try Checks.part(header.part)
    try Checks.cursor(header.cursor)
    try Checks.number(
      header.settlesAfter, "the batches of a scan", from: 2, to: Int64(2 * Limits.tablesMax + 1))
    try Checks.number(catalogueVersion, "a catalogue's version")
    try Checks.time(snapshotAt)
    try Checks.number(rowsTotal, "a catch-up's rows", to: Limits.sumMax)
  }
}

extension Enrol {
  fileprivate var wire: Hub_Wire_Enrol {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Enrol()
      out.nonce = nonce
      out.secret = Data(secret)
      out.office = office
      out.hubVersion = hubVersion
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Enrol) throws(WireError) {
    self.init(
      nonce: wire.nonce, secret: [UInt8](wire.secret), office: wire.office, hubVersion: wire.hubVersion)
    try check()
  }

  private func check() throws(WireError) {
    try Checks.office(office)
    guard !secret.isEmpty, secret.count <= Limits.secretBytesMax else {
      throw .malformed("an enrolment's secret is empty or too long")
    }
    try Checks.text(hubVersion, "hub's version", max: Limits.wordBytesMax, mayBeEmpty: true)
  }
}

extension Enrolled {
  fileprivate var wire: Hub_Wire_Enrolled {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Enrolled()
      out.nonce = nonce
      if let refusal { out.refusal = Checks.shortened(refusal, to: Limits.errorTextBytesMax) }
      out.head = head
      out.residue = Int64(residue)
      out.hubVersion = hubVersion
      return out
    }
  }

  fileprivate init(wire: Hub_Wire_Enrolled) throws(WireError) {
    if wire.hasRefusal {
      try Checks.text(wire.refusal, "a reason", max: Limits.errorTextBytesMax, mayBeEmpty: true)
    }
    self.init(
      nonce: wire.nonce, refusal: wire.hasRefusal ? wire.refusal : nil, head: wire.head,
      residue: try Checks.int(wire.residue, "a residue", to: Int64(Int32.max)), hubVersion: wire.hubVersion)
    try check()
  }

  private func check() throws(WireError) {
    try Checks.office(head)
    try Checks.number(Int64(residue), "a residue", to: Int64(Int32.max))
    try Checks.text(hubVersion, "hub's version", max: Limits.wordBytesMax, mayBeEmpty: true)
  }
}
