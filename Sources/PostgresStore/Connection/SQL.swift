package import SyncCore

/// A value bound to a statement's parameter.
package enum SQLValue: Sendable {
  case null
  case text(String)
  /// Text of the type, as bytes.
  case bytes([UInt8])
  /// `text[]`, one element a value of the column, in the binary format: no quoting, no String.
  case column(ColumnBytes)
  /// `bytea`, binary.
  case binary([UInt8])
  case integers([Int64])
}

/// A statement. Interpolation binds: `"SELECT \(value)"` sends a parameter. Names go in by `\(name:)`, quoted;
/// text that is SQL itself needs the word `unsafe`.
package struct SQL: ExpressibleByStringInterpolation, Sendable {
  package var text: String
  package var values: [SQLValue]

  package init(stringLiteral value: String) {
    text = value
    values = []
  }

  package init(stringInterpolation: StringInterpolation) {
    text = stringInterpolation.text
    values = stringInterpolation.values
  }

  package init(unsafe text: String, _ values: [SQLValue] = []) {
    self.text = text
    self.values = values
  }

  package struct StringInterpolation: StringInterpolationProtocol {
    var text = ""
    var values: [SQLValue] = []

    package init(literalCapacity: Int, interpolationCount: Int) {}

    package mutating func appendLiteral(_ literal: String) { text += literal }

    private mutating func bind(_ value: SQLValue) {
      values.append(value)
      text += "$\(values.count)"
    }

    package mutating func appendInterpolation(_ value: SQLValue) { bind(value) }
    package mutating func appendInterpolation(_ value: String?) { bind(value.map { .text($0) } ?? .null) }
    package mutating func appendInterpolation(_ value: Int?) { bind(value.map { .text(String($0)) } ?? .null) }
    package mutating func appendInterpolation(_ value: Int64?) { bind(value.map { .text(String($0)) } ?? .null) }
    package mutating func appendInterpolation(_ value: Bool) { bind(.text(value ? "t" : "f")) }
    package mutating func appendInterpolation(binary value: [UInt8]?) {
      bind(value.map { .binary($0) } ?? .null)
    }
    package mutating func appendInterpolation(name value: String) { text += quotedName(value) }
    package mutating func appendInterpolation(literal value: String) { text += quotedLiteral(value) }
    package mutating func appendInterpolation(unsafe value: String) { text += value }
  }
}

/// A name as PostgreSQL's quote_ident writes it, quoted always.
package func quotedName(_ name: String) -> String {
  var out = "\""
  for character in name.unicodeScalars where character != "\0" {
    if character == "\"" { out += "\"\"" } else { out.unicodeScalars.append(character) }
  }
  return out + "\""
}

/// A string constant, safe whatever standard_conforming_strings says.
package func quotedLiteral(_ value: String) -> String {
  var out = "E'"
  for character in value.unicodeScalars where character != "\0" {
    switch character {
    case "'": out += "''"
    case "\\": out += "\\\\"
    default: out.unicodeScalars.append(character)
    }
  }
  return out + "'"
}
