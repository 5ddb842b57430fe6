"""What befalls the company: seeded, each fault at its time, many at once. A fault begins, lasts, and mends itself;
`heal` afterwards mends what is left."""

import glob
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from places import Broken
from tables import OFFICES


# Each step of Sources/HubEngine/Runtime/CrashPoint.swift; hub refuses a name that is none.
CRASH_POINTS = {
    "": ("feed-read", "batch-recorded", "batch-noted", "part-sent", "batch-sent", "confirmed", "received", "staged",
         "rows-applied", "rows-committed", "rows-flushed", "acknowledged", "delivery-acknowledged",
         "acknowledgement-saved", "pull-sent"),
    "head": ("window-read", "window-sent", "hello-saved", "welcome-sent", "conflicts-sent"),
    "branch": ("window-applied", "hello-sent", "welcome-saved", "conflicts-saved"),
}
# How often, and how long at most, in seconds.
KINDS = {
    "kill": (26, 2), "crash": (22, 8), "freeze": (8, 6),
    "cut": (6, 4), "half_open": (5, 8), "delay": (4, 8), "throttle": (4, 8), "corrupt": (4, 5),
    "broker_restart": (1.5, 1), "broker_kill": (1.5, 1), "broker_wipe": (1.5, 1), "queue_purge": (2, 0),
    "queue_delete": (2, 0), "broker_full": (1, 5),
    "database_restart": (2, 1), "database_kill": (3, 1), "back_up": (2, 0), "put_back": (2.5, 0),
    "database_full": (1.5, 4), "clock": (1.5, 10),
}
NAMES = {
    "kill": "hubs killed", "freeze": "hubs stopped and continued", "cut": "lines cut", "half_open": "lines half open",
    "delay": "lines slow to answer", "throttle": "lines throttled", "corrupt": "lines that changed bits",
    "broker_restart": "brokers restarted", "broker_kill": "brokers killed", "broker_wipe": "brokers wiped",
    "queue_purge": "queues purged", "queue_delete": "queues deleted", "broker_full": "broker's disk full",
    "database_restart": "databases restarted", "database_kill": "databases crashed", "back_up": "backups made",
    "put_back": "databases put back from a backup", "database_full": "database's disk full",
    "clock": "servers with a wrong clock",
}


class Fault:
    def __init__(self, at, kind, chance, offices):
        self.at, self.kind = at, kind
        self.office = chance.choice(offices)
        self.seconds = KINDS[kind][1] * chance.random() ** 2
        self.choice = chance.random()
        points = CRASH_POINTS[""] + CRASH_POINTS["head" if self.office == "head" else "branch"]
        self.point = f"{chance.choice(points)}:{chance.choice((1, 1, 2, 5))}"

    def __str__(self):
        what = self.point if self.kind == "crash" else f"{self.seconds:.1f} s"
        return f"{self.at:7.2f} s  {self.kind} {self.office} {what}"


def plan(seed, seconds, offices, disks):
    """Every kind once, in some order, then as often as it should be. A database is put back from a backup, so one is
    made before."""
    chance, found = random.Random(f"{seed} faults"), []
    # Of faults that are much alike one is enough in a short run.
    alike = ("back_up", "put_back", "broker_restart", "broker_kill", "queue_purge", "database_restart")
    first = [kind for kind in KINDS if kind not in alike]
    chance.shuffle(first)
    first = ["back_up", *first[:len(first) // 2], "put_back", *first[len(first) // 2:]]
    at, step = 0.5, min(1.2, seconds / (len(first) + 8))
    while at < seconds:
        kind = first.pop(0) if first else chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        # A guest that was put back to before it joined is no office.
        fault = Fault(at, kind, chance, OFFICES if kind in ("back_up", "put_back") else offices)
        if kind == "database_full":
            fault.office = disks[0] if disks else fault.office
        found.append(fault)
        at += chance.expovariate(1 / step)
    # The first database that goes back is a branch's: head's does not while a member comes or goes.
    branch = chance.choice(OFFICES[1:])
    for fault in [fault for fault in found if fault.kind in ("back_up", "put_back")][:2]:
        fault.office = branch
    return found


class Faults:
    def __init__(self, places, soup, log):
        self.places, self.soup, self.log = places, soup, log
        self.skipped, self.errors = [], []
        self.broker_back = 0.0

    def run(self, faults, start):
        with ThreadPoolExecutor(24) as pool:
            for fault in faults:
                time.sleep(max(0, start + fault.at - time.monotonic()))
                pool.submit(self._befall, fault)

    def _befall(self, fault):
        try:
            self.log(f"begins  {fault}")
            done = getattr(self, "_" + fault.kind)(fault)
            if done is not False and fault.kind in NAMES:
                self.places.count(NAMES[fault.kind])
            self.log(f"{'skipped' if done is False else 'is over'} {fault}")
        except Exception as error:
            self.errors.append(f"{fault}: {error!r}")
            self.log(f"FAILED  {fault}: {error!r}")

    def _is_away(self, office):
        return not self.soup.is_member(office)

    # ------------------------------------------------------------------------------------------------ hubs

    def _kill(self, fault):
        hub = self.places.hubs[fault.office]
        if self._is_away(fault.office) or not hub.end():
            return False
        time.sleep(fault.seconds)
        if not self._is_away(fault.office):
            hub.start()

    def _crash(self, fault):
        hub = self.places.hubs[fault.office]
        if self._is_away(fault.office):
            return False
        hub.end()
        hub.start(fault.point)
        self.places.count("hubs sent to a crash point")
        until = time.monotonic() + 6
        while hub.crash_at and time.monotonic() < until:
            time.sleep(0.1)
        with hub.lock:
            if hub.crash_at == fault.point and hub.process.poll() is None:
                hub.end()
                hub.start()
                self.places.count("crash points not reached in time")

    def _freeze(self, fault):
        hub = self.places.hubs[fault.office]
        if not hub.signal(signal.SIGSTOP):
            return False
        time.sleep(fault.seconds)
        hub.signal(signal.SIGCONT)

    # ------------------------------------------------------------------------------------------------ lines

    def _line(self, fault, *mode, back="up", may_be_database=True):
        """To the broker, or between a hub and its database."""
        name = f"db-{fault.office}" if may_be_database and fault.choice < 0.3 else fault.office
        self.places.line(name, *mode)
        time.sleep(fault.seconds)
        self.places.line(name, back)

    def _cut(self, fault):
        self._line(fault, "cut")

    def _half_open(self, fault):
        self._line(fault, "hole", back="reset" if fault.choice * 10 % 1 < 0.5 else "up")

    def _delay(self, fault):
        self._line(fault, "delay", int(20 + 400 * (fault.choice * 10 % 1)))

    def _throttle(self, fault):
        self._line(fault, "throttle", int(2000 + 40000 * (fault.choice * 10 % 1)))

    def _corrupt(self, fault):
        # PostgreSQL's protocol has no checksum of its own: what a bit does there nobody can tell.
        self._line(fault, "corrupt", 3, back="reset", may_be_database=False)

    # ------------------------------------------------------------------------------------------------ the broker

    def _broker_restart(self, fault, how="stop", wipes=False):
        with self.places.broker:
            # Some traffic in between, or all that fails is the broker.
            time.sleep(max(0, self.broker_back + 4 - time.monotonic()))
            self.places.stop_broker(how)
            time.sleep(fault.seconds)
            if wipes:
                self.places.wipe_broker()
            self.places.start_broker()
            self.broker_back = time.monotonic()

    def _broker_kill(self, fault):
        self._broker_restart(fault, "kill")

    def _broker_wipe(self, fault):
        self._broker_restart(fault, "kill" if fault.choice < 0.5 else "stop", wipes=True)

    def _queue(self, fault, action):
        name = "hub.head" if fault.office == "head" else f"hub.office.{fault.office}"
        with self.places.broker:
            return self.places.broker_ctl(action, name)

    def _queue_purge(self, fault):
        return self._queue(fault, "purge_queue")

    def _queue_delete(self, fault):
        return self._queue(fault, "delete_queue")

    def _broker_full(self, fault):
        if not self.places.has_disks["broker/mnesia"]:
            return self._skip("the broker's disk full: no file system could be mounted")
        with self.places.broker:
            self.places.fill("broker/mnesia")
            time.sleep(2 + fault.seconds)
            self.places.free("broker/mnesia")
            self.places.start_broker()
            self.broker_back = time.monotonic()

    def _skip(self, what):
        if what not in self.skipped:
            self.skipped.append(what)
        return False

    # ------------------------------------------------------------------------------------------------ databases

    def _database_restart(self, fault, how="stop"):
        with self.places.databases[fault.office]:
            self.places.stop_database(fault.office, how)
            time.sleep(fault.seconds)
            self.places.start_database(fault.office)

    def _database_kill(self, fault):
        self._database_restart(fault, "kill")

    def _back_up(self, fault):
        with self._members_stay(fault.office) as stay:
            if not stay:
                return False
            with self.places.databases[fault.office]:
                self.places.back_up(fault.office)

    @contextmanager
    def _members_stay(self, office):
        """A head that was put back knows the members of its backup: who came since would have to join again."""
        stay = office != "head" or self.places.membership.acquire(timeout=10)
        try:
            yield stay
        finally:
            if stay and office == "head":
                self.places.membership.release()

    def _put_back(self, fault):
        """Every other database stays up: what it has then must not be lost."""
        until = time.monotonic() + 30
        while not self.places.backups and time.monotonic() < until:
            time.sleep(0.2)
        office = fault.office if fault.office in self.places.backups else next(iter(self.places.backups), None)
        if office is None:
            return False
        with self._members_stay(office) as stay:
            if not stay:
                return False
            with ExitStack() as stack:
                for name in sorted(self.places.databases):
                    stack.enter_context(self.places.databases[name])
                if office not in self.places.backups:
                    return False
                self._put_back_now(office, fault)
        fault.office = office
        self.places.count("of these head's" if office == "head" else "of these a branch's")

    def _put_back_now(self, office, fault):
        hub = self.places.hubs[office]
        is_held = office == "head" or fault.choice < 0.5
        if is_held:
            hub.hold()
        try:
            if office == "head":
                self.soup.keep_log()
            self.places.stop_database(office, "kill" if fault.choice * 10 % 1 < 0.5 else "stop")
            try:
                self.soup.restored(office, self.places.backups[office])
            finally:
                self.places.put_back(office)
            time.sleep(fault.choice)
        finally:
            if is_held:
                hub.release()

    def _database_full(self, fault):
        if not self.places.has_disks[fault.office]:
            return self._skip("a database's disk full: no file system could be mounted")
        with self.places.databases[fault.office]:
            self.places.fill(fault.office)
            time.sleep(1.5 + fault.seconds)
            self.places.free(fault.office)
            if not self.places.answers(fault.office):
                self.places.stop_database(fault.office, "kill")
                self.places.start_database(fault.office)

    def _clock(self, fault):
        libraries = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not libraries:
            return self._skip("wrong clocks: libfaketime is not installed")
        with self.places.databases[fault.office]:
            ahead = int((fault.choice - 0.4) * 1000)
            self.soup.clocks_differ = True
            self.places.stop_database(fault.office)
            starter = self.places.start_database(fault.office, {
                "LD_PRELOAD": libraries[0], "FAKETIME": f"{ahead:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
            shown = self.places.sql(fault.office, "SELECT extract(epoch FROM clock_timestamp())")[0][0]
            time.sleep(2 + fault.seconds)
            self.places.stop_database(fault.office)
            self.places.start_database(fault.office)
            # libfaketime leaves these behind when a process becomes another program.
            for path in glob.glob(f"/dev/shm/*faketime_*_{starter}"):
                os.unlink(path)
        if abs(float(shown) - time.time() - ahead) > 30:
            raise Broken(f"the clock of {fault.office} was not wrong")

    # ------------------------------------------------------------------------------------------------ afterwards

    def heal(self):
        """Everything as it should be, once and for all."""
        places = self.places
        for office in places.offices:
            places.hubs[office].signal(signal.SIGCONT)
            for line in (office, f"db-{office}"):
                places.line(line, "up")
            for name in (office, "broker/mnesia"):
                places.free(name)
            if not places.answers(office):
                places.stop_database(office, "kill")
                places.start_database(office)
        places.start_broker()
        for office in places.offices:
            hub = places.hubs[office]
            if self.soup.is_member(office):
                if hub.crash_at:
                    hub.end()
                hub.start()
