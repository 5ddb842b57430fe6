/// What a receiver has stored of a batch that was cut: parts 0 … `count` - 1, and where its sender goes on after them.
package struct StagedParts: Hashable, Sendable {
  package var batch: BatchReference
  package var count: Int
  package var cursor: [UInt8]

  package init(batch: BatchReference, count: Int, cursor: [UInt8]) {
    self.batch = batch
    self.count = count
    self.cursor = cursor
  }
}

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
    // Left behind on a connection that was cut: its sender has begun another batch in its place.
    if let batch, reference.number < batch.number { return .duplicate }
    if index == 0 {
      if isLast { return .single }
      return batch == reference && stored > 0 ? .duplicate : .stage(reset: true)
    }
    guard batch == reference, index > 0, index <= stored else { return .gap }
    // A crash between storing the last part and applying brings it again.
    if index < stored { return isLast && index == stored - 1 ? .applyStored(parts: stored) : .duplicate }
    return isLast ? .complete(parts: stored + 1) : .stage(reset: false)
  }

  /// Whether `index` is the first part of a new batch that goes on with the first `count` that are stored of `earlier`.
  /// Parts of that one that came later than its sender knew are forgotten: they come again, as they are by now. So a later
  /// part of the new batch takes nothing over: one before it is missing.
  package func continues(_ earlier: BatchReference, after count: Int, at index: Int) -> Bool {
    batch == earlier && index > 0 && index == count && count <= stored
  }

  /// The first `count` parts belong to `reference` from now on.
  package mutating func adopted(_ reference: BatchReference, count: Int) {
    batch = reference
    stored = count
  }

  /// The part's storage committed.
  package mutating func staged(_ reference: BatchReference, index: Int) {
    batch = reference
    stored = index + 1
  }

  /// Whether what is stored is kept when `reference` is applied, a batch whose sender says that it is of use.
  package func outlives(_ reference: BatchReference, resumes: BatchReference?) -> Bool {
    batch.map { $0 != reference && $0 == resumes } ?? false
  }

  package mutating func reset() {
    batch = nil
    stored = 0
  }
}
