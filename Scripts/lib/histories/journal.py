"""Applications that know nothing of hub: they run the programs' transactions over libpq and keep their own record."""

import threading
import time

import pq
from tables import BLOCK, TABLES

# The data that has come here may forbid a write: a key or a unique value is taken, a parent is gone or has children.
CONSTRAINT = ("23505", "23503")
# The server has no room: its own affair.
NO_ROOM = "53"
CONNECT_SECONDS = 120


class Write:
    """What one operation did to one row, and what the row showed when it did: the row was locked. `state` is ok, failed
    or unknown (the answer to COMMIT was lost); or excused: it was committed, and no other database had it when this one
    was put back."""

    def __init__(self, block, office, table, k, kind, sets, saw, amount=0):
        self.block, self.office, self.table, self.k, self.kind = block, office, table, k, kind
        self.sets, self.saw, self.amount = sets, saw, amount
        self.began = self.ended = 0.0
        self.state = "unknown"

    @property
    def row(self):
        return self.table, self.block, self.k

    @property
    def may_stand(self):
        return self.state != "failed"

    def __str__(self):
        what = " ".join(f"{c}={v}" for c, v in self.sets.items()) + (f" {self.amount:+}" if self.amount else "")
        saw = "nothing" if self.saw is None else " ".join(f"{c}={v}" for c, v in self.saw.items() if c != "id")
        return (f"{self.began:8.3f} to {self.ended:8.3f} s  {self.office:6} {self.state:7} {self.kind} "
                f"{self.table} {self.k} {what}  (saw {saw})")


class Lost(Exception):
    """The server went away; `unknown` when the answer to COMMIT is what is missing."""

    def __init__(self, unknown):
        super().__init__("the connection was lost")
        self.unknown = unknown


class Application:
    """One connection at one office."""

    def __init__(self, office, url, clock):
        self.office, self.url, self.clock = office, url, clock
        self.connection = None
        self.writes, self.refused, self.broken = [], 0, []

    def perform(self, block, step, may_linger=True):
        """One transaction; its writes are recorded with their outcome."""
        if self.connection is None:
            self._connect()
        made, began = [], self.clock()
        try:
            self._transaction(block, step, made, may_linger)
            state = "failed" if step.rolls_back else "ok"
        except pq.Failure as failure:
            state = "failed"
            self._refused(block, failure)
        except Lost as lost:
            state = "unknown" if lost.unknown and not step.rolls_back else "failed"
            self.connection.close()
            self.connection = None
        for write in made:
            write.began, write.ended, write.state = began, self.clock(), state
        self.writes += made

    def _refused(self, block, failure):
        self.refused += 1
        if failure.sqlstate not in CONSTRAINT and failure.sqlstate[:2] != NO_ROOM:
            self.broken.append((block, f"a statement failed at {self.office}: {failure.sqlstate} {failure}"))
        try:
            self.connection.run("ROLLBACK")
        except pq.Failure:
            self.connection.close()
            self.connection = None

    def _connect(self):
        until = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                self.connection = pq.Connection(self.url)
                return
            except pq.Failure:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def _run(self, sql, is_commit=False):
        try:
            return self.connection.run(sql)
        except pq.Failure as failure:
            if not failure.sqlstate or failure.sqlstate[:2] in ("57", "08"):
                raise Lost(is_commit) from None
            raise

    def _transaction(self, block, step, made, may_linger):
        self._run("BEGIN")
        for operation in step.operations:
            made += self._operate(block, operation)
        if step.lingers and may_linger:
            time.sleep(step.lingers)
        self._run("ROLLBACK" if step.rolls_back else "COMMIT", is_commit=True)

    def _look(self, table, block, k):
        rows = self._run(f"SELECT {', '.join(table.names)} FROM {table.name} WHERE {table.where(block, k)} FOR UPDATE")
        return dict(zip(table.names, rows[0])) if rows else None

    def _write(self, sql):
        """The row is locked or was not there; that it was written is not taken on trust."""
        rows = self._run(sql + " RETURNING 1")
        if len(rows) != 1:
            self.broken.append((None, f"{len(rows)} rows written at {self.office}: {sql}"))

    def _operate(self, block, op):
        table = TABLES[op.table]
        saw = self._look(table, block, op.k)
        kind = op.kind
        if kind == "put":
            kind = "insert" if saw is None else "update"
        if (saw is None) != (kind == "insert"):
            return []
        return getattr(self, "_" + kind)(table, block, op, saw)

    def _insert(self, table, block, op, saw):
        mark = op.mark(self.office)
        values = dict(zip(table.key, table.key_values(block, op.k)))
        if table.name == "pet":
            # An application looks first; what goes between look and insert, the foreign key refuses.
            parent = TABLES["owner"]
            if self._look(parent, block, op.choice % parent.keys) is None:
                return []
        values.update({column: f"'{mark}'" for column in table.marks})
        values.update(self._extras(table, block, op))
        amount = 4 ** op.number if table.counter else 0
        if table.counter:
            values[table.counter] = str(amount)
        self._write(f"INSERT INTO {table.name} ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        marks = dict.fromkeys(table.marks, mark)
        return [Write(block, self.office, table.name, op.k, "insert", marks, None, amount)]

    def _extras(self, table, block, op):
        if table.name == "pet":
            return {"owner": str(block * BLOCK + op.choice % TABLES["owner"].keys)}
        if table.name == "login":
            return {"code": f"'{block}-{op.choice}'"}
        return {}

    def _update(self, table, block, op, saw):
        mark = op.mark(self.office)
        columns = [table.marks[op.choice % len(table.marks)]] if table.by_column else table.marks
        values = {column: f"'{mark}'" for column in columns}
        if table.name == "login" and op.sign > 0:
            values.update(self._extras(table, block, op))
        sets = ", ".join(f"{column} = {value}" for column, value in values.items())
        self._write(f"UPDATE {table.name} SET {sets} WHERE {table.where(block, op.k)}")
        return [Write(block, self.office, table.name, op.k, "update", dict.fromkeys(columns, mark), saw)]

    def _add(self, table, block, op, saw):
        self._write(f"UPDATE {table.name} SET qty = qty + {op.amount} WHERE {table.where(block, op.k)}")
        return [Write(block, self.office, table.name, op.k, "add", {}, saw, op.amount)]

    def _delete(self, table, block, op, saw):
        made = []
        if table.name == "owner":
            pets = TABLES["pet"]
            children = f"WHERE owner = {block * BLOCK + op.k} RETURNING {', '.join(pets.names)}"
            for row in self._run(f"DELETE FROM pet {children}"):
                pet = dict(zip(pets.names, row))
                made.append(Write(block, self.office, "pet", pets.place(pet)[1], "delete", {}, pet))
        self._write(f"DELETE FROM {table.name} WHERE {table.where(block, op.k)}")
        return made + [Write(block, self.office, table.name, op.k, "delete", {}, saw)]

    def _move(self, table, block, op, saw):
        """The key changes: the row under the old one is gone, the one under the new one is a new row."""
        target = (op.k + 1 + op.choice % 3) % table.keys
        if self._look(table, block, target) is not None:
            return []
        mark = op.mark(self.office)
        keys = zip(table.key, table.key_values(block, target))
        self._write(f"UPDATE slot SET {', '.join(f'{c} = {v}' for c, v in keys)}, v = '{mark}' "
                    f"WHERE {table.where(block, op.k)}")
        return [Write(block, self.office, "slot", op.k, "delete", {}, saw),
                Write(block, self.office, "slot", target, "insert", {"v": mark}, None)]


class Crew(threading.Thread):
    """Runs steps at their time on one connection."""

    def __init__(self, application, work, start):
        super().__init__(daemon=True)
        self.application, self.work, self.start_at = application, sorted(work, key=lambda w: w[1].at), start
        self.error = None

    def run(self):
        try:
            for block, step in self.work:
                time.sleep(max(0, self.start_at + step.at - time.monotonic()))
                self.application.perform(block, step)
        except Exception as error:  # an application that cannot go on is a failed run, not a silent one
            self.error = error
