"""Runs seeded histories of concurrent edits in rounds, each history three times: amid failures, and twice with every
office alone while it edits, the offices coming back in two different orders.    main.py SERVERS COUNT SEED ROUND TAMPER
URL of head, north, south, east. What it asks of Scripts/histories goes to stdout, its report to descriptor 3."""

import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from os.path import dirname, realpath

sys.path.insert(0, dirname(dirname(realpath(__file__))))

import check
import expect
from company import Broken, Company
from journal import Application, Crew
from program import STORM_SECONDS, History, events, orders
from tables import BRANCHES, OFFICES, TABLES, seed
from tamper import TAMPERINGS

CONNECTIONS = 3
report = os.fdopen(3, "w", buffering=1)


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
        storm = self.deliver(histories, lambda blocks: self.storm(chance, blocks), "amid failures", False)
        failures += storm[1]
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
        for block, history in blocks.items():
            self.programs[block] = (history, how)
        for office in OFFICES:
            first = (b for b, history in blocks.items() if OFFICES[history.number % len(OFFICES)] == office)
            self.company.sql(office, *(seed(block, name) for block in first for name in blocks[block].tables))
        self.company.sync()
        applications = edit(blocks)
        discarded, waiting, conflicts = self.company.settle()
        evidence = check.Evidence(
            [write for application in applications for write in application.writes], self.copies(), conflicts, discarded,
            apart, blocks)
        found, accounted, sums = check.everything(evidence)
        found += check.refused(waiting)
        for application in applications:
            found += [check.Violation(block, what) for block, what in application.broken]
            self.refused += application.refused
        self.count(evidence, accounted, sums)
        self.evidence = evidence
        return blocks, [(violation, evidence) for violation in found], evidence

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

    def applications(self, count):
        clock_zero = time.monotonic()
        return {office: [Application(office, self.company.urls[office], lambda: time.monotonic() - clock_zero)
                         for _ in range(count)] for office in OFFICES}

    def storm(self, chance, blocks):
        """Everybody edits at once while hubs, the broker, lines and databases fail."""
        applications = self.applications(CONNECTIONS)
        start = time.monotonic() + 0.2
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
        down, paused, away = Counter(), Counter(), Counter()
        state = {"kill": (down, 1), "stop": (down, 1), "start": (down, -1), "pause": (paused, 1),
                 "resume": (paused, -1), "cut": (away, 1), "back": (away, -1)}
        for at, action, name in timeline:
            time.sleep(max(0, start + at - time.monotonic()))
            if action in state:
                counter, step = state[action]
                counter[name] += step
                # Two of a kind may overlap at one office: the first begins it, the last ends it.
                if counter[name] != (1 if step > 0 else 0):
                    continue
            self.company.control(action, name)
            if action not in ("start", "resume", "back"):
                self.events[action] += 1

    def alone(self, blocks, way):
        """Every office edits alone, each history in one order of time; then they come back. Those that come first have no
        line to the broker meanwhile, the others no hub: a line that is away for long is tried ever more rarely."""
        applications = self.applications(CONNECTIONS)
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

    # ------------------------------------------------------------------------------------------------ reporting

    def explain(self, violation, evidence):
        """The history, what its applications did, and what is there."""
        if violation.block not in self.programs:
            return
        history, how = self.programs[violation.block]
        say(f"\n{history}\n  ran {how}, seed {self.seed}, ids {violation.block * 10} to {violation.block * 10 + 9}")
        if evidence is None:
            return
        say("  what its applications did:")
        for write in sorted(evidence.writes, key=lambda w: w.began):
            if write.block == violation.block:
                say(f"    {write}")
        say("  what stands:")
        for name in history.tables:
            for office in OFFICES:
                lines = [line for line in evidence.copies[office][name] if in_block(name, line, violation.block)]
                say(f"    {office:6} {name}: {lines}")
        say("  what hub says:")
        for source in (evidence.logged, evidence.discards):
            for row, entries in source.items():
                for entry in entries if row[1] == violation.block else ():
                    say(f"    {entry}")


def marks(evidence, row):
    """What histories write of a row."""
    shown, table = evidence.rows.get(row), TABLES[row[0]]
    return shown and {column: shown[column] for column in table.names if column in (*table.marks, table.counter)}


def in_block(name, line, block):
    table = TABLES[name]
    return table.place(dict(zip(table.names, line.split("\t"))))[0] == block


def text(way):
    return " then ".join("+".join(group) for group in way)


def say(line):
    report.write(line + "\n")


def fail_with(run, failures):
    shown = set()
    for violation, evidence in failures:
        if violation.block not in shown and len(shown) < 3:
            shown.add(violation.block)
            for same, _ in failures:
                if same.block == violation.block:
                    say(f"  VIOLATION {same}")
            run.explain(violation, evidence)
    say(f"\n  {len(failures)} violations in {len({v.block for v, _ in failures})} histories; seed {run.seed}")


def summary(run, histories, seconds):
    def listed(counter):
        return ", ".join(f"{n} {what}" for what, n in counter.most_common())

    say("")
    for title, content in (
        ("histories", f"{histories}, each delivered 3 times, {seconds:.0f} s"),
        ("writes", f"{listed(run.writes)}; {run.refused} transactions refused by a constraint"),
        ("of these", listed(run.kinds)),
        ("events", listed(run.events)),
        ("conflicts", listed(run.conflicts) + f"; {run.discarded} rows with a unique value that was taken"),
        ("accounted", listed(run.how)),
        ("counters", f"{run.exact} exact, with {run.increments} increments"),
        ("any order", f"{run.same} rows the same in both orders, and as worked out from the rules"),
        ("equal", "every table byte for byte in every office, after every delivery"
         + (f"; {run.waited} times not at once when hub sync was done" if run.waited else "")),
    ):
        say(f"  {title:10} {content}")


def tampered(run):
    """The checker's own test: each tampering must be noticed, by the check that it is meant for."""
    missed = 0
    for tampering in TAMPERINGS:
        noticed = tampering.run(run.company, run.evidence)
        say(f"  {'noticed' if noticed else 'NOT NOTICED'}: {tampering.title}" + (f" ({noticed})" if noticed else ""))
        missed += not noticed
    return missed


def main():
    servers, count, seed_number, size, tamper = sys.argv[1], *map(int, sys.argv[2:6])
    run = Run(Company(servers, dict(zip(OFFICES, sys.argv[6:]))), seed_number)
    began, done = time.monotonic(), 0
    rounds = (count + size - 1) // size
    for number in range(rounds):
        histories = [History(seed_number, i) for i in range(done, min(count, done + size))]
        before = Counter(run.writes)
        failures, took = run.round(number, histories)
        for office in run.company.ended_hubs():
            failures.append((check.Violation(None, f"hub run at {office} ended by itself"), None))
        done += len(histories)
        say(f"  round {number + 1} of {rounds}: {done} histories, {sum((run.writes - before).values())} writes; {', '.join(took)}")
        if failures:
            fail_with(run, failures)
            return 1
    summary(run, count, time.monotonic() - began)
    return 1 if tamper and tampered(run) else 0


try:
    status = main()
except Broken as broken:
    say(f"  {broken}; seed {sys.argv[3]}")
    status = 1
sys.exit(status)
