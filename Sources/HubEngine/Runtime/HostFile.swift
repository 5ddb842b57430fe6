import Glibc
package import SyncCore

/// The record beside the database, on the host: one file a database, mode 0600. Written before a batch is sent.
package struct HostFile: Sendable {
  package let path: String

  /// - Parameter directory: made if missing, mode 0700.
  package init(directory: String, database: String) throws(HubError) {
    var made = ""
    for part in directory.split(separator: "/", omittingEmptySubsequences: false) {
      made += made.isEmpty && part.isEmpty ? "/" : (made.hasSuffix("/") || made.isEmpty ? "" : "/") + part
      if !part.isEmpty { mkdir(made, 0o700) }
    }
    path = directory + "/" + database
    guard access(directory, W_OK) == 0 else {
      throw HubError(
        .refused, "cannot write to the state directory \(directory)", hint: "give another by --state-dir")
    }
  }

  /// nil: no file, or not one that hub wrote whole.
  package func read() -> HostRecord? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    guard count > 0 else { return nil }
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    guard fields.count == 7, fields[0] == "hub2", fields[6] == "end\n", let incarnation = Int64(fields[1]),
      let number = Int64(fields[2]), let id = Int64(fields[3]), let shown = Int64(fields[4])
    else { return nil }
    return HostRecord(
      incarnation: ActorID(rawValue: incarnation), last: BatchReference(number: number, id: id), shown: shown,
      boot: String(fields[5]))
  }

  /// Replaces the file as a whole.
  package func write(_ record: HostRecord) throws(HubError) {
    let text =
      "hub2 \(record.incarnation.rawValue) \(record.last.number) \(record.last.id) \(record.shown) \(record.boot) end\n"
    let scratch = path + ".new"
    let descriptor = open(scratch, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failed() }
    let count = text.utf8.count
    let written = text.withCString { Glibc.write(descriptor, $0, count) }
    close(descriptor)
    guard written == count, rename(scratch, path) == 0 else { throw failed() }
  }

  /// Of the host's kernel since it started (proc(5)); one word.
  package static let boot = bootWord(in: "/proc/sys/kernel/random/boot_id")

  /// The file's word. A host that does not tell is a new one at every start: taken for the same one for ever, an image of
  /// the whole machine that is put back would pass for a database that went on.
  package static func bootWord(in path: String) -> String {
    var bytes = [UInt8](repeating: 0, count: 64)
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    let count = descriptor >= 0 ? max(0, Glibc.read(descriptor, &bytes, bytes.count)) : 0
    if descriptor >= 0 { close(descriptor) }
    let word = bytes.prefix(count).filter { $0 > 32 && $0 < 127 }
    return word.isEmpty ? "untold-\(UInt64.random(in: 0...UInt64.max))" : String(decoding: word, as: UTF8.self)
  }

  private func failed() -> HubError {
    HubError(
      .refused, "cannot write \(path): \(String(cString: strerror(errno)))",
      hint: "free space or give another directory by --state-dir", isTransient: true)
  }
}
