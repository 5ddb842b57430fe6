"""Tries the checker: what it sees after a run is altered, each time in a way that a broken sync would leave behind."""

import copy

PLAIN = ("note", "lease", "rate", "wish")


def lines(evidence, office, table):
    return evidence.copies[office][table]


def everywhere(evidence, table, change):
    for office in evidence.copies:
        evidence.copies[office][table] = change(list(lines(evidence, office, table)))


def replaced(old, new):
    """A line in place of another, where it is."""
    return lambda rows: [new if row == old else row for row in rows]


def without(old):
    return lambda rows: [row for row in rows if row != old]


def key_of(line):
    return line.split("\t")[0]


def cell(line, number, value):
    cells = line.split("\t")
    cells[number] = str(value)
    return "\t".join(cells)


def acknowledged(evidence, table):
    """The line of an entry that was committed, was not deleted and stands."""
    deleted = {e.key for e in evidence.entries if e.kind == "delete"}
    keys = {e.key for e in evidence.entries if e.table == table and e.state == "ok"} - deleted
    return next(line for line in lines(evidence, "head", table) if key_of(line) in keys)


def marked(evidence):
    """A table and the line of a row that shows an acknowledged write of a history."""
    for write in evidence.writes:
        if write.table in PLAIN and write.state == "ok":
            row = evidence.rows.rows.get(write.row)
            if row and row["v"] == write.sets.get("v"):
                return write.table, next(x for x in lines(evidence, "head", write.table) if key_of(x) == row["id"])
    raise StopIteration


def row_dropped_at_one(evidence):
    evidence.copies["south"]["move"] = without(acknowledged(evidence, "move"))(lines(evidence, "south", "move"))


def row_dropped(evidence):
    everywhere(evidence, "tag", without(acknowledged(evidence, "tag")))


def sale_dropped(evidence):
    everywhere(evidence, "sale", without(acknowledged(evidence, "sale")))


def row_twice(evidence):
    line = acknowledged(evidence, "tag")
    everywhere(evidence, "tag", lambda rows: [x for row in rows for x in ([row, row] if row == line else [row])])


def transfer_twice(evidence):
    _, source, target, amount = acknowledged(evidence, "move").split("\t")
    sums = {source: -int(amount), target: int(amount)}
    everywhere(evidence, "account", lambda rows: [
        cell(row, 1, int(row.split("\t")[1]) + sums.get(key_of(row), 0)) for row in rows])


def half_a_transfer(evidence):
    _, source, _, amount = acknowledged(evidence, "move").split("\t")
    everywhere(evidence, "account", lambda rows: [
        cell(row, 1, int(row.split("\t")[1]) + int(amount)) if key_of(row) == source else row for row in rows])


def half_seen(evidence):
    office, reads, halves = evidence.readers[1]
    evidence.readers[1] = (office, reads, halves + [(1.0, 7999)])


def row_resurrected(evidence):
    key = next(e.key for e in evidence.entries if e.table == "tag" and e.kind == "delete" and e.state == "ok")
    everywhere(evidence, "tag", lambda rows: sorted([*rows, key]))


def rows_swapped(evidence):
    rows = [line for line in lines(evidence, "head", "move")]
    first = rows[0]
    second = next(row for row in rows if row.split("\t")[1:] != first.split("\t")[1:])
    swap = {first: "\t".join([key_of(first), *second.split("\t")[1:]]),
            second: "\t".join([key_of(second), *first.split("\t")[1:]])}
    everywhere(evidence, "move", lambda found: [swap.get(row, row) for row in found])


def price_of_before(evidence):
    line = next(x for x in lines(evidence, "head", "price") if x.split("\t")[1] != "0")
    everywhere(evidence, "price", replaced(line, cell(line, 1, 0)))


def row_of_nobody(evidence):
    everywhere(evidence, "tag", lambda rows: sorted([*rows, "nobody-1"]))


def update_at_one(evidence):
    table, line = marked(evidence)
    evidence.copies["east"][table] = replaced(line, cell(line, 1, "base"))(lines(evidence, "east", table))


def update_undone(evidence):
    table, line = marked(evidence)
    everywhere(evidence, table, replaced(line, cell(line, 1, "base")))


def history_row_dropped(evidence):
    touched = {write.row for write in evidence.writes}
    name, block, k = next(row for row in sorted(evidence.rows.seeded - touched) if row[0] in PLAIN)
    everywhere(evidence, name, lambda rows: [row for row in rows if key_of(row) != str(block * 10 + k)])


def histories_swapped(evidence):
    table, line = marked(evidence)
    other = next(x for x in lines(evidence, "head", table) if x.split("\t")[1] != line.split("\t")[1])
    swap = {line: cell(line, 1, other.split("\t")[1]), other: cell(other, 1, line.split("\t")[1])}
    everywhere(evidence, table, lambda rows: [swap.get(row, row) for row in rows])


def counted(times):
    def change(evidence):
        for write in evidence.writes:
            row = evidence.rows.rows.get(write.row)
            if write.table == "stock" and write.kind == "add" and write.state == "ok" and row:
                line = next(x for x in lines(evidence, "head", "stock") if key_of(x) == row["id"])
                everywhere(evidence, "stock", replaced(line, cell(line, 2, int(row["qty"]) + times * write.amount)))
                return
        raise StopIteration
    return change


def orphan(evidence):
    line = lines(evidence, "head", "pet")[0]
    everywhere(evidence, "pet", replaced(line, cell(line, 1, -1)))


def log_forgotten(evidence):
    evidence.conflicts = []


def statement_failed(evidence):
    evidence.broken.append("a statement failed at north: 40P01 deadlock detected")


SPOILINGS = (
    ("a row is missing at one office", row_dropped_at_one),
    ("a row is missing everywhere", row_dropped),
    ("a sale is missing at its office and at head", sale_dropped),
    ("a row is there twice", row_twice),
    ("a transfer is applied twice", transfer_twice),
    ("half of a transfer is missing", half_a_transfer),
    ("a reader saw half a transfer", half_seen),
    ("a deleted row is back", row_resurrected),
    ("two rows are swapped", rows_swapped),
    ("a price is what it was before", price_of_before),
    ("a row is there that nobody made", row_of_nobody),
    ("an update is missing at one office", update_at_one),
    ("an acknowledged update is undone everywhere", update_undone),
    ("a row is deleted everywhere, by nobody", history_row_dropped),
    ("the contents of two edited rows are swapped", histories_swapped),
    ("an increment counts twice", counted(1)),
    ("an increment does not count", counted(-1)),
    ("a row refers to one that is not there", orphan),
    ("the conflict log is empty", log_forgotten),
    ("an application's own statement failed", statement_failed),
)


def spoilt(evidence):
    """The same writes, and containers of its own."""
    other = copy.copy(evidence)
    other.copies = {office: {name: list(rows) for name, rows in tables.items()}
                    for office, tables in evidence.copies.items()}
    other.readers, other.broken = list(evidence.readers), list(evidence.broken)
    return other


def missed(evidence, say):
    """How many of them the checker does not notice."""
    before, count = set(evidence.violations()), 0
    for title, change in SPOILINGS:
        other = spoilt(evidence)
        try:
            change(other)
        except StopIteration:
            say(f"  NOT TRIED: {title}: there is no such row")
            count += 1
            continue
        found = [what for what in other.violations() if what not in before]
        say(f"  {'noticed' if found else 'NOT NOTICED'}: {title}" + (f" ({found[0][1][:150]})" if found else ""))
        count += not found
    return count
