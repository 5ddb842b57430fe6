/// A row that is not the same at head and at a branch, although nothing is on its way.
package struct Difference: Hashable, Sendable {
  package enum Kind: String, Hashable, Sendable {
    /// Both have the row, with different values.
    case differs
    /// The values are equal, what the offices know of who wrote them is not.
    case versionDiffers = "version_differs"
    case missingAtBranch = "missing_at_branch"
    case missingAtHead = "missing_at_head"
    /// A state of the row waits in quarantine at one of the two: a person decides.
    case quarantined
    /// A write against the direction of a table that is tracked with `--foreign-writes ignore`: allowed.
    case local
    /// The branch does not have the table, or with another key.
    case missingTable = "missing_table"
  }

  package var table: String
  package var keyColumns: [String]
  package var key: RowKey
  package var kind: Kind
  /// As both were when they were compared last.
  package var head: RowLook?
  package var branch: RowLook?

  package init(
    table: String, keyColumns: [String], key: RowKey, kind: Kind, head: RowLook? = nil, branch: RowLook? = nil
  ) {
    self.table = table
    self.keyColumns = keyColumns
    self.key = key
    self.kind = kind
    self.head = head
    self.branch = branch
  }

  /// Whether the offices are not what they should be.
  package var counts: Bool { kind != .local }
}

/// How `hub verify --repair` heals a difference. What was overwritten is kept in the conflict log.
package enum Repair: Hashable, Sendable {
  /// Head writes what it has, also that it has no row, under a version of its own that has seen the branch's: every
  /// branch takes it.
  case headRestates
  /// The branch writes its row again under a version of its own that has seen head's: it goes up as any write.
  case branchRestates
  /// Left as it is.
  case none

  package static func of(_ kind: Difference.Kind, direction: String) -> Repair {
    switch (kind, direction) {
    case (.quarantined, _), (.local, _), (.missingTable, _): .none
    // Rows do not go down in such a table, and head's copy may be the only one left.
    case (.missingAtBranch, "up"): .none
    case (_, "up"): .branchRestates
    // A row that only the branch has may be somebody's work that nobody else has seen: it is not deleted.
    case (.missingAtHead, "both"): .branchRestates
    default: .headRestates
    }
  }
}
