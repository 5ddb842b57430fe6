import FoundationEssentials
import SwiftProtobuf
import SyncCore

/// What a branch needs to join, on one line that survives copying by hand: `hub1.` and base64url without padding of
/// a protobuf `Invitation` and its CRC-32.
///
/// The checksum refuses every change of one character, cut ends and swapped neighbours; it is no protection against
/// somebody who forges a token, which is what `secret` is for. Holds a secret: it prints as its names alone.
package struct JoinToken: Sendable, Hashable {
  /// The number in the prefix.
  package static let version = 1

  package var broker: String
  /// PEM of the authority that signed the broker's certificate; nil: the system's authorities, or no TLS.
  package var authority: String?
  package var office: String
  package var secret: [UInt8]
  package var head: String
  /// Microseconds since 1970, head's clock.
  package var expiresAt: Int64

  package init(
    broker: String, authority: String?, office: String, secret: [UInt8], head: String, expiresAt: Int64
  ) {
    self.broker = broker
    self.authority = authority
    self.office = office
    self.secret = secret
    self.head = head
    self.expiresAt = expiresAt
  }

  package func isExpired(at now: Int64) -> Bool { now >= expiresAt }

  /// The line that `hub invite` prints.
  package func text() throws(JoinTokenError) -> String {
    try check()
    var wire = Hub_Wire_Invitation()
    wire.broker = broker
    if let authority { wire.authority = authority }
    wire.office = office
    wire.secret = Data(secret)
    wire.head = head
    wire.expiresAt = expiresAt
    guard var bytes: [UInt8] = try? wire.serializedBytes() else { throw .malformed("it cannot be written") }
    let checksum = bytes.withUnsafeBytes { CRC32.of($0) }
    bytes += [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: checksum >> $0) }
    return "hub\(Self.version)." + Base64URL.text(bytes)
  }

  /// - Parameter text: the line, with or without blanks around it.
  package init(text: String) throws(JoinTokenError) {
    let utf8 = text.utf8
    guard utf8.count <= Limits.tokenBytesMax else { throw .damaged }
    let isBlank = { (byte: UInt8) in byte == 32 || (9...13).contains(byte) }
    let line = utf8.drop(while: isBlank)
    let end = line.lastIndex { !isBlank($0) }.map { line.index(after: $0) } ?? line.startIndex
    let body = try Self.body(of: line[..<end])
    guard var bytes = Base64URL.bytes(body), bytes.count > 4 else { throw .damaged }
    let checksum = bytes.suffix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    bytes.removeLast(4)
    guard bytes.withUnsafeBytes({ CRC32.of($0) }) == checksum,
      let wire = try? Hub_Wire_Invitation(serializedBytes: bytes)
    else {
      throw .damaged
    }
    self.init(
      broker: wire.broker, authority: wire.hasAuthority ? wire.authority : nil, office: wire.office,
      secret: [UInt8](wire.secret), head: wire.head, expiresAt: wire.expiresAt)
    try check()
  }

  /// What follows `hub1.`; `hub2.` is a token of a newer hub, anything else is none.
  private static func body(of line: Substring.UTF8View) throws(JoinTokenError) -> Substring.UTF8View {
    guard line.starts(with: "hub".utf8), let dot = line.prefix(9).firstIndex(of: UInt8(ascii: ".")) else {
      throw .notAToken
    }
    let digits = line[..<dot].dropFirst(3)
    guard !digits.isEmpty, digits.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains) else {
      throw .notAToken
    }
    guard digits.elementsEqual("\(version)".utf8) else { throw .version(Int(Substring(digits)) ?? 0) }
    return line[line.index(after: dot)...]
  }

  private func check() throws(JoinTokenError) {
    do {
      try Checks.office(office)
      try Checks.office(head)
      try Checks.time(expiresAt)
      try Checks.text(broker, "the broker's URL", max: Limits.brokerURLBytesMax)
      if let authority { try Checks.text(authority, "the authority", max: Limits.authorityBytesMax) }
    } catch {
      throw .malformed(error.rule)
    }
    guard !secret.isEmpty, secret.count <= Limits.secretBytesMax else {
      throw .malformed("the secret is empty or too long")
    }
  }
}

extension JoinToken: CustomStringConvertible, CustomReflectable {
  package var description: String { "token for \(office) of \(head)" }
  package var customMirror: Mirror { Mirror(self, children: ["office": office, "head": head]) }
}

/// Why a line is no token; for the person who typed it.
package enum JoinTokenError: Error, Sendable, Hashable {
  case notAToken
  case damaged
  case version(Int)
  case malformed(String)
}

extension JoinTokenError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .notAToken: "this is no token: it begins with 'hub\(JoinToken.version).', as `hub invite` prints it"
    case .damaged: "the token is incomplete or was changed: copy the whole line that `hub invite` printed"
    case .version(let theirs):
      "the token has version \(theirs), this hub reads version \(JoinToken.version): update the older hub"
    case .malformed(let rule): "the token cannot be used: \(rule)"
    }
  }
}

extension WireError {
  fileprivate var rule: String {
    if case .malformed(let rule) = self { return rule }
    return description
  }
}

/// RFC 4648, section 5, without padding. Reads only what it would write: a last character with spare bits set is
/// refused.
enum Base64URL {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

  static func text(_ bytes: [UInt8]) -> String {
    var out: [UInt8] = []
    out.reserveCapacity(bytes.count / 3 * 4 + 4)
    var (pending, bits) = (UInt32(0), 0)
    for byte in bytes {
      pending = pending << 8 | UInt32(byte)
      bits += 8
      while bits >= 6 {
        bits -= 6
        out.append(alphabet[Int(pending >> bits & 63)])
      }
    }
    if bits > 0 { out.append(alphabet[Int(pending << (6 - bits) & 63)]) }
    return String(decoding: out, as: UTF8.self)
  }

  static func bytes(_ text: some Sequence<UInt8>) -> [UInt8]? {
    var out: [UInt8] = []
    var (pending, bits) = (UInt32(0), 0)
    for character in text {
      guard let value = value(of: character) else { return nil }
      pending = pending << 6 | value
      bits += 6
      if bits >= 8 {
        bits -= 8
        out.append(UInt8(truncatingIfNeeded: pending >> bits))
      }
    }
    return bits < 6 && pending & (1 << bits - 1) == 0 ? out : nil
  }

  private static func value(of character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character) - 65
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character) - 97 + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character) - 48 + 52
    case UInt8(ascii: "-"): 62
    case UInt8(ascii: "_"): 63
    default: nil
    }
  }
}
