/// Metrics as Prometheus reads them: the text format, version 0.0.4
/// (https://prometheus.io/docs/instrumenting/exposition_formats/).
package struct Exposition: Sendable {
  /// One value and what it is of.
  package struct Sample: Sendable {
    var labels: [(name: String, value: String)]
    var value: Double

    package init(_ labels: [(name: String, value: String)] = [], _ value: Double) {
      self.labels = labels
      self.value = value
    }
  }

  package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  package private(set) var text = ""
  /// On every sample, before its own.
  private let labels: [(name: String, value: String)]

  package init(_ labels: [(name: String, value: String)] = []) { self.labels = labels }

  /// A value that goes up and down, of several things; without any it is left out: unknown is not zero.
  package mutating func gauge(_ name: String, _ help: String, _ samples: [Sample]) {
    add(name, "gauge", help, samples)
  }

  /// nil: unknown.
  package mutating func gauge(_ name: String, _ help: String, _ value: Double?) {
    add(name, "gauge", help, value.map { [Sample([], $0)] } ?? [])
  }

  package mutating func gauge(_ name: String, _ help: String, _ value: Bool) {
    add(name, "gauge", help, [Sample([], value ? 1 : 0)])
  }

  /// A value that only grows, or begins anew.
  package mutating func counter(_ name: String, _ help: String, _ value: Double) {
    add(name, "counter", help, [Sample([], value)])
  }

  private mutating func add(_ name: String, _ kind: String, _ help: String, _ samples: [Sample]) {
    guard !samples.isEmpty else { return }
    text += "# HELP \(name) \(help.escaped(quotes: false))\n# TYPE \(name) \(kind)\n"
    for sample in samples {
      let all = (labels + sample.labels).map { "\($0.name)=\"\($0.value.escaped(quotes: true))\"" }
      text += "\(name)\(all.isEmpty ? "" : "{\(all.joined(separator: ","))}") \(Self.number(sample.value))\n"
    }
  }

  private static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
    return Int64(exactly: value).map(String.init) ?? value.description
  }
}

extension String {
  fileprivate func escaped(quotes: Bool) -> String {
    var escaped = ""
    for character in unicodeScalars {
      switch character {
      case "\\": escaped += "\\\\"
      case "\n": escaped += "\\n"
      case "\"" where quotes: escaped += "\\\""
      default: escaped.unicodeScalars.append(character)
      }
    }
    return escaped
  }
}
