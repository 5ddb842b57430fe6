import SyncCore

/// What one scan of the feed becomes: a batch, or, of too much for one part, a batch a rank.
extension Office {
  /// All rows were read by the present snapshot, since `since`.
  func slices(
    of rows: [TravellingRow], since: RankedPosition<FeedPosition>, base: BatchReference, isResend: Bool, _ world: World
  ) -> [Slice] {
    let snapshot = database.snapshot
    // What a head that went back gets first from a branch is taken for all that it lost.
    let isSliced = isHead || !isResend || process?.headRecovers == false
    var cut = isSliced && isResend ? cutBatch(on: base) : nil
    guard isSliced, cut != nil || rows.count > world.scenario.partRows else { return [Slice(snapshot, rows)] }
    var slices: [Slice] = []
    for rank in database.ranks.all {
      let mine = rows.filter { database.ranks.rank($0.key, isAlive: $0.state.isAlive) == rank }
      let isLast = rank == database.ranks.all.last
      let position =
        isLast
        ? RankedPosition(snapshot)
        : since.moved(
          rank: rank, to: snapshot, order: database.ranks.order, echoes: isResend || since.echoes)
      var slice = Slice(snapshot, mine.filter(\.state.isAlive) + mine.filter { !$0.state.isAlive }, position)
      if let found = cut, found.rank == rank {
        slice.goOn(found, database)
        cut = nil
      } else if mine.isEmpty {
        continue
      } else {
        slice.cursor = 0
      }
      // The receiver stores one unfinished batch.
      if slice.stored == 0, slice.rows.count > world.scenario.partRows { cut = nil }
      slice.cut = slice.cut ?? cut?.staged.batch
      slices.append(slice)
    }
    return slices.isEmpty ? [Slice(snapshot, [])] : slices
  }

  /// What head has of a batch on top of `base` is of use if this office made that batch, of rows ranked as they are now.
  private func cutBatch(on base: BatchReference) -> CutBatch? {
    guard let staged = process?.stagedAtHead, let record = database.records[staged.batch], record.previous == base,
      staged.cursor.count == 2, staged.cursor[0] == database.ranks.code, staged.cursor[1] > 0
    else { return nil }
    let cursor = Int(staged.cursor[1])
    return CutBatch(
      staged: staged, cursor: cursor, rank: database.ranks.rank(cursor - 1, isAlive: true), readAt: record.readAt)
  }
}

struct CutBatch {
  var staged: StagedParts
  var cursor: Int
  var rank: Int
  var readAt: FeedPosition
}

extension Slice {
  init(_ snapshot: FeedPosition, _ rows: [TravellingRow], _ position: RankedPosition<FeedPosition>? = nil) {
    self.rows = rows
    self.position = position ?? RankedPosition(snapshot)
    readAt = snapshot
  }

  /// What is stored at the receiver need not pass again: only what follows, what changed since, and what was deleted.
  mutating func goOn(_ cut: CutBatch, _ database: Database) {
    let again = rows.filter { row in
      row.state.isAlive && row.key < cut.cursor && cut.readAt.isNew(database.rows[row.key]?.transaction ?? 0)
    }
    rows = rows.filter { !$0.state.isAlive || $0.key >= cut.cursor } + again
    stored = cut.staged.count
    self.cut = cut.staged.batch
    cursor = cut.cursor
    readAt = cut.readAt
  }
}
