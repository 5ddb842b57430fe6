import Testing

/// The lines of the list of known hazards under "Capture" and "Apply", numbered in their order there. A test's name
/// carries its hazard's number; this table says where the rest is looked at, and what is not.
enum HazardList {
  enum Coverage: Equatable {
    case here
    /// In another test target.
    case elsewhere(String)
    /// Not built in this version.
    case later(String)
  }

  static let all: [(id: String, text: String, coverage: [Coverage])] = [
    ("CAP-01", "trigger order inside a statement; empty transition tables", [.here]),
    ("CAP-02", "primary-key updates, swaps; keys of every type", [.here]),
    (
      "CAP-03", "TRUNCATE; partitions, unlogged tables and large objects refused",
      [
        .here,
        .later("one range tombstone above 1 000 000 rows"),
      ]
    ),
    ("CAP-04", "triggers bypassed", [.here]),
    (
      "CAP-05", "sequence gaps: a position is a snapshot; windows",
      [.here, .later("xids that start again after a restore")]
    ),
    ("CAP-06", "publishing what is not yet durable", [.elsewhere("PostgresStore.record; end-to-end tests")]),
    ("CAP-07", "no NOTIFY, no shared hot row, no time that grows with the square", [.here]),
    ("CAP-08", "the user's transaction does not fail because of hub", [.here]),
    ("CAP-09", "a pooler in transaction mode", [.elsewhere("every connection refuses it; end-to-end tests")]),
    ("CAP-10", "values travel as their type's text", [.here]),
    ("APP-01", "version check and write do not share a snapshot", [.here]),
    ("APP-02", "lock order, lock time-out, races", [.here]),
    (
      "APP-03", "replica role: triggers, DEFERRABLE UNIQUE, foreign keys",
      [.here]
    ),
    ("APP-04", "insert against insert; who may write", [.here]),
    ("APP-05", "every branch write is answered; no echoes", [.here, .elsewhere("SyncSimulation")]),
    ("APP-06", "poison rows", [.here, .elsewhere("connection lost at COMMIT: end-to-end tests")]),
    (
      "APP-07", "an office with an older schema",
      [.here, .later("backfill of a column that was added later")]
    ),
    ("APP-08", "casts that cut", [.here]),
    ("APP-09", "a target of PostgreSQL's own logical replication", [.here]),
  ]

  @Test static func whatIsNotTestedHereIsSaid() {
    for hazard in HazardList.all where hazard.coverage != [.here] {
      print("\(hazard.id) \(hazard.text): \(hazard.coverage)")
    }
    #expect(Set(HazardList.all.map(\.id)).count == HazardList.all.count)
  }
}
