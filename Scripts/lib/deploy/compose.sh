# shellcheck shell=bash
# Deploy/compose.yaml, run. Needs common.sh, engine.sh, offices.sh; WORK is a directory for secrets and logs.

compose() {
  SECRETS=$WORK/secrets BRANCH_DATABASES=5 docker compose -p hub-test -f "$ROOT/Deploy/compose.yaml" "$@"
}
head_hub() { compose exec -T head hub "$@"; }
head_sql() { compose exec -T head-db psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d shop -c "$1"; }
branch_sql() { compose exec -T branch-db psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d "branch_$1" -c "$2"; }
container() { docker ps -q --filter "name=^hub-test-$1\$"; }

# killed CONTAINER: -9 to what runs in it, as a crash would; the engine starts it again.
killed() { kill -9 "$(docker inspect -f '{{.State.Pid}}' "$(container "$1")")"; }

compose_down() {
  compose --profile monitoring logs --no-color >"$WORK/compose.log" 2>&1 || true
  if ((EXIT_STATUS != 0)); then
    cp "$WORK/compose.log" /tmp/hub-test-deploy.log
    warn "what the containers said is in /tmp/hub-test-deploy.log"
  fi
  if ((KEEP)); then return; fi
  compose --profile monitoring down -v --remove-orphans -t 20 >/dev/null 2>&1 || true
}

compose_scenario() {
  local began
  "$ROOT/Scripts/secrets" "$WORK/secrets" >/dev/null
  on_exit compose_down
  began=$(now_ms)
  compose up -d --no-build --quiet-pull >"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "up failed"; }
  until_true 120 "one branch in step" active 1
  did "$began" "up: head and one branch are members"
  edit first 1
  in_step 1 "first edits"
  until_true 60 "the branch is healthy" compose exec -T branch hub health

  began=$(now_ms)
  compose up -d --no-build --scale branch=3 >"$WORK/scale.log" 2>&1
  until_true 120 "three branches in step" active 3
  did "$began" "scaled to three: each has a name and a database of its own"
  edit three 3
  in_step 3 "edits on all sides"

  began=$(now_ms)
  compose up -d --no-build --scale branch=1 >"$WORK/scale.log" 2>&1
  edit paused 3
  compose up -d --no-build --scale branch=3 >"$WORK/scale.log" 2>&1
  in_step 3 "scaled down, edited, scaled up"
  [[ $(head_sql "SELECT count(*) FROM hub.peer") == 3 ]] || fail "scaling made other offices of them"

  local what
  for what in branch-2 head-1 broker-1 head-db-1 branch-db-1; do
    killed "$what"
    until_true 90 "the databases are back" both_answer
    edit "killed-$what" 3
    in_step 3 "$what killed"
  done

  local cut
  cut=$(container branch-1)
  docker network disconnect hub-test_branch-broker "$cut"
  edit cut 3
  sleep 3
  if equal 3; then fail "a branch without network is equal: it was not cut"; fi
  docker network connect hub-test_branch-broker "$cut"
  in_step 3 "a network cut and mended"

  # A branch reaches the broker and nothing of head's site.
  if compose exec -T branch bash -c 'exec 3<>/dev/tcp/head-db/5432' 2>/dev/null; then fail "a branch reaches head's database"; fi
  compose exec -T branch bash -c 'exec 3<>/dev/tcp/broker/5671' || fail "a branch does not reach the broker"

  began=$(now_ms)
  changes_secrets
  in_step 3 "the broker's account and certificate changed"
  did "$began" "the old account is of no use any more"

  began=$(now_ms)
  compose --profile monitoring up -d --no-build --no-deps prometheus >"$WORK/monitoring.log" 2>&1 ||
    { tail -n 20 "$WORK/monitoring.log" >&2; fail "the monitoring profile"; }
  until_true 120 "Prometheus knows head, its three branches and the broker" monitored 3
  did "$began" "Prometheus reads head and broker, all rules are well"

  began=$(now_ms)
  compose stop -t 30 head >/dev/null 2>&1
  local code
  code=$(docker inspect -f '{{.State.ExitCode}}' "$(docker ps -aq --filter 'name=^hub-test-head-1$')")
  [[ $code == 0 ]] || fail "head ended with $code after SIGTERM"
  did "$began" "SIGTERM: head ended with 0"
  until_true 60 "Prometheus sees that head is away" asked 'up{job="hub"} == 0'

  compose --profile monitoring down -t 30 >/dev/null 2>&1
  compose up -d --no-build --scale branch=3 >"$WORK/up.log" 2>&1
  until_true 120 "three branches again" active 3
  edit again 3
  in_step 3 "down and up again"
  ((KEEP)) || compose --profile monitoring down -v -t 20 >/dev/null 2>&1
  say "compose: all passed"
}

# As the README says.
changes_secrets() {
  local password old
  password=$(random_word) old=$(<"$WORK/secrets/broker-url")
  compose exec -T broker rabbitmqctl -q add_user hub2 "$password"
  compose exec -T broker rabbitmqctl -q set_permissions hub2 '.*' '.*' '.*'
  printf 'amqps://hub2:%s@broker:5671\n' "$password" >"$WORK/secrets/broker-url"
  {
    compose up -d --no-build --no-deps --force-recreate head-setup head
    compose up -d --no-build --no-deps --force-recreate --scale branch=3 branch
  } >"$WORK/secrets.log" 2>&1 || { tail -n 20 "$WORK/secrets.log" >&2; fail "up with another account"; }
  until_true 120 "three branches with another account" active 3
  compose exec -T broker rabbitmqctl -q delete_user hub
  if head_hub doctor --broker "$old" | grep -q '^ok    broker'; then fail "the old account is still of use"; fi
  rm "$WORK/secrets/broker.pem" "$WORK/secrets/broker.key"
  "$ROOT/Scripts/secrets" "$WORK/secrets" >/dev/null
  compose restart -t 60 broker >/dev/null 2>&1
  edit rotated 3
}

# asked QUERY: whether Prometheus has a sample for it.
asked() {
  compose --profile monitoring exec -T prometheus wget -q -O - --post-data "query=$1" http://127.0.0.1:9090/api/v1/query |
    grep -q '"result":\[{'
}
# monitored BRANCHES: every target is up, and each branch has its figures.
monitored() {
  asked 'up{job="hub"} == 1' && asked 'up{job="broker"} == 1 and on() rabbitmq_queue_messages' || return 1
  asked "count(hub_branch_pending_rows) == $1 and on() hub_healthy == 1" || return 1
  ! compose --profile monitoring exec -T prometheus wget -q -O - http://127.0.0.1:9090/api/v1/rules | grep -q '"health":"err"'
}

both_answer() { head_sql "SELECT 1" && branch_sql 1 "SELECT 1"; }
