# shellcheck shell=bash
# Deploy/compose/head.yaml and branch.yaml as two sites that meet at a broker elsewhere. Needs common.sh, engine.sh,
# offices.sh; WORK is a directory.

# at SITE COMMAND...: compose of one site. The broker's is the demo's, alone. ALSO: a file beside the site's own.
at() {
  local site=$1 file=compose/$1.yaml port=15432
  shift
  case $site in branch) port=15433 ;; broker) file=compose.yaml ;; esac
  SECRETS=$WORK/$site POSTGRES_PORT=$port HUB_TRACK=${TRACK:-} \
    docker compose -p "hub-test-$site" -f "$ROOT/Deploy/$file" ${ALSO:+-f "$ROOT/Deploy/$ALSO"} "$@"
}

sites_down() {
  local site
  for site in branch head broker; do
    ((EXIT_STATUS == 0)) || at "$site" logs --no-color --tail 40 >>/tmp/hub-test-deploy.log 2>&1 || true
  done
  ((EXIT_STATUS == 0)) || warn "what the containers said is in /tmp/hub-test-deploy.log"
  if ((KEEP)); then return; fi
  # The broker is a guest in their networks.
  for site in broker branch head; do at "$site" down -v -t 20 >/dev/null 2>&1 || true; done
}

# A site's way out leads to the broker, under the name that its certificate has.
let_out() {
  docker network connect --alias broker.example.com "hub-test-$1_outside" hub-test-broker-broker-1
}

# shellcheck disable=SC2317 # offices.sh calls them
sites_scenario() {
  local began name=broker.example.com
  head_hub() { at head exec -T head hub "$@"; }
  head_sql() { at head exec -T head-db psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d shop -c "$1"; }
  branch_sql() { at branch exec -T branch-db psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d shop -c "$2"; }
  "$ROOT/Scripts/secrets" --broker "$name" "$WORK/broker" >/dev/null
  "$ROOT/Scripts/secrets" --site head --broker "$name" "$WORK/head" >/dev/null
  "$ROOT/Scripts/secrets" --site branch "$WORK/branch" >/dev/null
  cp "$WORK/broker/broker-url" "$WORK/broker/ca.pem" "$WORK/head"
  cp "$WORK/broker/ca.pem" "$WORK/branch"
  on_exit sites_down
  began=$(now_ms)
  at broker up -d --no-build broker >"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "no broker"; }
  at head create >"$WORK/up.log" 2>&1
  let_out head
  at head up -d >"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "no head"; }
  until_true 120 "head is healthy" head_hub health
  head_sql "$(<"$ROOT/Deploy/compose/demo.sql")" >/dev/null
  TRACK='catalogue:down sale:up stock:both' at head run --rm head-setup >"$WORK/up.log" 2>&1 ||
    { tail -n 20 "$WORK/up.log" >&2; fail "head-setup"; }
  did "$began" "a broker, and a head office that tracks three tables"

  began=$(now_ms)
  head_hub invite north >"$WORK/branch/join-token"
  at branch create >"$WORK/up.log" 2>&1
  let_out branch
  at branch up -d >"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "no branch"; }
  until_true 120 "the branch is a member" active 1
  until_true 60 "the branch is healthy" at branch exec -T branch hub health
  did "$began" "a branch that joined by its token, over TLS"
  edit sites 1
  in_step 1 "edits on both sides"

  docker network disconnect hub-test-branch_outside hub-test-broker-broker-1
  edit offline 1
  until_true 90 "the branch knows that it is offline" offline
  let_out branch
  in_step 1 "offline and back"

  local password
  password=$(random_word)
  at broker exec -T broker rabbitmqctl -q add_user north "$password"
  at broker exec -T broker rabbitmqctl -q set_permissions north '.*' '.*' '.*'
  printf 'amqps://north:%s@%s:5671\n' "$password" "$name" >"$WORK/branch/broker-url"
  ALSO=compose/branch-broker.yaml at branch up -d --force-recreate branch >"$WORK/up.log" 2>&1 ||
    { tail -n 20 "$WORK/up.log" >&2; fail "another account"; }
  until_true 60 "the branch has an account of its own" connected north
  edit account 1
  in_step 1 "an account of the branch's own, by branch-broker.yaml"
  say "sites: all passed"
}

# connected ACCOUNT: to the broker.
connected() { at broker exec -T broker rabbitmqctl -q list_connections user | grep -qx "$1"; }
offline() { ! at branch exec -T branch hub health; }
