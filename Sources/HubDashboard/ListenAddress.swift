/// Where to listen: `9464`, `:9464` and `localhost:9464` are this machine alone, `0.0.0.0:9464` and `[::]:9464` everybody.
package struct ListenAddress: Sendable, Equatable, CustomStringConvertible {
  package let host: String
  /// 0: one that is free.
  package let port: Int

  package init?(_ text: String) {
    let digits: Substring
    if let colon = text.lastIndex(of: ":") {
      digits = text[text.index(after: colon)...]
      var name = text[..<colon]
      if name.hasPrefix("[") && name.hasSuffix("]") {
        name = name.dropFirst().dropLast()
      } else if name.contains(":") || name.contains("[") || name.contains("/") {
        return nil
      }
      host = name.isEmpty || name == "localhost" ? "127.0.0.1" : String(name)
    } else {
      digits = text[...]
      host = "127.0.0.1"
    }
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits) else {
      return nil
    }
    self.port = Int(port)
  }

  package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
