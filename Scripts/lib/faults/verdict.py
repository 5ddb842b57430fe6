"""What a run prints."""

from collections import Counter

from tables import OFFICES


def say(line):
    print(line, flush=True)


def listed(counter):
    return ", ".join(f"{n} {what}" for what, n in counter.most_common())


def summary(soup, evidence, found, seconds):
    places, done = soup.places, Counter(soup.places.done)
    made = evidence.writes + evidence.entries
    states = Counter(write.state for write in made)
    halves, reads = sum(r.announced for r in soup.readers), sum(reads for _, reads, _ in evidence.readers)
    lost = sum("lost" in what for _, what in found)
    for title, content in (
        ("run", f"seed {soup.seed}, {soup.seconds} s under faults, {seconds:.0f} s in all"),
        ("faults", listed(done)),
        ("points", listed(places.points)),
        ("not done", "; ".join(soup.faults.skipped)),
        ("errors", "; ".join(soup.faults.errors)),
        ("writes", f"{listed(states)}; {soup.figures['refused']} transactions refused by a constraint or a full disk"),
        ("accounted", listed(evidence.how)),
        ("conflicts", f"{len(evidence.conflicts)} in the log "
                      f"({listed(Counter(e['table'].rpartition('.')[2] for e in evidence.conflicts))}); "
                      f"{len(evidence.discarded)} rows with a unique value that was taken"),
        ("once", f"{evidence.counted} rows of sale, tag and move, {evidence.gone} of the excused are gone; "
                 f"{evidence.sums.exact} counters exact, with {evidence.sums.increments} increments"),
        ("readers", f"{reads} totals read; {halves} in a half that status announced as catching up or recovering"),
        ("quiet", f"{soup.figures['quiet']:.1f} s after all was mended"
                  + (f"; {soup.figures['not equal at once']} times not equal at once when hub sync was done"
                     if "not equal at once" in soup.figures else "")),
        ("lost", f"{lost}; violations: {len(found)}"),
    ):
        if content:
            say(f"  {title:10} {content}")


def failed(soup, evidence, found):
    for block, what in found[:12]:
        say(f"  VIOLATION {what}")
    for block in list(dict.fromkeys(block for block, _ in found if block is not None))[:3]:
        explain(soup, evidence, block)
    say(f"\n  {len(found)} violations; seed {soup.seed}")


def explain(soup, evidence, block):
    """A history, what its applications did, and what is there."""
    if block not in soup.blocks:
        return
    say(f"\n{soup.blocks[block]}\n  ids {block * 10} to {block * 10 + 9}\n  put back: {evidence.put_back}")
    for write in sorted(evidence.writes, key=lambda w: w.began):
        if write.block == block:
            say(f"    {write}")
    for name in soup.blocks[block].tables:
        for office in OFFICES:
            rows = evidence.copies[office][name]
            keys = range(block * 10, block * 10 + 10)
            say(f"    {office:6} {name}: {[row for row in rows if key_of(name, row) in keys]}")
    for source in (evidence.rows.logged, evidence.rows.discards):
        for row, entries in source.items():
            for entry in entries if row[1] == block else ():
                say(f"    {entry}")


def key_of(name, row):
    return int(row.split("\t")[1 if name == "slot" else 0])
