/// Collects the parts of one batch, which arrive in order unless something was lost or redelivered.
package struct PartAssembly: Sendable {
  package enum Action: Hashable, Sendable {
    /// The whole batch is this one part: apply it straight away.
    case single
    /// Store the part; `reset` first drops what is stored of an earlier, unfinished batch.
    case stage(reset: Bool)
    /// Store the part, then apply all stored parts in order.
    case complete(parts: Int)
    /// All parts are stored, the last one too, but were not applied: apply them.
    case applyStored(parts: Int)
    /// Stored already.
    case duplicate
    /// A part is missing: this batch can never be complete here.
    case gap
  }

  package private(set) var batch: BatchReference?
  package private(set) var stored = 0

  package init() {}

  /// After a start: what the staging table still holds, contiguous from part 0.
  package init(batch: BatchReference, stored: Int) {
    self.batch = stored > 0 ? batch : nil
    self.stored = stored
  }

  package func partArrived(of reference: BatchReference, index: Int, isLast: Bool) -> Action {
    if index == 0 {
      if isLast { return .single }
      return batch == reference && stored > 0 ? .duplicate : .stage(reset: true)
    }
    guard batch == reference, index > 0, index <= stored else { return .gap }
    // A crash between storing the last part and applying brings it again.
    if index < stored { return isLast && index == stored - 1 ? .applyStored(parts: stored) : .duplicate }
    return isLast ? .complete(parts: stored + 1) : .stage(reset: false)
  }

  /// The part's storage committed.
  package mutating func staged(_ reference: BatchReference, index: Int) {
    batch = reference
    stored = index + 1
  }

  package mutating func reset() {
    batch = nil
    stored = 0
  }
}
