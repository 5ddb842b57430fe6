"""The tables of the company, one for each thing that hub offers, and the names that histories use for their rows.

A history owns a block of ten ids in every table. Each write puts a *mark* of its own into every column that it sets, so
that a row tells which writes it shows; a counter adds a power of four, so that a sum tells which amounts are in it."""

OFFICES = ("head", "north", "south", "east")
BRANCHES = OFFICES[1:]
BLOCK = 10


class Table:
    def __init__(self, name, columns, track="", marks=("v",), counter=None, keys=4):
        self.name, self.columns, self.track = name, columns, track.split()
        self.marks, self.counter, self.keys = marks, counter, keys
        self.names = [column.split()[0] for column in columns.partition(", PRIMARY")[0].split(", ")]
        self.key = self.names[:2] if name == "slot" else self.names[:1]
        self.order = ", ".join(self.key)
        self.by_column = "columns" in self.track

    def where(self, block, k):
        """The row number `k` of a block."""
        return " AND ".join(f"{c} = {v}" for c, v in zip(self.key, self.key_values(block, k)))

    def key_values(self, block, k):
        if self.name == "slot":
            return [f"'r{k % 2}'", str(block * BLOCK + k // 2)]
        return [str(block * BLOCK + k)]

    def place(self, row):
        """The block and number of a row that is a dict of texts."""
        number = int(row["id"])
        k = number % BLOCK
        return number // BLOCK, k * 2 + int(row["region"][1:]) if self.name == "slot" else k


TABLES = {table.name: table for table in (
    Table("note", "id int PRIMARY KEY, v text"),
    Table("card", "id int PRIMARY KEY, a text, b text, c text", "--merge columns", marks=("a", "b", "c")),
    Table("rate", "id int PRIMARY KEY, v text", "--on-conflict head"),
    Table("wish", "id int PRIMARY KEY, v text", "--on-conflict branch"),
    Table("tags", "id int PRIMARY KEY, v text", "--on-conflict function:public.marks_of_both"),
    Table("stock", "id int PRIMARY KEY, v text, qty numeric NOT NULL", "--counter qty", counter="qty"),
    Table("till", "id int PRIMARY KEY, a text, b text, qty numeric NOT NULL", "--merge columns --counter qty",
          marks=("a", "b"), counter="qty"),
    Table("lease", "id int PRIMARY KEY, v text", "--on-delete delete"),
    Table("owner", "id int PRIMARY KEY, v text", keys=3),
    Table("pet", "id int PRIMARY KEY, owner int NOT NULL REFERENCES owner, v text"),
    Table("login", "id int PRIMARY KEY, code text NOT NULL UNIQUE, v text"),
    Table("slot", "region text, id int, v text, PRIMARY KEY (region, id)"),
    Table("memo", "id int PRIMARY KEY, v text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp()"),
)}

# What the function returns does not depend on which of the two arrived, nor on what was settled before.
FUNCTIONS = """
CREATE FUNCTION public.marks_of_both(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT local || jsonb_build_object('v', (SELECT string_agg(DISTINCT mark, '+' ORDER BY mark)
    FROM unnest(string_to_array(local ->> 'v', '+') || string_to_array(incoming ->> 'v', '+')) AS mark)) $$;
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN NEW.updated_at = clock_timestamp(); RETURN NEW; END $$;
"""
TRIGGERS = "CREATE TRIGGER touch BEFORE UPDATE ON memo FOR EACH ROW EXECUTE FUNCTION public.touch();"


def schema():
    tables = "".join(f"CREATE TABLE {table.name} ({table.columns});\n" for table in TABLES.values())
    return FUNCTIONS + tables + TRIGGERS


def seed(block, name):
    """SQL: the rows that a history finds when it begins, numbers 0 and 1."""
    table = TABLES[name]
    rows = []
    for k in (0, 1):
        values = dict(zip(table.key, table.key_values(block, k)))
        values.update({column: "'base'" for column in table.marks})
        values.update({"owner": str(block * BLOCK + k), "code": f"'{block}-{k}'", "qty": "1"})
        names = [column for column in table.names if column in values]
        rows.append(f"({', '.join(values[column] for column in names)})")
    return f"INSERT INTO {name} ({', '.join(names)}) VALUES {', '.join(rows)}"
