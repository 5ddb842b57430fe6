# shellcheck shell=bash
# The demo overlay's pods, run by Docker alone. Needs common.sh, engine.sh, offices.sh; WORK is a directory.

pods() { python3 "$ROOT/Scripts/lib/deploy/pods.py" "$WORK/demo.yaml" "$WORK/pods" "$@"; }
head_hub() { docker exec pod-head-0-hub hub "$@" 2>/dev/null || docker exec pod-head-1-hub hub "$@"; }
head_sql() { docker exec pod-head-db-0-postgresql psql -qAtX -v ON_ERROR_STOP=1 -h /var/run/postgresql -U postgres -d shop -c "$1"; }
# The branches count from 0.
branch_sql() { docker exec "pod-branch-$(($1 - 1))-postgresql" psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d shop -c "$2"; }
# The engine starts again what ends so.
crash() { kill -9 "$(docker inspect -f '{{.State.Pid}}' "$1")"; }
cluster_of_three() {
  docker exec pod-broker-0-rabbitmq rabbitmqctl -q cluster_status --formatter json |
    python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)["running_nodes"]) != 3)'
}

pods_down() {
  if ((EXIT_STATUS != 0)); then
    local name
    for name in $(docker ps -a --format '{{.Names}}' | grep '^pod-'); do
      printf '== %s\n' "$name"
      docker logs --tail 40 "$name"
    done >/tmp/hub-test-deploy.log 2>&1
    warn "what the containers said is in /tmp/hub-test-deploy.log"
  fi
  if ((KEEP)); then return; fi
  pods down >/dev/null 2>&1 || true
}

pods_scenario() {
  local began node
  cp -R "$ROOT/Deploy" "$WORK/Deploy"
  rm -rf -- "$WORK/Deploy/kubernetes/overlays/demo/secrets"
  "$ROOT/Scripts/secrets" --site kubernetes "$WORK/Deploy/kubernetes/overlays/demo/secrets" >/dev/null
  kubectl kustomize "$WORK/Deploy/kubernetes/overlays/demo" >"$WORK/demo.yaml"
  on_exit pods_down
  began=$(now_ms)
  pods up >"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "the pods did not start"; }
  until_true 240 "three brokers are one cluster" cluster_of_three
  until_true 120 "one branch is a member" active 1
  until_true 60 "every pod answers its probes" pods ready
  did "$began" "three brokers, head and its standby, one branch: all ready"
  [[ $(docker exec pod-broker-0-rabbitmq rabbitmqctl -q list_queues name type | grep -c 'hub\..*quorum') == 3 ]] ||
    fail "hub's queues are not quorum queues"
  edit first 1
  in_step 1 "first edits"

  began=$(now_ms)
  pods scale branch 3 >"$WORK/scale.log" 2>&1
  until_true 180 "three branches are members" active 3
  did "$began" "scaled to three, by themselves: branch-0 to branch-2"
  edit three 3
  in_step 3 "edits on all sides"

  began=$(now_ms)
  pods scale branch 1 >"$WORK/scale.log" 2>&1
  edit paused 1
  pods scale branch 3 >"$WORK/scale.log" 2>&1
  in_step 3 "scaled down, edited, scaled up"
  [[ $(head_sql "SELECT count(*) FROM hub.peer") == 3 ]] || fail "scaling made other offices of them"

  for node in 0 1 2; do
    crash "pod-broker-$node-rabbitmq"
    edit "broker-$node" 3
    in_step 3 "broker-$node killed while all write"
    until_true 180 "three brokers again" cluster_of_three
  done
  for node in 0 1; do
    docker stop -t 30 "pod-head-$node-hub" >/dev/null
    edit "head-$node" 3
    in_step 3 "head-$node stopped: the other one serves"
    docker start "pod-head-$node-hub" >/dev/null
    until_true 60 "both are ready" pods ready
  done
  crash pod-branch-1-postgresql
  until_true 60 "its database is back" branch_sql 2 "SELECT 1"
  edit database 3
  in_step 3 "a branch's database killed"

  head_hub remove branch-2 >/dev/null
  until_true 60 "head has let it go" removed
  head_sql "INSERT INTO catalogue VALUES ('after', 'the removal', 1)" >/dev/null
  until_true 60 "the others go on" has_row 2
  [[ -z $(branch_sql 3 "SELECT 1 FROM catalogue WHERE sku = 'after'") ]] || fail "a removed branch gets rows"
  say "pods: all passed"
}

removed() { head_hub branches --json | grep -q '"state":"removed"'; }
has_row() { [[ -n $(branch_sql "$1" "SELECT 1 FROM catalogue WHERE sku = 'after'") ]]; }
