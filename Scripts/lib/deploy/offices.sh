# shellcheck shell=bash
# What is tried of a deployment, whatever runs it: `head_sql SQL` and `branch_sql N SQL` run a statement by psql -At in an
# office's own database, `head_hub ARGUMENT...` runs hub at head. Needs common.sh.

# until_true SECONDS WHAT COMMAND...: waits for a condition, never for time to pass.
until_true() {
  local seconds=$1 what=$2 end
  shift 2
  end=$(($(now_ms) + seconds * 1000))
  until "$@" >/dev/null 2>&1; do
    (($(now_ms) < end)) || { warn "not within $seconds s: $what"; return 1; }
    sleep 0.5
  done
}

# did SINCE TEXT: one line, with the seconds since then.
did() {
  local ms=$(($(now_ms) - $1))
  printf 'ok    %5d.%d s  %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$2"
}

# active N: head has N branches, all of them members that were heard of just now.
active() {
  [[ $(head_hub branches --json | grep -o '"state":"active"' | wc -l) == "$1" ]]
}

# The rows of a statement, in an order of their own.
rows() { sort | sha256sum; }

# equal N: of branches 1 to N. The catalogue and the stock are the same everywhere; head's sales are the branches'
# together.
equal() {
  local n table all=''
  for table in catalogue stock; do
    all=$(head_sql "SELECT * FROM $table" | rows)
    for ((n = 1; n <= $1; n++)); do
      [[ $(branch_sql "$n" "SELECT * FROM $table" | rows) == "$all" ]] || return 1
    done
  done
  all=$(for ((n = 1; n <= $1; n++)); do branch_sql "$n" "SELECT * FROM sale"; done | rows)
  [[ $(head_sql "SELECT * FROM sale" | rows) == "$all" ]]
}

# edit WORD N: writes at head and at branches 1 to N; some of it is the same row everywhere.
edit() {
  local n
  head_sql "INSERT INTO catalogue VALUES ('$1', 'made at head', 1.50);
    UPDATE catalogue SET price = price + 0.10 WHERE sku = 'tea';
    UPDATE stock SET qty = qty + 5, place = 'head $1' WHERE sku = 'tea'" >/dev/null
  for ((n = 1; n <= $2; n++)); do
    branch_sql "$n" "INSERT INTO sale (sku, qty) SELECT 'tea', g FROM generate_series(1, 20) g;
      INSERT INTO stock VALUES ('$1-$n', $n, 'branch $n');
      UPDATE stock SET place = 'branch $n $1' WHERE sku = 'mug';
      DELETE FROM stock WHERE sku LIKE 'gone-%'; INSERT INTO stock VALUES ('gone-$1-$n', 1, '')" >/dev/null
  done
}

# in_step N WHAT: everything equal at last.
in_step() {
  local began
  began=$(now_ms)
  until_true "${PATIENCE:-120}" "$2: equal databases" equal "$1"
  did "$began" "$2: head and $1 branches are equal"
}
