import HubEngine

/// Builds and upgrades the `hub` schema, forward only, a step a version.
///
/// A step adds: the hub of the version before goes on with what it made until it connects anew. It locks no table that the
/// triggers on users' tables write, or only for an instant.
package enum Migrations {
  package static var latest: Int { steps.count }

  /// The schema's version; nil when there is no `hub` schema.
  package static func version(_ session: Session) throws -> Int? {
    let exists = try session.query("SELECT to_regclass('hub.migration') IS NOT NULL")
    guard exists.bool(0, 0) else { return nil }
    return try session.query("SELECT coalesce(max(version), 0) FROM hub.migration").int(0, 0)
  }

  /// Brings the schema to a version, the latest, inside the caller's transaction.
  package static func migrate(_ session: Session, to last: Int = latest) throws {
    let present = try version(session) ?? 0
    guard present <= latest else {
      throw HubError(
        .notReady, "the hub schema has version \(present), this hub knows \(latest)",
        hint: "run the newer hub that made it")
    }
    for (index, step) in steps.enumerated() where index >= present && index < last {
      try session.script(step)
      try session.query("INSERT INTO hub.migration (version) VALUES (\(index + 1))")
    }
  }

  package static let upgradeHint = "hub run upgrades it, or hub doctor --upgrade"

  /// Brings the schema of an earlier hub to the latest version, inside the caller's transaction. Returns the version that
  /// it had; nil when there is nothing to do.
  package static func upgrade(_ session: Session) throws -> Int? {
    guard let seen = try version(session), seen < latest else { return nil }
    try session.script("SET LOCAL lock_timeout = '5s'; LOCK TABLE hub.migration IN EXCLUSIVE MODE")
    guard let present = try version(session), present < latest else { return nil }
    do {
      try migrate(session)
    } catch let error as PostgresError where error.sqlstate == "42501" {
      throw HubError(
        .notReady, "the hub schema has version \(present), this hub knows \(latest), and this role may not change it",
        hint: "run hub doctor --upgrade as the role that owns the schema")
    }
    return present
  }

  private static let steps: [String] = [
    #"""
    CREATE SCHEMA hub;
    CREATE TABLE hub.migration (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

    -- One row: who this office is. The actor may name writes only while the validity token holds: the server's
    -- start and this very table's identity. One of them changes when files are put back, copied or reloaded.
    CREATE TABLE hub.office (
      only_row bool PRIMARY KEY DEFAULT true CHECK (only_row),
      name text NOT NULL, role text NOT NULL CHECK (role IN ('head', 'branch')),
      -- What hub.applying holds while hub itself writes; a secret, so that nobody else gets round capture by chance.
      applying text NOT NULL DEFAULT gen_random_uuid()::text,
      actor bigint NOT NULL, server_started timestamptz NOT NULL, table_identity oid NOT NULL,
      head text NOT NULL, residue int NOT NULL, catalogue_version bigint NOT NULL DEFAULT 0,
      session bigint, joined bool NOT NULL DEFAULT false, paused bool NOT NULL DEFAULT false);
    CREATE SEQUENCE hub.dot;
    CREATE TABLE hub.setting (name text PRIMARY KEY, value text NOT NULL);

    CREATE TABLE hub.tracked (
      id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
      schema_name text NOT NULL, relation_name text NOT NULL, direction text NOT NULL, merge text NOT NULL,
      on_conflict text NOT NULL, on_delete text NOT NULL, counters text[] NOT NULL DEFAULT '{}',
      origin_column text, keys text NOT NULL, foreign_writes text NOT NULL, priority int NOT NULL DEFAULT 0,
      UNIQUE (schema_name, relation_name));

    -- This office's own stream: every batch sent, and the feed position that it leads to.
    CREATE TABLE hub.batch (
      number bigint PRIMARY KEY, id bigint NOT NULL UNIQUE, previous bigint NOT NULL, position pg_snapshot NOT NULL,
      created_at timestamptz NOT NULL DEFAULT now());

    -- The other offices: at head every branch, at a branch head alone.
    CREATE TABLE hub.peer (
      office text PRIMARY KEY, state text NOT NULL, residue int NOT NULL DEFAULT 0,
      session bigint, at_number bigint NOT NULL DEFAULT 0, at_id bigint NOT NULL DEFAULT 0,
      catch_from_number bigint, catch_from_id bigint, catch_cursor bytea, catch_full bool,
      catch_target_number bigint, catch_target_id bigint, unsettled_until bigint,
      acked_number bigint NOT NULL DEFAULT 0, acked_id bigint NOT NULL DEFAULT 0,
      purge_number bigint NOT NULL DEFAULT 0, conflicts_at bigint NOT NULL DEFAULT 0, incarnation bigint, hub_version text,
      applied_snapshot_at timestamptz, joined_at timestamptz NOT NULL DEFAULT now(), last_seen timestamptz);
    -- Every incarnation that another office ever had: whose write a dot names.
    CREATE TABLE hub.actor (actor bigint PRIMARY KEY, office text NOT NULL);
    CREATE FUNCTION hub.note_actor() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
      INSERT INTO hub.actor VALUES (NEW.incarnation, NEW.office) ON CONFLICT DO NOTHING;
      RETURN NULL;
    END $$;
    CREATE TRIGGER note_actor AFTER INSERT OR UPDATE OF incarnation ON hub.peer FOR EACH ROW
      WHEN (NEW.incarnation IS NOT NULL) EXECUTE FUNCTION hub.note_actor();
    ALTER TABLE hub.peer ENABLE ALWAYS TRIGGER note_actor;
    CREATE TABLE hub.invite (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, office text NOT NULL, secret_digest bytea NOT NULL,
      expires_at timestamptz NOT NULL, reusable bool NOT NULL DEFAULT false, used_at timestamptz,
      used_nonce bigint, created_at timestamptz NOT NULL DEFAULT now());

    CREATE TABLE hub.conflict (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT now(),
      table_name text NOT NULL, key jsonb NOT NULL, type text NOT NULL, policy text NOT NULL, reason text NOT NULL,
      winner jsonb NOT NULL, loser jsonb NOT NULL, resolved bool NOT NULL DEFAULT true,
      -- Which of the two head held when the other arrived.
      head_copy text NOT NULL CHECK (head_copy IN ('winner', 'loser')),
      -- The write by which the row became what was decided last: another one means that the row changed since.
      decided_actor bigint, decided_n bigint,
      -- What a person kept, and when: 'head', 'branch' or 'row'.
      kept text, reviewed_at timestamptz);
    -- Head: which branch an entry concerns. The daemon alone gives the numbers, when the entry is there for all to see;
    -- one without a number is new to that branch, or was reviewed since.
    CREATE TABLE hub.conflict_notice (
      office text NOT NULL, conflict bigint NOT NULL REFERENCES hub.conflict ON DELETE CASCADE, number bigint,
      PRIMARY KEY (office, conflict));
    CREATE INDEX ON hub.conflict_notice (office, number);
    CREATE INDEX ON hub.conflict_notice (conflict) WHERE number IS NULL;
    CREATE SEQUENCE hub.conflict_number;
    -- A copy of a row with the beginnings of its values.
    CREATE FUNCTION hub.shortened(copy jsonb, characters int) RETURNS jsonb LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog AS $$
      SELECT CASE WHEN jsonb_typeof(copy -> 'row') <> 'object' THEN copy ELSE jsonb_set(copy, '{row}',
        (SELECT jsonb_object_agg(key, left(value, characters)) FROM jsonb_each_text(copy -> 'row'))) END $$;
    CREATE TABLE hub.quarantine (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, peer text NOT NULL, table_name text NOT NULL,
      key jsonb NOT NULL, sqlstate text NOT NULL, error text NOT NULL, "row" jsonb NOT NULL, state bytea NOT NULL,
      since timestamptz NOT NULL DEFAULT now(), tried_at timestamptz NOT NULL DEFAULT now(),
      attempts int NOT NULL DEFAULT 1);
    -- By hash: a key's text may be longer than an index entry.
    CREATE UNIQUE INDEX ON hub.quarantine
      (peer, table_name, jsonb_hash_extended(key, 0), jsonb_hash_extended(key, 1));

    -- Rows that a trigger of the user's, one that fires on replicas too, made other than they were sent; by table.
    CREATE TABLE hub.altered_row (
      table_name text PRIMARY KEY, key jsonb NOT NULL, columns text NOT NULL, rows bigint NOT NULL,
      at timestamptz NOT NULL DEFAULT now());

    -- Parts of a batch that has not arrived whole. Unlogged: a server crash empties it, the batch is asked for again.
    CREATE UNLOGGED TABLE hub.stage (
      peer text NOT NULL, number bigint NOT NULL, id bigint NOT NULL, part int NOT NULL, rows int NOT NULL, body bytea NOT NULL,
      PRIMARY KEY (peer, number, id, part));
    ALTER TABLE hub.stage ALTER body SET STORAGE EXTERNAL;

    -- Commands leave work for the daemon here; it writes progress and outcome.
    CREATE TABLE hub.request (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, kind text NOT NULL, argument text NOT NULL DEFAULT '',
      state text NOT NULL DEFAULT 'waiting', outcome jsonb, created_at timestamptz NOT NULL DEFAULT now(),
      finished_at timestamptz);
    CREATE UNLOGGED TABLE hub.daemon (
      only_row bool PRIMARY KEY DEFAULT true CHECK (only_row), pid int NOT NULL, state text NOT NULL,
      broker_connected bool NOT NULL, broker_blocked bool NOT NULL, broker_error text, pending bigint, lag_seconds float8,
      note text, rows_sent bigint NOT NULL DEFAULT 0, rows_applied bigint NOT NULL DEFAULT 0,
      started_at timestamptz NOT NULL DEFAULT now(), at timestamptz NOT NULL DEFAULT now());

    -- A version vector with one more entry: {actor, n, actor, n, ...}. `vector` NULL means {actor: n} alone.
    CREATE FUNCTION hub.vector_with(vector bigint[], actor bigint, n bigint, own bigint, own_n bigint)
    RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
    DECLARE i int;
    BEGIN
      IF vector IS NULL THEN
        vector := ARRAY[actor, n];
      END IF;
      FOR i IN 1 .. array_length(vector, 1) BY 2 LOOP
        IF vector[i] = own THEN
          vector[i + 1] := own_n;
          RETURN vector;
        END IF;
      END LOOP;
      RETURN vector || own || own_n;
    END $$;

    -- The actor that may name writes now.
    CREATE FUNCTION hub.current_actor() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog AS $$
      SELECT CASE WHEN o.tableoid = o.table_identity AND o.server_started = pg_postmaster_start_time() THEN o.actor
        ELSE hashtextextended(pg_postmaster_start_time()::text || ' ' || o.tableoid::text, o.actor)
             & 9223372036854775807 END
      FROM hub.office o $$;
    REVOKE EXECUTE ON FUNCTION hub.current_actor() FROM PUBLIC;
    """#,
    #"""
    -- What each actor added to a row's counters: {column, actor, n, sum, ...}, column by number in the table. NULL: none.
    CREATE FUNCTION hub.contributions_with(
      contributions numeric[], own bigint, own_n bigint, numbers int[], amounts numeric[])
    RETURNS numeric[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
    DECLARE
      i int;
      j int;
    BEGIN
      FOR i IN 1 .. array_length(numbers, 1) LOOP
        CONTINUE WHEN amounts[i] = 0;
        j := 1;
        WHILE contributions[j] <> numbers[i] OR contributions[j + 1] <> own LOOP
          j := j + 4;
        END LOOP;
        IF contributions[j] IS NULL THEN
          contributions := contributions || ARRAY[numbers[i], own, own_n, amounts[i]];
        ELSE
          contributions[j + 2] := own_n;
          contributions[j + 3] := contributions[j + 3] + amounts[i];
        END IF;
      END LOOP;
      RETURN contributions;
    END $$;

    -- Columns that were updated on their own since the row was inserted: {column, actor, n, stamp, ...}. NULL: none.
    CREATE FUNCTION hub.column_versions_with(
      column_versions bigint[], own bigint, own_n bigint, own_stamp bigint, numbers bigint[])
    RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
    DECLARE
      i int;
      j int;
    BEGIN
      FOR j IN 4 .. coalesce(array_length(column_versions, 1), 0) BY 4 LOOP
        own_stamp := greatest(own_stamp, column_versions[j] + 1);
      END LOOP;
      FOR i IN 1 .. coalesce(array_length(numbers, 1), 0) LOOP
        j := 1;
        WHILE column_versions[j] <> numbers[i] LOOP
          j := j + 4;
        END LOOP;
        IF column_versions[j] IS NULL THEN
          column_versions := column_versions || ARRAY[numbers[i], own, own_n, own_stamp];
        ELSE
          column_versions[j + 1 : j + 3] := ARRAY[own, own_n, own_stamp];
        END IF;
      END LOOP;
      RETURN column_versions;
    END $$;
    """#,
    #"""
    -- Head: what the last comparison with each branch came to, and the rows that differed then.
    CREATE TABLE hub.certificate (
      office text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), equal bool NOT NULL, differences bigint NOT NULL,
      local_rows bigint NOT NULL, moving bigint NOT NULL, repaired bigint NOT NULL, tables int NOT NULL,
      rows bigint NOT NULL, digest text NOT NULL, head_number bigint NOT NULL, branch_number bigint NOT NULL,
      notes text[] NOT NULL);
    CREATE TABLE hub.difference (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, office text NOT NULL, table_name text NOT NULL,
      key jsonb NOT NULL, kind text NOT NULL, at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX ON hub.difference (office);
    """#,
    #"""
    -- Branch: rows, keys alone, of which head is asked for the present state, until it has answered.
    CREATE TABLE hub.restate (
      id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, rows bytea NOT NULL, at timestamptz NOT NULL DEFAULT now());
    -- Branch: rows in conflict with what arrived, until a version comes that has seen it: head decides.
    CREATE TABLE hub.held (
      table_name text NOT NULL, key jsonb NOT NULL, since timestamptz NOT NULL DEFAULT now(), vector bigint[] NOT NULL);
    CREATE UNIQUE INDEX ON hub.held (table_name, jsonb_hash_extended(key, 0), jsonb_hash_extended(key, 1));
    """#,
    #"""
    -- Where the table's file is: CREATE DATABASE ... TEMPLATE copies everything else of the validity token.
    -- `shown` counts what other offices saw outside of batches; `epoch` who served the office; `recovers`: this
    -- database went back, and has not got back yet what it lost.
    ALTER TABLE hub.office ADD place text NOT NULL DEFAULT pg_relation_filepath('hub.office'),
      ADD shown bigint NOT NULL DEFAULT 0, ADD epoch bigint NOT NULL DEFAULT 0,
      ADD recovers bool NOT NULL DEFAULT false;
    -- Of a branch, at a head that went back: 'awaited', 'greeted', or NULL when it has given everything back.
    ALTER TABLE hub.peer ADD recovery text;
    CREATE OR REPLACE FUNCTION hub.current_actor() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog AS $$
      SELECT CASE WHEN o.tableoid = o.table_identity AND o.server_started = pg_postmaster_start_time()
          AND o.place = pg_relation_filepath(o.tableoid) THEN o.actor
        ELSE hashtextextended(pg_postmaster_start_time()::text || ' ' || o.tableoid::text || ' '
          || pg_relation_filepath(o.tableoid), o.actor) & 9223372036854775807 END
      FROM hub.office o $$;
    """#,
    #"""
    -- Head: when every branch had told that it had applied so much. Tombstones behind it go when that is long enough ago.
    CREATE TABLE hub.horizon (
      number bigint PRIMARY KEY, position pg_snapshot NOT NULL, reached_at timestamptz NOT NULL DEFAULT now());
    -- Branch: the position before it first told head that it had applied so much of head's stream.
    ALTER TABLE hub.batch ADD applied bigint NOT NULL DEFAULT 0;
    CREATE TABLE hub.mark (
      applied bigint PRIMARY KEY, position pg_snapshot NOT NULL, at timestamptz NOT NULL DEFAULT now());
    -- Behind which batch of head's tombstones are going, and gone (head).
    ALTER TABLE hub.office ADD purging bigint NOT NULL DEFAULT 0, ADD purged bigint NOT NULL DEFAULT 0;
    DO $$
    DECLARE id int;
    BEGIN
      FOR id IN SELECT t.id FROM hub.tracked t LOOP
        EXECUTE format('CREATE INDEX ON hub.v%s (xid) WHERE NOT alive', id);
      END LOOP;
    END $$;
    """#,
    #"""
    -- Tokens for several offices: how many may enrol (NULL: any number), how many did; and tokens taken back.
    ALTER TABLE hub.invite ADD uses_max int, ADD uses int NOT NULL DEFAULT 0, ADD revoked_at timestamptz;
    CREATE UNIQUE INDEX ON hub.invite (secret_digest);
    """#,
    #"""
    -- Of the daemon: rows and bytes that passed, and how many a second.
    ALTER TABLE hub.daemon ADD traffic jsonb NOT NULL DEFAULT '{}';
    """#,
    #"""
    -- Tables of high rank may be further on than `position`: 'order own rank=snapshot;...'. `read_at`: when the batch's first
    -- part was read, which another batch may have begun. `cursor`: where the sender goes on after that part.
    ALTER TABLE hub.batch ADD ahead text, ADD read_at pg_snapshot;
    ALTER TABLE hub.stage ADD cursor bytea NOT NULL DEFAULT '';
    """#,
    #"""
    -- Not there: positions pass by it, so all of it is sent when it is there again.
    ALTER TABLE hub.tracked ADD is_missing bool NOT NULL DEFAULT false;
    """#,
  ]
}
