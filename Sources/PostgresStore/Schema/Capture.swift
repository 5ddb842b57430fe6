import HubEngine
import SyncCore

/// The triggers by which an application's own transaction writes the version of each row that it writes.
///
/// Statement triggers with transition tables give the keys; content is read when the feed is read, because a
/// user's row trigger that writes the same table makes the inner statement's trigger fire first, with the outer,
/// stale image last. `ENABLE ALWAYS`, so that a session under `session_replication_role = replica` is captured
/// too; only hub's own transactions (`hub.applying`) are not.
package enum Capture {
  /// Creates the version table, gives every existing row a version, and installs the triggers. One transaction
  /// of the caller; the table is locked against writes until it ends.
  package static func install(_ session: Session, _ table: TableInfo, role: String) throws {
    let keys = table.keyColumns.enumerated()
      .map { "\(quotedName($1.name)) AS k\($0 + 1)" }.joined(separator: ", ")
    let names = keyNames(table)
    // The triggers' own lock, taken before the rows are read: no row may be written between the two.
    try session.script(
      """
      LOCK TABLE \(table.quoted) IN SHARE ROW EXCLUSIVE MODE;
      CREATE TABLE \(table.versions) AS SELECT \(keys) FROM \(table.quoted) WITH NO DATA;
      ALTER TABLE \(table.versions)
        ADD actor bigint NOT NULL, ADD n bigint NOT NULL, ADD stamp bigint NOT NULL, ADD xid xid8 NOT NULL,
        ADD alive bool NOT NULL, ADD echo bool NOT NULL, ADD vector bigint[], ADD PRIMARY KEY (\(names));
      CREATE INDEX ON \(table.versions) (xid) WHERE NOT echo;
      CREATE INDEX ON \(table.versions) (xid) WHERE NOT alive;
      """)
    if isCaptured(table, role: role) {
      let columns = table.keyColumns.map { quotedName($0.name) }.joined(separator: ", ")
      try session.script(
        """
        INSERT INTO \(table.versions) (\(names), actor, n, stamp, xid, alive, echo)
        SELECT \(columns), hub.current_actor(), nextval('hub.dot'), \(Self.now), pg_current_xact_id(), true, false
        FROM \(table.quoted)
        """)
    }
    try installTriggers(session, table, role: role)
  }

  /// (Re)creates the trigger functions and triggers, after the options or the key's types changed.
  package static func installTriggers(_ session: Session, _ table: TableInfo, role: String) throws {
    try removeTriggers(session, table)
    try addDetails(session, table)
    let body: String
    if isCaptured(table, role: role) {
      body = capturing(table)
    } else if table.options.foreignWrites == "refuse" {
      body = refusing(table)
    } else {
      return
    }
    let function = "hub.capture_\(table.id)"
    try session.script(
      """
      CREATE FUNCTION \(function)() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
      SET search_path = pg_catalog, pg_temp \(table.comparesUpdates ? plans : "") AS \(quotedLiteral(body));
      REVOKE EXECUTE ON FUNCTION \(function)() FROM PUBLIC;
      """)
    for (event, referencing) in [
      ("INSERT", "REFERENCING NEW TABLE AS new_rows"),
      ("UPDATE", "REFERENCING\(table.comparesUpdates ? " OLD TABLE AS old_rows" : "") NEW TABLE AS new_rows"),
      ("DELETE", "REFERENCING OLD TABLE AS old_rows"),
      ("TRUNCATE", ""),
    ] {
      let name = "hub_capture_" + event.lowercased()
      try session.script(
        """
        CREATE TRIGGER \(name) \(event == "TRUNCATE" ? "BEFORE" : "AFTER") \(event) ON \(table.quoted) \(referencing)
        FOR EACH STATEMENT EXECUTE FUNCTION \(function)();
        ALTER TABLE \(table.quoted) ENABLE ALWAYS TRIGGER \(name);
        """)
    }
    if isCaptured(table, role: role) { try installKeyTrigger(session, table, function) }
  }

  /// A row whose key changes leaves a tombstone under the old one. The condition is checked without a call, so an update
  /// that leaves the key alone pays little; it is short because the server parses its stored form again for every
  /// statement, which is why the other triggers have none. This row trigger fires before the statement's, which then
  /// finds who took over a key that was left (`1↔2`).
  private static func installKeyTrigger(_ session: Session, _ table: TableInfo, _ function: String) throws {
    let differs = table.keyColumns.map { "OLD.\(quotedName($0.name)) IS DISTINCT FROM NEW.\(quotedName($0.name))" }
    try session.script(
      """
      CREATE TRIGGER hub_capture_key AFTER UPDATE ON \(table.quoted) FOR EACH ROW
      WHEN (\(differs.joined(separator: " OR ")))
      EXECUTE FUNCTION \(function)();
      ALTER TABLE \(table.quoted) ENABLE ALWAYS TRIGGER hub_capture_key;
      """)
  }

  /// Leaves no trace of hub on a table, also one that has another name by now or is not there.
  package static func remove(_ session: Session, id: Int) throws {
    // The triggers go with the functions.
    try session.script(
      """
      DROP FUNCTION IF EXISTS hub.capture_\(id)() CASCADE; DROP FUNCTION IF EXISTS hub.archive_\(id)() CASCADE;
      DROP TABLE IF EXISTS hub.v\(id), hub.i\(id)
      """)
  }

  /// A table that was dropped and made anew: the triggers, and a version for each row that has none. Of rows with a version
  /// nobody knows whether they are what they were.
  package static func restore(_ session: Session, _ table: TableInfo, role: String) throws {
    try session.script("LOCK TABLE \(table.quoted) IN SHARE ROW EXCLUSIVE MODE")
    try installTriggers(session, table, role: role)
    if LastImages.areKept(table) && role == "head" { try LastImages.remove(session, table) }
    guard isCaptured(table, role: role) else { return }
    let columns = table.keyColumns.map { "s." + quotedName($0.name) }.joined(separator: ", ")
    let same = table.keyJoin({ "s.\(quotedName($1.name))" }, { at, _ in "w.k\(at + 1)" })
    try session.script(
      upsert(
        table,
        rows: """
          (SELECT \(columns) FROM \(table.quoted) s
          WHERE NOT EXISTS (SELECT FROM \(table.versions) w WHERE \(same) AND w.alive)) AS s
          """, alive: true))
  }

  private static func removeTriggers(_ session: Session, _ table: TableInfo) throws {
    for event in ["insert", "update", "delete", "truncate", "key"] {
      try session.script("DROP TRIGGER IF EXISTS hub_capture_\(event) ON \(table.quoted)")
    }
    try session.script("DROP FUNCTION IF EXISTS hub.capture_\(table.id)()")
  }

  /// Whether writes made at this office are its own to make.
  package static func isCaptured(_ table: TableInfo, role: String) -> Bool {
    switch table.options.direction {
    case "down": role == "head"
    case "up": role == "branch"
    default: true
    }
  }

  /// In double precision, exact to a microsecond until 2112 and a third of numeric's cost.
  private static let now = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"

  /// NULL or empty in every session but hub's, which costs them one comparison.
  private static let unlessApplying = """
    IF current_setting('hub.applying', true) <> '' THEN
      IF current_setting('hub.applying') = (SELECT applying FROM hub.office) THEN
        RETURN NULL;
      END IF;
    END IF;
    """

  private static func keyNames(_ table: TableInfo) -> String {
    (1...max(1, table.keyCount)).map { "k\($0)" }.joined(separator: ", ")
  }

  /// Once a statement: the actor that may name writes, the clock and the transaction.
  private static let office = """
    (SELECT CASE WHEN o.tableoid = o.table_identity AND o.server_started = pg_postmaster_start_time()
        AND o.place = pg_relation_filepath(o.tableoid) THEN o.actor
      ELSE hub.current_actor() END AS own, \(now) AS clock, pg_current_xact_id() AS xact
      FROM hub.office o OFFSET 0) AS c
    """

  /// A new version of this office's for each row of `rows`, which has the key's columns and is called `s`.
  static func upsert(_ table: TableInfo, rows: String, alive: Bool) -> String {
    let names = keyNames(table)
    let columns = table.keyColumns.map { "s." + quotedName($0.name) }.joined(separator: ", ")
    // A row that is written as a whole has no columns of their own writers any more.
    let forget = table.isMergedByColumn ? ", column_versions = NULL" : ""
    let latest =
      table.isMergedByColumn
      ? ", (SELECT max(e) + 1 FROM unnest(v.column_versions) WITH ORDINALITY AS u (e, i) WHERE i % 4 = 0)" : ""
    return """
      INSERT INTO \(table.versions) AS v (\(names), actor, n, stamp, xid, alive, echo)
      SELECT \(columns), c.own, nextval('hub.dot'), c.clock, c.xact, \(alive), false FROM \(rows), \(office)
      ON CONFLICT (\(names)) DO UPDATE SET
        vector = CASE WHEN v.actor = EXCLUDED.actor AND v.vector IS NULL THEN NULL
          ELSE hub.vector_with(v.vector, v.actor, v.n, EXCLUDED.actor, EXCLUDED.n) END,
        actor = EXCLUDED.actor, n = EXCLUDED.n, stamp = greatest(EXCLUDED.stamp, v.stamp + 1\(latest)), xid = EXCLUDED.xid,
        alive = \(alive), echo = false\(forget);
      """
  }

  private static func capturing(_ table: TableInfo) -> String {
    let columns = table.keyColumns.map { "s." + quotedName($0.name) }.joined(separator: ", ")
    let old = table.keyColumns.map { "OLD.\(quotedName($0.name))" }.joined(separator: ", ")
    let aliases = table.keyColumns.map { quotedName($0.name) }.joined(separator: ", ")
    func upsert(_ rows: String, alive: Bool) -> String { Self.upsert(table, rows: rows, alive: alive) }
    return """
      BEGIN
        \(Self.unlessApplying)
        IF TG_OP = 'INSERT' THEN
          \(upsert("new_rows AS s", alive: true))
        ELSIF TG_LEVEL = 'ROW' THEN
          \(upsert("(VALUES (\(old))) AS s (\(aliases))", alive: false))
        ELSIF TG_OP = 'UPDATE' THEN
          -- Cascades of one statement may update a row several times, each time into the same transition table.
          \(table.comparesUpdates ? comparing(table, office) : "")
          \(upsert("(SELECT DISTINCT \(columns) FROM new_rows s\(table.comparesUpdates ? unknown(table) : "")) AS s", alive: true))
        ELSIF TG_OP = 'DELETE' THEN
          \(upsert("old_rows AS s", alive: false))
        ELSE
          \(upsert("\(table.quoted) AS s", alive: false))
          -- Of rows committed since this transaction's snapshot nothing is known in it.
          IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
            INSERT INTO hub.request (kind, argument) VALUES ('truncated', \(quotedLiteral(table.name)));
          END IF;
        END IF;
        RETURN NULL;
      END
      """
  }

  private static func refusing(_ table: TableInfo) -> String {
    let side = table.options.direction == "down" ? "head" : "the branches"
    let message = "table \(table.name) is written at \(side) only"
    let refuse = """
      RAISE EXCEPTION \(quotedLiteral(message.replacingPercent)) USING ERRCODE = '25006',
        HINT = \(quotedLiteral("hub tracks it with --direction \(table.options.direction)"));
      """
    return """
      BEGIN
        \(Self.unlessApplying)
        IF TG_OP = 'TRUNCATE' THEN
          \(refuse)
        ELSIF TG_OP = 'DELETE' THEN
          IF EXISTS (SELECT FROM old_rows) THEN
            \(refuse)
          END IF;
        ELSIF EXISTS (SELECT FROM new_rows) THEN
          \(refuse)
        END IF;
        RETURN NULL;
      END
      """
  }
}

extension String {
  /// RAISE reads % as a placeholder.
  fileprivate var replacingPercent: String { map { $0 == "%" ? "%%" : String($0) }.joined() }
}
