"""Books that must balance: applications that only add, transfer and price, and what must be there in the end. They know
libpq and their own record alone.

- `sale` goes up, `tag` is nothing but a key, `move` says what a transfer did: each row exactly once;
- `account` has balances that count: each is what it began with and the moves; whoever reads all of them at any moment
  sees the same total, because a transfer is one transaction;
- `price` goes down: the last one stands."""

import random
import threading
import time

import pq
from journal import Application, Lost

ACCOUNTS, OPENING, PRICES = 8, 1000, 6
TOTAL = ACCOUNTS * OPENING

SCHEMA = f"""
CREATE TABLE sale (id text PRIMARY KEY, office text NOT NULL, amount int NOT NULL);
CREATE TABLE tag (id text PRIMARY KEY);
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE move (id text PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount int NOT NULL);
CREATE TABLE price (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO account SELECT g, {OPENING} FROM generate_series(1, {ACCOUNTS}) g;
INSERT INTO price SELECT g, 0 FROM generate_series(1, {PRICES}) g;
"""
TRACKS = {"sale": ["--direction", "up"], "tag": [], "account": ["--counter", "balance"], "move": [],
          "price": ["--direction", "down"]}
TABLES = tuple(TRACKS)
# Everybody has the same; of sales a branch has its own.
SHARED = ("tag", "account", "move", "price")


class Entry:
    """One transaction: what it made or took away."""

    def __init__(self, office, table, key, kind, values=()):
        self.office, self.table, self.key, self.kind, self.values = office, table, key, kind, values
        self.began = self.ended = 0.0
        self.state = "unknown"

    @property
    def may_stand(self):
        return self.state != "failed"

    def __str__(self):
        values = " ".join(map(str, self.values))
        return (f"{self.began:8.3f} to {self.ended:8.3f} s  {self.office:6} {self.state:7} {self.kind} {self.table} "
                f"{self.key} {values}")


class Clerk(Application):
    """Keeps the books of one office."""

    def __init__(self, office, url, clock, seed, pause=0.12, number=0):
        super().__init__(office, url, clock)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.chance, self.pause = random.Random(f"{seed} clerk {office}"), pause
        self.entries, self.number, self.error = [], number, None
        self._stopping = threading.Event()

    def start(self):
        self._thread.start()

    def _serve(self):
        try:
            while not self._stopping.wait(self.pause * self.chance.uniform(0.3, 1.7)):
                self.work()
        except Exception as error:  # an application that cannot go on is a failed run, not a silent one
            self.error = error
        finally:
            if self.connection:
                self.connection.close()
                self.connection = None

    def end(self):
        self._stopping.set()
        self._thread.join()

    def work(self):
        self.number += 1
        kinds = {"transfer": 5, "tag": 3, "untag": 1}
        kinds["price" if self.office == "head" else "sale"] = 4
        kind = self.chance.choices(list(kinds), list(kinds.values()))[0]
        entry, statements = getattr(self, "_" + kind)(f"{self.office}-{self.number}")
        if entry is not None:
            self.attempt(entry, statements)

    def attempt(self, entry, statements):
        if self.connection is None:
            self._connect()
        entry.began = self.clock()
        self.entries.append(entry)
        try:
            self._run("BEGIN")
            found = [self._run(statement) for statement in statements]
            # A tag may be gone: its database was put back, and the tag is not here again yet.
            is_done = entry.kind != "delete" or any(found)
            self._run("COMMIT" if is_done else "ROLLBACK", is_commit=is_done)
            entry.state = "ok" if is_done else "failed"
        except pq.Failure as failure:
            self._refused(None, failure)
            entry.state = "failed"
        except Lost as lost:
            entry.state = "unknown" if lost.unknown else "failed"
            self.connection.close()
            self.connection = None
        entry.ended = self.clock()

    def _transfer(self, name):
        source, target = self.chance.sample(range(1, ACCOUNTS + 1), 2)
        amount = self.chance.randint(1, 50)
        sums = {source: -amount, target: amount}
        updates = [f"UPDATE account SET balance = balance + ({sums[n]}) WHERE id = {n}" for n in sorted(sums)]
        move = f"INSERT INTO move VALUES ('{name}', {source}, {target}, {amount})"
        return Entry(self.office, "move", name, "insert", (source, target, amount)), [*updates, move]

    def _sale(self, name):
        amount = self.chance.randint(1, 99)
        insert = f"INSERT INTO sale VALUES ('{name}', '{self.office}', {amount})"
        return Entry(self.office, "sale", name, "insert", (self.office, amount)), [insert]

    def _tag(self, name):
        return Entry(self.office, "tag", name, "insert"), [f"INSERT INTO tag VALUES ('{name}')"]

    def _untag(self, name):
        """One that it made; whether it is still there is not looked at."""
        made = [e.key for e in self.entries[-300:] if e.table == "tag" and e.kind == "insert" and e.state == "ok"]
        if not made:
            return None, []
        key = self.chance.choice(made)
        return Entry(self.office, "tag", key, "delete"), [
            f"DELETE FROM tag WHERE id = '{key}' RETURNING 1"]

    def _price(self, name):
        item = self.chance.randint(1, PRICES)
        update = f"UPDATE price SET n = {self.number} WHERE id = {item}"
        return Entry(self.office, "price", str(item), "update", (self.number,)), [update]


class Reader(threading.Thread):
    """Adds up all accounts again and again. The same snapshot tells whether hub says that this office may show halves:
    `hub status` shows `catching up` and `recovering` from just these columns."""

    QUERY = """SELECT (SELECT sum(balance) FROM account), (SELECT recovers FROM hub.office) OR EXISTS (SELECT
      FROM hub.peer WHERE catch_from_number IS NOT NULL OR unsettled_until IS NOT NULL OR recovery IS NOT NULL)"""

    def __init__(self, office, url, clock, is_excused):
        super().__init__(daemon=True)
        self.office, self.url, self.clock, self.is_excused = office, url, clock, is_excused
        self.reads, self.halves, self.announced = 0, [], 0
        # Tags that were here at some time: one that is gone was deleted, and did not fail to come.
        self.tags = set()
        self._stopping = threading.Event()
        # A half that was announced is one until the total is right again.
        self._goes_on = False

    def run(self):
        connection = None
        while not self._stopping.wait(0.04):
            try:
                connection = connection or pq.Connection(self.url)
                total, is_said = connection.run(self.QUERY)[0]
                if self.reads % 20 == 0:
                    self.tags.update(key for key, in connection.run("SELECT id FROM tag"))
            except pq.Failure:
                if connection:
                    connection.close()
                connection = None
                continue
            self._saw(int(total), is_said == "t")
        if connection:
            connection.close()

    def _saw(self, total, is_said):
        self.reads += 1
        if total == TOTAL:
            self._goes_on = False
        elif is_said or self.is_excused() or self._goes_on:
            self._goes_on = True
            self.announced += 1
        else:
            self.halves.append((self.clock(), total))

    def end(self):
        self._stopping.set()
        self.join()


def rows_of(copies, office, table):
    return {line.split("\t")[0]: line.split("\t")[1:] for line in copies[office][table]}


class Books:
    """What the clerks wrote against what is there."""

    def __init__(self, entries, copies, readers, since=None, conflicts=()):
        """`since`: the number from which on an office that joined anew has its own sales."""
        # What a database that was put back does again may be decided, and is named then: (table, key, is a row).
        self.named = {(entry["table"].rpartition(".")[2], key, entry["loser"]["row"] is not None)
                      for entry in conflicts for key in entry["key"].values()}
        self.entries, self.copies, self.readers, self.since = entries, copies, readers, since or {}
        self.offices = list(copies)
        self.counted = self.gone = 0

    def check(self):
        yield from self._equal()
        yield from self._once()
        yield from self._balances()
        yield from self._prices()
        for office, reads, halves in self.readers:
            for at, total in halves[:3]:
                yield f"a reader at {office} saw half a transfer at {at:.3f} s: all accounts together were {total}"

    def _equal(self):
        for table in SHARED:
            first = self.copies["head"][table]
            for office in self.offices:
                if self.copies[office][table] != first:
                    lines = set(self.copies[office][table]).symmetric_difference(first)
                    yield f"{table} at {office} is not as at head: {len(lines)} lines, {sorted(lines)[:3]}"
        for office in self.offices[1:]:
            for line in self.copies[office]["sale"]:
                if line.split("\t")[1] != office:
                    yield f"a sale of another office came to {office}: {line!r}"
            since = self.since.get(office, 0)
            here, mine = (sorted(line for line in self.copies[place]["sale"] if self._is_of(line, office, since))
                          for place in (office, "head"))
            if here != mine:
                lines = set(here).symmetric_difference(mine)
                yield f"sales of {office} are not as at head: {len(lines)} lines, {sorted(lines)[:3]}"

    @staticmethod
    def _is_of(line, office, since):
        name, of = line.split("\t")[:2]
        return of == office and int(name.rpartition("-")[2]) > since

    def _once(self):
        """Each row that somebody made is there once, as it was made; no other is."""
        for table in ("sale", "tag", "move"):
            lines = self.copies["head"][table]
            shown = rows_of(self.copies, "head", table)
            if len(shown) != len(lines):
                yield f"a row of {table} is there twice"
            made = {e.key: e for e in self.entries if e.table == table and e.kind == "insert"}
            removed = {}
            for entry in self.entries:
                if entry.table == table and entry.kind == "delete" and entry.may_stand:
                    removed.setdefault(entry.key, []).append(entry)
            for key, entry in made.items():
                self.counted += 1
                self.gone += entry.state == "excused" and key not in shown and key not in removed
                values = [str(v) for v in entry.values]
                if key in shown and entry.state == "failed":
                    yield f"a row of a transaction that failed is there: {entry}"
                elif key in shown and shown[key] != values:
                    yield f"{table} {key} is {shown[key]}, not as it was made: {entry}"
                elif key in shown and any(e.state == "ok" for e in removed.get(key, ())):
                    if (table, key, False) not in self.named:
                        yield f"a deleted row is back: {removed[key][0]}"
                elif key not in shown and entry.state == "ok" and key not in removed:
                    yield f"a row is lost: {entry}"
            for key in shown.keys() - made.keys():
                yield f"{table} {key} is there, which nobody made"

    def _balances(self):
        sums = {str(n): OPENING for n in range(1, ACCOUNTS + 1)}
        for source, target, amount in rows_of(self.copies, "head", "move").values():
            if source in sums and target in sums:
                sums[source] -= int(amount)
                sums[target] += int(amount)
        shown = rows_of(self.copies, "head", "account")
        if shown.keys() != sums.keys():
            yield f"accounts are {sorted(shown)}"
        for key in sums.keys() & shown.keys():
            if int(shown[key][0]) != sums[key]:
                yield f"account {key} is {shown[key][0]}, its moves make {sums[key]}"

    def _prices(self):
        shown = rows_of(self.copies, "head", "price")
        for item in map(str, range(1, PRICES + 1)):
            set_ = [e for e in self.entries if e.table == "price" and e.key == item and e.may_stand]
            sure = max((e.values[0] for e in set_ if e.state == "ok"), default=0)
            stands = int(shown[item][0]) if item in shown else None
            if stands != sure and not any(e.values[0] == stands and stands > sure for e in set_):
                yield f"price {item} is {stands}, the last one written was {sure}"
