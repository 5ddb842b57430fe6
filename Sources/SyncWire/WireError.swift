/// Why a message was not understood, or could not be written. Names no value of a row and no secret.
package enum WireError: Error, Sendable, Hashable {
  /// The broker's `content-encoding` is not zstd.
  case encoding(String?)
  /// Larger than is accepted, before or after decompression; nothing was allocated for it.
  case tooLarge(bytes: UInt64, max: Int)
  /// Bytes were changed or lost on the way.
  case damaged(Damage)
  /// The peer speaks another major version: one of the two has to be updated.
  case version(theirs: UInt32, ours: UInt32)
  /// No message of a kind that this version knows; the field's number in the envelope, if there is one. A newer
  /// peer may send such, so this is no sign of damage.
  case unknownKind(field: Int?)
  /// Readable, but breaks a rule of the protocol.
  case malformed(String)

  package enum Damage: String, Sendable {
    case frame = "no zstd frame"
    case unprotected = "its size or a checksum is missing"
    case content = "its checksum or compressed form is wrong"
    case message = "no protobuf message"
  }
}

extension WireError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .encoding(let name):
      "a message has content-encoding \(name.map { "'\(printable($0))'" } ?? "none") instead of 'zstd'"
    case .tooLarge(let bytes, let max):
      "a message of \(bytes) bytes is larger than the \(max) that are accepted"
    case .damaged(let damage):
      "a message is damaged: \(damage.rawValue)"
    case .version(let theirs, let ours):
      "a message has protocol version \(theirs), this hub speaks \(ours): update the older hub"
    case .unknownKind(let field?):
      "a message of an unknown kind (field \(field)): the sender's hub is newer"
    case .unknownKind(nil):
      "a message without content"
    case .malformed(let rule):
      "a message breaks the protocol: \(rule)"
    }
  }
}

/// What came from outside, fit for one line of a log.
func printable(_ text: String) -> String {
  let scalars = text.unicodeScalars.prefix(80).map { $0.value < 32 || $0.value == 127 ? "?" : $0 }
  return String(String.UnicodeScalarView(scalars))
}
