"""The company from outside: its offices' databases, what hub tells a user, and the events that Scripts/histories does
for this driver: a line `kill north` on stdout, a line with the outcome back on stdin."""

import json
import os
import subprocess
import sys
import time

import pq
from tables import BRANCHES, OFFICES, TABLES

QUIET_SECONDS = 90
# A row in quarantine is tried again every 30 s, whatever happens.
QUARANTINE_SECONDS = 75


class Broken(Exception):
    """The run cannot go on."""


class Company:
    def __init__(self, servers, urls):
        self.servers, self.urls = servers, urls
        self.conflicts_seen = 0
        self.connections = {}

    # ------------------------------------------------------------------------------------------------ doing

    def control(self, action, name):
        """Asks Scripts/histories; returns when it is done."""
        if action in ("pause", "resume"):
            return self.hub(name, action)
        print(action, name, flush=True)
        if sys.stdin.readline().strip() != "done":
            raise Broken(f"{action} {name} failed")

    def start(self, office, *command):
        return subprocess.Popen([f"{self.servers}/at", office, *command], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def hub(self, office, *arguments, codes=(0,)):
        process = self.start(office, "hub", *arguments)
        output, errors = process.communicate()
        if process.returncode not in codes:
            what = f"hub {' '.join(arguments)} at {office} ended with {process.returncode}"
            raise Broken(f"{what}: {errors.decode().strip()}")
        return output.decode()

    def ended_hubs(self):
        """Offices whose daemon runs no more."""
        return [office for office in OFFICES if not self._runs(office)]

    def _runs(self, office):
        try:
            with open(f"{self.servers}/run/hub-{office}.pid") as file:
                os.kill(int(file.read().split()[0]), 0)
            return True
        except OSError:
            return False

    def sql(self, office, *statements):
        connection = pq.Connection(self.urls[office])
        try:
            for statement in statements:
                connection.run(statement)
        finally:
            connection.close()

    # ------------------------------------------------------------------------------------------------ asking

    def listed(self, office, what):
        return json.loads(self.hub(office, what, "list", "--json"))

    def new_conflicts(self):
        """Head's log since the last call."""
        entries = [entry for entry in self.listed("head", "conflicts") if entry["id"] > self.conflicts_seen]
        self.conflicts_seen = max((entry["id"] for entry in entries), default=self.conflicts_seen)
        return entries

    def copies(self, offices=OFFICES, orders=None):
        """By office and table, the lines that COPY prints in the key's order. `orders`: the keys, by table."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
        for name, order in (orders or {table.name: table.order for table in TABLES.values()}).items():
            command += ["-c", f"SELECT '== {name}'", "-c", f"COPY (SELECT * FROM {name} ORDER BY {order}) TO STDOUT"]
        processes = {office: self.start(office, *command) for office in offices}
        copies = {}
        for office, process in processes.items():
            output, errors = process.communicate()
            if process.returncode:
                raise Broken(f"psql at {office}: {errors.decode()}")
            tables = output.decode().split("== ")[1:]
            copies[office] = {text.split("\n", 1)[0]: text.split("\n")[1:-1] for text in tables}
        return copies

    # ------------------------------------------------------------------------------------------------ waiting

    def sync(self, *groups):
        """Until these are quiet; of all, the branches first, then head, which passes on what came from them. Head waits
        for branches that were there a minute ago, so it is not asked while some are away."""
        for group in groups or (BRANCHES, ("head",)):
            processes = [(o, self.start(o, "hub", "sync", "--timeout", f"{QUIET_SECONDS}s")) for o in group]
            for office, process in processes:
                _, errors = process.communicate()
                if process.returncode:
                    raise Broken(f"hub sync at {office} ended with {process.returncode}: {errors.decode().strip()}")

    def settle(self):
        """Quiet, and nothing in quarantine: of two rows with one unique value head's second is discarded, all else must
        go in by itself. Returns what was discarded, what stays in quarantine, the conflicts."""
        self.sync()
        discarded, until = [], time.monotonic() + QUARANTINE_SECONDS
        while True:
            waiting = {office: self.listed(office, "quarantine") for office in OFFICES}
            clashes = [entry for entry in waiting["head"] if entry["sqlstate"] == "23505"]
            discarded += clashes
            for entry in clashes:
                # It may have gone in meanwhile.
                self.hub("head", "quarantine", "discard", str(entry["id"]), codes=(0, 1))
            if clashes:
                self.sync()
                continue
            if not any(waiting.values()) or time.monotonic() > until:
                return discarded, waiting, self.new_conflicts()
            time.sleep(0.5)
