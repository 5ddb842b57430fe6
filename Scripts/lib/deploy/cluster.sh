# shellcheck shell=bash disable=SC2030,SC2031,SC2119,SC2317
# Three RabbitMQ nodes as one cluster, without containers: hub's queues are quorum queues, and each node is killed while
# all write. Needs common.sh, offices.sh beside this one, build.sh; HUB is a hub's path, or it is built.
# shellcheck source-path=SCRIPTDIR/../..
. "$ROOT/Scripts/lib/build.sh"
. "$ROOT/Scripts/lib/servers.sh"
. "$ROOT/Scripts/lib/offices.sh"

NODES=(1 2 3)

# for_node N COMMAND...: what servers.sh does for a broker, for one of them.
for_node() ( SERVERS=$SERVERS/node$1 && "${@:2}" )
node_ctl() { for_node "$1" broker_ctl -q "${@:2}"; }

# What offices_up calls: every office is told all three nodes, and needs no line that could be cut.
line_start() { : >"$SERVERS/run/line-$1.port"; }
broker_url() {
  local n urls=()
  for n in "${NODES[@]}"; do
    urls+=("amqp://hub:$(<"$SERVERS/broker/password")@127.0.0.1:$(<"$SERVERS/node$n/broker/port")")
  done
  (IFS=, && printf '%s' "${urls[*]}")
}

# The nodes find each other by what Deploy/kubernetes has them find each other by.
broker_up() {
  local n word epmd amqp ports=() starts=()
  [[ -x $RABBITMQ_BIN/rabbitmq-server ]] || fail "RabbitMQ is not installed: run Scripts/setup"
  word=$(random_word)
  read -r -a ports <<<"$(free_ports 7)"
  epmd=${ports[6]}
  for n in "${NODES[@]}"; do
    local dir=$SERVERS/node$n/broker
    mkdir -p "$dir"/{home,mnesia,log} "$SERVERS/node$n/run"
    chmod -R go= "$SERVERS/node$n"
    (umask 077 && printf %s "$word" | tee "$dir/home/.erlang.cookie" >"$dir/password")
    chmod 400 "$dir/home/.erlang.cookie"
    printf '[].\n' >"$dir/enabled_plugins"
    for_node "$n" broker_configure "${ports[n - 1]}" "${ports[n + 2]}" "$epmd"
    {
      printf 'cluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend = classic_config\n'
      for amqp in 1 2 3; do
        printf 'cluster_formation.classic_config.nodes.%d = hub-%s@localhost\n' "$amqp" "${ports[amqp - 1]}"
      done
    } >>"$dir/rabbitmq.conf"
  done
  mkdir -p "$SERVERS/broker"
  cp "$SERVERS/node1/broker/password" "$SERVERS/broker/password"
  # One name server for all: it must be there before the second node looks for the first.
  for n in "${NODES[@]}"; do
    for_node "$n" broker_start & starts+=($!)
    until_true 20 "Erlang's name server" port_answers "$epmd"
  done
  for n in "${starts[@]}"; do wait "$n" || { tail -n 20 "$SERVERS"/node*/broker/log/* >&2; fail "RabbitMQ did not start"; }; done
}
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

cluster_down() {
  local n
  if ((EXIT_STATUS == 1)); then
    mkdir -p "$LOGS/$SELF"
    for n in "${NODES[@]}"; do cp "$SERVERS/node$n/broker/log/rabbit.log" "$LOGS/$SELF/node$n.log" 2>/dev/null; done
  fi
  for n in "${NODES[@]}"; do : >"$SERVERS/node$n/run/closing"; done
  for n in "${NODES[@]}"; do
    end_process "$SERVERS/node$n/run/broker.pid" KILL
    end_process "$SERVERS/node$n/run/epmd.pid" KILL
  done
  return 0
}

# writes OFFICE: commits until $SERVERS/quiet is there, and leaves their number in $SERVERS/OFFICE.commits.
writes() {
  local made=0 statement
  while [[ -e $SERVERS/run && ! -e $SERVERS/quiet ]]; do
    made=$((made + 1))
    case $1 in
      head) statement="INSERT INTO catalogue VALUES ('load-$made', 'load', $made)" ;;
      *) statement="WITH s AS (INSERT INTO sale (sku, qty) VALUES ('tea', $made)) UPDATE stock SET qty = qty + 1, place = '$1' WHERE sku = 'mug'" ;;
    esac
    printf '%s;\n' "$statement"
    printf '%s' "$made" >"$SERVERS/$1.commits"
    sleep 0.05
  done | at "$1" psql -XAtq -v ON_ERROR_STOP=1 >/dev/null
}

members() {
  local n=$1 count=$2
  [[ $(node_ctl "$n" cluster_status --formatter json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["running_nodes"]))') == "$count" ]]
}
# Every copy of every quorum queue is there and follows.
copies_online() {
  node_ctl "$1" list_queues --formatter json name type members online |
    python3 -c '
import json, sys
queues = [q for q in json.load(sys.stdin) if q["type"] == "quorum"]
sys.exit(len(queues) < 3 or any(len(q["online"]) != 3 or len(q["members"]) != 3 for q in queues))'
}
# node_signal N SIGNAL: to the whole node, and whatever it started.
node_signal() {
  local pid
  read -r pid _ <"$SERVERS/node$1/run/broker.pid"
  kill -"$2" -- "-$(ps -o pgid= -p "$pid" | tr -d ' ')"
}
# The node with the most connections.
busiest() {
  local n
  for n in "${NODES[@]}"; do
    printf '%s %s\n' "$(ss -Htn state established "sport = :$(<"$SERVERS/node$n/broker/port")" | wc -l)" "$n"
  done | sort -n | tail -n 1 | cut -d ' ' -f 2
}
arrived() { [[ $(sql "$1" "SELECT count(*) FROM $2") == 1 ]]; }

# passes WORD: what is written now, while that happens, arrives at both branches and at head.
passes() {
  local office
  sql head "INSERT INTO catalogue VALUES ('$1', 'now', 1)"
  for office in north south; do
    sql "$office" "INSERT INTO stock VALUES ('$1-$office', 1, '$office')"
  done
  for office in north south; do
    until_true 120 "$1: $office has head's row" arrived "$office" "catalogue WHERE sku = '$1'" || return 1
    until_true 120 "$1: head has the row of $office" arrived head "stock WHERE sku = '$1-$office'" || return 1
  done
}

cluster_scenario() {
  local began n office load=() sales=0
  [[ ${HUB:-} ]] || build_hub
  began=$(now_ms)
  servers_begin
  on_exit cluster_down
  offices_up head north south west
  head_hub() { at head hub "$@"; }
  head_sql() { sql head "$1"; }
  branch_sql() { case $1 in 1) sql north "$2" ;; 2) sql south "$2" ;; 3) sql west "$2" ;; esac; }
  until_true 60 "three nodes are one cluster" members 1 3
  at head psql -Xq -v ON_ERROR_STOP=1 -f "$ROOT/Deploy/compose/demo.sql"
  (
    # shellcheck source=/dev/null
    . "$SERVERS/run/head.env"
    HUB_QUEUE_TYPE=quorum HUB_TRACK='catalogue:down sale:up stock:both' JOIN_SECRET_FILE=$SERVERS/node1/broker/password \
      sh "$ROOT/Deploy/compose/head-setup.sh" >"$SERVERS/setup.log"
  ) || { tail "$SERVERS/setup.log" >&2; fail "head-setup"; }
  hub_start head
  branch_joins north
  branch_joins south
  until_true 60 "every queue has three copies" copies_online 1 || fail "the queues do not survive a node"
  did "$began" "three nodes, head and two branches; every queue that carries batches has a copy at each node"

  for office in head north south; do writes "$office" & load+=($!); done
  for n in "${NODES[@]}"; do
    began=$(now_ms)
    for_node "$n" end_process "$SERVERS/node$n/run/broker.pid" KILL
    passes "without-$n" || fail "with node $n killed not everything passes"
    did "$began" "node $n killed while all write: everything passes without it"
    if ((n == 2)); then
      began=$(now_ms)
      branch_joins west
      until_true 120 "west has what was written" arrived west "catalogue WHERE sku = 'without-2'" || fail "west gets nothing"
      did "$began" "a third branch joined meanwhile"
    fi
    for_node "$n" broker_start
    until_true 120 "three nodes again" members 1 3
    until_true 120 "node $n has caught up" copies_online 1
  done
  # As when a node's network is cut: nothing is refused, nothing answers.
  began=$(now_ms)
  n=$(busiest)
  node_signal "$n" STOP
  passes "cut-off-$n" || fail "with node $n cut off not everything passes"
  did "$began" "node $n, which most are connected to, cut off while all write: everything passes without it"
  node_signal "$n" CONT
  until_true 180 "node $n is back" copies_online $((n % 3 + 1))

  : >"$SERVERS/quiet"
  for n in "${load[@]}"; do wait "$n" || fail "an application's statement failed"; done
  in_step 3 "quiet"
  # Its sales stay at head, which are the branches' together.
  sql west "INSERT INTO sale (sku, qty) VALUES ('mug', 1)"
  sales=1
  hub_stop west
  at west hub leave >>"$SERVERS/west.log" 2>&1 || fail "west could not leave"
  [[ $(sql west "SELECT count(*) FROM pg_namespace WHERE nspname = 'hub'") == 0 ]] || fail "hub is left at west"
  for office in north south; do
    sales=$((sales + $(<"$SERVERS/$office.commits")))
  done
  [[ $(head_sql "SELECT count(*) FROM sale") == "$sales" ]] || fail "head has other sales than were committed"
  [[ $(head_sql "SELECT count(*) FROM catalogue WHERE sku LIKE 'load-%'") == $(<"$SERVERS/head.commits") ]] ||
    fail "head has other goods than were committed"
  at head hub verify >"$SERVERS/verify.log" || { cat "$SERVERS/verify.log" >&2; fail "hub verify finds differences"; }
  say "cluster: all passed, $sales sales and $(<"$SERVERS/head.commits") goods committed and none lost"
}
