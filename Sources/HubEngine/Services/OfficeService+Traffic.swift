import SyncCore
import SyncWire

/// What passes and how fast, for status.
extension OfficeService {
  /// Every second.
  func measure() async {
    facts.outgoing.looked(unfinished: await session?.unconfirmedBytes ?? 0, at: uptime)
    facts.incoming.looked(unfinished: 0, at: uptime)
    if !isHead && headPeer?.inbound.position.catchUp == nil { facts.incomingLeft = nil }
    facts.isAllSent = emptyLookAt != nil
    for (office, peer) in peers where isHead {
      if isPresent(peer) {
        facts.lines[office]?.looked(unfinished: 0, at: uptime)
      } else {
        facts.lines[office]?.interrupted()
      }
    }
    facts.lines = facts.lines.filter { peers[$0.key] != nil }
  }

  private func isPresent(_ peer: Peer) -> Bool { peer.lastSeen.map { $0 + .seconds(15) > .now } ?? false }

  /// The line is cut: the times of what was on it say nothing of its speed.
  func interrupted() {
    facts.outgoing.interrupted()
    facts.incoming.interrupted()
    for office in facts.lines.keys { facts.lines[office]?.interrupted() }
  }

  // MARK: outgoing

  func sent(part rows: Int, bytes: Int, of number: Int64) {
    facts.rowsSent += Int64(rows)
    facts.outgoing.passed(rows: rows, bytes: bytes)
    guard isHead else { return }
    ledger.sent(rows: rows, bytes: bytes, of: number)
    for (office, peer) in peers where isPresent(peer) && peer.inbound.awaited == nil { lineBegan(office) }
  }

  func sentWindow(rows: Int, bytes: Int, to office: String) {
    facts.outgoing.passed(rows: rows, bytes: bytes)
    ledger.sentWindow(rows: rows, bytes: bytes, to: office)
    lineBegan(office)
  }

  /// A branch takes what is sent as fast as it acknowledges it.
  private func lineBegan(_ office: String) {
    if facts.lines[office]?.isIdle ?? true { facts.lines[office, default: TrafficMeter()].began(at: uptime) }
  }

  func measureAcknowledged(_ reference: BatchReference, _ office: String) {
    if reference == outbound.last { facts.outgoing.ended(at: uptime) }
    guard isHead else { return }
    let arrived = ledger.acknowledged(reference.number, by: office)
    facts.lines[office]?.passed(rows: arrived.rows, bytes: arrived.bytes)
    facts.lines[office]?.acknowledged()
    if reference == outbound.last { facts.lines[office]?.ended(at: uptime) }
  }

  /// Head: a branch asks for the next window because it has the last one; live batches until now pass it by.
  func measurePull(by office: String) {
    let arrived = ledger.asked(by: office)
    facts.lines[office]?.passed(rows: arrived.rows, bytes: arrived.bytes)
  }

  // MARK: incoming

  func count(_ envelope: Envelope, bytes: Int) {
    let blocks =
      switch envelope.message {
      case .batch(let part): part.blocks
      case .window(let part): part.blocks
      default: [RowBlock]()
      }
    if !blocks.isEmpty { facts.incoming.passed(rows: blocks.reduce(0) { $0 + $1.count }, bytes: bytes) }
  }

  /// Branch: a part of a catch-up is applied. The total is said with the first window.
  func measureWindow(_ part: WindowPart) {
    if part.header.part == 0 && part.rowsTotal > 0 { facts.incomingLeft = part.rowsTotal }
    let rows = Int64(part.blocks.reduce(0) { $0 + $1.count })
    if let left = facts.incomingLeft { facts.incomingLeft = max(0, left - rows) }
    if part.header.isLastPart { facts.incoming.ended(at: uptime) }
  }
}
