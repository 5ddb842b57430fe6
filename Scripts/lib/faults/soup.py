"""A run: applications write at every office while everything fails; then all is mended, and what stands is held against
what they wrote."""

import random
import threading
import time

import check
import ledger
import pq
from company import QUARANTINE_SECONDS, Company
from faults import Faults, plan
from journal import Application, Crew
from ledger import Books, Clerk, Reader
from places import Broken
from program import History
from tables import OFFICES, TABLES, seed

CONNECTIONS = 2
# The branch that comes and goes.
GUEST = "west"
SYNC_SECONDS = 300
# What a person repeats until it is done, while everything fails.
COMMAND_SECONDS = 900
HISTORIES_A_MINUTE = 24
# One history's edits end within this long after its first.
HISTORY_SECONDS = 10
ORDERS = {**{table.name: table.order for table in TABLES.values()}, **{name: "id" for name in ledger.TABLES}}


class Restore:
    """A database that went back: what is newer than `backup` was gone there at `at`, when the others had `others`."""

    def __init__(self, office, backup, at, others, tags):
        """`tags`: by office that never went back, the tags that were there at some time."""
        self.office, self.backup, self.at, self.others, self.tags = office, backup, at, others, tags

    def had(self, write):
        return write.office == self.office and write.ended >= self.backup and write.began <= self.at

    def is_elsewhere(self, write):
        """That a row is not there shows a delete only where the row had been: its insert may be on its way still."""
        if write.kind == "delete":
            return write.table == "tag" and any(
                write.key in tags and write.key not in self.others[office]["tag"]
                for office, tags in self.tags.items() if office in self.others)
        return any(shows(copies, write) for copies in self.others.values())


def shows(copies, write):
    """Whether an office's rows show a write that is no delete."""
    if write.table in ledger.TABLES:
        values = copies[write.table].get(write.key)
        return values is not None and (write.table != "price" or int(values["n"]) == write.values[0])
    row = copies[write.table].get((write.block, write.k))
    if row is None:
        return False
    if write.kind == "add":
        return has_amount(int(row[TABLES[write.table].counter]), write)
    return any(mark in check.marks(row, column) for column, mark in write.sets.items())


def has_amount(total, write):
    """Sums are made of different powers of four, each added or taken away."""
    for n in range(200):
        digit = (total + 1) % 4 - 1
        total = (total - digit) // 4
        if digit and 4 ** n == abs(write.amount):
            return True
        if not total:
            return False
    return False


class Soup:
    def __init__(self, places, seed_number, seconds, log):
        self.places, self.seed, self.seconds, self.log = places, seed_number, seconds, log
        self.company = Company(places.servers, places.urls)
        self.zero = time.monotonic()
        self.restores, self.conflicts, self.clocks_differ = [], {}, False
        self.members = set(OFFICES)
        self.head_recovers_until = 0.0
        self.stopping = threading.Event()
        self.guest_clerks, self.guest_since, self.visits = [], 0, 0
        self.faults = Faults(places, self, log)
        self.figures = {}

    def clock(self):
        return time.monotonic() - self.zero

    def is_member(self, office):
        return office in self.members

    # ------------------------------------------------------------------------------------------------ the run

    def run(self):
        """Everything from the first row to quiet; returns the evidence."""
        self._begin()
        start = time.monotonic() + 0.2
        crews, clerks = self._crews(start), self._clerks()
        self.readers = readers = self._readers()
        guest = threading.Thread(target=self._visits, daemon=True)
        for thread in (*crews, *clerks, *readers, guest):
            thread.start()
        self.faults.run(plan(self.seed, self.seconds, self.places.offices, ["east"]), start)
        self.stopping.set()
        for thread in (*crews, guest):
            thread.join()
        for clerk in clerks:
            clerk.end()
        self.log("mending")
        self.faults.heal()
        self._wait_for_quiet()
        discarded, waiting = self._settle()
        for reader in readers:
            reader.end()
        return self._evidence(crews, clerks + self.guest_clerks, readers, discarded, waiting)

    def _begin(self):
        count = max(4, int(self.seconds / 60 * HISTORIES_A_MINUTE))
        self.blocks = {number: History(self.seed, number) for number in range(count)}
        chance = random.Random(f"{self.seed} times")
        for history in self.blocks.values():
            offset = chance.uniform(0, max(0.0, self.seconds - HISTORY_SECONDS))
            for step in history.steps:
                step.at += offset
        for office in OFFICES:
            first = (b for b, history in self.blocks.items() if OFFICES[history.number % len(OFFICES)] == office)
            self.company.sql(office, *(seed(block, name) for block in first for name in self.blocks[block].tables))
        self.company.sync()

    def _crews(self, start):
        crews = []
        for office in OFFICES:
            for i in range(CONNECTIONS):
                application = Application(office, self.places.urls[office], self.clock)
                work = [(block, step) for block, history in self.blocks.items() if block % CONNECTIONS == i
                        for step in history.steps if step.office == office]
                crews.append(Crew(application, work, start))
        return crews

    def _clerks(self):
        return [Clerk(office, self.places.urls[office], self.clock, self.seed) for office in OFFICES]

    def _readers(self):
        return [Reader(office, self.places.urls[office], self.clock, self._head_recovers) for office in OFFICES]

    # ------------------------------------------------------------------------------------------------ the guest

    def _visits(self):
        """A branch joins, writes, leaves, joins again: with an empty database, or with what it had."""
        try:
            while self._join():
                self.visits += 1
                clerk = Clerk(GUEST, self.places.urls[GUEST], self.clock, f"{self.seed} {self.visits}",
                              number=1_000_000 * self.visits)
                self.guest_since = clerk.number
                self.guest_clerks.append(clerk)
                clerk.start()
                stays = self.stopping.wait(random.Random(f"{self.seed} visit {self.visits}").uniform(15, 40))
                clerk.end()
                if stays:
                    return
                self._leave()
        except Exception as error:
            self.places.problems.append(f"{GUEST}: {error!r}")

    def _join(self):
        empty = self.visits % 2 == 0
        with self.places.membership:
            self.places.backups.pop("head", None)
            self.log(f"{GUEST} joins")
            if self.visits and empty:
                self._empty()
            token = self._until_done("head", "invite", GUEST).strip()
            self._until_done(GUEST, "join", token, *(() if empty else ("--existing", "replace")))
            self.members.add(GUEST)
            self.places.hubs[GUEST].start()
            self.places.count(f"joins of {GUEST}")
            self.places.backups.pop("head", None)
        return True

    def _empty(self):
        with self.places.databases[GUEST]:
            admin = pq.Connection(self.places.urls[GUEST].replace(f"/{GUEST}?", "/postgres?"))
            for statement in (f"DROP DATABASE {GUEST} WITH (FORCE)", f"CREATE DATABASE {GUEST}"):
                admin.run(statement)
            admin.close()

    def _leave(self):
        with self.places.membership:
            self.log(f"{GUEST} leaves")
            self.members.discard(GUEST)
            self.places.hubs[GUEST].end(15)
            self._until_done(GUEST, "leave")
            self.places.backups.pop("head", None)
            self.places.count(f"departures of {GUEST}")

    def _until_done(self, office, *arguments):
        """Repeats a command that failures keep from being done, as a person would."""
        until = time.monotonic() + COMMAND_SECONDS
        while True:
            code, output, error = self.places.hub(office, *arguments)
            if code == 0:
                return output
            self.log(f"hub {arguments[0]} at {office}: exit {code}: {error}")
            if time.monotonic() > until:
                raise Broken(f"hub {arguments[0]} at {office} could not be done: {error}")
            time.sleep(1)

    # ------------------------------------------------------------------------------------------------ restores

    def restored(self, office, backup):
        """That database is stopped, all others are up. Members may come and go meanwhile."""
        others = {name: self._rows(name) for name in self.members.copy() if name != office}
        gone_back = {restore.office for restore in self.restores}
        tags = {reader.office: set(reader.tags) for reader in self.readers if reader.office not in gone_back}
        self.restores.append(Restore(office, backup - self.zero, self.clock(), others, tags))
        if office == "head":
            self.head_recovers_until = float("inf")
            threading.Thread(target=self._await_recovery, daemon=True).start()

    def _rows(self, office):
        """By table and key, rows as dicts."""
        connection, found = pq.Connection(self.places.urls[office]), {}
        for table in TABLES.values():
            rows = (dict(zip(table.names, row))
                    for row in connection.run(f"SELECT {', '.join(table.names)} FROM {table.name}"))
            found[table.name] = {table.place(row): row for row in rows}
        for name in ledger.TABLES:
            rows = connection.run(f"SELECT id, {'n' if name == 'price' else 'NULL'} FROM {name}")
            found[name] = {key: {"n": n} for key, n in rows}
        connection.close()
        return found

    def _head_recovers(self):
        return self.clock() < self.head_recovers_until

    def _await_recovery(self):
        """Until head says that everybody gave back what it lost, and a while for what was sent before."""
        is_over = "SELECT NOT recovers AND NOT EXISTS (SELECT FROM hub.peer WHERE recovery IS NOT NULL) FROM hub.office"
        time.sleep(5)
        while True:
            try:
                if self.places.sql("head", is_over) == [["t"]]:
                    break
            except pq.Failure:
                pass
            time.sleep(1)
        self.head_recovers_until = self.clock() + 10

    def keep_log(self):
        """Head's hub is ended: what its conflict log said before the database went back was said."""
        for office in self.members:
            for entry in self.places.listed(office, "conflicts"):
                self.conflicts.setdefault(repr(sorted(entry.items(), key=lambda item: item[0])), entry)

    # ------------------------------------------------------------------------------------------------ quiet

    def _wait_for_quiet(self):
        """hub's own word; every office is asked until it says so."""
        began, asked = time.monotonic(), [*(o for o in self.members if o != "head"), "head"]
        until = began + SYNC_SECONDS
        for office in asked:
            while True:
                code, _, error = self.places.hub(office, "sync", "--timeout", "60s")
                if code == 0:
                    break
                self.log(f"hub sync at {office}: exit {code}: {error}")
                if time.monotonic() > until:
                    raise Broken(f"hub sync at {office} is not done {SYNC_SECONDS} s after all was mended: {error}")
        self.figures["quiet"] = time.monotonic() - began

    def _settle(self):
        """Of two rows with one unique value head's second is discarded, all else must go in by itself."""
        discarded, until = [], time.monotonic() + QUARANTINE_SECONDS
        while True:
            waiting = {office: self.places.listed(office, "quarantine") for office in sorted(self.members)}
            clashes = [entry for entry in waiting["head"] if entry["sqlstate"] == "23505"]
            discarded += clashes
            for entry in clashes:
                self.places.hub("head", "quarantine", "discard", str(entry["id"]))
            if clashes:
                self._wait_for_quiet()
            elif not any(waiting.values()) or time.monotonic() > until:
                return discarded, waiting
            else:
                time.sleep(1)

    def _copies(self):
        """Quiet is hub's word; bytes decide. Offices that are not equal at once get another quiet or two."""
        offices = [office for office in (*OFFICES, GUEST) if office in self.members]
        for _ in range(4):
            copies = self.company.copies(offices, ORDERS)
            if not any(check.differences(copies)):
                break
            self.figures["not equal at once"] = self.figures.get("not equal at once", 0) + 1
            time.sleep(2)
            self._wait_for_quiet()
        return copies

    def _evidence(self, crews, clerks, readers, discarded, waiting):
        self.keep_log()
        broken = [f"an application at {c.application.office} could not go on: {c.error!r}" for c in crews if c.error]
        broken += [f"a clerk at {c.office} could not go on: {c.error!r}" for c in clerks if c.error]
        applications = [crew.application for crew in crews]
        for application in applications:
            if application.connection:
                application.connection.close()
        broken += [what for source in (*applications, *clerks) for _, what in source.broken]
        writes = [write for application in applications for write in application.writes]
        entries = [entry for clerk in clerks for entry in clerk.entries]
        self._excuse(writes + entries)
        self.figures.update(
            writes=writes, entries=entries, refused=sum(source.refused for source in (*applications, *clerks)))
        return Evidence(
            writes=writes, entries=entries, copies=self._copies(), conflicts=list(self.conflicts.values()),
            discarded=discarded, waiting=waiting, blocks=self.blocks, broken=broken,
            put_back=[(restore.office, restore.at) for restore in self.restores], clocks_differ=self.clocks_differ,
            readers=[(r.office, r.reads, list(r.halves)) for r in readers],
            since={GUEST: self.guest_since}, problems=list(self.places.problems))

    def _excuse(self, writes):
        """What only the restored database had is lost by nature. A write that came from there earlier may have been at
        another office, and be lost with that one's database."""
        afloat = set()
        for restore in self.restores:
            for write in writes:
                if write.state == "ok" and (restore.had(write) or write in afloat and write.began <= restore.at):
                    afloat.add(write)
                    if not restore.is_elsewhere(write):
                        write.state = "excused"


class Evidence:
    """All that the verdict is made of; tampering changes a copy of it."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def violations(self):
        found = []
        copies = {office: {name: tables[name] for name in TABLES} for office, tables in self.copies.items()}
        rows = check.Evidence(self.writes, copies, _of_histories(self.conflicts), _of_histories(self.discarded), False,
                              self.blocks, self.put_back, self.clocks_differ)
        of_rows, self.how, self.sums = check.everything(rows)
        found += [(violation.block, str(violation)) for violation in of_rows]
        waiting = {office: _of_histories(entries) for office, entries in self.waiting.items()}
        found += [(violation.block, str(violation)) for violation in check.refused(waiting)]
        for office, entries in self.waiting.items():
            found += [(None, f"{entry['table']} {entry['key']} stays in quarantine at {office}: {entry['error']}")
                      for entry in entries if entry["table"].rpartition(".")[2] not in TABLES]
        for office in self.copies.keys() - set(OFFICES):
            found += [(None, f"{name} at {office} is not as at head")
                      for name in TABLES if copies[office][name] != copies["head"][name]]
        books = Books(self.entries, self.copies, self.readers, self.since, self.conflicts)
        found += [(None, what) for what in books.check()]
        found += [(None, what) for what in self.broken + self.problems]
        self.rows, self.counted, self.gone = rows, books.counted, books.gone
        return found


def _of_histories(entries):
    return [entry for entry in entries if entry["table"].rpartition(".")[2] in TABLES]
