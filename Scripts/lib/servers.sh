# shellcheck shell=bash
# Private PostgreSQL clusters and a private RabbitMQ node: on free loopback ports, with random passwords, under one
# directory, ended by recorded pid. No server of the machine is touched. Needs common.sh.
#
#   servers_begin [DIR]           makes the directory SERVERS (or takes DIR) and cleans up at the end unless DIR was given
#   postgres_up NAME [SETTING]…   a cluster with its superuser `admin`
#   postgres_url NAME [DATABASE]  libpq URL over TCP      postgres_socket_url: over its private socket
#   broker_up                     a node                   broker_url: its AMQP URL
#   server_ctl NAME start|stop|restart|kill               `broker` is a name too
#   server_ctl NAME standby|remove                        a streaming standby NAME-standby of that cluster; takes one away
#
# A cluster NAME lives in SERVERS/NAME: data, socket, log, port. The broker lives in SERVERS/broker, whose `env` is for
# rabbitmqctl (source it in a subshell: it changes HOME).

RABBITMQ_BIN=${HUB_RABBITMQ_BIN:-/usr/lib/rabbitmq/bin}

# The superuser is not called `hub`: by the default search_path, a role of that name makes its tables in schema hub.

# postgres_bin: the newest installed server's programs, 14 or later.
postgres_bin() {
  if [[ -n ${HUB_POSTGRES_BIN:-} ]]; then printf '%s' "$HUB_POSTGRES_BIN"; return; fi
  local bin version best='' best_version=13
  for bin in /usr/lib/postgresql/*/bin; do
    version=${bin%/bin} version=${version##*/}
    [[ $version =~ ^[0-9]+$ && -x $bin/initdb && -x $bin/postgres ]] || continue
    ((version > best_version)) && best=$bin best_version=$version
  done
  if [[ -z $best ]] && command -v pg_config >/dev/null; then
    bin=$(pg_config --bindir 2>/dev/null || true)
    version=$("$bin/postgres" --version 2>/dev/null | grep -oE '[0-9]+' | head -n 1 || true)
    [[ -x $bin/initdb && ${version:-0} -ge 14 ]] && best=$bin
  fi
  [[ -n $best ]] || return 1
  printf '%s' "$best"
}

# free_ports N: N loopback ports that could be bound just now. Below 32768: the kernel lends the ones above to clients,
# and a client's TIME_WAIT makes a server's start fail.
free_ports() {
  python3 - "$1" <<'PY'
import random, socket, sys
held = []
for port in random.sample(range(20000, 32000), 4000):
    if len(held) == int(sys.argv[1]):
        break
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
        held.append(s)
    except OSError:
        s.close()
print(*(s.getsockname()[1] for s in held))
PY
}

STARTING=()
servers_begin() {
  if (($# > 0)); then
    mkdir -p -- "$1"
    chmod 711 -- "$1"
    SERVERS=$(cd -- "$1" && pwd -P)
    ((${#SERVERS} <= 80)) || fail "the path of $SERVERS is too long for a socket in it: choose one of at most 80 bytes"
    as_server test -x "$SERVERS" || fail "user postgres cannot enter $SERVERS: choose another directory"
  else
    SERVERS=$(private_directory)
    on_exit servers_end
  fi
  mkdir -p "$SERVERS/run" "$SERVERS/ctl" "$SERVERS/state"
  chmod 700 "$SERVERS/run" "$SERVERS/ctl" "$SERVERS/state"
}

# Ends everything recorded and removes the directory. No server stops in good order: that takes seconds, and the
# data goes with the directory.
servers_end() {
  local file pid ending=()
  [[ -n ${SERVERS:-} && -d $SERVERS/run ]] || return 0
  # A start that is under way is left to record itself first, or it would be missed.
  : >"$SERVERS/run/closing"
  ((${#STARTING[@]} == 0)) || wait "${STARTING[@]}" 2>/dev/null
  for file in "$SERVERS"/*/data/postmaster.pid; do
    read -r pid 2>/dev/null <"$file" || continue
    [[ $(readlink "/proc/$pid/cwd") == "${file%/*}" ]] || continue
    file=${file%/data/*}
    record_process "$SERVERS/run/postgres-${file##*/}.pid" "$pid"
  done
  # First what uses the servers: a hub gives back what is in flight.
  for file in "$SERVERS"/run/hub-*.pid; do
    [[ -e $file ]] || continue
    end_process "$file" TERM & ending+=($!)
  done
  ((${#ending[@]} == 0)) || wait "${ending[@]}"
  ending=()
  for file in "$SERVERS"/run/*.pid; do
    [[ -e $file ]] || continue
    case ${file##*/} in
      broker.pid) end_process "$file" KILL ;;
      broker-script.pid) if process_runs "$file" && read -r pid _ <"$file"; then kill -KILL -- "-$pid" 2>/dev/null; fi ;;
      epmd.pid) ;;
      postgres-*) end_process "$file" QUIT 20 & ending+=($!) ;;
      *) end_process "$file" TERM & ending+=($!) ;;
    esac
  done
  ((${#ending[@]} == 0)) || wait "${ending[@]}"
  end_process "$SERVERS/run/epmd.pid" KILL
  rm -rf -- "$SERVERS"
}

# ------------------------------------------------------------------------------------------------ PostgreSQL

postgres_up() {
  local name=$1 dir=$SERVERS/$1 bin port setting try
  shift
  bin=$(postgres_bin) || fail "PostgreSQL 14 or later is not installed: run Scripts/setup"
  mkdir -p "$dir" # a disk of its own may be mounted there
  (umask 077 && random_word >"$dir/password")
  if ((EUID == 0)); then chown -R postgres: "$dir"; fi
  chmod 700 "$dir"
  as_server mkdir "$dir/socket"
  as_server "$bin/initdb" -D "$dir/data" -U admin --pwfile="$dir/password" -E UTF8 --locale=C.UTF-8 --no-sync \
    --auth-local=trust --auth-host=scram-sha-256 >"$SERVERS/$name.initdb" 2>&1 ||
    { [[ -e $SERVERS/run/closing ]] || cat "$SERVERS/$name.initdb" >&2; return 1; }
  rm -f "$SERVERS/$name.initdb"
  {
    printf "listen_addresses = '127.0.0.1'\nunix_socket_directories = '%s'\nunix_socket_permissions = 0700\n" "$dir/socket"
    printf "shared_buffers = 128MB\nmax_wal_size = 2GB\nmax_connections = 300\nlog_line_prefix = '%%m [%%p] '\n"
    for setting in "$@"; do printf '%s\n' "$setting"; done
  } | as_server tee -a "$dir/data/postgresql.conf" >/dev/null
  for try in 1 2 3; do
    port=$(free_ports 1)
    printf '%s' "$port" | as_server tee "$dir/port" >/dev/null
    postgres_start "$name" && break
    ((try < 3)) || { tail -n 20 "$dir/log" >&2; fail "PostgreSQL did not start: see above"; }
  done
  server_script "$name"
}

postgres_start() {
  local name=$1 dir=$SERVERS/$1 bin pid
  bin=$(postgres_bin)
  ! process_runs "$SERVERS/run/postgres-$name.pid" || return 0
  as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -o "-p $(cat "$dir/port")" -w -t 60 start \
    </dev/null >/dev/null 2>&1 || return 1
  read -r pid <"$dir/data/postmaster.pid"
  record_process "$SERVERS/run/postgres-$name.pid" "$pid"
}

# A crash: the postmaster and all that it started get SIGKILL at once, as if the machine had stopped.
postgres_kill() {
  local file=$SERVERS/run/postgres-$1.pid pid child i
  process_runs "$file" || return 0
  read -r pid _ <"$file"
  local children=()
  mapfile -t children < <(ps -o pid= --ppid "$pid" | tr -d ' ')
  kill -KILL "$pid" "${children[@]}" 2>/dev/null || true
  for child in "$pid" "${children[@]}"; do
    for ((i = 0; i < 250; i++)); do process_mark "$child" >/dev/null || break; sleep 0.02; done
  done
  rm -f "$file"
  # Where nobody reaps orphans (a container without an init) the dead postmaster still has its number, and the next
  # one would take these for a living server's.
  rm -f "$SERVERS/$1/data/postmaster.pid" "$SERVERS/$1/socket/".s.*.lock
}

# postgres_standby PRIMARY: a streaming standby PRIMARY-standby, on the primary's port of 127.0.0.2, so that a URL may name both.
postgres_standby() {
  local primary=$1 name=$1-standby dir=$SERVERS/$1-standby
  mkdir "$dir"
  cp -- "$SERVERS/$primary/port" "$dir/port"
  (umask 077 && postgres_password "$primary" >"$dir/password")
  if ((EUID == 0)); then chown -R postgres: "$dir"; fi
  chmod 700 "$dir"
  as_server mkdir "$dir/socket"
  as_server "$(postgres_bin)/pg_basebackup" -d "$(postgres_url "$primary")" -D "$dir/data" -c fast -X stream -R --no-sync
  printf "listen_addresses = '127.0.0.2'\nunix_socket_directories = '%s'\n" "$dir/socket" |
    as_server tee -a "$dir/data/postgresql.conf" >/dev/null
  postgres_start "$name" || { tail -n 20 "$dir/log" >&2; return 1; }
  server_script "$name"
}

postgres_remove() {
  [[ $1 == *-standby ]] || usage_error "$1 is no standby"
  end_process "$SERVERS/run/postgres-$1.pid" QUIT 20
  rm -rf -- "${SERVERS:?}/$1" "$SERVERS/ctl/$1"
}

postgres_password() { as_server cat "$SERVERS/$1/password"; }
postgres_url() {
  printf 'postgresql://admin:%s@127.0.0.1:%s/%s' "$(postgres_password "$1")" "$(cat "$SERVERS/$1/port")" "${2:-postgres}"
}
postgres_socket_url() {
  printf 'postgresql:///%s?host=%s/socket&port=%s&user=admin' "${2:-postgres}" "$SERVERS/$1" "$(cat "$SERVERS/$1/port")"
}

# ------------------------------------------------------------------------------------------------ RabbitMQ

broker_up() {
  local dir=$SERVERS/broker ports try
  [[ -x $RABBITMQ_BIN/rabbitmq-server ]] || fail "RabbitMQ is not installed: run Scripts/setup"
  mkdir -p "$dir"/{home,mnesia,log}
  chmod -R go= "$dir"
  (umask 077 && random_word >"$dir/home/.erlang.cookie" && random_word >"$dir/password")
  chmod 400 "$dir/home/.erlang.cookie"
  printf '[].\n' >"$dir/enabled_plugins"
  for try in 1 2 3; do
    ports=$(free_ports 3)
    # shellcheck disable=SC2086
    broker_configure $ports
    broker_start && break
    ((try < 3)) || { cat "$dir"/log/* >&2; fail "RabbitMQ did not start: see above"; }
  done
  server_script broker
}

# broker_configure AMQP DIST EPMD: everything on loopback.
broker_configure() {
  local dir=$SERVERS/broker
  printf '%s' "$1" >"$dir/port"
  cat >"$dir/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$1
default_user = hub
default_pass = $(cat "$dir/password")
log.console = false
log.file = rabbit.log
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
END
  cat >"$dir/env" <<END
export HOME=$dir/home LC_ALL=C.UTF-8
export RABBITMQ_NODENAME=hub-$1@localhost RABBITMQ_DIST_PORT=$2 ERL_EPMD_PORT=$3 ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE=$dir/advanced.config
export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins
export RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/rabbit.pid
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none +S 2:2"
export RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
END
}

broker_start() (
  local dir=$SERVERS/broker run=$SERVERS/run pid i
  ! process_runs "$run/broker.pid" || return 0
  # shellcheck source=/dev/null
  . "$dir/env"
  # Erlang's name server would outlive the node: it is started here, so that its pid is known.
  if ! process_runs "$run/epmd.pid"; then
    setsid epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
    record_process "$run/epmd.pid" $!
    disown $!
  fi
  rm -f "$dir/rabbit.pid"
  setsid "$RABBITMQ_BIN/rabbitmq-server" </dev/null >"$dir/log/out" 2>"$dir/log/err" &
  pid=$!
  record_process "$run/broker.pid" "$pid"
  record_process "$run/broker-script.pid" "$pid"
  for ((i = 0; i < 600; i++)); do
    [[ ! -e $run/closing ]] || return 1
    if [[ -s $dir/rabbit.pid && $(<"$dir/rabbit.pid") != "$pid" ]]; then
      pid=$(<"$dir/rabbit.pid")
      record_process "$run/broker.pid" "$pid"
    fi
    broker_answers && return 0
    process_runs "$run/broker.pid" || return 1
    sleep 0.1
  done
  end_process "$run/broker.pid" KILL
  return 1
)

# Whether the node speaks AMQP already: it answers the protocol's header with connection.start.
broker_answers() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$(cat "$SERVERS/broker/port")" && printf 'AMQP\0\0\11\1' >&3 &&
      LC_ALL=C IFS= read -r -n 1 -t 5 first <&3 && [[ -n $first ]]
  ) 2>/dev/null
}

# broker_url PORT: the node behind that port (a forwarder's); without one, its own.
# shellcheck disable=SC2120
broker_url() {
  printf 'amqp://hub:%s@127.0.0.1:%s' "$(cat "$SERVERS/broker/password")" "${1:-$(cat "$SERVERS/broker/port")}"
}

# rabbitmqctl of the private node.
broker_ctl() (
  # shellcheck source=/dev/null
  . "$SERVERS/broker/env"
  exec "$RABBITMQ_BIN/rabbitmqctl" "$@"
)

# ------------------------------------------------------------------------------------------------ both

server_ctl() {
  local name=$1 file
  file=$SERVERS/run/postgres-$name.pid
  if [[ $name == broker ]]; then file=$SERVERS/run/broker.pid; fi
  case ${2:-} in
    start) if [[ $name == broker ]]; then broker_start; else postgres_start "$name"; fi ;;
    stop) if [[ $name == broker ]]; then end_process "$file" TERM 30; else end_process "$file" INT 30; fi ;;
    restart) server_ctl "$name" stop && server_ctl "$name" start ;;
    kill) if [[ $name == broker ]]; then end_process "$file" KILL; else postgres_kill "$name"; fi ;;
    standby) postgres_standby "$name" ;;
    remove) postgres_remove "$name" ;;
    *) usage_error "start, stop, restart, kill, standby or remove, not '${2:-}'" ;;
  esac
}

# server_script NAME: SERVERS/ctl/NAME, which does server_ctl from outside (a test, a person).
server_script() {
  printf '#!/bin/sh\nexec %q ctl %q %q "$@"\n' "$ROOT/Scripts/servers" "$SERVERS" "$1" >"$SERVERS/ctl/$1"
  chmod 700 "$SERVERS/ctl/$1"
}

# starting COMMAND...: runs it beside the others; `started` waits for all of them. Signals do not reach it half-way:
# servers_end waits for it instead.
starting() {
  (trap '' INT TERM HUP && "$@") &
  STARTING+=($!)
}
started() {
  local job broken=0
  for job in "${STARTING[@]}"; do wait "$job" || broken=1; done
  STARTING=()
  ((broken == 0)) || fail "a private server did not start"
}

# servers_up N: a broker and N clusters (pg1 …) at once; writes SERVERS/env.
servers_up() {
  local count=$1 i
  for ((i = 1; i <= count; i++)); do starting postgres_up "pg$i"; done
  starting broker_up
  started
  {
    # shellcheck disable=SC2119
    printf 'export HUB_TEST_BROKER_URL=%q\nexport HUB_TEST_BROKER_DIR=%q\nexport HUB_TEST_BROKER_CTL=%q\n' \
      "$(broker_url)" "$SERVERS/broker" "$SERVERS/ctl/broker"
    for ((i = 1; i <= count; i++)); do
      printf 'export HUB_TEST_POSTGRES_%d=%q\nexport HUB_TEST_POSTGRES_%d_CTL=%q\n' \
        "$i" "$(postgres_url "pg$i")" "$i" "$SERVERS/ctl/pg$i"
    done
    printf 'export HUB_STATE_DIR=%q\n' "$SERVERS/state"
  } >"$SERVERS/env"
  chmod 600 "$SERVERS/env"
}
