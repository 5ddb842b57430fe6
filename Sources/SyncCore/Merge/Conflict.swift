/// One of the two copies that are merged.
package enum Side: String, Hashable, Sendable {
  /// The copy that is stored here.
  case local
  /// The copy that arrived.
  case incoming

  package var other: Side { self == .local ? .incoming : .local }
}

/// What two writes that did not know of each other are, in PostgreSQL's words (logical replication, conflicts).
package enum ConflictKind: String, Hashable, Sendable, CaseIterable {
  /// Both offices inserted the key.
  case insertExists = "insert_exists"
  /// Both offices changed the row.
  case updateOriginDiffers = "update_origin_differs"
  /// The row that was updated there was deleted here.
  case updateDeleted = "update_deleted"
  /// The row that was deleted there was changed here.
  case deleteOriginDiffers = "delete_origin_differs"
}

/// A true conflict: neither copy has seen the other's write, and the values differ.
package struct Conflict<Value: Equatable & Sendable>: Equatable, Sendable {
  package var kind: ConflictKind
  /// The column in conflict; nil: the rows as wholes.
  package var column: Int?
  package var local: RowState<Value>
  package var incoming: RowState<Value>

  package init(column: Int?, local: RowState<Value>, incoming: RowState<Value>) {
    self.column = column
    self.local = local
    self.incoming = incoming
    kind =
      switch (local.isAlive, incoming.isAlive) {
      case (false, _): .updateDeleted
      case (_, false): .deleteOriginDiffers
      default: local.vector.sharesAnActor(with: incoming.vector) ? .updateOriginDiffers : .insertExists
      }
  }

  package func row(of side: Side) -> RowState<Value> { side == .local ? local : incoming }

  /// The column's register; nil when whole rows are in conflict.
  package func register(of side: Side) -> Register<Value>? {
    column.flatMap { row(of: side).registers[$0] }
  }

  /// The write that stands for this side in the conflict.
  package func version(of side: Side) -> Version {
    register(of: side)?.version ?? row(of: side).latest
  }
}

/// What settles a conflict.
package enum Decision<Value: Equatable & Sendable>: Equatable, Sendable {
  case local
  case incoming
  /// A function's own answer: values by column of whole rows, or of the column in conflict.
  case values([Int: Value])
}

/// Why a side won, for the conflict log.
package enum Reason: String, Hashable, Sendable {
  case latest, head, branch, function
  case updateWins = "update_wins"
  case deleteWins = "delete_wins"
  /// Living rows refer to a deleted one: it came back.
  case referenced
  /// The offices differed without having written the row: `hub verify --repair` let one copy stand.
  case repaired
}

/// A conflict with its outcome: what the conflict log keeps.
package struct DecidedConflict<Value: Equatable & Sendable>: Equatable, Sendable {
  package var conflict: Conflict<Value>
  /// nil: a function answered with values of its own, so both sides lost.
  package var winner: Side?
  package var reason: Reason

  package init(conflict: Conflict<Value>, winner: Side?, reason: Reason) {
    self.conflict = conflict
    self.winner = winner
    self.reason = reason
  }
}
