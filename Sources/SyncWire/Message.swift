package import SyncCore

/// One message between offices.
package struct Envelope: Sendable, Equatable {
  /// The sender's name.
  package var office: String
  package var incarnation: Int64
  /// Microseconds since 1970, the sender's clock.
  package var sentAt: Int64
  package var message: Message

  package init(office: String, incarnation: Int64, sentAt: Int64, message: Message) {
    self.office = office
    self.incarnation = incarnation
    self.sentAt = sentAt
    self.message = message
  }
}

package enum Message: Sendable, Equatable {
  case hello(Hello)
  case welcome(Welcome)
  /// The session of a message was refused: shake hands again.
  case rehello(SessionID)
  case batch(BatchPart)
  case acknowledgement(Acknowledgement)
  case beat(Beat)
  case pull(Pull)
  case window(WindowPart)
  case catalogue(Catalogue)
  case enrol(Enrol)
  case enrolled(Enrolled)
  case leave(nonce: Int64)
  case removed(nonce: Int64, reason: String)
  case refused(Refused)
  case conflicts(ConflictEntries)
  /// Head compares its tables with a branch's; the answer bears the question's token.
  case verifyQuestion(token: Int64, VerifyRequest)
  case verifyAnswer(token: Int64, VerifyReply)
  /// A branch wants these rows again; keys alone, and its number for the request.
  case restate([RowBlock], request: Int64)
  /// Head has sent the rows of that request to the feed again.
  case restated(Int64)
}

extension Message {
  /// The session that the sender speaks under, of messages that count only under one.
  package var session: SessionID? {
    switch self {
    case .batch(let part): part.header.session
    case .beat(let beat): beat.session
    case .acknowledgement, .pull, .hello, .welcome, .rehello, .window, .catalogue, .enrol, .enrolled, .leave, .removed,
      .refused, .conflicts, .restate, .restated, .verifyQuestion, .verifyAnswer:
      nil
    }
  }
}

/// Where an office stands in another's stream.
package struct StreamPosition: Sendable, Hashable {
  package var session: SessionID
  package var reference: BatchReference

  package init(session: SessionID, reference: BatchReference) {
    self.session = session
    self.reference = reference
  }
}

/// A branch greets head.
package struct Hello: Sendable, Hashable {
  package var nonce: Int64
  /// The branch's session so far; nil before the first handshake.
  package var session: SessionID?
  /// Where the branch stands in head's stream.
  package var at: BatchReference
  /// The last batch of its own stream.
  package var last: BatchReference
  package var catalogueVersion: Int64
  package var hubVersion: String
  /// The last entry of the conflict log that the branch has.
  package var conflicts: Int64

  package init(
    nonce: Int64, session: SessionID?, at: BatchReference, last: BatchReference, catalogueVersion: Int64,
    hubVersion: String, conflicts: Int64 = 0
  ) {
    self.nonce = nonce
    self.session = session
    self.at = at
    self.last = last
    self.catalogueVersion = catalogueVersion
    self.hubVersion = hubVersion
    self.conflicts = conflicts
  }
}

/// Head answers a greeting.
package struct Welcome: Sendable, Hashable {
  package var nonce: Int64
  /// The session of the branch's stream from now on.
  package var session: SessionID
  /// Where head stands in the branch's stream.
  package var have: BatchReference
  package var headSession: SessionID
  /// Where the branch stands in head's stream, as head agrees; origin: all is sent.
  package var start: BatchReference
  /// Head's last batch.
  package var last: BatchReference
  package var catalogueVersion: Int64
  package var hubVersion: String
  /// Head's database went back: it lacks also what once came from it.
  package var recovers: Bool
  /// What head has stored of a batch that was cut.
  package var staged: StagedParts?

  package init(
    nonce: Int64, session: SessionID, have: BatchReference, headSession: SessionID, start: BatchReference,
    last: BatchReference, catalogueVersion: Int64, hubVersion: String, recovers: Bool = false,
    staged: StagedParts? = nil
  ) {
    self.staged = staged
    self.recovers = recovers
    self.nonce = nonce
    self.session = session
    self.have = have
    self.headSession = headSession
    self.start = start
    self.last = last
    self.catalogueVersion = catalogueVersion
    self.hubVersion = hubVersion
  }
}

package struct BatchPart: Sendable, Equatable {
  package var header: BatchHeader
  package var catalogueVersion: Int64
  package var part: Int
  package var isLast: Bool
  /// When the batch was read, microseconds since 1970.
  package var snapshotAt: Int64
  /// What the sender itself has applied of the receiver's stream; counts when this batch is applied.
  package var applied: StreamPosition?
  package var rowsBefore: Int64
  package var blocks: [RowBlock]
  /// Of head: the number of the batch behind which its tombstones are gone.
  package var purged: Int64
  /// Where the sender goes on after this part, if the batch is cut there; empty: nowhere.
  package var cursor: [UInt8]
  /// A batch that was cut, and what the receiver has of it is of use.
  package var resumes: BatchReference?
  /// How many parts of it are this batch's first ones; 0: none.
  package var resumedParts: Int

  package init(
    header: BatchHeader, catalogueVersion: Int64, part: Int, isLast: Bool, snapshotAt: Int64,
    applied: StreamPosition?, rowsBefore: Int64, blocks: [RowBlock], purged: Int64 = 0, cursor: [UInt8] = [],
    resumes: BatchReference? = nil, resumedParts: Int = 0
  ) {
    self.purged = purged
    self.cursor = cursor
    self.resumes = resumes
    self.resumedParts = resumedParts
    self.header = header
    self.catalogueVersion = catalogueVersion
    self.part = part
    self.isLast = isLast
    self.snapshotAt = snapshotAt
    self.applied = applied
    self.rowsBefore = rowsBefore
    self.blocks = blocks
  }
}

/// All rows up to here are durable at the receiver.
package struct Acknowledgement: Sendable, Hashable {
  package var session: SessionID
  package var reference: BatchReference

  package init(session: SessionID, reference: BatchReference) {
    self.session = session
    self.reference = reference
  }
}

/// Nothing is unsent; also the question whether the other side has everything, and its answer.
package struct Beat: Sendable, Hashable {
  package var session: SessionID
  package var last: BatchReference
  package var applied: StreamPosition?
  /// Not 0: answer me.
  package var nonce: Int64
  package var answerTo: Int64
  package var isPaused: Bool
  /// Of a branch: the last entry of the conflict log that it has.
  package var conflicts: Int64
  /// Of head: entries of the conflict log with lower ids are kept no more.
  package var conflictsFrom: Int64
  /// Of head, as in a batch.
  package var purged: Int64

  package init(
    session: SessionID, last: BatchReference, applied: StreamPosition?, nonce: Int64 = 0, answerTo: Int64 = 0,
    isPaused: Bool = false, conflicts: Int64 = 0, conflictsFrom: Int64 = 0, purged: Int64 = 0
  ) {
    self.purged = purged
    self.session = session
    self.last = last
    self.applied = applied
    self.nonce = nonce
    self.answerTo = answerTo
    self.isPaused = isPaused
    self.conflicts = conflicts
    self.conflictsFrom = conflictsFrom
  }
}

/// A catch-up that goes on where it was cut.
package struct Resumption: Sendable, Hashable {
  package var from: BatchReference
  package var cursor: [UInt8]
  package var full: Bool

  package init(from: BatchReference, cursor: [UInt8], full: Bool) {
    self.from = from
    self.cursor = cursor
    self.full = full
  }
}

/// Head does not welcome a branch of which another copy greets too.
package struct Refused: Sendable, Hashable {
  /// Of the hello.
  package var nonce: Int64
  package var reason: String
  /// The other copy took over. Else it may yet fall silent.
  package var isFinal: Bool

  package init(nonce: Int64, reason: String, isFinal: Bool) {
    self.nonce = nonce
    self.reason = reason
    self.isFinal = isFinal
  }
}

/// Asks for what is missing.
package struct Pull: Sendable, Hashable {
  package var token: PullToken
  package var at: BatchReference
  package var resumption: Resumption?
  package var catalogueVersion: Int64
  package var rowsMax: Int64
  package var bytesMax: Int64
  /// The branch's database went back: it lacks also what it wrote itself into tables that go up.
  package var recovers: Bool

  package init(
    token: PullToken, at: BatchReference, resumption: Resumption?, catalogueVersion: Int64, rowsMax: Int64,
    bytesMax: Int64, recovers: Bool = false
  ) {
    self.recovers = recovers
    self.token = token
    self.at = at
    self.resumption = resumption
    self.catalogueVersion = catalogueVersion
    self.rowsMax = rowsMax
    self.bytesMax = bytesMax
  }
}

package struct WindowPart: Sendable, Equatable {
  package var header: WindowHeader
  package var catalogueVersion: Int64
  package var snapshotAt: Int64
  /// Estimate of all rows of the catch-up, for progress; 0 unknown.
  package var rowsTotal: Int64
  package var blocks: [RowBlock]

  package init(
    header: WindowHeader, catalogueVersion: Int64, snapshotAt: Int64, rowsTotal: Int64, blocks: [RowBlock]
  ) {
    self.header = header
    self.catalogueVersion = catalogueVersion
    self.snapshotAt = snapshotAt
    self.rowsTotal = rowsTotal
    self.blocks = blocks
  }
}

package struct Enrol: Sendable, Hashable {
  package var nonce: Int64
  package var secret: [UInt8]
  package var office: String
  package var hubVersion: String

  package init(nonce: Int64, secret: [UInt8], office: String, hubVersion: String) {
    self.nonce = nonce
    self.secret = secret
    self.office = office
    self.hubVersion = hubVersion
  }
}

package struct Enrolled: Sendable, Hashable {
  package var nonce: Int64
  /// nil: accepted.
  package var refusal: String?
  package var head: String
  package var residue: Int
  package var hubVersion: String

  package init(nonce: Int64, refusal: String?, head: String, residue: Int, hubVersion: String) {
    self.nonce = nonce
    self.refusal = refusal
    self.head = head
    self.residue = residue
    self.hubVersion = hubVersion
  }
}
