"""Seeded programs: what a history does, and what befalls the company meanwhile."""

import random

from tables import BRANCHES, OFFICES, TABLES

STORM_SECONDS = 9.0
# The tables of one history: those that belong together, or two that do not.
SINGLE = ("note", "card", "rate", "wish", "tags", "stock", "till", "lease", "login", "slot", "memo")


class Step:
    """One transaction at one office: operations, and how it ends."""

    def __init__(self, at, office, operations, rolls_back, lingers):
        self.at, self.office, self.operations = at, office, operations
        self.rolls_back, self.lingers = rolls_back, lingers

    def __str__(self):
        end = "ROLLBACK" if self.rolls_back else "COMMIT"
        return f"{self.at:6.3f} s  {self.office:6} {'; '.join(map(str, self.operations))}; {end}"


class Operation:
    """`put` inserts what is not there and updates what is; the others do nothing where they do not apply. `number` is
    its own in the history: it makes the mark and the amount."""

    def __init__(self, number, kind, table, k, choice=0, sign=1):
        self.number, self.kind, self.table, self.k = number, kind, table, k
        self.choice, self.sign = choice, sign

    def mark(self, office):
        return f"{self.number}{office[0]}"

    @property
    def amount(self):
        return self.sign * 4 ** self.number

    def __str__(self):
        return f"{self.kind} {self.table} {self.k}" + (f" #{self.number}" if self.kind != "delete" else "")


class History:
    def __init__(self, seed, number):
        chance = random.Random(f"{seed} {number}")
        self.number = number
        pair = chance.choice(SINGLE), chance.choice(SINGLE + ("stock", "login"))
        # Few histories have some of these, too.
        always = {0: ("owner", "pet"), 1: ("note", "stock"), 2: ("till", "login")}
        self.tables = always.get(number % 7) or tuple(dict.fromkeys(pair))
        self.offices = chance.sample(OFFICES, chance.choice((2, 3, 3, 4)))
        bursts = sorted(chance.uniform(0, STORM_SECONDS) for _ in range(chance.randint(2, 4)))
        ats = sorted(burst + chance.choice((0, 0.001, 0.01, 0.05, 0.4)) * chance.random()
                     for burst in bursts for _ in range(chance.randint(2, 5)))
        # Few rows, or no two offices would ever meet.
        self.numbers = chance.sample(range(4), chance.choice((1, 2, 2, 3)))
        self.operations = 0
        self.steps = [
            Step(at, chance.choice(self.offices),
                 [self._operation(chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))],
                 rolls_back=chance.random() < 0.06, lingers=chance.choice((0, 0, 0, 0.02, 0.3)))
            for at in ats]

    def _operation(self, chance):
        self.operations += 1
        name = chance.choice(self.tables)
        kinds = {"put": 4, "update": 4, "delete": 2, "insert": 1}
        if TABLES[name].counter:
            kinds.update(add=9)
        if name == "slot":
            kinds.update(move=2)
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        k = chance.choice(self.numbers) % TABLES[name].keys
        return Operation(self.operations, kind, name, k, choice=chance.randrange(4), sign=chance.choice((1, -1)))

    def __str__(self):
        return f"history {self.number} on {' and '.join(self.tables)}\n" + "\n".join(f"  {step}" for step in self.steps)


def events(chance, seconds):
    """(at, control, office), by time. Each ends what it began, before or after the edits do."""
    found = []
    for _ in range(chance.randint(7, 11)):
        at, long = chance.uniform(0, seconds), chance.choice((0.02, 0.2, 1, 3))
        begin, end = chance.choice((("kill", "start"), ("kill", "start"), ("stop", "start"), ("pause", "resume"),
                                    ("cut", "back"), ("cut", "back")))
        office = chance.choice(BRANCHES if begin == "cut" else OFFICES)
        found += [(at, begin, office), (at + long, end, office)]
    if chance.random() < 0.5:
        found.append((chance.uniform(0, seconds), chance.choice(("restart", "crash")), "broker"))
    if chance.random() < 0.35:
        found.append((chance.uniform(0, seconds), "crash", chance.choice(OFFICES)))
    return sorted(found)


def orders(chance):
    """Two ways of coming back: the branches in groups, one group after the other."""
    ways = []
    while len(ways) < 2:
        names = chance.sample(BRANCHES, 3)
        cuts = chance.choice(((1, 2), (1, 2), (1,), (2,), ()))
        way = [sorted(names[a:b]) for a, b in zip((0, *cuts), (*cuts, 3))]
        if way not in ways:
            ways.append(way)
    return ways
