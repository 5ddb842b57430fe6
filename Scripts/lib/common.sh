# shellcheck shell=bash disable=SC2034,SC2119,SC2120
# What every script here shares: words for the terminal, tasks for the way out, processes ended by the pid that
# was recorded when they started. Source it first, after `set -euo pipefail`.

shopt -s inherit_errexit
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
readonly ROOT
SELF=${0##*/}

# A setting meant for somebody's own server must not reach the private ones.
unset "${!PG@}"

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' GREEN='' RED='' PLAIN=''
fi
readonly BOLD DIM GREEN RED PLAIN

say() { printf '%s\n' "$*"; }
head_line() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
warn() { printf '%s: %s\n' "$SELF" "$*" >&2; }
fail() { warn "$*"; exit 1; }
usage_error() { warn "$*"; exit 2; }

# Milliseconds of a clock that only this machine reads.
now_ms() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "$((t / 1000))"; }

# on_exit COMMAND...: runs at the end, however it comes, the last one registered first.
EXIT_TASKS=()
forget_exit_tasks() { EXIT_TASKS=(); }
on_exit() {
  local task
  printf -v task '%q ' "$@"
  EXIT_TASKS+=("$task")
}

run_exit_tasks() {
  EXIT_STATUS=$?
  local i
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  for ((i = ${#EXIT_TASKS[@]} - 1; i >= 0; i--)); do eval "${EXIT_TASKS[i]}"; done
  exit "$EXIT_STATUS"
}
# Only the shell that sourced this file cleans up: a subshell inherits neither trap nor duty.
trap run_exit_tasks EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# process_mark PID: what tells this process from a later one with the same number (its start time); nothing when it is gone.
process_mark() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  [[ $1 != Z && $1 != X ]] || return 1
  printf '%s' "${20}"
}

# record_process FILE PID: writes "PID MARK" for end_process.
record_process() { printf '%s %s\n' "$2" "$(process_mark "$2" || true)" >"$1"; }

# process_runs FILE: whether the recorded process is still that process.
process_runs() {
  local pid mark
  [[ -s $1 ]] && read -r pid mark <"$1" && [[ -n $mark && $(process_mark "$pid" || true) == "$mark" ]]
}

# end_process FILE [SIGNAL [SECONDS]]: ends the recorded process and waits; KILL when it takes longer.
end_process() {
  local file=$1 signal=${2:-TERM} seconds=${3:-10} pid i
  [[ -e $file ]] || return 0
  read -r pid _ <"$file" || true
  if process_runs "$file"; then
    kill -s "$signal" "$pid" 2>/dev/null || true
    for ((i = 0; i < seconds * 50; i++)); do process_runs "$file" || break; sleep 0.02; done
    if process_runs "$file"; then
      kill -s KILL "$pid" 2>/dev/null || true
      for ((i = 0; i < 250; i++)); do process_runs "$file" || break; sleep 0.02; done
    fi
  fi
  rm -f -- "$file"
}

# attended COMMAND...: runs it in a process group of its own, so that a signal to this script ends all of it at once
# instead of waiting for it to be done. What it leaves running is counted in LEFT_BEHIND and ended.
attended() {
  local pid status=0
  setsid "$@" </dev/null &
  pid=$!
  ATTENDED=$pid
  wait "$pid" || status=$?
  ATTENDED=''
  LEFT_BEHIND=$(ps -eo pgid=,stat= | awk -v group="$pid" '$1 == group && $2 !~ /^Z/' | wc -l)
  if ((LEFT_BEHIND > 0)); then kill -KILL -- "-$pid" 2>/dev/null || true; fi
  return "$status"
}
ATTENDED=''
end_attended() {
  [[ -n $ATTENDED ]] || return 0
  kill -TERM -- "-$ATTENDED" 2>/dev/null || return 0
  local i
  for ((i = 0; i < 250; i++)); do kill -0 -- "-$ATTENDED" 2>/dev/null || return 0; sleep 0.02; done
  kill -KILL -- "-$ATTENDED" 2>/dev/null || true
}
on_exit end_attended

# private_directory: a new directory under a short path (a socket's path has 107 bytes) that the servers' user may enter.
private_directory() {
  local base=${TMPDIR:-/tmp} made
  ((${#base} <= 50)) || base=/tmp
  made=$(mktemp -d "$base/hub.XXXXXX")
  chmod 711 "$made"
  if ! as_server test -x "$made"; then
    rmdir "$made"
    made=$(mktemp -d /tmp/hub.XXXXXX)
    chmod 711 "$made"
  fi
  printf '%s' "$made"
}

# as_server COMMAND...: as the user whom PostgreSQL runs as (it refuses root), out of reach of the terminal's Ctrl-C.
as_server() {
  if ((EUID == 0)); then (cd / && exec setsid -w runuser -u postgres -- "$@"); else setsid -w "$@"; fi
}

random_word() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }
