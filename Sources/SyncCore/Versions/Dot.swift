/// A random 63-bit number that an office draws for each incarnation of itself.
///
/// Drawn, not handed out: a head restored from a backup would hand the same number out twice.
package struct ActorID: Hashable, Comparable, Sendable, RawRepresentable {
  package let rawValue: Int64

  package init(rawValue: Int64) { self.rawValue = rawValue }

  package static func < (a: ActorID, b: ActorID) -> Bool { a.rawValue < b.rawValue }
}

/// The name of one write: the actor that made it and that actor's counter, unique and growing.
package struct Dot: Hashable, Sendable {
  package var actor: ActorID
  package var n: Int64

  package init(actor: ActorID, n: Int64) {
    self.actor = actor
    self.n = n
  }
}

extension Dot: Comparable {
  package static func < (a: Dot, b: Dot) -> Bool { (a.actor, a.n) < (b.actor, b.n) }
}
