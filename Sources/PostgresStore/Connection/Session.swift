import CLibPQ
import Glibc
import SyncCore

/// One libpq connection, used by one thread. Every call blocks.
///
/// The settings that change a value's text are pinned by the connection's options, so that text means the same
/// in every office (PostgreSQL manual, 20.11.2; pgEdge Spock does the same).
package final class Session {
  private let connection: OpaquePointer
  private var prepared: [String: String] = [:]
  private var preparedCount = 0
  /// Rows of `stream` are still on their way: no other statement may run, it would throw them away.
  private var isStreaming = false
  /// What a caller keeps with this connection, as long as it lasts: a scan under way.
  package var attachment: AnyObject?
  /// Of the apply transaction that is open.
  var patience: LockPatience?
  private static let arrayOfText: Oid = 1009
  private static let arrayOfBigint: Oid = 1016
  private static let bytea: Oid = 17

  package static let pinned = [
    "DateStyle=ISO\\,\\ YMD", "IntervalStyle=postgres", "TimeZone=UTC", "extra_float_digits=1",
    "bytea_output=hex", "lc_monetary=C", "xmloption=content", "search_path=pg_catalog",
    "standard_conforming_strings=on", "client_min_messages=error", "default_transaction_isolation=read\\ committed",
    "statement_timeout=0", "idle_in_transaction_session_timeout=0", "cursor_tuple_fraction=1", "jit=off",
    // A policy that hides rows must end in an error: a hidden row would look deleted.
    "row_security=off", "array_nulls=on", "transform_null_equals=off", "quote_all_identifiers=off",
    // A connection may rest for long; hub says itself how long it waits for a lock.
    "idle_session_timeout=0", "lock_timeout=0",
  ]

  /// Connects; `url` is any libpq connection string.
  package init(url: String, name: String) throws(PostgresError) {
    // What comes before `dbname` the URL may say otherwise. A server that is cut off is noticed within a minute; left to the
    // kernel it takes 15.
    let keys = [
      "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "dbname",
      "fallback_application_name", "connect_timeout", "client_encoding", "options",
    ]
    let options = Self.pinned.map { "-c \($0)" }.joined(separator: " ")
    let values = ["30", "10", "3", "60000", url, name, "10", "UTF8", options]
    let opened = Self.withCStrings(keys) { k in
      Self.withCStrings(values) { v in PQconnectdbParams(k, v, 1) }
    }
    guard let opened else { throw PostgresError(sqlstate: nil, message: "out of memory") }
    connection = opened
    guard PQstatus(connection) == CONNECTION_OK else {
      // deinit runs although init throws: it ends the connection.
      let said = String(cString: PQerrorMessage(connection)).trimmed
      throw PostgresError(sqlstate: nil, message: said.isEmpty ? "no connection" : said)
    }
    if PQparameterStatus(connection, "in_hot_standby").map({ String(cString: $0) }) == "on" {
      throw PostgresError.standby
    }
    if serverVersion >= 170_000 { try script("SET transaction_timeout = 0") }
    // A pooler tells its clients a process of its own making.
    guard try script("SELECT pg_backend_pid()").int(0, 0) == Int(PQbackendPID(connection)) else {
      throw PostgresError.pooled
    }
  }

  deinit { PQfinish(connection) }

  package var descriptor: Int32 { PQsocket(connection) }
  package var isUsable: Bool { PQstatus(connection) == CONNECTION_OK }
  package var isInTransaction: Bool { PQtransactionStatus(connection) != PQTRANS_IDLE }
  package var serverVersion: Int { Int(PQserverVersion(connection)) }

  /// Ends a statement that runs on this connection; may be called from any thread (libpq manual, 34.7).
  package func makeCanceller() -> Canceller? { PQgetCancel(connection).map(Canceller.init(owning:)) }

  /// One or more statements without parameters.
  @discardableResult
  package func script(_ text: String) throws(PostgresError) -> ResultSet {
    try mustBeIdle()
    return try check(PQexec(connection, text))
  }

  @discardableResult
  package func query(_ sql: SQL) throws(PostgresError) -> ResultSet {
    try mustBeIdle()
    let parameters = Parameters(sql.values)
    return try check(
      parameters.with { types, values, lengths, formats in
        PQexecParams(
          connection, sql.text, Int32(sql.values.count), types, values, lengths, formats, 0)
      })
  }

  /// The same, planned once for this connection: for statements of which the text does not vary.
  @discardableResult
  package func hot(_ sql: SQL) throws(PostgresError) -> ResultSet {
    try mustBeIdle()
    let parameters = Parameters(sql.values)
    let name: String
    if let known = prepared[sql.text] {
      name = known
    } else {
      preparedCount += 1
      name = "hub\(preparedCount)"
      _ = try check(
        parameters.with { types, _, _, _ in
          PQprepare(connection, name, sql.text, Int32(sql.values.count), types)
        })
      prepared[sql.text] = name
    }
    return try check(
      parameters.with { _, values, lengths, formats in
        PQexecPrepared(connection, name, Int32(sql.values.count), values, lengths, formats, 0)
      })
  }

  /// Begins a statement of which the rows come one by one, so that no more than one is held (libpq manual, 34.6).
  package func stream(_ text: String) throws(PostgresError) {
    try mustBeIdle()
    guard PQsendQuery(connection, text) == 1, PQsetSingleRowMode(connection) == 1 else {
      try check(nil)
      return
    }
    isStreaming = true
  }

  /// The next row of `stream`; nil after the last.
  package func nextRow() throws(PostgresError) -> ResultSet? {
    guard isStreaming else { return nil }
    let raw = PQgetResult(connection)
    if let raw, PQresultStatus(raw) == PGRES_SINGLE_TUPLE { return ResultSet(owning: raw) }
    while let more = PQgetResult(connection) { PQclear(more) }
    isStreaming = false
    if let raw { try check(raw) }
    return nil
  }

  private func mustBeIdle() throws(PostgresError) {
    guard isStreaming else { return }
    throw PostgresError(sqlstate: "HB002", message: "rows of another statement are still on their way")
  }

  /// Forgets prepared statements: the tables that they name were changed.
  package func forgetPrepared() throws(PostgresError) {
    prepared.removeAll()
    if !isStreaming { try script("DEALLOCATE ALL") }
  }

  /// Runs `body` in a transaction; rolls back when it throws.
  @discardableResult
  package func transaction<T>(
    _ begin: String = "BEGIN", _ body: (Session) throws -> T
  ) throws -> T {
    try script(begin)
    do {
      let value = try body(self)
      try script("COMMIT")
      return value
    } catch {
      rollBack()
      throw error
    }
  }

  /// Ends a transaction that is open, if any.
  package func rollBack() {
    isStreaming = false
    if isUsable && isInTransaction { _ = try? script("ROLLBACK") }
  }

  @discardableResult
  private func check(_ raw: OpaquePointer?) throws(PostgresError) -> ResultSet {
    guard let raw else {
      var error = PostgresError(sqlstate: nil, message: String(cString: PQerrorMessage(connection)).trimmed)
      error.isConnectionLost = true
      throw error
    }
    let result = ResultSet(owning: raw)
    switch PQresultStatus(raw) {
    case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY, PGRES_SINGLE_TUPLE: return result
    default: break
    }
    func field(_ code: Character) -> String? {
      PQresultErrorField(raw, Int32(code.asciiValue ?? 0)).map { String(cString: $0).trimmed }
    }
    let text = field("M") ?? String(cString: PQresultErrorMessage(raw)).trimmed
    var error = PostgresError(sqlstate: field("C"), message: text)
    error.detail = field("D")
    error.hint = field("H")
    error.constraint = field("n")
    error.isConnectionLost = !isUsable
    throw error
  }

  private static func withCStrings<T>(
    _ strings: [String], _ body: (UnsafePointer<UnsafePointer<CChar>?>?) -> T
  ) -> T {
    let copies = strings.map { strdup($0) }
    defer { for copy in copies { free(copy) } }
    let pointers = copies.map { $0.map { UnsafePointer<CChar>($0) } } + [nil]
    return pointers.withUnsafeBufferPointer { body($0.baseAddress) }
  }

  /// Parameters laid out for libpq: one buffer, pointers into it.
  private struct Parameters {
    var buffer: [UInt8] = []
    var offsets: [Int?] = []
    var types: [Oid] = []
    var lengths: [Int32] = []
    var formats: [Int32] = []

    init(_ values: [SQLValue]) {
      for value in values {
        let start = buffer.count
        var type: Oid = 0
        var format: Int32 = 0
        var isNull = false
        switch value {
        case .null: isNull = true
        case .text(let text): buffer.append(contentsOf: text.utf8.lazy.filter { $0 != 0 })
        case .bytes(let bytes): buffer.append(contentsOf: bytes)
        case .binary(let bytes):
          (type, format) = (Session.bytea, 1)
          buffer.append(contentsOf: bytes)
        case .column(let column):
          (type, format) = (Session.arrayOfText, 1)
          append(column)
        case .integers(let integers):
          (type, format) = (Session.arrayOfBigint, 1)
          append(integers)
        }
        offsets.append(isNull ? nil : start)
        types.append(type)
        formats.append(format)
        lengths.append(Int32(buffer.count - start))
        if format == 0 { buffer.append(0) }
      }
    }

    /// Array wire format: dimensions, has-null flag, element type, length, lower bound, then each element's
    /// length (-1 NULL) and bytes. Source: array_recv in PostgreSQL's arrayfuncs.c.
    private mutating func append(_ column: ColumnBytes) {
      let hasNull: Int32 = column.lengths.contains(-1) ? 1 : 0
      buffer.reserveCapacity(buffer.count + column.blob.count + 4 * column.lengths.count + 24)
      header(count: column.lengths.count, hasNull: hasNull, element: 25)
      var position = 0
      column.blob.withUnsafeBufferPointer { blob in
        for length in column.lengths {
          big(length)
          if length > 0 {
            let end = position + Int(length)
            buffer.append(contentsOf: blob[position..<end])
            position = end
          }
        }
      }
    }

    private mutating func append(_ integers: [Int64]) {
      header(count: integers.count, hasNull: 0, element: 20)
      for integer in integers {
        big(8)
        withUnsafeBytes(of: integer.bigEndian) { buffer.append(contentsOf: $0) }
      }
    }

    private mutating func header(count: Int, hasNull: Int32, element: Int32) {
      big(count == 0 ? 0 : 1)
      big(hasNull)
      big(element)
      if count > 0 {
        big(Int32(truncatingIfNeeded: count))
        big(1)
      }
    }

    private mutating func big(_ value: Int32) {
      withUnsafeBytes(of: value.bigEndian) { buffer.append(contentsOf: $0) }
    }

    func with<T>(
      _ body: (UnsafePointer<Oid>?, UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<Int32>?, UnsafePointer<Int32>?)
        -> T
    ) -> T {
      buffer.withUnsafeBufferPointer { bytes in
        let base = UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self)
        let pointers = offsets.map { offset in offset.flatMap { o in base.map { $0 + o } } }
        return types.withUnsafeBufferPointer { t in
          pointers.withUnsafeBufferPointer { p in
            lengths.withUnsafeBufferPointer { l in
              formats.withUnsafeBufferPointer { f in
                body(t.baseAddress, p.baseAddress, l.baseAddress, f.baseAddress)
              }
            }
          }
        }
      }
    }
  }
}

/// Cancels what its connection is running, from another thread.
package final class Canceller: @unchecked Sendable {
  // Proof: PQcancel is documented as callable from any thread on a PGcancel that nobody changes (libpq, 34.7);
  // the pointer is constant and freed once, in deinit.
  private let handle: OpaquePointer

  fileprivate init(owning handle: OpaquePointer) { self.handle = handle }

  deinit { PQfreeCancel(handle) }

  package func cancel() {
    var message = [CChar](repeating: 0, count: 256)
    _ = PQcancel(handle, &message, 256)
  }
}

extension String {
  /// Without white space at both ends.
  package var trimmed: String {
    let scalars = unicodeScalars
    let isSpace: (Unicode.Scalar) -> Bool = { $0.properties.isWhitespace }
    guard let first = scalars.firstIndex(where: { !isSpace($0) }), let last = scalars.lastIndex(where: { !isSpace($0) })
    else { return "" }
    return String(scalars[first...last])
  }
}
