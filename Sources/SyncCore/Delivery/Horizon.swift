/// How far the memory of deleted rows reaches.
///
/// A tombstone may go once no copy of its row that is older can arrive any more: when every member of the exchange has
/// applied it, and head has applied what that member had written before. Head's tombstones go first, then it says so
/// (`purged`); a branch lets go of its own behind the last batch by which it told head that it had come so far.
package enum Horizon {
  /// Head: the number of the batch behind which its tombstones may go.
  ///
  /// - Parameters:
  ///   - applied: of every branch that is active or joins, what its own batches, applied here, said that it had applied.
  ///   - last: head's last batch.
  package static func reached(applied: some Collection<Int64>, last: Int64) -> Int64 { applied.min() ?? last }

  /// Head: a branch greets that agrees to stand at `start`. What it had applied beyond may be gone with its database.
  package static func greeted(applied: Int64, start: BatchReference) -> Int64 { min(applied, start.number) }

  /// Head: the branch's database went back to before tombstones that are gone: it has rows whose delete nobody remembers.
  ///
  /// - Parameter isSame: the branch is the incarnation that greeted before: it has all that it ever told, wherever it
  ///   says that it stands in a hello that comes late.
  package static func isBehind(_ at: BatchReference, isSame: Bool, applied: Int64, purged: Int64) -> Bool {
    !isSame && applied > 0 && at.number < purged
  }

  /// Branch: what a batch says that it has applied. A delete of head's that waits here, in quarantine or, discarded, for
  /// head to state its row anew, has not met what is written here yet: as long as there is one the batch says nothing.
  package static func told<Position>(_ applied: Position?, deletesWait: Bool) -> Position? {
    deletesWait ? nil : applied
  }

  /// Branch: what it says in a batch that it had applied is worth a mark when that is news: an earlier batch that says the
  /// same is the one that head may have, and this one not.
  package static func isMark(applied: Int64, told: Int64) -> Bool { applied > told }
}
