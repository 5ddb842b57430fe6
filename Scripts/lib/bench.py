"""The measurements of Scripts/bench, which starts the servers and says in a file where they are."""

import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import pq

place = json.load(open(sys.argv[1]))
quick = "--quick" in sys.argv
wanted = [a for a in sys.argv[2:] if not a.startswith("-")] or ["capture", "drain", "latency", "memory", "contention", "sizing"]
ROUNDS = 1 if quick else 5
SECONDS = 1 if quick else 4
BULK = 20_000 if quick else 200_000
SAMPLES = 20 if quick else 200
MILLION = 100_000 if quick else 1_000_000
HOT = 10_000
HAMMER = 5 if quick else 30

COLUMNS = "date, region, product, qty, cost, tax, total"
ROW = "current_date, 'north', 'P-' || n % 1000, 1 + n % 9, 1.50, 0.30, 1.80"
TABLE = """CREATE TABLE {} (id bigserial PRIMARY KEY, date date NOT NULL, region text NOT NULL, product text NOT NULL,
  qty integer NOT NULL, cost numeric(10,2) NOT NULL, tax numeric(10,2) NOT NULL, total numeric(12,2) NOT NULL)"""

results = {"quick": quick, "cores": os.cpu_count(), "machine": platform.platform(), "measures": {}}
daemons = {}


def environment(office):
    return dict(os.environ, HUB_DATABASE_URL=place[office], HUB_BROKER_URL=place["broker"],
                HUB_STATE_DIR=os.path.join(place["servers"], "state", office))


def hub(office, *arguments):
    done = subprocess.run([place["hub"], *arguments], env=environment(office), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"hub {arguments[0]} at {office} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def start(office):
    log = open(os.path.join(place["servers"], office + ".log"), "a")
    daemons[office] = subprocess.Popen([place["hub"], "run"], env=environment(office), stdout=log, stderr=log)


def stop(office):
    daemon = daemons.pop(office)
    daemon.terminate()
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def peak_mb(office):
    with open(f"/proc/{daemons[office].pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def insert(connection, table, rows):
    connection.run(f"INSERT INTO {table} ({COLUMNS}) SELECT {ROW} FROM generate_series(1, {rows}) n")


def await_rows(connection, table, last, rows, seconds=600):
    """Until the last key is there, and then all that were written."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if connection.run(f"SELECT 1 FROM {table} WHERE id = {last}"):
            if int(connection.value(f"SELECT count(*) FROM {table}")) == rows:
                return
        time.sleep(0.02)
    sys.exit(f"{table}: the rows did not arrive within {seconds} s")


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "all": values}


def say(measure, value):
    print(f"  {measure:<58} {value}", flush=True)


def keep(name, **facts):
    results["measures"][name] = facts


# ------------------------------------------------------------------------------------------------ capture


def pgbench(statement, synchronous_commit):
    """Transactions a second of one statement by two clients. Commits that wait for the disk are what applications see;
    without the wait the disk hides nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        done = subprocess.run(
            [place["pgbench"], "-n", "-c", "2", "-j", "1", "-M", "prepared", "-T", str(SECONDS), "-f", script.name, place["head"]],
            env=dict(os.environ, PGOPTIONS=f"-c synchronous_commit={synchronous_commit}"), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("pgbench: " + done.stderr.strip())
    return float(next(line for line in done.stdout.splitlines() if line.startswith("tps")).split()[2])


def bulk(connection, statement, rows):
    began = time.monotonic()
    connection.run(statement)
    return rows / (time.monotonic() - began)


def capture():
    head = pq.Connection(place["head"])
    for table in ("untracked", "tracked"):
        head.run(TABLE.format(table))
    hub("head", "track", "tracked")
    one = f"INSERT INTO {{}} ({COLUMNS}) VALUES (current_date, 'north', 'P-1', 1, 1.50, 0.30, 1.80)"
    change = "\\set id random(1, 10000)\nUPDATE {} SET qty = qty + 1 WHERE id = (SELECT min(id) FROM {} WHERE id >= :id)"
    many = f"INSERT INTO {{}} ({COLUMNS}) SELECT {ROW} FROM generate_series(1, {BULK}) n"
    many_changed = f"UPDATE {{}} SET qty = qty + 1 WHERE id IN (SELECT id FROM {{}} ORDER BY id DESC LIMIT {BULK})"
    for table in ("untracked", "tracked"):
        insert(head, table, 10_000)
    ways = {
        "insert, one row": lambda t: pgbench(one.format(t), "on"),
        "update, one row": lambda t: pgbench(change.format(t, t), "on"),
        "insert, one row, the disk not waited for": lambda t: pgbench(one.format(t), "off"),
        "update, one row, the disk not waited for": lambda t: pgbench(change.format(t, t), "off"),
        f"insert, {BULK} rows in one statement": lambda t: bulk(head, many.format(t), BULK),
        f"update, {BULK} rows in one statement": lambda t: bulk(head, many_changed.format(t, t), BULK),
    }
    for name, way in ways.items():
        rates = {"untracked": [], "tracked": []}
        for round in range(ROUNDS):
            head.run("CHECKPOINT")
            order = ("untracked", "tracked") if round % 2 == 0 else ("tracked", "untracked")
            for table in order:
                rates[table].append(way(table))
        ratios = [t / u for t, u in zip(rates["tracked"], rates["untracked"])]
        keep("capture: " + name, unit="rows/s", ratio=spread(ratios), **{t: spread(v) for t, v in rates.items()})
        u, t, r = statistics.median(rates["untracked"]), statistics.median(rates["tracked"]), spread(ratios)
        say("capture: " + name, f"tracked {t:,.0f} rows/s of {u:,.0f}: {r['median']:.2f} ({r['least']:.2f} to {r['most']:.2f})")
    hub("head", "untrack", "tracked")
    head.run("DROP TABLE tracked, untracked")
    head.close()


# ------------------------------------------------------------------------------------------------ the exchange


def company():
    """Head and north with a tracked table, both daemons running; publisher and subscriber with the same one."""
    head, publisher, subscriber = (pq.Connection(place[x]) for x in ("head", "publisher", "subscriber"))
    for connection in (head, publisher, subscriber):
        connection.run(TABLE.format("sales"))
    hub("head", "track", "sales")
    start("head")
    hub("north", "join", hub("head", "invite", "north"))
    start("north")
    publisher.run("CREATE PUBLICATION bench FOR TABLE sales")
    subscriber.run(f"CREATE SUBSCRIPTION bench CONNECTION '{place['publisher']}' PUBLICATION bench")
    north = pq.Connection(place["north"])
    for source, target in ((north, head), (publisher, subscriber)):
        insert(source, "sales", 1000)
        last = source.value("SELECT max(id) FROM sales")
        await_rows(target, "sales", last, 1000)
    return {"hub": (north, head), "native": (publisher, subscriber)}


def offline(way, pair, is_offline):
    if way == "hub":
        (stop if is_offline else start)("north")
    else:
        pair[1].run("ALTER SUBSCRIPTION bench " + ("DISABLE" if is_offline else "ENABLE"))


def drain(pairs):
    rates = {way: [] for way in pairs}
    for round in range(ROUNDS):
        for way, (source, target) in pairs.items():
            offline(way, pairs[way], True)
            insert(source, "sales", BULK)
            last, rows = source.run("SELECT max(id), count(*) FROM sales")[0]
            source.run("VACUUM ANALYZE sales")
            source.run("CHECKPOINT")
            began = time.monotonic()
            offline(way, pairs[way], False)
            await_rows(target, "sales", last, int(rows))
            rates[way].append(BULK / (time.monotonic() - began))
            target.run("VACUUM ANALYZE sales")
    compared("drain branch to head, after being offline", "rows/s", rates, lambda v: f"{v:,.0f}")


def visible_after(source, target):
    """Milliseconds from the commit's return to the first look that finds the row, a look every 0.3 ms."""
    seen, key, ready = [], int(source.value("SELECT nextval('sales_id_seq')")), threading.Event()

    def look():
        ready.set()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if target.run(f"SELECT 1 FROM sales WHERE id = {key}"):
                seen.append(time.monotonic())
                return
            time.sleep(0.0003)

    watcher = threading.Thread(target=look)
    watcher.start()
    ready.wait()
    source.run(f"INSERT INTO sales (id, {COLUMNS}) SELECT {key}, {ROW} FROM generate_series(1, 1) n")
    committed = time.monotonic()
    watcher.join()
    if not seen:
        sys.exit("a commit was not visible at the other end within a minute")
    return max(0.0, (seen[0] - committed) * 1000)


def latency(pairs):
    ways = {"hub": pairs["hub"], "back": pairs["hub"][::-1], "native": pairs["native"]}
    times = {way: [] for way in ways}
    for _ in range(SAMPLES):
        for way, (source, target) in ways.items():
            times[way].append(visible_after(source, target))
            time.sleep(random.uniform(0.02, 0.06))
    compared("commit to visible, branch to head", "ms", {w: times[w] for w in ("hub", "native")}, lambda v: f"{v:.1f}")
    compared("commit to visible, head to branch", "ms", {"hub": times["back"], "native": times["native"]}, lambda v: f"{v:.1f}")


def memory(pairs):
    source, target = pairs["hub"]
    for direction, (source, target) in {"branch to head": (source, target), "head to branch": (target, source)}.items():
        for office in ("head", "north"):
            stop(office)
            start(office)
        rows = int(source.value("SELECT count(*) FROM sales"))
        visible_after(source, target)
        insert(source, "sales", MILLION)
        began = time.monotonic()
        last = source.value("SELECT max(id) FROM sales")
        await_rows(target, "sales", last, rows + 1 + MILLION, 1200)
        took = time.monotonic() - began
        peaks = {office: peak_mb(office) for office in ("head", "north")}
        keep(f"memory: {MILLION} rows in one statement, {direction}", unit="MB", seconds=took, **peaks)
        say(f"memory: {MILLION:,} rows in one statement, {direction}",
            f"peak {peaks['head']:.0f} MB at head, {peaks['north']:.0f} MB at north; {MILLION / took:,.0f} rows/s")


def hammer(url, seconds, waits, failures):
    """One connection that writes random rows of `hot`, as single statements and as transactions of three, for a while."""
    connection = pq.Connection(url)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ids = sorted(random.sample(range(1, HOT + 1), random.choice((1, 1, 1, 3))))
        statements = [f"UPDATE hot SET v = v + 1 WHERE id = {id}" for id in ids]
        for statement in statements if len(ids) == 1 else ["BEGIN", *statements, "COMMIT"]:
            began = time.monotonic()
            try:
                connection.run(statement)
            except pq.Failure as failure:
                failures.append(failure.sqlstate)
                connection.run("ROLLBACK")
                break
            waits.append((time.monotonic() - began) * 1000)
    connection.close()


def contention(pairs):
    """Applications at head write the very rows that hub applies there, in batches of all of them; then without hub."""
    north, head = pairs["hub"]
    for office in (head, north):
        office.run("CREATE TABLE hot (id int PRIMARY KEY, v int NOT NULL, note text)")
    head.run(f"INSERT INTO hot SELECT n, 0 FROM generate_series(1, {HOT}) n")
    hub("head", "track", "hot", "--merge", "columns")
    await_rows(north, "hot", HOT, HOT)
    facts = {}
    for way in ("with hub", "hub stopped"):
        if way == "hub stopped":
            for office in ("head", "north"):
                stop(office)
        waits, failures, rounds = [], [], 0
        threads = [threading.Thread(target=hammer, args=(place["head"], HAMMER, waits, failures)) for _ in range(32)]
        end = time.monotonic() + HAMMER
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            rounds += 1
            north.run(f"UPDATE hot SET note = '{way} {rounds}'")
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        waits.sort()
        arrived = 0
        if way == "with hub":
            hub("north", "sync", "--timeout", "120s")
            arrived = int(head.value(f"SELECT count(*) FROM hot WHERE note = '{way} {rounds}'"))
        facts[way] = {"statements": len(waits), "median": statistics.median(waits), "longest": waits[-1],
                      "p99_9": waits[int(len(waits) * 0.999)], "failures": failures, "batches": rounds, "arrived": arrived}
        say(f"32 connections on {HOT:,} rows that hub applies, {way}" if arrived else f"the same, {way}",
            f"{len(waits) / HAMMER:,.0f} statements/s, longest {waits[-1]:.0f} ms (99.9 %: {facts[way]['p99_9']:.0f} ms), "
            f"{len(failures)} failed" + (f"; {rounds} batches of {HOT:,} rows, all arrived" if arrived == HOT else ""))
    keep("contention", unit="ms", **facts)


# ------------------------------------------------------------------------------------------------ sizing


def ticks(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as list:
        return [int(child) for child in list.read().split()]


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def seconds_of(pids):
    total = 0
    for pid in pids:
        try:
            total += ticks(pid)
        except FileNotFoundError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def octets():
    """What passed through each office's two connections to the broker: (to it, from it)."""
    time.sleep(6)  # the broker counts every 5 s
    command = '. "$0"; exec "$1"/rabbitmqctl -q list_connections --formatter json client_properties recv_oct send_oct'
    done = subprocess.run(["bash", "-c", command, place["broker_env"], place["rabbitmq"]], capture_output=True, text=True, check=True)
    sums = {}
    for one in json.loads(done.stdout):
        name = next(p[2] for p in one["client_properties"] if p[0] == "connection_name")
        office = name.removeprefix("hub ").split()[0]
        up, down = sums.get(office, (0, 0))
        sums[office] = (up + one["recv_oct"], down + one["send_oct"])
    return sums


def sizing(pairs):
    """What a branch costs: idle, by a row of its own transaction, by a row among many."""
    _, head = pairs["hub"]
    branches = ["north"]
    for count in (1, 2) if quick else (1, 4, 16):
        while len(branches) < count:
            name = f"b{len(branches)}"
            pq.Connection(place["north"]).run(f"CREATE DATABASE {name}")
            place[name] = place["north"].rsplit("/north", 1)[0] + "/" + name + place["north"].rsplit("/north", 1)[1]
            hub(name, "join", hub("head", "invite", name))
            start(name)
            branches.append(name)
        hub("head", "sync", "--timeout", "120s")
        time.sleep(10 if quick else 30)

        def passed(what, seconds=0):
            postmaster = int(head.value("SELECT pg_backend_pid()"))
            with open(f"/proc/{postmaster}/stat") as stat:
                postmaster = int(stat.read().rsplit(")", 1)[1].split()[1])
            servers = [postmaster, *children(postmaster)]
            before, cpu = octets(), (seconds_of([daemons["head"].pid]), seconds_of(servers), seconds_of([broker]))
            began = time.monotonic()
            what()
            spent = (seconds_of([daemons["head"].pid]), seconds_of(servers), seconds_of([broker]))
            took, after = time.monotonic() - began, octets()
            up = statistics.mean(after[b][0] - before[b][0] for b in branches)
            down = statistics.mean(after[b][1] - before[b][1] for b in branches)
            return up, down, took, [b - a for a, b in zip(cpu, spent)]

        def arrived():
            hub("head", "sync", "--timeout", "300s")

        def singly():
            for n in range(ONES):
                insert(head, "sales", 1)
                time.sleep(0.05)
            arrived()

        def many():
            insert(head, "sales", BULK // 10)
            arrived()

        broker = int(open(place["broker_pid"]).read().split()[0])
        ONES = 50 if quick else 400
        idle = passed(lambda: time.sleep(15 if quick else 60))
        span = idle[2] + 6
        one, bulk_ = passed(singly), passed(many)
        # What silence costs in that time is not the rows'.
        rest = lambda way, index: max(0, way[index] - idle[index] * (way[2] + 6) / span)
        facts = {
            "idle_up": idle[0] / span, "idle_down": idle[1] / span,
            "idle_cpu": [x / idle[2] for x in idle[3]],
            "row_down": rest(one, 1) / ONES, "row_up": rest(one, 0) / ONES,
            "row_cpu": [x / ONES for x in one[3]],
            "bulk_down": rest(bulk_, 1) / (BULK // 10),
            "broker_mb": resident_mb(broker), "head_mb": resident_mb(daemons["head"].pid),
        }
        keep(f"sizing: {count} branches", unit="", **facts)
        say(f"sizing: {count} branches, silent",
            f"{facts['idle_up']:.0f} B/s up, {facts['idle_down']:.0f} B/s down a branch; "
            + "CPU " + ", ".join(f"{x * 100:.2f} %" for x in facts["idle_cpu"]) + " (hub at head, its server, broker)")
        say(f"sizing: {count} branches, a row a transaction",
            f"{facts['row_down']:.0f} B down, {facts['row_up']:.0f} B up a branch; "
            + "CPU " + ", ".join(f"{x * 1000:.2f} ms" for x in facts["row_cpu"]))
        say(f"sizing: {count} branches, {BULK // 10:,} rows in one", f"{facts['bulk_down']:.1f} B a row down a branch")
        say(f"sizing: {count} branches, memory", f"broker {facts['broker_mb']:.0f} MB, hub at head {facts['head_mb']:.0f} MB")


def compared(name, unit, values, text):
    facts = {way: spread(v) for way, v in values.items()}
    if unit == "ms":
        for way, v in values.items():
            facts[way]["p99"] = sorted(v)[min(len(v) - 1, int(len(v) * 0.99))]
    keep(name, unit=unit, **facts)
    parts = []
    for way, label in (("hub", "hub"), ("native", "native logical")):
        f = facts[way]
        rest = f"p99 {text(f['p99'])}" if unit == "ms" else f"{text(f['least'])} to {text(f['most'])}"
        parts.append(f"{label} {text(f['median'])} {unit} ({rest})")
    say(name, ", ".join(parts))


def main():
    head = pq.Connection(place["head"])
    results["postgresql"] = head.value("SHOW server_version")
    print(f"\n{results['cores']} cores, PostgreSQL {results['postgresql']}, {ROUNDS} rounds in turn, median (range)", flush=True)
    hub("head", "init", "--broker", place["broker"])
    if "capture" in wanted:
        capture()
    if set(wanted) - {"capture"}:
        pairs = company()
        for measure in (drain, latency, memory, contention, sizing):
            if measure.__name__ in wanted:
                measure(pairs)
    results["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(place["results"], "w") as file:
        json.dump(results, file, indent=1)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    main()
except pq.Failure as failure:
    sys.exit(f"PostgreSQL: {failure}")
finally:
    for name in list(daemons):
        stop(name)
