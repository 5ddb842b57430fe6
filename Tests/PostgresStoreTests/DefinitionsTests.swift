import HubEngine
import SyncCore
import Testing

@testable import PostgresStore

@Suite struct DefinitionsTests {
  private static let rich = """
    CREATE SCHEMA "My Schema";
    CREATE EXTENSION citext; CREATE EXTENSION btree_gist; CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION pg_trgm;
    CREATE TYPE mood AS ENUM ('sad', 'o''k', 'back\\slash');
    CREATE DOMAIN code AS varchar(3) DEFAULT 'abc' CONSTRAINT upper_only CHECK (VALUE = upper(VALUE)) NOT NULL;
    CREATE DOMAIN codes AS code[] CHECK (array_length(VALUE, 1) < 4);
    CREATE TYPE money_of AS (amount numeric(12, 2), "Currency Code" code, how mood);
    CREATE TYPE pair AS (a money_of, b mood[]);
    CREATE TYPE span AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi, MULTIRANGE_TYPE_NAME = spans);
    CREATE COLLATION "My Schema".nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE SEQUENCE shared_numbers INCREMENT BY 5 START WITH 10 MAXVALUE 100000 CACHE 3;
    CREATE TABLE "My Schema"."Parent Table" (
      "Id" bigint GENERATED ALWAYS AS IDENTITY (START WITH 7 INCREMENT BY 3), name citext UNIQUE DEFERRABLE INITIALLY DEFERRED,
      slug text COLLATE "My Schema".nocase NOT NULL DEFAULT 'a''b\\c', PRIMARY KEY ("Id"));
    CREATE TABLE child (
      id serial, part int DEFAULT nextval('shared_numbers'), parent bigint REFERENCES "My Schema"."Parent Table" ON DELETE CASCADE
        DEFERRABLE, m mood DEFAULT 'sad', c code, cs codes, p pair, s span, ss spans, u uuid DEFAULT uuid_generate_v4(),
      price numeric(10, 2) CHECK (price > 0), twice numeric GENERATED ALWAYS AS (price * 2) STORED, b bit(4), vb varbit(7),
      ch char(5), t time(2) with time zone, iv interval day to second(3), arr varchar(3)[][], during tstzrange,
      note text, other int, PRIMARY KEY (id, part), UNIQUE NULLS NOT DISTINCT (note),
      EXCLUDE USING gist (parent WITH =, during WITH &&));
    CREATE INDEX child_lower ON child (lower(note) DESC NULLS LAST) INCLUDE (m) WHERE price > 1;
    CREATE INDEX child_trigram ON child USING gin (note gin_trgm_ops);
    CREATE TABLE untracked (id int PRIMARY KEY);
    ALTER TABLE child ADD CONSTRAINT to_untracked FOREIGN KEY (other) REFERENCES untracked;
    ALTER TABLE child ADD CONSTRAINT not_yet CHECK (other <> 13) NOT VALID;
    """
  private static let names = [("My Schema", "Parent Table"), ("public", "child")]

  private func offices(_ schema: String, _ names: [(String, String)]) throws -> (
    Office, Office, [SchemaStatement]
  ) {
    let head = try Office("head", cluster: 1)
    try head.application.script(schema)
    try head.track(names)
    return (head, try Office("branch", cluster: 2), try Definitions.export(head.hub, tables: head.tables))
  }

  @Test func anEmptyDatabaseGetsWhatHeadHasAndExportsTheSame() throws {
    let (head, branch, statements) = try offices(Self.rich, Self.names)
    let created = try branch.hub.transaction { try Definitions.create($0, statements) }
    #expect(created.count > 20)
    try branch.track(Self.names)
    let again = try Definitions.export(branch.hub, tables: branch.tables).filter { $0.kind != "note" }
    #expect(again.map(\.statement) == statements.filter { $0.kind != "note" }.map(\.statement))
    #expect(
      statements.filter { $0.kind == "note" }.map(\.name) == [
        "foreign key to_untracked of public.child is left out: public.untracked is not tracked"
      ])
    let indexes =
      "SELECT string_agg(indexdef, E'\\n' ORDER BY indexdef) FROM pg_indexes WHERE schemaname IN ('public', 'My Schema') AND tablename <> 'untracked'"
    #expect(try head.text(indexes) == branch.text(indexes))
  }

  @Test func creatingTwiceCreatesNothingTheSecondTime() throws {
    let (_, branch, statements) = try offices(Self.rich, Self.names)
    _ = try branch.hub.transaction { try Definitions.create($0, statements) }
    #expect(try branch.hub.transaction { try Definitions.create($0, statements) } == [])
  }

  @Test(arguments: [
    ("CREATE TABLE t (id int PRIMARY KEY, a text)", "column b is missing"),
    ("CREATE TABLE t (id bigint PRIMARY KEY, a text, b int)", "column id is bigint here and integer at head"),
    ("CREATE TABLE t (id int, a text PRIMARY KEY, b int)", "its primary key is (a) here and (id) at head"),
    (
      "CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b int)",
      "column a is character varying(5) here and text at head"
    ),
    (
      "CREATE TABLE t (id int PRIMARY KEY, a text, b int, c int NOT NULL)",
      "column c must be filled and head does not have it"
    ),
    (
      "CREATE TABLE t (id int PRIMARY KEY, a text, b int GENERATED ALWAYS AS (id) STORED)",
      "column b is generated here and not at head"
    ),
    ("CREATE VIEW t AS SELECT 1 AS id", "public.t is not an ordinary table here"),
  ])
  func aTableThatDiffersIsNamedWithItsDifference(here: String, difference: String) throws {
    let (_, branch, statements) = try offices(
      "CREATE TABLE t (id int PRIMARY KEY, a text, b int)", [("public", "t")])
    try branch.application.script(here)
    let error = #expect(throws: HubError.self) {
      try branch.hub.transaction { try Definitions.create($0, statements) }
    }
    #expect(error?.message.contains(difference) == true, "\(error?.message ?? "")")
  }

  @Test func aTableWithMoreNullableColumnsAndAnotherNameForItsKeyIsLeftAsItIs() throws {
    let (_, branch, statements) = try offices(
      "CREATE TABLE t (id int PRIMARY KEY, a text UNIQUE)", [("public", "t")])
    try branch.application.script(
      "CREATE TABLE t (id int, a text, own text, CONSTRAINT other_key PRIMARY KEY (id), CONSTRAINT other UNIQUE (a))"
    )
    #expect(try branch.hub.transaction { try Definitions.create($0, statements) } == [])
  }

  @Test func statementsThatAreNotWhatTheySayAreRefused() throws {
    let branch = try Office("branch", cluster: 2)
    for (kind, text) in [
      ("table", "DROP TABLE hub.office"), ("index", "CREATE TABLE x (id int)"),
      ("surprise", "CREATE TABLE x ()"),
      ("table", "CREATE TABLE x (id int); DROP TABLE hub.office"),
    ] {
      #expect(throws: HubError.self) {
        try branch.hub.transaction {
          try Definitions.create(
            $0, [SchemaStatement(kind: kind, name: "public.x", statement: text, table: "public.x")])
        }
      }
    }
  }

  @Test func aFunctionThatIsMissingIsNamed() throws {
    let (_, branch, statements) = try offices(
      """
      CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2';
      CREATE TABLE t (id int PRIMARY KEY DEFAULT twice(3), a int CHECK (twice(a) < 10))
      """, [("public", "t")])
    let error = #expect(throws: HubError.self) {
      try branch.hub.transaction { try Definitions.create($0, statements) }
    }
    #expect(
      error?.message == "the tables of head call the function public.twice(integer), which is missing here")
  }

  @Test func anEnumerationThatLacksALabelIsNamed() throws {
    let (_, branch, statements) = try offices(
      "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, m mood)", [("public", "t")])
    try branch.application.script("CREATE TYPE mood AS ENUM ('a')")
    let error = #expect(throws: HubError.self) {
      try branch.hub.transaction { try Definitions.create($0, statements) }
    }
    #expect(error?.message == "type public.mood is here and lacks 'b'")
  }
}
