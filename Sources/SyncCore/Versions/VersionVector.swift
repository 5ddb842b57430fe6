/// Which writes a copy of a row has seen: for each actor that ever wrote the row, the highest counter seen.
///
/// Holds one or two entries as a rule, so it is a small array sorted by actor, not a dictionary.
/// Source: D. S. Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", IEEE TSE 1983.
package struct VersionVector: Hashable, Sendable {
  package private(set) var dots: [Dot] = []

  package init() {}

  package init(_ dot: Dot) { dots = [dot] }

  /// From entries in any order; of two entries of one actor the higher counts.
  package init(_ entries: some Sequence<Dot>) {
    for dot in entries { insert(dot) }
  }

  package subscript(actor: ActorID) -> Int64 {
    for dot in dots where dot.actor == actor { return dot.n }
    return 0
  }

  package func contains(_ dot: Dot) -> Bool { self[dot.actor] >= dot.n }

  package mutating func insert(_ dot: Dot) {
    if let i = dots.firstIndex(where: { $0.actor >= dot.actor }) {
      if dots[i].actor == dot.actor {
        dots[i].n = max(dots[i].n, dot.n)
      } else {
        dots.insert(dot, at: i)
      }
    } else {
      dots.append(dot)
    }
  }

  /// True when this vector has seen everything that `other` has; equal vectors dominate each other.
  package func dominates(_ other: VersionVector) -> Bool {
    other.dots.allSatisfy(contains)
  }

  package func joined(with other: VersionVector) -> VersionVector {
    var out = self
    for dot in other.dots { out.insert(dot) }
    return out
  }

  /// Whether both copies descend from a write of one office: else the key was inserted twice.
  package func sharesAnActor(with other: VersionVector) -> Bool {
    dots.contains { other[$0.actor] != 0 }
  }
}
