# shellcheck shell=bash
# Deploy/kubernetes/overlays/demo in a real cluster of one node (node.sh). Needs common.sh, engine.sh, offices.sh; WORK is
# a directory, PLACE the engine's.
# shellcheck source-path=SCRIPTDIR
. "$ROOT/Scripts/lib/deploy/node.sh"

of() { kube -n hub "$@"; }
in_pod() { of exec "$1" -c "$2" -- "${@:3}"; }
head_hub() { in_pod deploy/head hub hub "$@"; }
head_sql() { in_pod head-db-0 postgresql psql -qAtX -v ON_ERROR_STOP=1 -h /var/run/postgresql -U postgres -d shop -c "$1"; }
# The branches count from 0.
branch_sql() { in_pod "branch-$(($1 - 1))" postgresql psql -qAtX -v ON_ERROR_STOP=1 -U postgres -d shop -c "$2"; }
address_of() { of get pod "$1" -o 'jsonpath={.status.podIP}'; }
rolled_out() { of rollout status "$1" --timeout=1s; }
gone() { ! of get "$@"; }

# crash POD CONTAINER: -9 to what runs in it; the node starts it again.
crash() {
  local container
  container=$(docker ps -q --filter "label=io.kubernetes.pod.name=$1" --filter "label=io.kubernetes.container.name=$2")
  kill -9 "$(docker inspect -f '{{.State.Pid}}' "$container")"
}
# vanish POD: as when its machine is lost; its controller makes another one, with another address.
vanish() { of delete pod "$1" --force --grace-period=0 --wait=false >/dev/null 2>&1; }

# The pod whose hub has head's lock.
serving() {
  local address
  address=$(head_sql "SELECT host(client_addr) FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND granted AND client_addr IS NOT NULL LIMIT 1")
  [[ $address ]] && of get pods -l app=head -o "jsonpath={.items[?(@.status.podIP=='$address')].metadata.name}" | grep .
}
# The session that holds head's lock: another one after every start.
holder() {
  head_sql "SELECT pid, backend_start FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND granted AND client_addr IS NOT NULL LIMIT 1"
}
held_anew() { local now; now=$(holder) && [[ $now && $now != "$1" ]]; }
# Another one serves than before.
taken_over() { local now; now=$(serving) && [[ $now != "$1" ]]; }
cluster_of_three() {
  in_pod "$1" rabbitmq rabbitmqctl -q cluster_status --formatter json |
    python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)["running_nodes"]) != 3)'
}
# The queues that carry batches, head's and each branch's, are quorum queues with a copy at every node.
queues_are_safe() {
  in_pod broker-0 rabbitmq rabbitmqctl -q list_queues --formatter json name type members |
    python3 -c '
import json, sys
queues = [q for q in json.load(sys.stdin) if q["name"].startswith(("hub.head", "hub.office."))]
print(queues)
sys.exit(len(queues) != int(sys.argv[1]) or any(q["type"] != "quorum" or len(q["members"]) != 3 for q in queues))' "$1"
}

# cut ADDRESS ADDRESS: nothing passes between the two, nobody is told. mend: all passes again.
CUTS=()
cut() {
  inside iptables -I FORWARD -s "$1" -d "$2" -j DROP
  inside iptables -I FORWARD -s "$2" -d "$1" -j DROP
  CUTS+=("$1 $2")
}
mend() {
  local pair from to
  for pair in "${CUTS[@]}"; do
    read -r from to <<<"$pair"
    inside iptables -D FORWARD -s "$from" -d "$to" -j DROP
    inside iptables -D FORWARD -s "$to" -d "$from" -j DROP
  done
  CUTS=()
}

kubernetes_down() {
  if ((EXIT_STATUS != 0)); then
    {
      of get all,pvc,endpoints -o wide
      of get events --sort-by=.lastTimestamp
      of logs --tail=60 --prefix --all-containers --selector 'app in (head, head-db, branch, broker)'
    } >/tmp/hub-test-deploy.log 2>&1
    warn "what the cluster said is in /tmp/hub-test-deploy.log"
  fi
}

# The overlay for the version that runs here: it knows budgets by their older name alone.
overlay_for_node() {
  local here=$WORK/Deploy/kubernetes/overlays/demo-1.20
  cp -R "$ROOT/Deploy" "$WORK/Deploy"
  rm -rf -- "$WORK/Deploy/kubernetes/overlays/demo/secrets"
  "$ROOT/Scripts/secrets" --site kubernetes "$WORK/Deploy/kubernetes/overlays/demo/secrets" >/dev/null
  mkdir "$here"
  cat >"$here/kustomization.yaml" <<'END'
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../demo]
patches:
  - target: {kind: PodDisruptionBudget}
    patch: |-
      - {op: replace, path: /apiVersion, value: policy/v1beta1}
      - {op: remove, path: /spec/unhealthyPodEvictionPolicy}
END
  printf '%s' "$here"
}

kubernetes_scenario() {
  local began overlay
  began=$(now_ms)
  node_up "$WORK/node" "$PLACE/kubernetes/bin"
  did "$began" "a control plane and a node: Kubernetes $(kube version 2>/dev/null | sed -n 's/^Server Version: //p')"
  overlay=$(overlay_for_node)
  on_exit kubernetes_down
  export PATIENCE=300
  comes_up
  scales
  loses_pods
  loses_the_network
  is_updated
  goes
  say "kubernetes: all passed"
}

comes_up() {
  local began
  began=$(now_ms)
  kube apply -k "$overlay" >"$WORK/apply.log" 2>&1 || { cat "$WORK/apply.log" >&2; fail "the overlay was not accepted"; }
  until_true 360 "every pod is ready" everything_ready
  did "$began" "applied: three brokers, head and its standby, a branch are ready"
  cluster_of_three broker-0 || fail "the brokers are no cluster"
  until_true 60 "the branch is a member" active 1
  queues_are_safe 2 >"$WORK/queues" || { cat "$WORK/queues" >&2; fail "the queues do not survive a broker"; }
  generations >"$WORK/before"
  kube apply -k "$overlay" >"$WORK/apply.log" 2>&1
  diff "$WORK/before" <(generations) >&2 || fail "applied again, it changes what is there"
  edit first 1
  in_step 1 "first edits"
}
generations() {
  of get deployment,statefulset,networkpolicy,pdb \
    -o 'jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.generation}{"\n"}{end}'
}
everything_ready() {
  rolled_out statefulset/broker && rolled_out statefulset/head-db && rolled_out statefulset/branch && rolled_out deployment/head
}

scales() {
  local began
  began=$(now_ms)
  of scale statefulset branch --replicas=5 >/dev/null
  until_true 300 "five branches are members" active 5
  until_true 120 "five branches are ready" rolled_out statefulset/branch
  did "$began" "scaled to five, by themselves: branch-0 to branch-4"
  queues_are_safe 6 >"$WORK/queues" || { cat "$WORK/queues" >&2; fail "the queues do not survive a broker"; }
  edit five 5
  in_step 5 "edits on all sides"

  began=$(now_ms)
  of scale statefulset branch --replicas=2 >/dev/null
  until_true 180 "three pods end" gone pod branch-2
  until_true 180 "three pods end" gone pod branch-3
  until_true 180 "three pods end" gone pod branch-4
  until_true 120 "head knows who is away" active 2
  edit paused 2
  of scale statefulset branch --replicas=5 >/dev/null
  until_true 300 "five branches are back" active 5
  did "$began" "scaled to two, edited, scaled to five: the same offices"
  in_step 5 "what they missed"
  kube apply -k "$overlay" >/dev/null 2>&1 || fail "the overlay was not accepted again"
  [[ $(of get statefulset branch -o 'jsonpath={.spec.replicas}') == 5 ]] || fail "applying again takes branches away"
  [[ $(head_sql "SELECT count(*) FROM hub.peer") == 5 ]] || fail "scaling made other offices of them"
}

uid_of() { of get pod "$1" -o 'jsonpath={.metadata.uid}'; }
# another_than UID POD: under the name of the one that goes.
another_than() { local now; now=$(uid_of "$2") && [[ $now && $now != "$1" ]]; }

loses_pods() {
  local before node began
  before=$(serving)
  began=$(now_ms)
  vanish "$before"
  until_true 60 "the standby serves" taken_over "$before"
  did "$began" "$before deleted: $(serving) serves"
  edit standby 5
  in_step 5 "head's pod deleted"
  until_true 180 "head has a standby again" rolled_out deployment/head
  # The standby, or the same one started again: whoever comes first.
  before=$(holder)
  crash "$(serving)" hub
  until_true 60 "head is served again" held_anew "$before"
  edit crashed 5
  in_step 5 "head's hub killed with -9"

  before=$(uid_of branch-1)
  vanish branch-1
  until_true 180 "there is another pod" another_than "$before" branch-1
  until_true 180 "its database is back" branch_sql 2 "SELECT 1"
  edit branch 5
  in_step 5 "a branch's pod deleted"
  crash branch-2 postgresql
  until_true 180 "its database is back" branch_sql 3 "SELECT 1"
  edit database 5
  in_step 5 "a branch's database killed with -9"
  before=$(uid_of head-db-0)
  of delete pod head-db-0 --wait=false >/dev/null
  until_true 180 "there is another pod" another_than "$before" head-db-0
  until_true 180 "its database is back" head_sql "SELECT 1"
  edit head-db 5
  in_step 5 "head's database moved to another pod"

  for node in 0 1 2; do
    if ((node == 1)); then crash broker-1 rabbitmq; else vanish "broker-$node"; fi
    edit "broker-$node" 5
    in_step 5 "broker-$node lost while all write"
    until_true 300 "three brokers again" cluster_of_three "broker-$(((node + 1) % 3))"
    until_true 300 "all of them ready" rolled_out statefulset/broker
  done
}

loses_the_network() {
  local node branch=branch-1 lonely
  branch=$(address_of branch-1)
  for node in 0 1 2; do cut "$branch" "$(address_of "broker-$node")"; done
  until_true 120 "the branch knows that it is offline" offline branch-1
  edit cut 5
  if equal 5; then fail "a branch without network is equal: it was not cut"; fi
  mend
  in_step 5 "a branch's network cut and mended"
  until_true 120 "the branch is ready again" rolled_out statefulset/branch

  lonely=$(address_of broker-2)
  for node in 0 1; do cut "$lonely" "$(address_of "broker-$node")"; done
  edit partition 5
  in_step 5 "broker-2 cut off while all write"
  until_true 180 "it waits, as the smaller side must" not_ready broker-2
  edit minority 5
  in_step 5 "with two brokers"
  mend
  until_true 300 "three brokers again" cluster_of_three broker-2
  edit healed 5
  in_step 5 "the brokers together again"
}
offline() { ! in_pod "$1" hub hub health; }
not_ready() { [[ $(of get pod "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == False ]]; }

# Head one pod after the other; of the branches one first, as a careful person does.
is_updated() {
  of patch statefulset branch -p '{"spec": {"updateStrategy": {"rollingUpdate": {"partition": 4}}}}' >/dev/null
  of rollout restart statefulset/branch deployment/head >/dev/null
  edit update 4
  until_true 300 "a branch is new" rolled_out statefulset/branch
  until_true 300 "head is new" rolled_out deployment/head
  edit updated 5
  in_step 5 "head's pods and a branch's replaced by new ones"
}

goes() {
  local began
  began=$(now_ms)
  kube delete -k "$overlay" --wait=true --timeout=300s >/dev/null 2>&1 || fail "the overlay does not go"
  until_true 60 "every container is gone" no_container
  did "$began" "deleted: nothing is left of it"
}
no_container() { [[ -z $(docker ps -aq --filter label=io.kubernetes.pod.namespace=hub) ]]; }
