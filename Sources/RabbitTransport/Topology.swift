package import HubEngine

/// Names and settings of what hub has at the broker. Only head declares; a branch's account may configure nothing.
package enum Topology {
  package static let toHead = "hub.to-head"
  package static let toBranches = "hub.to-branches"
  package static let headQueue = "hub.head"
  package static let deadQueue = "hub.dead"
  package static let deadBytesMax: Int64 = 64 << 20
  /// How long a newcomer's queue outlives its last use.
  package static let newcomerExpires: Duration = .seconds(300)

  package enum QueueType: String, Sendable, CaseIterable {
    case classic, quorum
  }

  /// A durable queue that drops its oldest messages when full: catch-up brings what was dropped. It names no
  /// dead-letter exchange, since the broker would send the *dropped* messages there too; hub itself copies what it
  /// rejects (`Publisher.bury`).
  package struct Queue: Hashable, Sendable {
    package var name: String
    package var type: QueueType
    package var bytesMax: Int64
    /// The fanout exchange that feeds it.
    package var source: String?
    /// The broker deletes it when nobody used it for so long; nil: never.
    package var expires: Duration?
  }

  package static func queue(of role: TransportRole) -> String {
    switch role {
    case .head: headQueue
    case .branch(let office, _): officeQueue(office)
    case .newcomer(let nonce): newcomerQueue(nonce)
    }
  }

  package static func officeQueue(_ office: String) -> String { "hub.office.\(office)" }

  package static func newcomerQueue(_ nonce: Int64) -> String {
    "hub.enrol." + String(UInt64(bitPattern: nonce), radix: 16)
  }

  /// Names become part of queue names and of permission patterns.
  package static func isValid(office: String) -> Bool {
    (1...32).contains(office.utf8.count)
      && office.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
  }

  package static func headQueues(offices: [String], type: QueueType, bytesMax: Int64) -> [Queue] {
    [
      // Of the same type: a classic queue cannot be declared while its node is down, and head would not connect.
      Queue(name: deadQueue, type: type, bytesMax: deadBytesMax, source: nil),
      Queue(name: headQueue, type: type, bytesMax: bytesMax, source: toHead),
    ] + offices.map { Queue(name: officeQueue($0), type: type, bytesMax: bytesMax, source: toBranches) }
  }

  /// Exchange and routing key.
  package static func route(to destination: Destination) -> (exchange: String, key: String) {
    switch destination {
    case .head: (toHead, "")
    case .branches: (toBranches, "")
    case .office(let name): ("", officeQueue(name))
    case .newcomer(let nonce): ("", newcomerQueue(nonce))
    }
  }
}
