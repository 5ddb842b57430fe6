package import HubEngine

/// Where the broker is and who logs in, read from an `amqp://` or `amqps://` URL.
///
/// `amqp[s]://[user[:password]@]host[:port][/vhost][?cacertfile=PATH]`; parts are percent-encoded, an IPv6 address
/// stands in brackets, the virtual host is `/` unless given. Neither the description nor any error repeats a part
/// that may hold the password, not even of a URL that cannot be read.
package struct BrokerAddress: Hashable, Sendable, CustomStringConvertible {
  package var isEncrypted: Bool
  package var host: String
  package var port: UInt16
  package var user: String
  package var password: String
  package var virtualHost: String
  /// PEM file with the authorities that may sign the broker's certificate; nil = the system's.
  package var authorityFile: String?

  package init(url: String) throws(TransportError) {
    let (scheme, afterScheme) = Self.split(url, at: "://")
    guard let afterScheme else { throw Self.bad("it does not begin with amqp:// or amqps://") }
    switch scheme.lowercased() {
    case "amqp": isEncrypted = false
    case "amqps": isEncrypted = true
    default: throw Self.bad("the scheme is neither amqp nor amqps")
    }
    guard !afterScheme.contains("#") else { throw Self.bad("write # as %23") }
    let (beforeQuery, query) = Self.split(afterScheme, at: "?")
    let (authority, path) = Self.split(beforeQuery, at: "/")
    guard path?.contains("@") != true, query?.contains("@") != true else {
      throw Self.bad(
        "an @ stands behind the host: in user and password write / as %2F, ? as %3F and @ as %40")
    }
    let (credentials, location) = Self.credentials(authority)
    let (user, password) = Self.split(credentials ?? "guest:guest", at: ":")
    self.user = try Self.decode(user, "the user")
    self.password = try Self.decode(password ?? "", "the password")
    guard !self.user.isEmpty else { throw Self.bad("the user is empty") }
    (host, port) = try Self.location(location, defaultPort: isEncrypted ? 5671 : 5672)
    virtualHost = try Self.virtualHost(path)
    authorityFile = try Self.authorityFile(query)
  }

  /// The nodes of one broker: URLs with commas between them.
  package static func list(_ urls: String) throws(TransportError) -> [BrokerAddress] {
    var rest = urls[...]
    var list: [BrokerAddress] = []
    while let comma = nextURL(in: rest) {
      list.append(try BrokerAddress(url: String(rest[..<comma])))
      rest = rest[comma...].dropFirst()
    }
    return list + [try BrokerAddress(url: String(rest))]
  }

  /// A comma may also be part of a password: one ends a URL if another begins behind it.
  private static func nextURL(in text: Substring) -> Substring.Index? {
    text.indices.first { index in
      guard text[index] == "," else { return false }
      let next = text[index...].prefix(9).lowercased()
      return next.hasPrefix(",amqp://") || next.hasPrefix(",amqps://")
    }
  }

  /// Without the password.
  package var description: String {
    let name = host.contains(":") ? "[\(host)]" : host
    return "\(isEncrypted ? "amqps" : "amqp")://\(user)@\(name):\(port) (virtual host \(virtualHost))"
  }

  // MARK: Parts

  private static func bad(_ what: String) -> TransportError {
    TransportError(.badURL, "the broker's URL cannot be read: \(what)")
  }

  private static func split(_ text: String, at separator: String) -> (String, String?) {
    var rest = text[...]
    while !rest.isEmpty {
      if rest.hasPrefix(separator) {
        return (String(text[..<rest.startIndex]), String(rest.dropFirst(separator.count)))
      }
      rest = rest.dropFirst()
    }
    return (text, nil)
  }

  private static func credentials(_ authority: String) -> (String?, String) {
    guard let at = authority.lastIndex(of: "@") else { return (nil, authority) }
    return (String(authority[..<at]), String(authority[authority.index(after: at)...]))
  }

  private static func location(
    _ text: String, defaultPort: UInt16
  ) throws(TransportError) -> (String, UInt16) {
    var name = text
    var port: String?
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { throw bad("the [ of an IPv6 address is not closed") }
      name = String(text[text.index(after: text.startIndex)..<end])
      let rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { throw bad("only :port may follow the ]") }
      port = rest.isEmpty ? nil : String(rest.dropFirst())
      guard name.allSatisfy({ $0.isHexDigit || ":.%".contains($0) || $0.isASCII && $0.isLetter }) else {
        throw bad("the brackets hold no IPv6 address")
      }
    } else {
      (name, port) = split(text, at: ":")
      guard port?.contains(":") != true else { throw bad("put an IPv6 address in brackets") }
      name = try decode(name, "the host")
    }
    guard !name.isEmpty else { throw bad("the host is missing") }
    guard !name.contains(",") else { throw bad("a comma in the host: between two URLs it stands before amqp") }
    guard let port, !port.isEmpty else { return (name, defaultPort) }
    guard port.allSatisfy({ $0.isASCII && $0.isNumber }), let number = UInt16(port), number > 0 else {
      throw bad("the port is no number from 1 to 65535")
    }
    return (name, number)
  }

  private static func virtualHost(_ path: String?) throws(TransportError) -> String {
    guard let path, !path.isEmpty else { return "/" }
    guard !path.contains("/") else { throw bad("write a / inside the virtual host as %2F") }
    return try decode(path, "the virtual host")
  }

  private static func authorityFile(_ query: String?) throws(TransportError) -> String? {
    guard let query, !query.isEmpty else { return nil }
    let (name, value) = split(query, at: "=")
    guard name == "cacertfile", let value, !value.isEmpty, !value.contains("&") else {
      throw bad("the only parameter known is cacertfile=PATH")
    }
    return try decode(value, "cacertfile")
  }

  /// A zero byte is refused: C would end the text there.
  private static func decode(_ text: String, _ what: String) throws(TransportError) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, let high = Character(Unicode.Scalar(rest.removeFirst())).hexDigitValue,
        let low = Character(Unicode.Scalar(rest.removeFirst())).hexDigitValue
      else { throw bad("in \(what) a % is not followed by two hexadecimal digits (write % as %25)") }
      bytes.append(UInt8(high << 4 | low))
    }
    guard !bytes.contains(0), let decoded = String(validating: bytes, as: UTF8.self) else {
      throw bad("\(what) is no UTF-8 text")
    }
    return decoded
  }
}
