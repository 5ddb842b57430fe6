import CLibPQ
import Foundation

/// One application's own connection: plain libpq, none of hub's code, so that a test never asks the product whether
/// it did right. Used by one thread at a time.
final class Application: @unchecked Sendable {
  // Proof: every user of an Application opens its own and hands it to one thread.

  struct Refused: Error, CustomStringConvertible {
    var sqlstate: String?
    var message: String
    /// The connection broke: whether the statement took effect is not known.
    var isUnknown: Bool
    var description: String { "\(sqlstate ?? "-----") \(message)" }
  }

  private let connection: OpaquePointer

  init(_ url: String) throws {
    guard let opened = PQconnectdb(url) else {
      throw Refused(sqlstate: nil, message: "out of memory", isUnknown: false)
    }
    connection = opened
    guard PQstatus(opened) == CONNECTION_OK else {
      let text = String(cString: PQerrorMessage(opened))
      throw Refused(sqlstate: nil, message: text, isUnknown: false)
    }
    _ = try run("SET client_min_messages = error")
  }

  deinit { PQfinish(connection) }

  var isAlive: Bool { PQstatus(connection) == CONNECTION_OK }

  /// Runs statements; the rows of the last one, NULL as nil.
  @discardableResult
  func run(_ sql: String) throws -> [[String?]] {
    guard let result = PQexec(connection, sql) else { throw refusal(nil) }
    defer { PQclear(result) }
    switch PQresultStatus(result) {
    case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY: break
    default: throw refusal(result)
    }
    return (0..<PQntuples(result)).map { row in
      (0..<PQnfields(result)).map { column in
        PQgetisnull(result, row, column) == 1 ? nil : String(cString: PQgetvalue(result, row, column))
      }
    }
  }

  /// The first value of the first row, "" for none.
  func value(_ sql: String) throws -> String { try run(sql).first?.first.flatMap { $0 } ?? "" }

  func number(_ sql: String) throws -> Int { Int(try value(sql)) ?? 0 }

  /// `COPY … TO STDOUT`, byte for byte.
  func copy(_ query: String) throws -> [UInt8] {
    guard let result = PQexec(connection, "COPY (\(query)) TO STDOUT") else { throw refusal(nil) }
    let began = PQresultStatus(result) == PGRES_COPY_OUT
    if !began {
      defer { PQclear(result) }
      throw refusal(result)
    }
    PQclear(result)
    var bytes: [UInt8] = []
    var line: UnsafeMutablePointer<CChar>?
    while true {
      let count = PQgetCopyData(connection, &line, 0)
      guard count > 0, let start = line else { break }
      start.withMemoryRebound(to: UInt8.self, capacity: Int(count)) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: $0, count: Int(count)))
      }
      PQfreemem(start)
    }
    var failure: Refused?
    while let end = PQgetResult(connection) {
      if PQresultStatus(end) != PGRES_COMMAND_OK { failure = refusal(end) }
      PQclear(end)
    }
    if let failure { throw failure }
    return bytes
  }

  private func refusal(_ result: OpaquePointer?) -> Refused {
    let state = result.flatMap { PQresultErrorField($0, 67) }.map { String(cString: $0) }
    let text = result.map { String(cString: PQresultErrorMessage($0)) } ?? String(cString: PQerrorMessage(connection))
    return Refused(
      sqlstate: state, message: text.split(separator: "\n").joined(separator: " "),
      isUnknown: !isAlive || state?.hasPrefix("57P") ?? true)
  }
}
