package import HubEngine
package import SyncCore

/// What commands do to an office's database directly, a transaction each.
package enum HeadSetup {
  package static let strideDefault = 1000

  /// Makes the database the head office. Already head: only the settings are changed.
  package static func initialise(
    _ session: Session, name: String, broker: String, queueType: String, daemonRole: String?, allowsUnsafe: Bool
  ) throws {
    try checkServer(session, allowsUnsafe: allowsUnsafe)
    if try Migrations.version(session) != nil {
      let office = try PostgresStore.readOffice(session)
      guard office.role == .head else {
        throw HubError(
          .refused, "this database is the branch \(office.name) of \(office.head)",
          hint: "hub leave takes it out first")
      }
      guard office.name == name else {
        throw HubError(.refused, "this database is the head office \(office.name) already")
      }
    } else {
      try Migrations.migrate(session)
      try insertOffice(session, name: name, role: "head", head: name)
    }
    try set(session, "broker", broker)
    try set(session, "queue_type", queueType)
    try set(session, "key_stride", String(strideDefault))
    if let daemonRole { try grant(session, to: daemonRole) }
  }

  /// The office's row of a branch that is about to enrol, and what it needs to go on after a cut.
  package static func prepareBranch(
    _ session: Session, name: String, head: String, broker: String, existing: String, nonce: Int64, secret: [UInt8],
    allowsUnsafe: Bool
  ) throws {
    try checkServer(session, allowsUnsafe: allowsUnsafe)
    try Migrations.migrate(session)
    try insertOffice(session, name: name, role: "branch", head: head)
    try session.query("INSERT INTO hub.peer (office, state) VALUES (\(head), 'active')")
    try set(session, "broker", broker)
    try set(session, "existing", existing)
    try set(session, "enrol_nonce", String(nonce))
    try set(session, "enrol_secret", text(of: secret))
  }

  /// Whether it is this secret that the branch enrolled with.
  package static func joined(_ session: Session, by secret: [UInt8]) throws -> Bool {
    try setting(session, "enrol_secret") == text(of: secret)
  }

  private static func text(of secret: [UInt8]) -> String {
    secret.map { String($0, radix: 16) }.joined(separator: " ")
  }

  package static func checkServer(_ session: Session, allowsUnsafe: Bool) throws {
    guard session.serverVersion >= 140_000 else {
      throw HubError(
        .refused, "PostgreSQL \(session.serverVersion / 10_000) is too old", hint: "hub needs PostgreSQL 14 or later")
    }
    let facts = try session.query(
      """
      SELECT current_setting('fsync'), has_database_privilege(current_database(), 'CREATE'),
        pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()
      """)
    if facts.text(0, 0) == "off" && !allowsUnsafe {
      throw HubError(
        .refused, "the server runs with fsync off: a crash could lose what others already have",
        hint: "set fsync = on")
    }
    guard facts.bool(0, 1) else {
      throw HubError(
        .refused, "this role may not create a schema here", hint: "GRANT CREATE ON DATABASE … TO the role",
        sqlstate: "42501")
    }
    guard facts.text(0, 2) == "UTF8" else {
      throw HubError(.refused, "the database's encoding is \(facts.text(0, 2))", hint: "hub needs UTF8")
    }
  }

  private static func insertOffice(_ session: Session, name: String, role: String, head: String) throws {
    try session.query(
      """
      INSERT INTO hub.office (name, role, actor, server_started, table_identity, head, residue, joined)
      VALUES (\(name), \(role), \(Int64.random(in: 1...Int64.max))::bigint, pg_postmaster_start_time(),
        'hub.office'::regclass, \(head), 0, \(role == "head")::bool)
      """)
  }

  package static func set(_ session: Session, _ name: String, _ value: String) throws {
    try session.query(
      """
      INSERT INTO hub.setting VALUES (\(name), \(value)) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value
      """)
  }

  package static func setting(_ session: Session, _ name: String) throws -> String? {
    guard try session.query("SELECT to_regclass('hub.setting') IS NOT NULL").bool(0, 0) else { return nil }
    let rows = try session.query("SELECT value FROM hub.setting WHERE name = \(name)")
    return rows.count == 0 ? nil : rows.string(0, 0)
  }

  /// Whether head let this branch go, which keeps what hub made here until `hub leave`.
  package static func isRemoved(_ session: Session) throws -> Bool { try setting(session, "removed") != nil }

  /// What the daemon's role needs, short of superuser (PostgreSQL 15 can grant the one setting that asks for it).
  private static func grant(_ session: Session, to role: String) throws {
    let role = quotedName(role)
    try session.script(
      """
      GRANT USAGE, CREATE ON SCHEMA hub TO \(role);
      GRANT ALL ON ALL TABLES IN SCHEMA hub TO \(role); GRANT ALL ON ALL SEQUENCES IN SCHEMA hub TO \(role);
      GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hub TO \(role);
      ALTER DEFAULT PRIVILEGES IN SCHEMA hub GRANT ALL ON TABLES TO \(role);
      """)
    if session.serverVersion >= 150_000 {
      try session.script("GRANT SET ON PARAMETER session_replication_role, deadlock_timeout TO \(role)")
    }
  }

  // MARK: tracking

  /// Tracks a table (head); its rows get versions. Returns warnings.
  package static func track(_ session: Session, _ name: String, _ options: TrackingOptions) throws -> [String] {
    let (schema, relation) = try TrackCheck.resolve(session, name)
    if try setPriority(session, CatalogueTable(schemaName: schema, relationName: relation, options: options)) {
      return []
    }
    let warnings = try TrackCheck.check(session, schema, relation, options)
    try session.script("SET LOCAL lock_timeout = '5s'")
    try PostgresStore.upsert(
      CatalogueTable(schemaName: schema, relationName: relation, options: options), session)
    let name = TableInfo.catalogueName(schema, relation)
    guard let table = try TableInfo.loadAll(session).first(where: { $0.name == name }) else {
      throw HubError(.database, "table \(name) is gone")
    }
    try Capture.install(session, table, role: "head")
    try LastImages.install(session, try TableInfo.loadAll(session))
    if options.keys == "stride" && options.direction != "down" {
      try KeyStride.apply(session, table, residue: 0, stride: strideDefault)
    }
    try bumpCatalogue(session)
    return warnings
  }

  /// Of a table that is tracked just so but for its priority; false: it is not.
  private static func setPriority(_ session: Session, _ table: CatalogueTable) throws -> Bool {
    guard var options = try TableInfo.loadAll(session).first(where: { $0.name == table.name })?.options,
      options.priority != table.options.priority
    else { return false }
    options.priority = table.options.priority
    guard options == table.options else { return false }
    try PostgresStore.upsert(table, session)
    try bumpCatalogue(session)
    return true
  }

  package static func untrack(_ session: Session, _ name: String) throws {
    let (schema, relation) = try TrackCheck.names(name)
    let table = TableInfo.catalogueName(schema, relation)
    guard try TableInfo.catalogue(session).contains(where: { $0.name == table }) else {
      _ = try TrackCheck.resolve(session, name)
      throw HubError(.refused, "table \(table) is not tracked", hint: "hub tables lists the tracked ones")
    }
    try session.script("SET LOCAL lock_timeout = '5s'")
    try PostgresStore.letGo(table, try TableInfo.loadAll(session), session)
    try LastImages.install(session, try TableInfo.loadAll(session))
    try bumpCatalogue(session)
  }

  private static func bumpCatalogue(_ session: Session) throws {
    try session.query("UPDATE hub.office SET catalogue_version = catalogue_version + 1")
  }

  /// Requires the head office; a branch is told where to run the command.
  package static func requireHead(_ session: Session, for command: String) throws -> OfficeIdentity {
    let office = try PostgresStore.readOffice(session)
    guard office.role == .head else {
      throw HubError(
        .refused, "\(command) runs at the head office, this is the branch \(office.name)",
        hint: "run it with head's --database")
    }
    return office
  }
}
