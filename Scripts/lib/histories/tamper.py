"""Tries the checker: rows are changed behind hub's back, with its triggers off, and put back afterwards."""

import check
from tables import OFFICES, TABLES

# Tables that have an id and a mark, and nothing else.
PLAIN = ("note", "lease", "rate", "wish", "tags", "owner")


class Tampering:
    """`choose` finds the rows, as (table, statement, statement that undoes it, offices)."""

    def __init__(self, title, choose):
        self.title, self.choose = title, choose

    def run(self, company, evidence):
        """What the checker says of it; nothing when it notices nothing, or says as much without it."""
        before = {str(v) for v in check.everything(evidence)[0]}
        chosen = self.choose(evidence)
        if chosen is None:
            return ""
        table, change, undo, offices = chosen
        for office in offices:
            behind(company, office, table, change)
        spoilt = check.Evidence(
            evidence.writes, company.copies(), evidence.conflicts, evidence.discarded, evidence.apart, evidence.blocks)
        found = [v for v in check.everything(spoilt)[0] if str(v) not in before]
        for office in offices:
            behind(company, office, table, undo)
        return str(found[0]) if found else ""


def behind(company, office, table, statement):
    """Neither capture nor constraints see it."""
    company.sql(office, "BEGIN", "SET LOCAL session_replication_role = replica",
                f"ALTER TABLE {table} DISABLE TRIGGER USER", statement,
                f"ALTER TABLE {table} ENABLE TRIGGER USER", *always(table), "COMMIT")


def always(table):
    """As hub made its triggers; the application's own stays as it was."""
    names = ["insert", "update", "delete", "truncate", "key"]
    return [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER hub_capture_{name}" for name in names]


def where(row):
    return TABLES[row[0]].where(row[1], row[2])


def current(evidence):
    """A row that shows a write of these histories."""
    for row, shown in sorted(evidence.rows.items()):
        if row[0] in PLAIN and row in evidence.by_row and shown["v"] != "base":
            return row, shown
    return None, None


def mark_at(offices):
    def choose(evidence):
        row, shown = current(evidence)
        update = "UPDATE {} SET v = '{}' WHERE {}"
        return row and (row[0], update.format(row[0], "base", where(row)),
                        update.format(row[0], shown["v"], where(row)), offices)
    return choose


def gone(evidence):
    for row in sorted(evidence.seeded - evidence.by_row.keys()):
        if row[0] in PLAIN:
            undo = f"INSERT INTO {row[0]} VALUES ({evidence.rows[row]['id']}, 'base')"
            return row[0], f"DELETE FROM {row[0]} WHERE {where(row)}", undo, OFFICES
    return None


def counted(evidence, times):
    for row, shown in sorted(evidence.rows.items()):
        for write in evidence.by_row.get(row, ()):
            if row[0] == "stock" and write.kind == "add" and write.state == "ok":
                change = "UPDATE stock SET qty = qty + ({}) WHERE " + where(row)
                return "stock", change.format(times * write.amount), change.format(-times * write.amount), OFFICES
    return None


def orphan(evidence):
    for row, shown in sorted(evidence.rows.items()):
        if row[0] == "pet":
            change = f"UPDATE pet SET owner = {{}} WHERE {where(row)}"
            return "pet", change.format(-1), change.format(shown["owner"]), OFFICES
    return None


TAMPERINGS = (
    Tampering("a row of one branch is another one", mark_at(("south",))),
    Tampering("an acknowledged update is undone everywhere", mark_at(OFFICES)),
    Tampering("a row is deleted everywhere, by nobody", gone),
    Tampering("an increment counts twice everywhere", lambda evidence: counted(evidence, 1)),
    Tampering("an increment does not count everywhere", lambda evidence: counted(evidence, -1)),
    Tampering("a row refers to one that is not there, everywhere", orphan),
)
