import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore
import RabbitTransport
import SyncWire

/// What every command takes.
struct DatabaseOptions: ParsableArguments {
  @Option(help: "The office's database, any libpq URL (or HUB_DATABASE_URL).")
  var database: String?

  @Flag(help: "Print facts as JSON.")
  var json = false

  func url() throws -> String {
    guard let url = try database ?? setting("HUB_DATABASE_URL") else {
      throw HubError(.usage, "no database given", hint: "pass --database URL or set HUB_DATABASE_URL")
    }
    return try DatabasePlace.resolve(url)
  }

  /// One short connection of this command.
  func session() throws -> Session {
    do {
      return try Session(url: try url(), name: "hub")
    } catch let error as PostgresError {
      throw error.asHubError
    }
  }

  /// Runs `body` in a transaction of its own.
  func transaction<T>(_ body: (Session) throws -> T) throws -> T {
    let session = try session()
    do {
      return try session.transaction { try body($0) }
    } catch let error as PostgresError {
      throw error.asHubError
    }
  }
}

struct BrokerOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The broker, amqp(s)://user:password@host/vhost (or HUB_BROKER_URL); else what init or join stored.",
      discussion: "Of several nodes: several times, or with commas between the URLs. The first that answers serves."))
  var broker: [String] = []

  @Option(help: "A PEM file with the broker's CA (or HUB_BROKER_CA).")
  var brokerCA: String?

  func url(stored: String?) throws -> String {
    let given = broker.isEmpty ? nil : broker.joined(separator: ",")
    guard let url = try given ?? setting("HUB_BROKER_URL") ?? stored else {
      throw HubError(.usage, "no broker given", hint: "pass --broker URL or set HUB_BROKER_URL")
    }
    return url
  }
}

struct DaemonOptions: ParsableArguments {
  @Option(help: "Where the record beside the database lives (or HUB_STATE_DIR).")
  var stateDir: String?

  @Option(help: "trace, debug, info, notice, warning or error.")
  var logLevel: String = "info"

  func stateDirectory() -> String {
    stateDir ?? environment("HUB_STATE_DIR")
      ?? (environment("XDG_STATE_HOME") ?? (environment("HOME") ?? "/var/lib") + "/.local/state") + "/hub"
  }

  func logger() throws -> Logger {
    guard let level = Logger.Level(rawValue: logLevel) else {
      throw HubError(.usage, "no such log level: \(logLevel)", hint: "use info, warning or error")
    }
    var logger = Logger(label: "hub") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = level
    return logger
  }
}

func environment(_ name: String) -> String? {
  guard let value = getenv(name), value[0] != 0 else { return nil }
  return String(cString: value)
}

/// A setting of the environment: `NAME`, or the first line of the file that `NAME_FILE` names, as secrets are given to
/// containers. `{n}` stands for the number of the database that this container's `hub run` took.
func setting(_ name: String) throws -> String? {
  guard let text = try environment(name) ?? environment(name + "_FILE").map(readFile) else { return nil }
  guard let line = text.split(whereSeparator: \.isNewline).first.map(String.init) else {
    throw HubError(.usage, "\(name)_FILE names an empty file")
  }
  return name == "HUB_DATABASE_URL" ? line : try DatabasePlace.resolve(line)
}

/// The row codec that the store is handed.
let rowCoder = RowCoder(
  encode: { try Wire.encode(rows: [$0]) },
  decode: { try Wire.decode(rows: $0) })

/// Prints rows as a table with aligned columns.
func printTable(_ header: [String], _ rows: [[String]]) {
  let widths = header.indices.map { column in
    ([header] + rows).map { $0[column].count }.max() ?? 0
  }
  for row in [header] + rows {
    let cells = row.enumerated().map { index, cell in
      index == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[index] - cell.count)
    }
    print(cells.joined(separator: "  "))
  }
}

/// For one line of a table.
func shortened(_ text: String, to most: Int = 60) -> String {
  let line = String(text.map { $0.isNewline ? " " : $0 })
  return line.count > most ? line.prefix(most - 1) + "…" : line
}

/// A file's text; `-` is standard input.
func readFile(_ path: String) throws -> String {
  let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else {
    throw HubError(.usage, "cannot read \(path): \(String(cString: strerror(errno)))", hint: "give a JSON file")
  }
  defer { if descriptor != 0 { close(descriptor) } }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65_536)
  while true {
    let count = read(descriptor, &buffer, buffer.count)
    guard count > 0 else { break }
    bytes += buffer[..<count]
  }
  return String(decoding: bytes, as: UTF8.self)
}
