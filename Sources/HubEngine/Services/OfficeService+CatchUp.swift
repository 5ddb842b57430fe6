import Logging
import SyncCore
import SyncWire

/// Head's answers to branches that lack something: a window at a time, straight to the branch's queue.
extension OfficeService {
  func catchUpLoop() async throws {
    try await pullBell.serve {
      while !pulls.isEmpty {
        while identity.isPaused { try await Task.sleep(for: .milliseconds(100)) }
        let (office, pull) = pulls.removeFirst()
        guard peers[office] != nil else { continue }
        do {
          try await serve(pull, to: office)
        } catch let error as HubError {
          await store.closeWindow()
          if error.isDisconnect { throw error }
          logger.error(
            "cannot serve a catch-up", metadata: ["hub.office": "\(office)", "hub.error": "\(error)"])
          facts.note = "\(error)"
          try await Task.sleep(for: .seconds(1))
        }
      }
    }
  }

  /// Waits until neither a batch nor a window is being read and sent.
  func takeFeed() async throws {
    while isFeedTaken { try await Task.sleep(for: .milliseconds(1)) }
    isFeedTaken = true
  }

  private func serve(_ pull: Pull, to office: String) async throws {
    let catalogue = try await currentCatalogue()
    if pull.catalogueVersion != catalogue.version { try await show(catalogue, to: .office(office)) }
    var start = pull.resumption?.from ?? pull.at
    var cursor = pull.resumption?.cursor ?? []
    if try await !store.knowsBatch(start) { (start, cursor) = (.origin, []) }
    let total = cursor.isEmpty ? try await store.countWindow(from: start) : 0
    // A window of one part goes out between two batches: the next batch builds on it, and the branch is live again.
    // A longer one keeps no batch waiting; what changes meanwhile is asked for after it.
    try await takeFeed()
    var holdsFeed = true
    defer { if holdsFeed { isFeedTaken = false } }
    guard let session = outbound.session else { return }
    // Before the window's snapshot: rows in both the window and the batch after the target do no harm.
    let target = outbound.last
    let opening = try await store.openWindow(
      from: start, cursor: cursor, returning: pull.recovers ? office : nil, catalogueVersion: catalogue.version)
    guard case .rows(var part) = opening else {
      try await reloadTables()
      catalogueCache = nil
      pulls.insert((office, pull), at: 0)
      return
    }
    // The window may show rows that no batch has shown: a database that goes back to before them must be known for it.
    try await countShown()
    CrashPoint.windowRead.passed()
    if !part.isLast {
      holdsFeed = false
      isFeedTaken = false
    }
    var index = 0
    var rows: Int64 = 0
    var bytes: Int64 = 0
    let settlesAfter = Int64(max(1, await store.batchesOfScan())) + 1
    let snapshotAt = SystemClock.now
    while true {
      rows += Int64(part.rows)
      bytes += part.blocks.reduce(0) { $0 + Int64($1.columns.reduce(0) { $0 + $1.blob.count }) }
      if !part.cursor.isEmpty { cursor = part.cursor }
      let isSpent = rows >= pull.rowsMax || bytes >= pull.bytesMax
      let header = WindowHeader(
        session: session, token: pull.token, part: index, isLastPart: part.isLast || isSpent, from: start,
        cursor: cursor, more: !part.isLast, full: false, target: target, settlesAfter: settlesAfter)
      let size = try await send(
        .window(
          WindowPart(
            header: header, catalogueVersion: catalogue.version, snapshotAt: snapshotAt, rowsTotal: total,
            blocks: part.blocks)), to: .office(office))
      CrashPoint.windowSent.passed()
      sentWindow(rows: part.rows, bytes: size, to: office)
      if header.isLastPart { break }
      part = try await store.nextWindowPart(rowsMax: Int(clamping: max(1, pull.rowsMax - rows)))
      index += 1
    }
    await store.closeWindow()
  }
}
