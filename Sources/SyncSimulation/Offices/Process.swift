import SyncCore

/// The rows of the next batch, read at one snapshot, not yet recorded.
struct Scan {
  var base: BatchReference
  var adoptions: Int
  /// It becomes these batches, one on top of the other.
  var slices: [Slice]
  /// What this office had applied when the rows were read.
  var applied: AppliedPosition?
  /// The first of its batches is recorded.
  var isUnderWay = false
}

/// One batch of a scan.
struct Slice {
  var rows: [TravellingRow]
  /// Where it leads.
  var position: RankedPosition<FeedPosition>
  /// Of its first part.
  var readAt: FeedPosition
  /// Parts that the receiver has of it, from a batch that was cut.
  var stored = 0
  /// What the receiver has of this batch is of use, now or later.
  var cut: BatchReference?
  /// Rows that live come by their keys, from this one on; nil: they come as they are.
  var cursor: Int?
}

/// A recorded batch on its way to the broker, part by part.
struct Publication {
  var header: BatchHeader
  var parts: [[TravellingRow]]
  var next = 0
  var applied: AppliedPosition?
  var stored: Int
  var cut: BatchReference?
  var cursor: Int?
}

/// What hub holds in memory: the machines of SyncCore, rebuilt from the database at every start.
struct Process {
  var inbound: [String: InboundStream] = [:]
  var assemblies: [String: PartAssembly] = [:]
  var outbound: OutboundStream
  var pace: PaceMachine
  var pullReminders: [String: Reminder] = [:]
  var scan: Scan?
  var publication: Publication?
  /// A look found nothing up to here.
  var lookedAt: RankedPosition<FeedPosition>?
  var lineage = Lineage.continued

  var quarantine = QuarantineMachine()

  // branch
  var restates = RestateMachine()
  var greeting = GreetingMachine()
  var helloReminder = Reminder()
  /// What head said that it has of a batch that was cut.
  var stagedAtHead: StagedParts?
  /// What head said of itself; nil: nothing yet.
  var headRecovers: Bool?

  // head
  /// What of the conflict log goes to each branch.
  var conflicts: [String: ConflictDelivery] = [:]
  var reception = ReceptionMachine()
  /// The newest request of each branch.
  var pulls: [String: Pull] = [:]

  init(_ database: Database, session: SessionID?, lineage: Lineage, now: Duration) {
    self.lineage = lineage
    reception = ReceptionMachine(recovery: database.recovery)
    outbound = OutboundStream(
      session: session, last: database.last, acknowledged: database.acknowledged)
    pace = PaceMachine(now: now)
    for (office, position) in database.inbound { inbound[office] = InboundStream(position: position) }
    for (office, staged) in database.staged {
      assemblies[office] = PartAssembly(batch: staged.batch, stored: staged.parts.count)
    }
  }
}
