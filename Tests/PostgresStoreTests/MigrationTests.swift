import HubEngine
import Testing

@testable import PostgresStore

/// Databases that an earlier hub made.
@Suite struct MigrationTests {
  /// Columns, constraints, indexes and functions of the schema.
  private func shape(_ session: Session) throws -> String {
    try session.query(
      """
      SELECT string_agg(what, E'\\n' ORDER BY what COLLATE "C") FROM (
        SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) AS what
        FROM information_schema.columns WHERE table_schema = 'hub'
        UNION ALL SELECT pg_get_constraintdef(oid) || conrelid::regclass::text FROM pg_constraint
        WHERE connamespace = 'hub'::regnamespace
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'hub'
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'hub'::regnamespace) AS all_of_it
      """
    ).text(0, 0)
  }

  @Test("a schema of every earlier version becomes the one that a new office has", arguments: 1..<Migrations.latest)
  func everyVersionIsUpgraded(from version: Int) throws {
    let (old, new) = (try Database(cluster: 1, like: "old"), try Database(cluster: 1, like: "new"))
    let (session, fresh) = (try old.connect(), try new.connect())
    try fresh.transaction { try Migrations.migrate($0) }
    try session.transaction { try Migrations.migrate($0, to: version) }
    #expect(try Migrations.version(session) == version)
    #expect(throws: HubError.self) { try PostgresStore.readOffice(session) }
    #expect(try session.transaction { try Migrations.upgrade($0) } == version)
    #expect(try shape(session) == shape(fresh))
    #expect(try session.transaction { try Migrations.upgrade($0) } == nil)
  }

  @Test("who does not own the schema is told so, and changes nothing; a schema of a later hub is left alone")
  func whoMayNotIsTold() throws {
    let database = try Database(cluster: 1, like: "owned")
    let session = try database.connect()
    let role = "hub_test_reader_\(UInt64.random(in: 0...UInt64.max))"
    try session.transaction { try Migrations.migrate($0, to: Migrations.latest - 1) }
    try session.script(
      """
      CREATE ROLE \(role); GRANT USAGE, CREATE ON SCHEMA hub TO \(role); GRANT ALL ON ALL TABLES IN SCHEMA hub TO \(role)
      """)
    let error = #expect(throws: HubError.self) {
      try session.transaction { session in
        try session.script("SET LOCAL ROLE \(role)")
        return try Migrations.upgrade(session)
      }
    }
    #expect(error?.hint?.contains("hub doctor --upgrade") == true)
    #expect(try Migrations.version(session) == Migrations.latest - 1)
    try session.script("DROP OWNED BY \(role); DROP ROLE \(role)")
    try session.script("INSERT INTO hub.migration (version) VALUES (\(Migrations.latest + 1))")
    #expect(try session.transaction { try Migrations.upgrade($0) } == nil)
    #expect(throws: HubError.self) { try session.transaction { try Migrations.migrate($0) } }
  }
}
