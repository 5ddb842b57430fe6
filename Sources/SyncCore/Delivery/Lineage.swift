/// What a hub keeps beside its database, on its own host. Written before a batch is sent, so that it is never behind
/// what another office may have seen.
package struct HostRecord: Hashable, Sendable {
  package var incarnation: ActorID
  /// The last batch that was recorded.
  package var last: BatchReference
  /// How often rows were shown to another office outside of batches. Counted in the database, after the rows were read
  /// and before they are sent: a database that knows the count has these rows.
  package var shown: Int64
  /// Of the host's kernel since it started: an image of the whole machine that is put back brings this record with it,
  /// under another one.
  package var boot: String

  package init(incarnation: ActorID, last: BatchReference, shown: Int64, boot: String) {
    self.incarnation = incarnation
    self.last = last
    self.shown = shown
    self.boot = boot
  }
}

/// Whether a database went back in time, or is a copy: then the actor that named its writes may have named others.
///
/// After its server started an office writes under an actor derived from that start, until it is known which of these
/// holds. No write is ever renamed: after a second restore a renamed increment would count twice.
package enum Lineage: Hashable, Sendable {
  /// All that was ever sent is there: the actor goes on, and so does the session.
  case continued
  /// Nothing says that it went back, but what would say so may have gone back with it. The derived actor writes until
  /// a handshake has shown where the other side stands.
  case unproven
  /// It went back, it is a copy, or nobody knows: the derived actor writes for good, and nothing is sent before the
  /// handshake.
  case forked

  /// At a start. `knowsLast`: the batch that the record names is recorded in the database; `shown`: its count.
  package static func atStart(
    record: HostRecord?, incarnation: ActorID, knowsLast: Bool, shown: Int64, boot: String, isHead: Bool
  ) -> Lineage {
    guard let record, record.incarnation == incarnation, knowsLast, shown >= record.shown else { return .forked }
    guard record.boot != boot else { return .continued }
    // Head's branches come one by one, some after weeks: it does not wait for them.
    return isHead ? .forked : .unproven
  }

  /// Branch: head told where it stands in this office's stream.
  ///
  /// - Parameters:
  ///   - knowsHave: that batch is recorded here.
  ///   - headWentBack: head lost something itself, so it cannot tell what this office may have sent.
  ///   - have: where head stands; `acknowledged`: where it once said that it stands. Records before that are dropped.
  package func welcomed(
    knowsHave: Bool, headWentBack: Bool, have: BatchReference, acknowledged: BatchReference
  ) -> Lineage {
    switch self {
    case .forked: .forked
    case .unproven: knowsHave && !headWentBack ? .continued : .forked
    // Of a server that never stopped: a virtual machine that was put back with its memory.
    case .continued: knowsHave || headWentBack || have.number < acknowledged.number ? .continued : .forked
    }
  }

  /// Branch: head knows this incarnation as one that another has replaced. nil: that other one is a copy of this
  /// database, which is not the office any more.
  package var replaced: Lineage? { self == .unproven ? .forked : nil }

  /// A branch whose database may have gone back: what it sent under its session may be what it does not know any more.
  package var needsNewSession: Bool { self != .continued }
}

extension BatchReference {
  /// Head that forked counts on from its clock: the histories that it gave up used the numbers between, and a branch that
  /// stands in one of these is behind all that comes now. As long as fewer than 1000 batches a second were made.
  ///
  /// - Parameter milliseconds: since 1970.
  package func afterFork(at milliseconds: Int64, id: Int64) -> BatchReference {
    BatchReference(number: max(following(by: 1), milliseconds), id: id)
  }
}

/// Head, after it went back: which branches have not yet given back what it lost.
///
/// A branch greets, and under the session of that handshake sends again what head does not have: the first batch that is
/// applied of it is all. Until then head may hold half of a transaction, and status says `recovering`.
package struct RecoveryMachine: Hashable, Sendable {
  package enum Progress: String, Hashable, Sendable { case awaited, greeted }

  package private(set) var offices: [String: Progress]

  package init(offices: [String: Progress] = [:]) { self.offices = offices }

  package var isRecovering: Bool { !offices.isEmpty }

  /// The database went back: every member is awaited.
  package mutating func began(with members: [String]) {
    offices = Dictionary(uniqueKeysWithValues: members.map { ($0, .awaited) })
  }

  /// What is on its way under a session from before cannot be told from what is sent again: it ends.
  package func needsNewSession(_ office: String) -> Bool { offices[office] != nil }

  /// A branch that stands where head has never been, or does not remember to have been, shows that head went back.
  package mutating func greeted(_ office: String, knowsPosition: Bool) {
    if offices[office] != nil || !knowsPosition { offices[office] = .greeted }
  }

  /// A whole batch was applied. Returns whether that was what head had lost.
  package mutating func applied(from office: String) -> Bool {
    guard offices[office] == .greeted else { return false }
    offices[office] = nil
    return true
  }

  package mutating func left(_ office: String) { offices[office] = nil }
}

/// Head: whether an incarnation of a branch is the office. A database put back, and a copy of one that still runs, look
/// the same; but the one that was put back is the only one.
package enum Admission: Hashable, Sendable {
  case welcome
  /// The incarnation that greeted last was heard of just now.
  case occupied
  /// Another incarnation took over before: this one is a copy, or what was copied.
  case replaced

  /// - Parameters:
  ///   - current: the incarnation that greeted last.
  ///   - isFormer: `incarnation` once was the current one.
  ///   - silence: since the current one was heard of; nil: not since head started.
  package static func of(
    _ incarnation: ActorID, current: ActorID?, isFormer: Bool, silence: Duration?
  ) -> Admission {
    guard let current, current != incarnation else { return .welcome }
    if isFormer { return .replaced }
    if let silence, silence < Limits.incarnationSilence { return .occupied }
    return .welcome
  }
}
