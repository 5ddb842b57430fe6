"""What a run prints, on descriptor 3: stdout is what the driver asks Scripts/histories by."""

import os

from tables import OFFICES, TABLES

_out = os.fdopen(3, "w", buffering=1)


def say(line):
    _out.write(line + "\n")


def failed(run, failures):
    shown = set()
    for violation, evidence in failures:
        if violation.block not in shown and len(shown) < 3:
            shown.add(violation.block)
            for same, _ in failures:
                if same.block == violation.block:
                    say(f"  VIOLATION {same}")
            explain(run, violation, evidence)
    say(f"\n  {len(failures)} violations in {len({v.block for v, _ in failures})} histories; seed {run.seed}")


def explain(run, violation, evidence):
    """The history, what its applications did, and what is there."""
    if violation.block not in run.programs:
        return
    history, how = run.programs[violation.block]
    say(f"\n{history}\n  ran {how}, seed {run.seed}, ids {violation.block * 10} to {violation.block * 10 + 9}")
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


def in_block(name, line, block):
    table = TABLES[name]
    return table.place(dict(zip(table.names, line.split("\t"))))[0] == block


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
