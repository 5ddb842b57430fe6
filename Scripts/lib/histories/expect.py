"""What must stand after every office was alone, whatever the order in which they come back: worked out from the tables'
rules and the applications' records alone. Rows whose outcome the order may decide are left out:

- policies `head` and `branch` where more than one branch wrote; unique values, of which head keeps the first;
- a row with a delete at one office and different edits at two others: the edit that meets the delete first is settled
  under a stamp that follows the delete's, as any decision's does, so it may be later than the other edit;
- of a table merged by column, rows that were inserted or deleted as wholes beside updates."""

from collections import defaultdict

from tables import TABLES


class Copy:
    """A row as one office that was alone had it at the end."""

    def __init__(self, base):
        self.row = dict(base) if base else None
        self.touched = self.whole = self.died = False
        self.at = defaultdict(float)

    def apply(self, write):
        self.touched = True
        if write.kind == "delete":
            self.row, self.whole, self.died = None, True, True
            self.at.clear()
        elif write.kind == "insert":
            self.row, self.whole = dict(write.sets), True
        elif write.kind == "update":
            self.row.update(write.sets)
        for column in write.sets:
            self.at[column] = write.began

    @property
    def latest(self):
        return max(self.at.values(), default=0.0)


def expected(row, writes):
    """The marks that must stand, by column; None: no row. Raises LookupError where the order may decide."""
    table, base = TABLES[row[0]], {column: "base" for column in TABLES[row[0]].marks} if row[2] < 2 else None
    copies = {}
    for write in sorted(writes, key=lambda w: w.began):
        if write.state == "ok":
            copies.setdefault(write.office, Copy(base)).apply(write)
    if not copies:
        return base
    live = [copy for copy in copies.values() if copy.row is not None]
    dead = len(copies) - len(live)
    if table.name == "login":
        raise LookupError
    if table.name == "lease" and dead or not live:
        return None
    if table.name == "tags":
        return {"v": "+".join(sorted(set().union(*(c.row["v"].split("+") for c in live))))}
    if len(live) == 1:
        return live[0].row
    if dead:
        raise LookupError
    if table.name in ("rate", "wish"):
        return _of_head_or_branch(table.name, copies)
    if table.by_column:
        return _by_column(table, base, live)
    written = [copy for copy in live if copy.at]
    return max(written, key=lambda copy: copy.latest).row if written else base


def _of_head_or_branch(name, copies):
    head = copies.get("head")
    if name == "rate" and head:
        return head.row
    if name == "wish" and head and len(copies) == 2:
        return next(copy.row for office, copy in copies.items() if office != "head")
    raise LookupError


def _by_column(table, base, live):
    if any(copy.died for copy in live):
        raise LookupError
    if any(copy.whole for copy in live):
        return max(live, key=lambda copy: copy.latest).row
    row = dict(base)
    for column in table.marks:
        writers = [copy for copy in live if column in copy.at]
        if writers:
            row[column] = max(writers, key=lambda copy: copy.at[column]).row[column]
    return row


def families(evidence):
    """Blocks where an owner was deleted: pets may have brought it back, with the marks that head knew."""
    return {write.block for write in evidence.writes if write.table == "owner" and write.kind == "delete"}


def check(evidence):
    """Yields (row, whether it stands as it must, text) for each row whose outcome no order may decide."""
    deleted = families(evidence)
    for row, writes in evidence.by_row.items():
        if row[0] in ("owner", "pet") and row[1] in deleted:
            continue
        try:
            must = expected(row, writes)
        except LookupError:
            continue
        shown = evidence.rows.get(row)
        stands = shown and {column: shown[column] for column in TABLES[row[0]].marks}
        yield row, stands == must, f"{row[0]} {row[2]} must be {must} in any order, and is {stands}"
