/// What a row means for the feed of the office that received a copy of it.
package enum FeedMark: Hashable, Sendable {
  /// The stored row stays as it is.
  case leave
  /// Head has this very version: nothing to send.
  case echo
  /// The row is new here: it is read with the next batch.
  case publish

  /// Head sends on whatever it stores. A branch sends what head does not have: what it merged, and what it holds.
  package static func of<Value>(
    _ outcome: MergeOutcome<Value>, local: RowState<Value>?, incoming: RowState<Value>, atHead: Bool
  ) -> FeedMark {
    switch outcome {
    case .keepLocal: !atHead && local?.vector == incoming.vector ? .echo : .leave
    case .takeIncoming: atHead ? .publish : .echo
    case .merged, .held: .publish
    }
  }
}
