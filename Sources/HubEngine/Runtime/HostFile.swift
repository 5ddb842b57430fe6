import Glibc
package import SyncCore

/// A record beside the database, on the host: the incarnation and the last batch. A database that went back, or a
/// copy on another host, does not agree with it. Written before a batch is sent; one file a database, mode 0600.
package struct HostFile: Sendable {
  package struct Record: Sendable, Equatable {
    package var incarnation: Int64
    package var last: BatchReference

    package init(incarnation: Int64, last: BatchReference) {
      self.incarnation = incarnation
      self.last = last
    }
  }

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
  package func read() -> Record? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    guard count > 0 else { return nil }
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    guard fields.count == 5, fields[0] == "hub1", fields[4] == "end\n", let incarnation = Int64(fields[1]),
      let number = Int64(fields[2]), let id = Int64(fields[3])
    else { return nil }
    return Record(incarnation: incarnation, last: BatchReference(number: number, id: id))
  }

  /// Replaces the file as a whole.
  package func write(_ record: Record) throws(HubError) {
    let text = "hub1 \(record.incarnation) \(record.last.number) \(record.last.id) end\n"
    let scratch = path + ".new"
    let descriptor = open(scratch, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failed() }
    let count = text.utf8.count
    let written = text.withCString { Glibc.write(descriptor, $0, count) }
    close(descriptor)
    guard written == count, rename(scratch, path) == 0 else { throw failed() }
  }

  private func failed() -> HubError {
    HubError(
      .refused, "cannot write \(path): \(String(cString: strerror(errno)))",
      hint: "free space or give another directory by --state-dir", isTransient: true)
  }
}
