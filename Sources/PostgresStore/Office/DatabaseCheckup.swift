import HubEngine
import SyncCore

/// What `hub doctor` finds in a database.
package struct DatabaseCheckup: Sendable {
  package var check: String
  package var isGood: Bool
  package var text: String
  package var mend: String?

  package static func run(_ session: Session) throws -> [DatabaseCheckup] {
    var found = [
      DatabaseCheckup(
        check: "PostgreSQL", isGood: session.serverVersion >= 140_000,
        text: "version \(session.serverVersion / 10_000).\(session.serverVersion % 10_000)",
        mend: "hub needs PostgreSQL 14 or later")
    ]
    let facts = try session.query(
      """
      SELECT current_setting('fsync'), current_setting('session_replication_role'),
        (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_user,
        has_database_privilege(current_database(), 'CREATE'), current_setting('max_connections')::int
      """)
    found.append(
      DatabaseCheckup(
        check: "fsync", isGood: facts.text(0, 0) == "on", text: facts.text(0, 0), mend: "set fsync = on"))
    found.append(try replicaRole(session, isSuperuser: facts.bool(0, 2), user: facts.text(0, 3)))
    let version = try Migrations.version(session)
    found.append(
      DatabaseCheckup(
        check: "hub schema", isGood: version == Migrations.latest,
        text: version.map { "version \($0)" } ?? "missing",
        mend: mend(schema: version)))
    guard version == Migrations.latest else { return found }
    let tables = try TableInfo.loadAll(session)
    found.append(DatabaseCheckup(check: "tables", isGood: true, text: "\(tables.count) tracked", mend: nil))
    for missing in try TableInfo.catalogue(session) where !tables.contains(where: { $0.name == missing.name }) {
      found.append(
        DatabaseCheckup(
          check: "table \(missing.name)", isGood: false,
          text: "tracked, and not there with the primary key that it had",
          mend: "give it its name and key back; or make it anew, then hub verify --repair at head; or hub untrack there"
        ))
    }
    for table in tables {
      found += try triggers(session, table)
      found += try alteringTriggers(session, table)
    }
    return found
  }

  private static func mend(schema version: Int?) -> String {
    guard let version else { return "run hub init at head, or hub join TOKEN at a branch" }
    return version < Migrations.latest ? Migrations.upgradeHint : "run a hub of that version"
  }

  /// Triggers that made rows other than they were sent, lately: one that was mended says so no more after a day.
  private static func alteringTriggers(_ session: Session, _ table: TableInfo) throws -> [DatabaseCheckup] {
    guard !table.replicaTriggers.isEmpty else { return [] }
    let names = table.replicaTriggers.joined(separator: ", ")
    let rows = try session.query(
      """
      SELECT rows, columns, \(unsafe: keyAsText), to_char(at, \(unsafe: isoFormat)) FROM hub.altered_row
      WHERE table_name = \(table.name) AND at > now() - interval '1 day'
      """)
    guard rows.count > 0 else {
      return [
        DatabaseCheckup(
          check: "triggers of \(table.name)", isGood: true,
          text: "\(names) also fire for rows that hub writes, and leave them as they were sent", mend: nil)
      ]
    }
    return [
      DatabaseCheckup(
        check: "triggers of \(table.name)", isGood: false,
        text: "\(names): \(rows.text(0, 0)) rows that hub wrote became other than they were sent, the last at "
          + "\(rows.text(0, 3)) (\(rows.text(0, 2)), column \(rows.text(0, 1))): the offices differ",
        mend: "ALTER TABLE \(table.quoted) ENABLE TRIGGER \(quotedName(table.replicaTriggers[0])), so that it fires "
          + "for applications alone, or let it return NEW as it is where session_replication_role is replica")
    ]
  }

  /// The one setting that asks for more than ordinary privileges.
  private static func replicaRole(_ session: Session, isSuperuser: Bool, user: String) throws -> DatabaseCheckup {
    var isGood = isSuperuser
    if !isGood {
      do {
        try session.transaction { session in
          try session.script("SET LOCAL session_replication_role = replica")
          isGood = true
        }
      } catch is PostgresError {
        isGood = false
      }
    }
    return DatabaseCheckup(
      check: "session_replication_role", isGood: isGood, text: isGood ? "may be set" : "may not be set by \(user)",
      mend: "GRANT SET ON PARAMETER session_replication_role TO \(quotedName(user)) (PostgreSQL 15), or a superuser")
  }

  private static func triggers(_ session: Session, _ table: TableInfo) throws -> [DatabaseCheckup] {
    let rows = try session.query(
      """
      SELECT count(*) FILTER (WHERE tgenabled = 'A'), count(*) FROM pg_trigger
      WHERE tgrelid = \(table.relationID)::bigint AND tgname LIKE 'hub\\_capture\\_%'
      """)
    let isIgnored = table.options.foreignWrites == "ignore"
    let isComplete = rows.int(0, 1) >= 4 && rows.int(0, 0) == rows.int(0, 1)
    guard !isComplete && !(isIgnored && rows.int(0, 1) == 0) else { return [] }
    return [
      DatabaseCheckup(
        check: "capture of \(table.name)", isGood: false,
        text: "\(rows.int(0, 0)) of \(max(4, rows.int(0, 1))) triggers are enabled",
        mend: "ALTER TABLE \(table.quoted) ENABLE ALWAYS TRIGGER hub_capture_insert "
          + "(and _update, _delete, _truncate, _key)")
    ]
  }
}
