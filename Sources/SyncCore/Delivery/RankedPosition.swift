/// How far an office's feed was sent. A batch that is too much for one part goes out as one batch a rank of tables, the
/// highest first, all read by one snapshot: between two of them the tables of high rank are further on than the others.
package struct RankedPosition<Snapshot: Hashable & Sendable>: Hashable, Sendable {
  /// Tables of at least this rank stand at this snapshot.
  package struct Ahead: Hashable, Sendable {
    package var rank: Int
    package var snapshot: Snapshot

    package init(rank: Int, snapshot: Snapshot) {
      self.rank = rank
      self.snapshot = snapshot
    }
  }

  /// All tables stand here at least.
  package let base: Snapshot
  /// By falling rank; the first one whose rank a table has counts for it.
  package let ahead: [Ahead]
  /// Names the ranks of the tables that `ahead` was made by.
  package let order: String
  /// What is left is sent again, with the rows that once came from the receiver.
  package let echoes: Bool

  package init(_ base: Snapshot, ahead: [Ahead] = [], order: String = "", echoes: Bool = false) {
    self.base = base
    self.ahead = ahead
    self.order = order
    self.echoes = echoes && !ahead.isEmpty
  }

  /// A batch that leads here leaves nothing that was there when it was read.
  package var isWhole: Bool { ahead.isEmpty }

  /// Where tables of this rank stand.
  package func of(rank: Int) -> Snapshot { ahead.first { $0.rank <= rank }?.snapshot ?? base }

  /// After a batch of all tables of `rank`, read by `snapshot`; those of higher rank were read before.
  package func moved(rank: Int, to snapshot: Snapshot, order: String, echoes: Bool) -> RankedPosition {
    RankedPosition(
      base, ahead: [Ahead(rank: rank, snapshot: snapshot)] + ahead.filter { $0.rank < rank }, order: order,
      echoes: echoes)
  }

  /// For tables whose ranks are those of `order`. Under other ranks a table that was to pass later would count as passed:
  /// what all tables have reached is all that holds.
  package func under(_ order: String) -> RankedPosition {
    self.order == order ? self : RankedPosition(base)
  }
}

/// What a batch may say that leaves rows for a later one of the same scan.
package enum Slicing {
  /// That a branch has applied so much of head's stream lets head forget deletes: what is left has not met them.
  package static func told<Position>(_ applied: Position?, isWhole: Bool) -> Position? { isWhole ? applied : nil }
}
