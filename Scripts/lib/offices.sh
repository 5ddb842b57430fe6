# shellcheck shell=bash disable=SC2034,SC2016
# Offices on private servers: a cluster and a hub each, one broker. Needs common.sh, servers.sh and HUB (build.sh).
#
#   offices_up OFFICE…       a broker, and a cluster with a database for each; every office reaches the broker through a
#                            forwarder of its own, so that its connection can be cut
#   at OFFICE COMMAND…       runs it (hub, psql, …) as at that office      sql OFFICE STATEMENT…: what psql prints
#   hub_start, hub_stop, hub_kill OFFICE                                    line_cut, line_back OFFICE

offices_up() {
  local office
  OFFICES=("$@")
  on_exit keep_logs
  for office in "$@"; do starting postgres_up "$office" "${POSTGRES_SETTINGS[@]}"; done
  starting broker_up
  started
  for office in "$@"; do
    line_start "$office"
    {
      printf 'export HUB_DATABASE_URL=%q\n' "$(postgres_url "$office" "$office")"
      printf 'export HUB_BROKER_URL=%q\n' "$(broker_url "$(cat "$SERVERS/run/line-$office.port")")"
      printf 'export HUB_STATE_DIR=%q\n' "$SERVERS/state/$office"
      printf 'export PGHOST=%q PGPORT=%q PGUSER=admin PGDATABASE=%q\n' \
        "$SERVERS/$office/socket" "$(cat "$SERVERS/$office/port")" "$office"
      printf 'export PATH=%q:$PATH\n' "${HUB%/*}"
    } >"$SERVERS/run/$office.env"
    PGHOST=$SERVERS/$office/socket PGPORT=$(cat "$SERVERS/$office/port") psql -XqU admin -d postgres \
      -c "CREATE DATABASE $office" >/dev/null
  done
  # For a person who wants to play along.
  printf '#!/bin/sh\n# at OFFICE COMMAND...: runs it as at that office.\n. %q/run/"$1".env && shift && exec "$@"\n' \
    "$SERVERS" >"$SERVERS/at"
  chmod 700 "$SERVERS/at"
}
POSTGRES_SETTINGS=()

# What the hubs and servers said outlives a failure, and only that.
keep_logs() {
  ((EXIT_STATUS == 1)) || return 0
  local office
  mkdir -p "$LOGS/$SELF"
  cp "$SERVERS"/*.log "$LOGS/$SELF/" 2>/dev/null
  for office in "${OFFICES[@]}"; do cp "$SERVERS/$office/log" "$LOGS/$SELF/$office-postgres.log" 2>/dev/null; done
  warn "the logs of the hubs and servers are in ${LOGS#"$ROOT"/}/$SELF"
}

at() { "$SERVERS/at" "$@"; }

# sql OFFICE STATEMENT...: each in a transaction of its own; stops at the first error.
sql() {
  local office=$1 arguments=()
  shift
  while (($# > 0)); do arguments+=(-c "$1"); shift; done
  at "$office" psql -XAtq -v ON_ERROR_STOP=1 "${arguments[@]}"
}

# ------------------------------------------------------------------------------------------------ the daemon

hub_start() {
  local office=$1
  (
    # shellcheck source=/dev/null
    . "$SERVERS/run/$office.env"
    exec setsid "$HUB" run </dev/null >>"$SERVERS/$office.log" 2>&1
  ) &
  record_process "$SERVERS/run/hub-$office.pid" $!
  disown $! # its end is no news of a job
}
hub_stop() { end_process "$SERVERS/run/hub-$1.pid" TERM 30; }
hub_kill() { end_process "$SERVERS/run/hub-$1.pid" KILL; }
hub_pid() { cut -d ' ' -f 1 "$SERVERS/run/hub-$1.pid"; }

# ------------------------------------------------------------------------------------------------ the line

# line_start NAME [PORT]: a forwarder to that port; to the broker, without one. forward.py says what else it can do.
line_start() {
  local target=${2:-} port file=$SERVERS/run/line-$1 i try
  [[ -n $target ]] || target=$(cat "$SERVERS/broker/port")
  for try in 1 2 3; do
    port=$(free_ports 1)
    python3 "$ROOT/Scripts/lib/forward.py" "$file.state" "$port" "$target" </dev/null \
      >>"$SERVERS/lines.log" 2>&1 &
    record_process "$file.pid" $!
    disown $!
    printf '%s' "$port" >"$file.port"
    for ((i = 0; i < 200; i++)); do
      [[ ! -s $file.state ]] || return 0
      process_runs "$file.pid" || break
      sleep 0.02
    done
  done
  cat "$SERVERS/lines.log" >&2
  fail "no line for $1"
}
line_cut() { line_turn "$1" USR1 cut; }
line_back() { line_turn "$1" USR2 up; }
line_turn() {
  local file=$SERVERS/run/line-$1 pid i
  read -r pid _ <"$file.pid"
  kill -s "$2" "$pid"
  for ((i = 0; i < 200; i++)); do
    [[ $(cat "$file.state") != "$3" ]] || return 0
    sleep 0.02
  done
  fail "the line of $1 does not obey"
}

# ------------------------------------------------------------------------------------------------ waiting, comparing

# await_sql OFFICE CONDITION [SECONDS]: prints the server's clock, in microseconds, when the condition first held. One
# session looks every 2 ms, so that no new connection's time is measured.
await_sql() {
  at "$1" psql -XAtq -v ON_ERROR_STOP=1 -c "DO \$await\$ BEGIN
    FOR i IN 1 .. ${3:-60} * 500 LOOP
      IF ($2) THEN RETURN; END IF;
      PERFORM pg_sleep(0.002);
    END LOOP;
    RAISE EXCEPTION 'not seen within ${3:-60} s at $1';
  END \$await\$" -c "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint" 2>&1
}

# table_key OFFICE TABLE: the primary key's columns, quoted, with commas.
table_key() {
  sql "$1" "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n)
    FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
    WHERE i.indrelid = '${2//\'/\'\'}'::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum"
}

# table_sum OFFICE TABLE KEY [CONDITION]: rows and the md5 of them all, as COPY prints them in the key's order.
table_sum() {
  local copy="COPY (SELECT * FROM $2 WHERE ${4:-true} ORDER BY $3) TO STDOUT"
  at "$1" psql -XAtq -v ON_ERROR_STOP=1 -c "SET client_min_messages = error" -c "$copy" | python3 -c '
import hashlib, sys
rows, sum = 0, hashlib.md5()
while data := sys.stdin.buffer.read(1 << 20):
    rows += data.count(b"\n")
    sum.update(data)
print(rows, sum.hexdigest())'
}

# json_get PATH: one value of the JSON on stdin, for example broker.connected; nothing when it is not there.
json_get() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value.get(name) if isinstance(value, dict) else None
if value is not None:
    print(json.dumps(value) if not isinstance(value, str) else value)' "$1"
}

# branch_joins BRANCH: invited by head, joined, its daemon started. Head's daemon runs.
branch_joins() {
  local token
  token=$(at head hub invite "$1")
  at "$1" hub join "$token" >>"$SERVERS/$1.log" 2>&1 || { tail -n 5 "$SERVERS/$1.log" >&2; fail "$1 could not join: see above"; }
  hub_start "$1"
}
