"""Runs seeded histories of concurrent edits in rounds, each history three times: amid failures, and twice with every
office alone while it edits, the offices coming back in two different orders.    main.py SERVERS COUNT SEED ROUND TAMPER
URL of head, north, south, east. What it asks of Scripts/histories goes to stdout, its report to descriptor 3."""

import sys
import time
from os.path import dirname, realpath

sys.path.insert(0, dirname(dirname(realpath(__file__))))

from check import Violation
from company import Broken, Company
from program import History
from report import failed, say, summary
from run import Run
from tables import OFFICES
from tamper import TAMPERINGS


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
        before = run.writes.total()
        failures, took = run.round(number, histories)
        for office in run.company.ended_hubs():
            failures.append((Violation(None, f"hub run at {office} ended by itself"), None))
        done += len(histories)
        say(f"  round {number + 1} of {rounds}: {done} histories, {run.writes.total() - before} writes; "
            + ", ".join(took))
        if failures:
            failed(run, failures)
            return 1
    summary(run, count, time.monotonic() - began)
    return 1 if tamper and tampered(run) else 0


try:
    status = main()
except Broken as broken:
    say(f"  {broken}; seed {sys.argv[3]}")
    status = 1
sys.exit(status)
