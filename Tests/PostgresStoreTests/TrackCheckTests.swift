import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct TrackCheckTests {
  private static let schema = """
    CREATE SCHEMA "My Schema"; CREATE EXTENSION lo; CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE TABLE "My Schema"."My.""Table" (id int PRIMARY KEY); CREATE TABLE "Orders" (id int PRIMARY KEY);
    CREATE TABLE fine (id int PRIMARY KEY, o oid, s text); CREATE TABLE no_key (id int); CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE);
    CREATE VIEW a_view AS SELECT 1 AS id; CREATE MATERIALIZED VIEW a_copy AS SELECT 1 AS id;
    CREATE FOREIGN TABLE a_file (id int) SERVER files OPTIONS (filename '/dev/null'); CREATE UNLOGGED TABLE a_log (id int PRIMARY KEY);
    CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (9);
    CREATE TABLE mother (id int PRIMARY KEY); CREATE TABLE daughter (PRIMARY KEY (id)) INHERITS (mother);
    CREATE TABLE large (id int PRIMARY KEY, image lo); CREATE TABLE walled (id int PRIMARY KEY);
    ALTER TABLE walled ENABLE ROW LEVEL SECURITY; ALTER TABLE walled FORCE ROW LEVEL SECURITY;
    CREATE TABLE small (id smallserial PRIMARY KEY);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER always AFTER INSERT ON fine EXECUTE FUNCTION f(); ALTER TABLE fine ENABLE ALWAYS TRIGGER always;
    """

  @Test("CAP-03: what cannot be tracked is refused with one line and what to do")
  func refusals() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(Self.schema)
    for (table, message, hint) in [
      ("nothing", "there is no table nothing", "case-sensitive"),
      ("orders", "there is no table orders", "public.\"Orders\""),
      ("no_key", "has no primary key", "ADD PRIMARY KEY"),
      ("late_key", "deferrable primary key", "without DEFERRABLE"),
      ("a_view", "is a view", "tables that it shows"), ("a_copy", "is a view", "tables that it shows"),
      ("a_file", "a foreign table", "where it lives"),
      ("a_log", "is unlogged", "SET LOGGED"), ("parts", "a partitioned table", "partitions"),
      ("part", "a partition", "partitions"),
      ("mother", "inheritance tree", ""), ("daughter", "inheritance tree", ""),
      ("large", "large objects", "bytea"),
      ("walled", "row-level security that is forced", "NO FORCE"),
    ] {
      let error = #expect(throws: HubError.self, "\(table)") {
        try TrackCheck.check(office.hub, "public", table, TrackingOptions())
      }
      #expect(error?.message.contains(message) == true, "\(error?.description ?? "")")
      #expect(hint.isEmpty || error?.hint?.contains(hint) == true, "\(error?.description ?? "")")
      #expect(error?.description.contains("\n") == false)
    }
    for schema in ["hub", "pg_catalog"] {
      #expect(throws: HubError.self) { try TrackCheck.check(office.hub, schema, "office", TrackingOptions()) }
    }
    try office.application.script("CREATE TEMP TABLE passing (id int PRIMARY KEY)")
    try office.track([("public", "fine")])
    #expect(throws: HubError.self) { try TrackCheck.check(office.hub, "public", "fine", TrackingOptions()) }
  }

  @Test("CAP-03: what may go wrong later is said now")
  func warnings() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(Self.schema)
    #expect(try TrackCheck.check(office.hub, "public", "Orders", TrackingOptions()) == [])
    #expect(try TrackCheck.check(office.hub, "public", "fine", TrackingOptions()).count == 2)
    #expect(try TrackCheck.check(office.hub, "public", "small", TrackingOptions()).count == 1)
  }

  @Test("APP-09: a table that PostgreSQL's own replication fills is refused")
  func subscriptions() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(
      """
      CREATE TABLE t (id int PRIMARY KEY);
      CREATE SUBSCRIPTION hub_test CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false);
      """)
    try office.application.script(
      "INSERT INTO pg_subscription_rel SELECT oid, 't'::regclass, 'r', NULL FROM pg_subscription WHERE subname = 'hub_test'"
    )
    defer {
      _ = try? office.application.script(
        "ALTER SUBSCRIPTION hub_test SET (slot_name = NONE); DROP SUBSCRIPTION hub_test")
    }
    let error = #expect(throws: HubError.self) {
      try TrackCheck.check(office.hub, "public", "t", TrackingOptions())
    }
    #expect(error?.message.contains("subscription") == true)
  }

  @Test func optionsThatAreNotKnownOrNotYet() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script("CREATE TABLE t (id int PRIMARY KEY)")
    for (code, change) in [
      (HubError.Code.usage, { $0.direction = "sideways" }), (.usage, { $0.merge = "cell" }),
      (.usage, { $0.onConflict = "luck" }),
      (.usage, { $0.onDelete = "?" }), (.usage, { $0.keys = "" }), (.usage, { $0.foreignWrites = "allow" }),
      (.usage, { $0.onConflict = "function:f" }),
      (.usage, { $0.counters = ["a"] }), (.unsupported, { $0.originColumn = "office" }),
    ] as [(HubError.Code, (inout TrackingOptions) -> Void)] {
      var options = TrackingOptions()
      change(&options)
      let error = #expect(throws: HubError.self) { try TrackCheck.check(office.hub, "public", "t", options) }
      #expect(error?.code == code && error?.exitCode == 2, "\(error?.description ?? "")")
    }
  }

  @Test func namesAreReadAsInSQL() throws {
    let office = try Office("head", cluster: 1)
    try office.application.script(Self.schema)
    for (name, schema, relation) in [
      ("fine", "public", "fine"), ("public.fine", "public", "fine"), ("\"Orders\"", "public", "Orders"),
      ("Orders", "public", "Orders"),
      ("\"My Schema\".\"My.\"\"Table\"", "My Schema", "My.\"Table"), (" public.\"fine\" ", "public", "fine"),
    ] {
      let found = try TrackCheck.resolve(office.hub, name)
      #expect(found.schema == schema && found.relation == relation, "\(name)")
    }
    for name in ["", ".", "a.b.c", "\"open", "public.", "\"a\"b", "\"\"", "orders", "public.\"nothing\""] {
      let error = #expect(throws: HubError.self, "\(name)") { _ = try TrackCheck.resolve(office.hub, name) }
      #expect(error?.code == .usage)
    }
  }
}

@Suite struct KeyStrideTests {
  private func office(_ schema: String) throws -> (Office, TableInfo) {
    let office = try Office("head", cluster: 1)
    try office.application.script(schema)
    try office.track([("public", "t")])
    return (office, try #require(office.tables.first))
  }

  private func draw(_ office: Office, _ count: Int = 2) throws -> [Int] {
    try (0..<count).map { _ in
      try office.application.script("INSERT INTO t DEFAULT VALUES RETURNING id").int(0, 0)
    }
  }

  @Test(arguments: [
    "CREATE TABLE t (id serial PRIMARY KEY)",
    "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
    "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY)",
    "CREATE SEQUENCE own; CREATE TABLE t (id bigint PRIMARY KEY DEFAULT nextval('own'))",
  ])
  func officesDrawFromTheirOwnClass(schema: String) throws {
    let (office, table) = try office(schema)
    #expect(try draw(office, 3) == [1, 2, 3])
    try office.application.script("INSERT INTO t (id) OVERRIDING SYSTEM VALUE VALUES (205)")
    for _ in 1...3 { try office.hub.transaction { try KeyStride.apply($0, table, residue: 7, stride: 100) } }
    #expect(try draw(office) == [207, 307])
    // Again, also when rows of other offices lie beyond.
    try office.application.script("INSERT INTO t (id) OVERRIDING SYSTEM VALUE VALUES (90008)")
    for _ in 1...3 { try office.hub.transaction { try KeyStride.apply($0, table, residue: 7, stride: 100) } }
    #expect(try draw(office) == [407, 507])
    try office.hub.transaction { try KeyStride.release($0, table) }
    #expect(try draw(office) == [508, 509])
  }

  @Test func aFreshSequenceBeginsInItsClass() throws {
    let (office, table) = try office("CREATE TABLE t (id serial PRIMARY KEY)")
    for residue in [0, 99, 1] {
      try office.hub.transaction { try KeyStride.apply($0, table, residue: residue, stride: 100) }
    }
    #expect(try draw(office) == [201, 301])
  }

  @Test func smallKeysAndKeysOfAnotherKindAreLeftAlone() throws {
    let (office, table) = try office("CREATE TABLE t (id smallserial PRIMARY KEY)")
    try office.hub.transaction { try KeyStride.apply($0, table, residue: 7, stride: 100) }
    #expect(try draw(office) == [1, 2])
    let (other, plain) = try self.office("CREATE TABLE t (id text PRIMARY KEY, n serial)")
    try other.hub.transaction { try KeyStride.apply($0, plain, residue: 7, stride: 100) }
    #expect(try other.text("SELECT nextval('t_n_seq')") == "1")
  }

  @Test func aSequenceThatCannotStrideIsRefused() throws {
    for (change, message) in [
      ("CYCLE", "cycles"), ("INCREMENT BY -1 MINVALUE -100 MAXVALUE 100", "counts down"),
      ("MAXVALUE 50", "no numbers left"),
    ] {
      let (office, table) = try office(
        "CREATE TABLE t (id serial PRIMARY KEY); ALTER SEQUENCE t_id_seq \(change)")
      let error = #expect(throws: HubError.self) {
        try office.hub.transaction { try KeyStride.apply($0, table, residue: 77, stride: 100) }
      }
      #expect(error?.message.contains(message) == true && error?.hint != nil, "\(error?.description ?? "")")
    }
  }
}
