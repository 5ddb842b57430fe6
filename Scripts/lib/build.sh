# shellcheck shell=bash disable=SC2034
# Builds what a script runs. Needs common.sh; what the compiler says is shown only when it fails.

LOGS=$ROOT/.build-logs
# With the usual random hashing the compiler's arguments for a package with traits change their order from one plan to
# the next, and swift-protobuf is compiled again half of the time (23 s).
BUILD=(env SWIFT_DETERMINISTIC_HASHING=1 swift build --package-path "$ROOT")

# step TITLE LOG COMMAND...: runs it, its output in LOGS/LOG.log, and prints one line with the seconds.
step() {
  local title=$1 log=$LOGS/$2.log started status=0
  shift 2
  mkdir -p "$LOGS"
  if [[ -t 1 ]]; then printf '%s%s …%s' "$DIM" "$title" "$PLAIN"; fi
  started=$(now_ms)
  attended "$@" >"$log" 2>&1 || status=$?
  if [[ -t 1 ]]; then printf '\r\e[K'; fi
  STEP_SECONDS=$(seconds_since "$started")
  if ((status == 0)); then
    printf '%sok%s    %7s s  %s\n' "$GREEN" "$PLAIN" "$STEP_SECONDS" "$title"
  else
    printf '%sFAIL%s  %7s s  %s (exit %d)\n' "$RED" "$PLAIN" "$STEP_SECONDS" "$title" "$status"
  fi
  return "$status"
}

seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# build_hub: sets HUB to the release build.
build_hub() {
  step "build hub (release)" build-hub "${BUILD[@]}" -c release --product hub || {
    tail -n 40 "$LOGS/build-hub.log" >&2
    fail "the build failed: see above"
  }
  HUB=$ROOT/.build/release/hub
}
