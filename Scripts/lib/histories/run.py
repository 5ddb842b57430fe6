"""A run: rounds of histories, each history delivered three times and checked each time."""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import check
import expect
from journal import Application, Crew
from program import STORM_SECONDS, events, orders
from tables import BRANCHES, OFFICES, TABLES, seed

CONNECTIONS = 3
CALLED = {"kill": "hubs killed", "stop": "hubs stopped", "pause": "exchanges paused", "cut": "lines cut",
          "crash": "databases crashed", ("crash", "broker"): "brokers crashed", "restart": "brokers restarted"}


class Run:
    def __init__(self, company, seed_number):
        self.company, self.seed = company, seed_number
        self.blocks, self.programs = 0, {}
        self.writes, self.kinds, self.how, self.events = Counter(), Counter(), Counter(), Counter()
        self.refused = self.discarded = self.exact = self.increments = self.same = self.waited = 0
        self.conflicts = Counter()

    # ------------------------------------------------------------------------------------------------ a round

    def round(self, number, histories):
        chance = random.Random(f"{self.seed} round {number}")
        began, failures = time.monotonic(), []
        _, found, _ = self.deliver(histories, lambda blocks: self.storm(chance, blocks), "amid failures", False)
        failures += found
        took = [f"{time.monotonic() - began:.1f} s amid failures"]
        rows = []
        for way in orders(chance):
            began = time.monotonic()
            blocks, found, evidence = self.deliver(histories, lambda blocks: self.alone(blocks, way), text(way), True)
            failures += found
            fine, found = self.check_expected(evidence, text(way))
            failures += found
            rows.append((blocks, fine, text(way)))
            took.append(f"{time.monotonic() - began:.1f} s back as {text(way)}")
        failures += self.check_same(rows)
        return failures, took

    def deliver(self, histories, edit, how, apart):
        """One delivery of the histories: their rows, their edits, quiet, checked."""
        blocks = {self.blocks + i: history for i, history in enumerate(histories)}
        self.blocks += len(blocks)
        self.programs.update({block: (history, how) for block, history in blocks.items()})
        self.seed_rows(blocks)
        applications = edit(blocks)
        discarded, waiting, conflicts = self.company.settle()
        writes = [write for application in applications for write in application.writes]
        self.evidence = evidence = check.Evidence(writes, self.copies(), conflicts, discarded, apart, blocks)
        found, accounted, sums = check.everything(evidence)
        found += check.refused(waiting)
        for application in applications:
            found += [check.Violation(block, what) for block, what in application.broken]
            self.refused += application.refused
        self.count(evidence, accounted, sums)
        return blocks, [(violation, evidence) for violation in found], evidence

    def seed_rows(self, blocks):
        """Each history's first rows are written at one office and known to all."""
        for office in OFFICES:
            first = (b for b, history in blocks.items() if OFFICES[history.number % len(OFFICES)] == office)
            self.company.sql(office, *(seed(block, name) for block in first for name in blocks[block].tables))
        self.company.sync()

    def copies(self):
        """Quiet is hub's word; bytes decide. Offices that are not equal at once get another quiet or two."""
        copies = self.company.copies()
        for _ in range(3):
            if not any(check.differences(copies)):
                break
            self.waited += 1
            time.sleep(2)
            self.company.sync()
            copies = self.company.copies()
        return copies

    def count(self, evidence, accounted, sums):
        self.writes.update(write.state for write in evidence.writes)
        self.kinds.update(write.kind for write in evidence.writes if write.state == "ok")
        self.conflicts.update(entry["type"] for entry in evidence.conflicts)
        self.how.update(accounted)
        self.discarded += len(evidence.discarded)
        self.exact += sums.exact
        self.increments += sums.increments

    # ------------------------------------------------------------------------------------------------ deliveries

    def applications(self):
        clock_zero = time.monotonic()
        return {office: [Application(office, self.company.urls[office], lambda: time.monotonic() - clock_zero)
                         for _ in range(CONNECTIONS)] for office in OFFICES}

    def storm(self, chance, blocks):
        """Everybody edits at once while hubs, the broker, lines and databases fail."""
        applications, start = self.applications(), time.monotonic() + 0.2
        crews = []
        for office in OFFICES:
            for i, application in enumerate(applications[office]):
                work = [(block, step) for block, history in blocks.items() if block % CONNECTIONS == i
                        for step in history.steps if step.office == office]
                crews.append(Crew(application, work, start))
        for crew in crews:
            crew.start()
        self.befall(events(chance, STORM_SECONDS), start)
        for crew in crews:
            crew.join()
            if crew.error:
                raise Broken(f"an application at {crew.application.office} could not go on: {crew.error!r}")
        return self.closed(applications)

    def befall(self, timeline, start):
        """Two of a kind may overlap at one office: the first begins it, the last ends it."""
        down, paused, away = Counter(), Counter(), Counter()
        state = {"kill": (down, 1), "stop": (down, 1), "start": (down, -1), "pause": (paused, 1),
                 "resume": (paused, -1), "cut": (away, 1), "back": (away, -1)}
        for at, action, name in timeline:
            time.sleep(max(0, start + at - time.monotonic()))
            if action in state:
                counter, step = state[action]
                counter[name] += step
                if counter[name] != (1 if step > 0 else 0):
                    continue
            self.company.control(action, name)
            if action not in ("start", "resume", "back"):
                self.events[CALLED.get((action, name), CALLED.get(action))] += 1

    def alone(self, blocks, way):
        """Every office edits alone, each history in one order of time; then they come back. Those that come first have
        no line to the broker meanwhile, the others no hub: a line that is away for long is tried ever more rarely."""
        applications = self.applications()
        for branch in BRANCHES:
            self.company.control("cut" if branch in way[0] else "kill", branch)
        with ThreadPoolExecutor(CONNECTIONS) as lanes:
            for lane in [lanes.submit(self.lane, blocks, i, applications) for i in range(CONNECTIONS)]:
                lane.result()
        for group in way:
            for branch in group:
                self.company.control("back" if branch in way[0] else "start", branch)
            self.company.sync(group)
        return self.closed(applications)

    @staticmethod
    def lane(blocks, number, applications):
        """One step after the other, of some of the histories."""
        mine = [(step.at, block, i) for block, history in blocks.items() if block % CONNECTIONS == number
                for i, step in enumerate(history.steps)]
        for _, block, i in sorted(mine):
            step = blocks[block].steps[i]
            applications[step.office][number].perform(block, step, may_linger=False)

    @staticmethod
    def closed(applications):
        flat = [application for several in applications.values() for application in several]
        for application in flat:
            if application.connection:
                application.connection.close()
        return flat

    # ------------------------------------------------------------------------------------------------ orders

    def check_expected(self, evidence, way):
        fine, found = {}, []
        for row, stands, what in expect.check(evidence):
            fine[row] = marks(evidence, row)
            if not stands:
                found.append((check.Violation(row[1], what), evidence))
        return fine, found

    def check_same(self, rows):
        """The rows that no order may decide are the same in both, sums of counters too."""
        (first, fine, way), (second, other, other_way) = rows
        shift, found = min(second) - min(first), []
        for (name, block, k), shown in fine.items():
            again = other.get((name, block + shift, k), "left out")
            self.same += 1
            if again != shown:
                what = f"{name} {k} is {shown} when they come back as {way}, and {again} as {other_way}"
                found.append((check.Violation(block, what), None))
        return found


def marks(evidence, row):
    """What histories write of a row."""
    shown, table = evidence.rows.get(row), TABLES[row[0]]
    return shown and {column: shown[column] for column in table.names if column in (*table.marks, table.counter)}


def text(way):
    return " then ".join("+".join(group) for group in way)
