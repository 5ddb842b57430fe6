import Foundation
import Testing

/// The lines of the list of known hazards that concern capture, application, the broker and an office's identity, numbered
/// in their order there. A test's name carries its hazard's number, or is named here; this table also says what is not
/// looked at.
enum HazardList {
  enum Coverage: Equatable {
    case here
    /// In another test target, in words.
    case elsewhere(String)
    /// A test whose name, or whose function's, is this.
    case test(String)
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
    ("CAP-04", "triggers bypassed", [.here, .test("CAP: a table that is dropped and made anew")]),
    (
      "CAP-05", "sequence gaps: a position is a snapshot; windows",
      [
        .here, .test("S1: after a load into another cluster"), .test("CAP: a table that is renamed for a while"),
        .test("CAP: branches that were away, or joined, while head's table"),
      ]
    ),
    (
      "CAP-06", "publishing what is not yet durable",
      [.test("a hub that ends at any step between reading the feed and acknowledging")]
    ),
    ("CAP-07", "no NOTIFY, no shared hot row, no time that grows with the square", [.here]),
    ("CAP-08", "the user's transaction does not fail because of hub", [.here]),
    ("CAP-09", "a pooler in transaction mode", [.test("CAP-09: behind a connection pooler")]),
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
    (
      "BRK-A", "a confirm means all queues bound now; nobody sees a deleted queue",
      [.test("BRK-01: a message to an office without queue"), .test("BRK: an office's queue deleted, or purged")]
    ),
    (
      "BRK-B", "queue limits, delivery limit, message size, alarms",
      [
        .test("BRK-02: every queue is bounded"), .test("BRK-12: only a broker that drops after 20 deliveries"),
        .test("BRK-11: messages of 4 MiB pass both ways"), .test("BRK-05: under a memory alarm publishing waits"),
      ]
    ),
    (
      "BRK-C", "frames that a broker sends unasked: cancel, nack, return, close",
      [
        .test("BRK-03: a queue deleted under its consumer"), .test("BRK-04: a message that a queue refuses"),
        .test("BRK-04: a confirm of several settles"), .test("BRK-04: publishing to an exchange that is gone"),
      ]
    ),
    (
      "BRK-D", "a publish that blocks for ever; heartbeats; TLS",
      [
        .test("BRK-05: a thread that stays in one call is seen"), .test("BRK-06: a broker that hangs is noticed"),
        .test("BRK-07: a stranger's certificate"),
      ]
    ),
    ("BRK-E", "what cannot be used is not requeued in a loop", [.test("BRK-08: a rejected message lies in hub.dead")]),
    ("BRK-F", "a wiped broker is declared anew by head", [.test("BRK: a wiped broker is declared anew by head")]),
    (
      "BRK-G", "one consumer a queue",
      [.test("BRK-10: a second consumer is refused"), .test("BRK-10: on a quorum queue the second consumer")]
    ),
    (
      "IDN-A", "restored, cloned, failed-over databases issue dots and numbers again",
      [
        .test("S1, DESIGN 5: a branch put back twice"), .test("aDatabaseThatLacksWhatWasSentIsForked"),
        .test("S1, HAZARDS Identity: a copy of an office's database"),
        .test("aBatchOfTheSameNumberButAnotherIdIsNotTheOneApplied"),
        .test("S1, DESIGN 5: a standby is promoted"), .test("S1: the connections of a hub are all to one server"),
      ]
    ),
    (
      "IDN-B", "head put back; a removed office is refused",
      [
        .test("S1, DESIGN 5: head put back gets from the branches"), .test("a branch leaves while the others write"),
        .later("a broker account a branch"),
      ]
    ),
    (
      "IDN-C", "acknowledgements count forward, for this session, within what was sent",
      [.test("anAcknowledgementCountsForwardWithinWhatWasSent")]
    ),
    (
      "IDN-D", "the horizon of tombstones",
      [
        .test("tombstones go everywhere once every branch has them"),
        .test("a branch put back from before deletes that are forgotten"), .elsewhere("SyncSimulation"),
      ]
    ),
    (
      "IDN-E", "clocks that are wrong",
      [.elsewhere("mutation restamp; Scripts/faults sets clocks ahead and behind")]
    ),
  ]

  /// Names of tests and of their functions, as they are written.
  private static func source(of targets: [String]) -> String {
    let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    return targets.map { target -> String in
      let files = FileManager.default.enumerator(at: tests.appending(path: target), includingPropertiesForKeys: nil)
      let sources = (files?.allObjects as? [URL] ?? []).filter { $0.lastPathComponent.hasSuffix("Tests.swift") }
      return sources.compactMap { try? String(contentsOf: $0, encoding: .utf8) }.joined()
    }.joined()
  }

  @Test static func everyHazardHasItsTestOrSaysWhatIsMissing() {
    let here = source(of: ["PostgresStoreTests"])
    let everywhere = source(of: ["PostgresStoreTests", "RabbitTransportTests", "SyncCoreTests", "EndToEndTests"])
    for hazard in HazardList.all {
      for coverage in hazard.coverage {
        switch coverage {
        case .here: #expect(here.contains("\"\(hazard.id)"), "no test is named after \(hazard.id)")
        case .test(let name):
          let isThere = everywhere.contains("\"\(name)") || everywhere.contains("func \(name)(")
          #expect(isThere, "no test is called \(name)")
        case .elsewhere, .later: print("\(hazard.id) \(hazard.text): \(coverage)")
        }
      }
    }
    #expect(Set(HazardList.all.map(\.id)).count == HazardList.all.count)
  }
}
