import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct TypeTests {
    static let schema = #"""
      CREATE EXTENSION IF NOT EXISTS citext;
      CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine"');
      CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);
      CREATE TYPE pair AS (a int, b text);
      CREATE TABLE wide (
        id int PRIMARY KEY, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, nm numeric(20,6),
        m money, t text, v varchar(10), c char(6), ci citext, by bytea, d date, tm time, tz timetz, ts timestamp,
        tsz timestamptz, iv interval, u uuid, j json, jb jsonb, bi bit(4), vb varbit, ip inet, cid cidr, mac macaddr,
        ia int[], ta text[], md int[][], e mood, ea mood[], pc percent, pr pair, pra pair[], r int4range, mr int4multirange,
        tr tstzrange, x xml, p point, bo box, po polygon, tsv tsvector, tq tsquery, lsn pg_lsn, "char" "char", na name,
        "Mixed ""Case"" Column" text, "order" int, gen text GENERATED ALWAYS AS (t || '!') STORED,
        ident int GENERATED ALWAYS AS IDENTITY, o oid, jp jsonpath);
      CREATE TABLE keyed_numeric (k numeric PRIMARY KEY, v text);
      CREATE TABLE keyed_citext (k citext, c char(5), u uuid, PRIMARY KEY (k, c, u), v float8);
      CREATE TABLE keyed_time (k timestamptz PRIMARY KEY, v interval);
      CREATE TABLE blobs (id int PRIMARY KEY, b bytea, t text);
      """#
    static let inserts = #"""
      INSERT INTO wide (id) VALUES (BASE + 1);
      INSERT INTO wide (id, b, i2, i4, i8, f4, f8, n, nm, m, t, v, c, ci, by) VALUES
        (BASE + 2, true, -32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', -0.000001, '-92233720368547758.08',
          '', '', '', '', ''),
        (BASE + 3, false, 32767, 2147483647, 9223372036854775807, '-0', '-0', '0.0000000000000000000000000000000001', 99999999999999.999999,
          '92233720368547758.07', E'tab\t nl\n cr\r back\\slash quote'' "double" {brace,} \\N \u00e9 \U0001F600', 'é日本語', 'ab  ', 'MiXeD', '\x000102ff5c27'),
        (BASE + 4, NULL, 0, 0, 0, 'Infinity', '-Infinity', 'Infinity', 0, 0, 'NULL', 'null', ' a', NULL, '\x'),
        (BASE + 5, true, 1, 1, 1, 1.17549435e-38, 4.9406564584124654e-324, 1e131071::numeric, 1.5, '1.00', '\N', '\.', 'a b c', 'x', decode(repeat('00ff', 5000), 'hex')),
        (BASE + 6, true, 1, 1, 1, 3.4028235e38, 1.7976931348623157e308, -1e-16383::numeric, 1.500000, '1.00', repeat('€"\', 20000), 'x', 'x', 'x', 'x'),
        (BASE + 7, true, 1, 1, 1, 0.1, 0.1, 1.0, 1.0, '1', '1.0', 'x', 'x', 'x', 'x'), (BASE + 8, true, 1, 1, 1, 1e15, 1e-5, 1.00, 1.0, '1', E'\x01\x7f', 'x', 'x', 'x', 'x');
      INSERT INTO wide (id, d, tm, tz, ts, tsz, iv, u) VALUES
        (BASE + 10, 'infinity', '24:00:00', '24:00:00+15:59', 'infinity', '-infinity', '-178000000 years', '00000000-0000-0000-0000-000000000000'),
        (BASE + 11, '4713-01-01 BC', '00:00:00.000001', '01:02:03.456789-15:59', '4713-01-01 00:00:00 BC', '0001-12-31 23:59:59.999999 BC', '1 year -2 mons +3 days -04:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
        (BASE + 12, '5874897-12-31', '12:00', '12:00+00', '294276-12-31 23:59:59.999999', '1900-01-01 00:00:00+02:30', '0', NULL),
        (BASE + 13, '-infinity', NULL, NULL, '2024-02-29 00:00:00', '2026-03-29 01:59:59.5 Europe/Berlin', '-00:00:00.000001', NULL);
      """#
    static let more = #"""
      INSERT INTO wide (id, j, jb, bi, vb, ip, cid, mac, ia, ta, md, e, ea, pc, pr, pra) VALUES
        (BASE + 20, 'null', 'null', B'0000', B'', '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', '{}', '{}', '{{1,2},{3,4}}', 'sad', '{}', 0, '(,)', '{}'),
        (BASE + 21, ' {"a" :  1, "a":2 , "b":[ ] }', '{"a":1,"a":2,"b":1.10,"big":123456789012345678901234567890.5}', B'1111', B'10101', '::1', '2001:db8::/32', NULL,
          '[-3:-1]={1,NULL,3}', ARRAY[NULL, 'NULL', '', 'a"b\c,{}', E'\n'], '[0:1][2:3]={{1,2},{3,4}}', 'it''s "fine"', ARRAY['ok', NULL, 'it''s "fine"']::mood[], 99.99,
          ROW(1, 'a,"b)(\'), ARRAY[ROW(NULL, '')::pair, ROW(2, NULL)::pair, NULL]),
        (BASE + 22, '"\u00e9 \ud83d\ude00"', '"\u00e9"', NULL, NULL, '192.168.1.1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (BASE + 23, '[1e400, 1.0, 1.00]', '[1.0, 1.00, 1e2, -0]', B'1010', B'1', '1.2.3.4/32', '1.2.3.4/32', NULL, '{1}', '{"{}"}', '{}', 'ok', '{ok}', 100, '(5,"")', '{"(1,x)"}');
      INSERT INTO wide (id, r, mr, tr, x, p, bo, po, tsv, tq, lsn, "char", na, "Mixed ""Case"" Column", "order", o, jp) VALUES
        (BASE + 30, 'empty', '{}', 'empty', '<a>&lt;é</a>', '(NaN,-0)', '(1,1),(0,0)', '((0,0),(1,1),(1e300,0))', $$'a b':1A,2B c$$, '!a & (b | c:*)', '16/B374D848', 'x', 'n', 'm"x', -1, 4294967295, '$.a[*] ? (@ > 1)'),
        (BASE + 31, '(,5)', '{[1,3),[5,8)}', '[2026-01-01 00:00:00+00,infinity)', 'plain text', '(1.5,2)', NULL, NULL, '', '', '0/0', '', '', '', 0, 0, '$'),
        (BASE + 32, '[1,1]', NULL, '(,)', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '\377', repeat('n', 63), NULL, NULL, NULL, NULL);
      INSERT INTO keyed_numeric VALUES (1.0 + BASE, 'one'), (BASE + 2.50, 'two and a half'), ('NaN', 'nan BASE') ON CONFLICT DO NOTHING;
      INSERT INTO keyed_citext VALUES ('Key BASE', 'ab', '00000000-0000-0000-0000-000000000001', '-0'), ('', '', '00000000-0000-0000-0000-000000000002', 'NaN') ON CONFLICT DO NOTHING;
      INSERT INTO keyed_time VALUES ('2026-01-01 00:00:00+00'::timestamptz + interval 'BASE us', '1 mon'), ('infinity', '0') ON CONFLICT DO NOTHING;
      INSERT INTO blobs VALUES (BASE + 1, decode((SELECT string_agg(lpad(to_hex(g % 256), 2, '0'), '') FROM generate_series(0, 199999) g), 'hex'), repeat('x', 3000000)), (BASE + 2, '', '');
      """#
    static let tables = ["wide", "keyed_numeric", "keyed_citext", "keyed_time", "blobs"]

    @Test("CAP values: every type of the torture list arrives equal by COPY text, both ways, by live batch and by load")
    func everyTypeArrivesEqual() throws {
      func rows(_ base: Int) -> String {
        (Self.inserts + Self.more).replacingOccurrences(of: "BASE", with: String(base))
      }
      let schema = Self.schema + rows(0)
      try Company.with(branches: 1, schema: schema, tracks: Self.tracks, joined: false) { company in
        let (head, a) = (company.head, company["a"])
        // By load.
        try company.join(a)
        try equal(company)
        try a.start()
        // By live batch, both ways; sessions with other settings.
        try head.run(
          "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = iso_8601; SET TimeZone = 'Asia/Kathmandu'; SET extra_float_digits = -15; SET bytea_output = escape;"
            + rows(1000).replacingOccurrences(of: "SET ", with: "SET "))
        try a.run("SET IntervalStyle = sql_standard; SET TimeZone = 'America/St_Johns';" + rows(2000))
        let count = try head.connect().number("SELECT count(*) FROM wide")
        try company.eventually(a, "SELECT count(*) FROM wide", is: "\(count / 2 * 3)", within: 60)
        try company.eventually(head, "SELECT count(*) FROM wide", is: "\(count / 2 * 3)", within: 60)
        try equal(company)
        // Updates of single columns, equal keys in another shape, deletes.
        try a.run(
          """
          UPDATE wide SET jb = NULL WHERE jb = 'null'; UPDATE wide SET t = t || 'é', f8 = '-0' WHERE id % 2 = 0;
          UPDATE keyed_numeric SET k = 1.00, v = 'rescaled' WHERE k = 1; UPDATE keyed_citext SET k = upper(k::text) WHERE c = 'ab';
          DELETE FROM keyed_time WHERE k = 'infinity'; UPDATE blobs SET b = b || '\\x00' WHERE id < 1000
          """)
        try equal(company)
        try head.run("DELETE FROM wide WHERE id > 2030; UPDATE wide SET by = sha256(by) WHERE id BETWEEN 1000 AND 1010")
        try company.eventually(a, "SELECT count(*) FROM wide WHERE id > 2030", is: "0")
        try equal(company)
        for office in company.offices {
          let held = try office.connect().run("SELECT table_name, key, sqlstate, error FROM hub.quarantine")
          #expect(held.isEmpty, "\(office.name): \(held)")
        }
      }
    }

    static let tracks = tables.map { [$0, "--keys", "as-is"] }

    private func equal(_ company: Company) throws {
      let keys = ["wide": "id", "keyed_numeric": "k", "keyed_citext": "k, c, u", "keyed_time": "k", "blobs": "id"]
      for table in Self.tables {
        var difference = ""
        // An ALWAYS identity keeps its value: OVERRIDING SYSTEM VALUE.
        try until(60, "\(table) is equal by COPY: \(difference)", every: 0.1) {
          let copies = try company.offices.map {
            try $0.connect().copy("SELECT * FROM \(table) ORDER BY \(keys[table] ?? "1")")
          }
          if copies.allSatisfy({ $0 == copies[0] }) { return true }
          let lines = copies.map { String(decoding: $0, as: UTF8.self).split(separator: "\n") }
          difference =
            zip(lines[0], lines[1]).first { $0 != $1 }.map { "\n\($0.prefix(2000))\n\($1.prefix(2000))" }
            ?? "\(lines.map(\.count)) lines"
          return false
        }
      }
    }
  }
}
