"""The places where something can fail: a hub, a database and two lines an office, and the broker. Everything is done
from outside, by signals, files and the servers' own programs; what was done is counted."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter

import pq

# As Deploy/systemd/hub@.service has it.
RESTART_SECONDS = 2


class Broken(Exception):
    """The run cannot go on."""


def process_mark(pid):
    """What tells a process from a later one with its number, as Scripts/lib/common.sh has it."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2].split()[19]


class Hub:
    """The daemon of one office; one that ends by itself is started again, as a service manager does."""

    def __init__(self, places, office):
        self.places, self.office = places, office
        self.lock = threading.RLock()
        self.process, self.wanted, self.crash_at = None, False, None
        self.ended_at, self.held = 0.0, False

    def hold(self):
        """Ends it; whoever starts it meanwhile starts it at the release."""
        with self.lock:
            ran = self.wanted
            self.end()
            self.held, self.wanted = True, ran

    def release(self):
        with self.lock:
            self.held = False
            if self.wanted:
                self.start()

    def start(self, crash_at=None):
        with self.lock:
            if self.process and self.process.poll() is None:
                return
            self.wanted, self.crash_at, self.ended_at = True, crash_at, 0.0
            if self.held:
                return
            environment = dict(self.places.environment(self.office))
            if crash_at:
                environment["HUB_CRASH_AT"] = crash_at
            # What the daemon and its database say to each other goes through a line, too.
            direct, port = environment["HUB_DATABASE_URL"], self.places.port(f"line-db-{self.office}")
            before, _, database = direct.rpartition("/")
            environment["HUB_DATABASE_URL"] = f"{before.rpartition(':')[0]}:{port}/{database}"
            with open(f"{self.places.servers}/{self.office}.log", "ab") as log:
                self.process = subprocess.Popen([self.places.hub_program, "run"], stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, env=environment, start_new_session=True)
            with open(f"{self.places.servers}/run/hub-{self.office}.pid", "w") as file:
                file.write(f"{self.process.pid} {process_mark(self.process.pid)}\n")

    def end(self, number=signal.SIGKILL):
        """False: it had ended by itself."""
        with self.lock:
            self.wanted = False
            ran = self.process is not None and self.process.poll() is None
            if ran:
                self.process.send_signal(number)
                try:
                    self.process.wait(30)
                except subprocess.TimeoutExpired:
                    self.places.problems.append(f"hub run at {self.office} did not end within 30 s of SIGTERM")
                    self.process.kill()
                    self.process.wait()
            return ran

    def signal(self, number):
        with self.lock:
            if self.process and self.process.poll() is None:
                self.process.send_signal(number)
                return True
            return False

    def look(self):
        """Starts it again when it has ended by itself."""
        with self.lock:
            if not self.wanted or self.held or self.process is None or self.process.poll() is None:
                return
            if not self.ended_at:
                self.ended_at = time.monotonic()
                self._judge(self.process.returncode)
            elif time.monotonic() > self.ended_at + (0 if self.crash_at else RESTART_SECONDS):
                self.start()

    def _judge(self, code):
        if code == -signal.SIGKILL and self.crash_at:
            self.places.points[self.crash_at.split(":")[0]] += 1
            self.places.count("hubs ended at a crash point")
        elif code < 0 or code == 2:
            self.places.problems.append(f"hub run at {self.office} ended by itself with {code}")
        else:
            self.places.count(f"hubs ended by themselves with exit {code} and were started again")


class Places:
    def __init__(self, servers, scripts, offices, urls):
        self.servers, self.scripts, self.offices, self.urls = servers, scripts, offices, urls
        self.done, self.points, self.problems = Counter(), Counter(), []
        self._counting = threading.Lock()
        self.databases = {office: threading.Lock() for office in offices}
        self.broker, self.membership = threading.Lock(), threading.Lock()
        self.backups = {}
        self._environments = {}
        environment = self.environment(offices[0])
        self.hub_program = shutil.which("hub", path=environment["PATH"])
        self.hubs = {office: Hub(self, office) for office in offices}
        self.has_disks = {name: os.path.ismount(f"{servers}/{name}") for name in (*offices, "broker/mnesia")}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._supervise, daemon=True)
        self._watch.start()

    def _supervise(self):
        while not self._stopping.wait(0.1):
            for hub in self.hubs.values():
                hub.look()

    def count(self, what):
        with self._counting:
            self.done[what] += 1

    def close(self):
        self._stopping.set()
        self._watch.join()
        for hub in self.hubs.values():
            hub.end(signal.SIGTERM)

    # ------------------------------------------------------------------------------------------------ commands

    def environment(self, office):
        if office not in self._environments:
            shell = f". {self.servers}/run/{office}.env && env -0"
            text = subprocess.run(["/bin/sh", "-c", shell], check=True, stdout=subprocess.PIPE).stdout.decode()
            found = dict(line.split("=", 1) for line in text.split("\0") if line)
            self._environments[office] = {**found, "SWIFT_BACKTRACE": "enable=no"}
        return self._environments[office]

    def port(self, line):
        with open(f"{self.servers}/run/{line}.port") as file:
            return file.read().strip()

    def hub(self, office, *arguments, seconds=120):
        """Exit code, output and error of a command."""
        try:
            process = subprocess.run([self.hub_program, *arguments], env=self.environment(office), timeout=seconds,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            return 3, "", f"hub {arguments[0]} did not end within {seconds} s"
        return process.returncode, process.stdout.decode(), process.stderr.decode().strip()

    def listed(self, office, what):
        code, output, error = self.hub(office, what, "list", "--json")
        if code:
            raise Broken(f"hub {what} list at {office}: {error}")
        return json.loads(output)

    def sql(self, office, *statements):
        connection = pq.Connection(self.urls[office])
        try:
            return [connection.run(statement) for statement in statements][-1]
        finally:
            connection.close()

    def _control(self, name, action, environment=None):
        command = [f"{self.servers}/ctl/{name}", action]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(environment or {})})
        output, _ = process.communicate()
        if process.returncode:
            raise Broken(f"{name} {action}: {output.decode().strip()[-400:]}")
        return process.pid

    # ------------------------------------------------------------------------------------------------ lines

    def line(self, name, *words):
        """Tells a forwarder what to be."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(f"{self.servers}/run/line-{name}.state.control")
            link.sendall(" ".join(map(str, words)).encode() + b"\n")
            if link.recv(64) != b"ok\n":
                raise Broken(f"line {name} {words} failed")

    # ------------------------------------------------------------------------------------------------ databases

    def _runs(self, office):
        try:
            with open(f"{self.servers}/run/postgres-{office}.pid") as file:
                pid, mark = file.read().split()
            return process_mark(pid) == mark
        except (OSError, ValueError):
            return False

    def start_database(self, office, environment=None):
        """Whatever state it was left in. Returns the pid of what starts it."""
        if not self._runs(office):
            # Where nobody reaps orphans a dead server's number looks alive to the next one.
            for path in (f"{self.servers}/{office}/data/postmaster.pid",
                         f"{self.servers}/{office}/socket/.s.PGSQL.{self.port_of(office)}.lock"):
                if os.path.exists(path):
                    os.unlink(path)
        return self._control(office, "start", environment)

    def port_of(self, office):
        with open(f"{self.servers}/{office}/port") as file:
            return file.read().strip()

    def stop_database(self, office, how="stop"):
        self._control(office, how)

    def answers(self, office):
        try:
            return self.sql(office, "SELECT 1") == [["1"]]
        except pq.Failure:
            return False

    def back_up(self, office):
        """The files of the stopped cluster."""
        began = time.monotonic()
        self.stop_database(office)
        copy = f"{self.servers}/backup-{office}"
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", f"{self.servers}/{office}/data", copy], check=True)
        self.start_database(office)
        self.backups[office] = began

    def put_back(self, office):
        """The cluster is stopped."""
        data = f"{self.servers}/{office}/data"
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", f"{self.servers}/backup-{office}", data], check=True)
        self.start_database(office)

    # ------------------------------------------------------------------------------------------------ disks

    def fill(self, name):
        """Takes what is left of a disk."""
        with open(f"{self.servers}/{name}/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass

    def free(self, name):
        path = f"{self.servers}/{name}/filler"
        if os.path.exists(path):
            os.unlink(path)

    # ------------------------------------------------------------------------------------------------ the broker

    def stop_broker(self, how):
        self._control("broker", how)

    def start_broker(self):
        self._control("broker", "start")

    def wipe_broker(self):
        """The node is stopped."""
        home = f"{self.servers}/broker/mnesia"
        for name in os.listdir(home):
            path = os.path.join(home, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def broker_ctl(self, *arguments):
        process = subprocess.run([f"{self.scripts}/servers", "rabbitmqctl", self.servers, *arguments],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return process.returncode == 0
