import Glibc
import HubEngine
import SyncCore
import Synchronization
import Testing

@testable import PostgresStore

/// The private servers that a test run was given.
enum Servers {
  /// libpq URL of a superuser at cluster `number` (1…4).
  static func url(_ number: Int) throws -> String {
    guard let value = getenv("HUB_TEST_POSTGRES_\(number)") else {
      throw HubError(.notReady, "HUB_TEST_POSTGRES_\(number) is not set", hint: "run Scripts/test")
    }
    return String(cString: value)
  }

  /// How many clusters there are; at least one.
  static var count: Int { (1...4).last { getenv("HUB_TEST_POSTGRES_\($0)") != nil } ?? 1 }
}

/// A database of a test's own; dropped when the last reference goes.
final class Database {
  let url: String
  let name: String
  private let server: String

  init(cluster: Int, like: String) throws {
    server = try Servers.url(cluster)
    name = "hub_test_\(like)_\(UInt64.random(in: .min ... .max))"
    try Session(url: server, name: "hub-test").script("CREATE DATABASE \(name) TEMPLATE template0")
    url = Self.replacing(server, database: name)
  }

  deinit {
    _ = try? Session(url: server, name: "hub-test").script("DROP DATABASE IF EXISTS \(name) WITH (FORCE)")
  }

  func connect() throws -> Session { try Session(url: url, name: "hub-test") }

  /// As an application connects: with the server's own settings.
  func application() throws -> Session {
    let session = try connect()
    try session.script("RESET search_path; SET search_path = public")
    return session
  }

  /// A URL's path, or a later `dbname` of a keyword string, names the database.
  private static func replacing(_ url: String, database: String) -> String {
    guard let scheme = url.firstRange(of: "://") else { return "\(url) dbname=\(database)" }
    let rest = url[scheme.upperBound...]
    let query = rest.firstIndex(of: "?").map { String(rest[$0...]) } ?? ""
    let authority = rest.prefix { $0 != "/" && $0 != "?" }
    return "\(url[..<scheme.upperBound])\(authority)/\(database)\(query)"
  }
}

/// One office: a database with the hub schema, one session as hub and one as an application.
final class Office {
  let database: Database
  let isHead: Bool
  let hub: Session
  let application: Session
  /// Looks at rows with hub's settings and an application's search path.
  private let reader: Session
  private(set) var tables: [TableInfo] = []
  /// Where this office's feed was read up to.
  var position = FeedPosition.beginning

  init(_ role: String, cluster: Int) throws {
    isHead = role == "head"
    database = try Database(cluster: min(cluster, Servers.count), like: role)
    hub = try database.connect()
    application = try database.application()
    reader = try database.connect()
    try reader.script("SET search_path = public")
    try hub.transaction { session in
      try Migrations.migrate(session)
      let actor = Int64.random(in: 1 ... .max)
      try session.query(
        """
        INSERT INTO hub.office (name, role, actor, server_started, table_identity, head, residue)
        VALUES (\(role), \(role), \(actor), pg_postmaster_start_time(), 'hub.office'::regclass, 'head', 0)
        """)
    }
  }

  /// Tracks tables, given as `schema.relation` pairs.
  func track(_ names: [(String, String)], _ change: (inout TrackingOptions) -> Void = { _ in }) throws {
    var options = TrackingOptions()
    options.keys = "as-is"
    change(&options)
    try hub.transaction { session in
      for (schema, relation) in names {
        _ = try TrackCheck.check(session, schema, relation, options)
        try PostgresStore.upsert(
          CatalogueTable(schemaName: schema, relationName: relation, options: options), session)
      }
      tables = try TableInfo.loadAll(session)
      for (schema, relation) in names {
        let table = try #require(tables.first { $0.schemaName == schema && $0.relationName == relation })
        try Capture.install(session, table, role: isHead ? "head" : "branch")
      }
      if isHead { try LastImages.install(session, tables) }
    }
  }

  /// Reads the catalogue again, after the schema was changed.
  func reload() throws {
    tables = try TableInfo.loadAll(hub)
    try hub.forgetPrepared()
  }

  /// The rows of the feed since `since`, as blocks, and the position after them.
  func feed(
    since: FeedPosition? = nil, echoes: Bool = false, isKeyed: Bool = false,
    partBytes: Int = Limits.partBytesMax
  ) throws -> (blocks: [RowBlock], position: FeedPosition) {
    try hub.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { session in
      let next = FeedPosition(text: try session.query("SELECT pg_current_snapshot()").text(0, 0))
      let scan = FeedScan(
        session: session, tables: tables, since: since ?? position, echoes: echoes, isKeyed: isKeyed,
        partBytes: partBytes)
      var blocks: [RowBlock] = []
      while true {
        let part = try scan.next()
        blocks += part.blocks
        if part.isLast { return (blocks, next) }
      }
    }
  }

  @discardableResult
  func apply(_ blocks: [RowBlock], refusesMissing: Bool = false) throws -> AppliedCounts {
    try apply(blocks, on: hub, refusesMissing: refusesMissing)
  }

  func apply(_ blocks: [RowBlock], on session: Session, refusesMissing: Bool = false) throws -> AppliedCounts {
    try ApplyTransaction(
      session: session, tables: Dictionary(uniqueKeysWithValues: tables.map { ($0.name, $0) }),
      isHead: isHead,
      peer: isHead ? "branch" : "head", coder: Drawer.coder, refusesMissing: refusesMissing
    ).run({ apply in for block in blocks { try apply(block) } }, finish: { _ in })
  }

  /// A table's rows as COPY writes them, sorted.
  func copy(_ table: String, order: String = "1", columns: String = "*") throws -> [String] {
    let rows = try reader.script("SELECT \(columns) FROM \(table) ORDER BY \(order)")
    return (0..<rows.count).map { row in
      (0..<rows.columnCount).map { rows.string(row, $0) ?? "\\N" }.joined(separator: "\t")
    }
  }

  func text(_ query: String) throws -> String { try reader.script(query).text(0, 0) }
  func count(_ table: String) throws -> Int { try reader.script("SELECT count(*) FROM \(table)").int(0, 0) }
}

/// Two offices that exchange what changed.
final class Pair {
  let head: Office
  let branch: Office

  /// Runs `schema` as an application at both.
  init(_ schema: String) throws {
    head = try Office("head", cluster: 1)
    branch = try Office("branch", cluster: 2)
    try head.application.script(schema)
    try branch.application.script(schema)
  }

  convenience init(
    _ schema: String, tracking names: [(String, String)], _ change: (inout TrackingOptions) -> Void = { _ in }
  ) throws {
    try self.init(schema)
    try head.track(names, change)
    try branch.track(names, change)
  }

  /// One batch from head to branch.
  @discardableResult
  func down(partBytes: Int = Limits.partBytesMax) throws -> AppliedCounts {
    try send(from: head, to: branch, partBytes)
  }

  /// One batch from branch to head.
  @discardableResult
  func up(partBytes: Int = Limits.partBytesMax) throws -> AppliedCounts {
    try send(from: branch, to: head, partBytes)
  }

  private func send(from: Office, to: Office, _ partBytes: Int) throws -> AppliedCounts {
    let (blocks, position) = try from.feed(partBytes: partBytes)
    let counts = try to.apply(blocks)
    from.position = position
    return counts
  }

  /// Both ways until nothing moves; a head's echo of a branch's rows is the last thing that does.
  @discardableResult
  func settle() throws -> Int {
    for round in 1...10 {
      let (upBlocks, _) = try branch.feed()
      try up()
      let (downBlocks, _) = try head.feed()
      try down()
      if upBlocks.isEmpty && downBlocks.isEmpty { return round }
    }
    Issue.record("the offices do not come to rest")
    return 10
  }
}

/// Keeps blocks in memory and hands out numbers for them: a coder without a wire.
enum Drawer {
  private static let blocks = Mutex<[RowBlock]>([])

  static let coder = RowCoder(
    encode: { block in
      blocks.withLock {
        $0.append(block)
        return Array(String($0.count - 1).utf8)
      }
    },
    decode: { bytes in
      guard let at = Int(String(decoding: bytes, as: UTF8.self)) else { return [] }
      return blocks.withLock { [$0[at]] }
    })
}

extension RowBlock {
  /// Keys of all rows, as texts.
  var keys: [[String]] {
    let columns = columns[..<keyCount].map {
      $0.values().map { $0.map { String(decoding: $0, as: UTF8.self) } ?? "" }
    }
    return (0..<count).map { row in columns.map { $0[row] } }
  }
}
