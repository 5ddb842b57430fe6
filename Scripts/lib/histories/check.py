"""What must hold when everything is quiet. Knows the applications' own records, the rows as COPY prints them, and the
conflict log and quarantine as hub shows them to a user; whether hub thinks that it converged is not asked."""

from collections import Counter, defaultdict

from tables import OFFICES, TABLES


class Violation:
    def __init__(self, block, what):
        self.block, self.what = block, what

    def __str__(self):
        return self.what


class Evidence:
    """Everything that one delivery left behind."""

    def __init__(self, writes, copies, conflicts, discarded, apart, blocks, put_back=(), clocks_differ=False):
        """`blocks`: the histories, by block. Rows of earlier deliveries were checked then. `put_back`: (office, time)
        of databases that went back to a backup."""
        self.put_back, self.clocks_differ = put_back, clocks_differ
        self.writes = writes
        # COPY's lines, office by office and table by table.
        self.copies = copies
        self.conflicts, self.discarded = conflicts, discarded
        # Every office was alone while its writes were made.
        self.apart = apart
        self.rows = {}
        for name, lines in copies["head"].items():
            table = TABLES[name]
            for line in lines:
                row = dict(zip(table.names, (None if v == "\\N" else v for v in line.split("\t"))))
                block, k = table.place(row)
                if block in blocks:
                    self.rows[name, block, k] = row
        self.blocks = blocks
        self.seeded = {(name, block, k) for block, history in blocks.items() for name in history.tables for k in (0, 1)}
        self.by_row = defaultdict(list)
        for write in sorted(writes, key=lambda w: w.began):
            self.by_row[write.row].append(write)
        self.logged = _by_row(conflicts)
        self.discards = _by_row(discarded)


def _by_row(entries):
    found = defaultdict(list)
    for entry in entries:
        table = TABLES[entry["table"].rpartition(".")[2]]
        block, k = table.place(entry["key"])
        found[table.name, block, k].append(entry)
    return found


def differences(copies):
    """Rows that are not byte for byte the same in every office."""
    for name, table in TABLES.items():
        lines = {office: copies[office][name] for office in OFFICES}
        if all(lines[office] == lines["head"] for office in OFFICES):
            continue
        seen = Counter(line for office in OFFICES for line in lines[office])
        for line in sorted(line for line, times in seen.items() if times != len(OFFICES)):
            where = [office for office in OFFICES if line in lines[office]]
            block, _ = table.place(dict(zip(table.names, line.split("\t"))))
            yield Violation(block, f"only {', '.join(where)} has in {name}: {line!r}")
        if len({len(lines[office]) for office in OFFICES}) == 1 and len(set(map(tuple, lines.values()))) > 1:
            yield Violation(None, f"{name} is not in the same order everywhere")


def constraints(copies):
    """No orphan and no unique value twice, in any office."""
    for office in OFFICES:
        owners = {line.split("\t")[0] for line in copies[office]["owner"]}
        for line in copies[office]["pet"]:
            if line.split("\t")[1] not in owners:
                yield Violation(int(line.split("\t")[0]) // 10, f"an orphan at {office}: pet {line!r}")
        codes = Counter(line.split("\t")[1] for line in copies[office]["login"])
        for code, times in codes.items():
            if times > 1:
                yield Violation(int(code.split("-")[0]), f"code {code} is there {times} times at {office}")


def marks(row, column):
    return set((row.get(column) or "").split("+")) if row else set()


class Accounts:
    """Whether every write is where it may be: current, overwritten by one that had seen it, or named in the log or among
    the rows that were discarded from quarantine. One pass over one delivery's evidence; `how` counts the ways."""

    def __init__(self, evidence):
        self.evidence, self.how, self.violations = evidence, Counter(), []
        self._covering = {}

    def check(self):
        for row, writes in self.evidence.by_row.items():
            self._strangers(row, writes)
            for write in writes:
                if write.state == "ok":
                    self._account(row, writes, write)
        for row, shown in self.evidence.rows.items():
            if row not in self.evidence.by_row:
                self._untouched(row, shown)
        for row in self.evidence.seeded - self.evidence.rows.keys():
            if not any(write.kind == "delete" and write.may_stand for write in self.evidence.by_row.get(row, ())):
                self.violations.append(Violation(row[1], f"{row[0]} {row[2]} is gone, and nobody deleted it"))
        return self.violations

    def _fail(self, write, what):
        self.violations.append(Violation(write.block, f"{what}: {write}"))

    def _account(self, row, writes, write):
        if write.kind == "delete":
            how = self._of_delete(row, writes, write)
            self._count(write, how, "a delete was lost silently")
        for column in write.sets:
            how = self._of_mark(row, writes, write, column)
            self._count(write, how, f"a write of {column} was lost silently")

    def _count(self, write, how, what):
        if how is None:
            self._fail(write, what)
        else:
            self.how[how] += 1

    def _of_mark(self, row, writes, write, column):
        mark = write.sets[column]
        if mark in marks(self.evidence.rows.get(row), column):
            return "current"
        for other in writes:
            overwrites = column in other.sets or other.kind == "delete"
            if other is not write and overwrites and mark in marks(other.saw, column):
                if self._covers(other, writes):
                    return "overwritten"
        for entry in self.evidence.logged[row]:
            # Of two rows that both lost to a function's answer, both are named.
            losers = [entry["loser"]] + ([entry["winner"]] if "answer" in entry["winner"] else [])
            if entry["loser"].get("column", column) == column and any(mark in marks(c["row"], column) for c in losers):
                return "in the conflict log"
        if any(mark in marks(entry["row"], column) for entry in self.evidence.discards[row]):
            return "discarded from quarantine"
        return None

    def _covers(self, other, writes):
        """A write that need not stand overwrites others only if it was not lost itself."""
        if other.state in ("ok", "failed"):
            return other.state == "ok"
        if other not in self._covering:
            self._covering[other] = False
            self._covering[other] = (self._of_delete(other.row, writes, other) if other.kind == "delete" else any(
                self._of_mark(other.row, writes, other, column) for column in other.sets)) or False
        return bool(self._covering[other])

    def _of_delete(self, row, writes, write):
        if row not in self.evidence.rows:
            return "current"
        for other in writes:
            if other.kind == "insert" and other.may_stand and self._may_have_seen(other, write):
                return "overwritten"
        # Where two offices deleted a row, one delete stands for both.
        if any(entry["loser"]["row"] is None for entry in self.evidence.logged[row]):
            return "in the conflict log"
        if any(entry["row"] is None or not entry["row"] for entry in self.evidence.discards[row]):
            return "discarded from quarantine"
        return None

    def _may_have_seen(self, later, write):
        """An absent row does not show who deleted it: who had synced decides."""
        if later.office == write.office:
            return later.began >= write.began and later is not write
        return not self.evidence.apart and later.ended > write.began

    def _strangers(self, row, writes):
        """What stands was written, and not by a transaction that was rolled back."""
        table, known = TABLES[row[0]], {"base"}
        for write in writes:
            if write.may_stand:
                known.update(write.sets.values())
        places = [("stands", self.evidence.rows.get(row))]
        for entry in self.evidence.logged[row]:
            places += [("is in the log", entry["winner"]["row"]), ("is in the log", entry["loser"]["row"])]
        places += [("was in quarantine", entry["row"]) for entry in self.evidence.discards[row]]
        for where, shown in places:
            for column in table.marks if shown else ():
                for mark in marks(shown, column) - known:
                    what = f"{row[0]} {row[2]}: {column}={mark} {where}, which nobody wrote"
                    self.violations.append(Violation(row[1], what))

    def _untouched(self, row, shown):
        name, block, k = row
        if k > 1 or any(shown[column] != "base" for column in TABLES[name].marks):
            self.violations.append(Violation(block, f"{name} {k} was never written, and is {shown}"))


class Sums:
    """Counters: of a living row, the amount of the insert that stands and every increment that insert had not seen, each
    once; of a deleted one, every increment was seen by a delete or is in the log."""

    def __init__(self, evidence):
        self.evidence, self.violations, self.exact, self.increments = evidence, [], 0, 0

    def check(self):
        for row in sorted(self.evidence.by_row.keys() | self.evidence.rows.keys()):
            if TABLES[row[0]].counter:
                self._check(row, self.evidence.by_row[row])
        return self.violations

    def _check(self, row, writes):
        # An amount of 4^n belongs to operation n; what the row began with is 4^0.
        amounts = {write.amount.bit_length() // 2 if write.amount > 0 else (-write.amount).bit_length() // 2: write
                   for write in writes if write.amount and write.state != "failed"}
        shown = self.evidence.rows.get(row)
        if shown is None:
            return self._gone(row, writes, amounts)
        parts = self._parts(row, shown["qty"], amounts)
        if parts is None:
            return
        inserts = [n for n in parts if n == 0 or amounts[n].kind == "insert"]
        if len(inserts) != 1:
            return self._fail(row, f"{shown['qty']} has the amounts of {len(inserts)} inserts: {sorted(parts)}")
        stands = amounts.get(inserts[0])
        surely, maybe = self._seen(row, writes, amounts, stands)
        for n, write in amounts.items():
            if write.kind != "add":
                continue
            if n in parts and n in surely:
                self._fail(row, f"counted again although the insert that stands had seen it: {write}")
            if n not in parts and n not in maybe and write.state == "ok":
                self._fail(row, f"{shown['qty']} lacks an increment: {write}")
            self.increments += 1
        self.exact += 1

    def _fail(self, row, what):
        self.violations.append(Violation(row[1], f"{row[0]} {row[2]}: {what}"))

    def _seen(self, row, writes, amounts, insert):
        """Numbers of the increments that the insert had surely seen, and of those that it may have."""
        if insert is None:
            return set(), set()
        surely, maybe = set(), set()
        for write in writes:
            if write.began < insert.began and write.office == insert.office and write.may_stand \
                    and not self._went_back(write, insert):
                if write.saw and write.state == "ok":
                    surely |= self._parts(row, write.saw["qty"], amounts) or set()
                if write.kind == "add" and write.state == "ok":
                    surely.add(_number(write))
        for n, write in amounts.items():
            if write.office != insert.office and not self.evidence.apart and write.began < insert.ended:
                maybe.add(n)
            if write.office == insert.office and write.began < insert.began:
                maybe.add(n)
        return surely, surely | maybe

    def _went_back(self, earlier, later):
        """Whether an office's database was put back between two of its writes."""
        return any(office == later.office and earlier.began < at < later.ended for office, at in self.evidence.put_back)

    def _gone(self, row, writes, amounts):
        named = set()
        for write in writes:
            if write.kind == "delete" and write.may_stand:
                named |= self._parts(row, write.saw["qty"], amounts) or set()
        for entry in self.evidence.logged[row]:
            if entry["loser"]["row"]:
                named |= self._parts(row, entry["loser"]["row"]["qty"], amounts) or set()
        for n, write in amounts.items():
            if write.kind == "add" and write.state == "ok" and n not in named:
                self._fail(row, f"is deleted, and nobody had seen: {write}")

    def _parts(self, row, text, amounts):
        """The numbers of the amounts that a sum is made of; nil, and a violation, when it is made otherwise."""
        rest, n, parts = int(text), 0, set()
        while rest:
            digit = (rest + 1) % 4 - 1
            rest = (rest - digit) // 4
            if digit:
                write = amounts.get(n)
                sign = 1 if n == 0 or write and write.amount > 0 else -1
                if digit != sign or n and write is None:
                    self._fail(row, f"{text} has amount {n} wrongly: {digit * sign} times")
                    return None
                parts.add(n)
            n += 1
        return parts


def _number(write):
    return abs(write.amount).bit_length() // 2


# Policy `latest`, and no decision that has another reason.
LATEST = ("note", "card", "stock", "till", "slot", "memo")


def policies(evidence):
    """The winner that the log names is whom the table's rules name."""
    expected, latest = {"rate": "winner", "wish": "loser"}, () if evidence.clocks_differ else LATEST
    for row, entries in evidence.logged.items():
        for entry in entries:
            alive = [entry[side]["row"] is not None for side in ("winner", "loser")]
            if all(alive) and row[0] in expected and entry["head_copy"] != expected[row[0]]:
                yield Violation(row[1], f"{row[0]} {row[2]} has policy {entry['policy']}, and the other copy won")
            if alive[0] != alive[1] and entry["reason"] != "referenced" and alive[0] == (row[0] == "lease"):
                yield Violation(row[1], f"{row[0]} {row[2]}: of update and delete the wrong one won")
            if all(alive) and row[0] in latest and _is_earlier(evidence.by_row.get(row), entry):
                yield Violation(row[1], f"{row[0]} {row[2]}: the earlier write won: {entry}")


def _is_earlier(writes, entry):
    """Whether the write that won had ended before the one that lost began. Not asked of rows that were deleted: what
    is decided between update and delete is stamped after both."""
    if not writes or any(write.kind == "delete" and write.may_stand for write in writes):
        return False
    columns = [entry["winner"]["column"]] if "column" in entry["winner"] else TABLES[writes[0].table].marks
    times = []
    for side in ("winner", "loser"):
        of_side = [write for write in writes for column in columns
                   if write.sets.get(column) in marks(entry[side]["row"], column)]
        times.append(max(of_side, key=lambda write: write.began, default=None))
    return None not in times and times[0].ended < times[1].began


def everything(evidence):
    """All violations, and what was counted on the way."""
    accounts, sums = Accounts(evidence), Sums(evidence)
    found = [*differences(evidence.copies), *constraints(evidence.copies), *accounts.check(), *sums.check(),
             *policies(evidence)]
    for row, entries in evidence.discards.items():
        if entries and row[0] != "login":
            found.append(Violation(row[1], f"{row[0]} {row[2]} was refused for a unique value that it does not have"))
    return found, accounts.how, sums


def refused(waiting):
    """Rows that stay in quarantine."""
    for office, entries in waiting.items():
        for row, of_row in _by_row(entries).items():
            for entry in of_row:
                why = f"{entry['sqlstate']} {entry['error']}"
                yield Violation(row[1], f"{row[0]} {row[2]} stays in quarantine at {office}: {why}")
