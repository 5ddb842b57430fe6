"""An application that knows nothing but the catalog: changes random rows of every tracked table for some seconds, in
transactions of one to four statements.    edit.py URL SECONDS SEED TABLE...

It updates columns that no key, unique constraint or foreign key uses, and inserts and deletes rows of tables that no
other table refers to. A statement that a constraint refuses is its own fault and is counted; any other refusal is not,
and ends it with 1."""

import random
import sys
import time

import pq

COLUMNS = """SELECT a.attname, quote_ident(a.attname), t.typname, t.typcategory, a.atttypmod, a.attnotnull OR t.typnotnull,
    coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false) OR a.attidentity <> '',
    coalesce(a.attnum = ANY (p.indkey), false),
    EXISTS (SELECT FROM pg_index u WHERE u.indrelid = a.attrelid AND u.indisunique AND a.attnum = ANY (u.indkey)),
    (SELECT format('(SELECT %I FROM %s ORDER BY random() LIMIT 1)', f.attname, c.confrelid::regclass)
       FROM pg_constraint c, unnest(c.conkey, c.confkey) k(mine, theirs), pg_attribute f
       WHERE c.conrelid = a.attrelid AND c.contype = 'f' AND k.mine = a.attnum AND f.attrelid = c.confrelid
         AND f.attnum = k.theirs LIMIT 1),
    format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_index p ON p.indrelid = a.attrelid AND p.indisprimary
  WHERE a.attrelid = '{}'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"""

WORD = "md5(random()::text)"
VALUES = {
    "int2": "(random() * 30000)::int2", "int4": "(random() * 1000000)::int4", "int8": "(random() * 1e12)::int8",
    "float4": "random()::float4 * 900", "float8": "random() * 900", "numeric": "round((random() * 9)::numeric, 2)",
    "bool": "random() < 0.5", "date": "current_date - (random() * 9999)::int", "uuid": "gen_random_uuid()",
    "timestamp": "localtimestamp - random() * interval '9999 days'", "timestamptz": "now() - random() * interval '9999 days'",
    "bytea": f"decode(repeat({WORD}, (random() * 2000)::int), 'hex')", "text": f"'öé ' || {WORD} || E'\\n\\\\t'",
    "json": f"json_build_object('a', {WORD})", "jsonb": f"jsonb_build_object('a', {WORD})",
}


class Column:
    def __init__(self, row):
        (_, self.name, self.type, self.category, modifier, not_null, has_default, in_key, unique, self.parent, self.cast) = row
        self.not_null, self.has_default, self.in_key, self.unique = (x == "t" for x in (not_null, has_default, in_key, unique))
        self.length = int(modifier) - 4 if self.type in ("varchar", "bpchar") and int(modifier) > 4 else None

    def value(self, table):
        """SQL for a new value; of a type that is not known here, another row's."""
        if self.length:
            return f"left({WORD}, {self.length})"
        if self.type in ("varchar", "bpchar"):
            return WORD
        return VALUES.get(self.type, f"(SELECT {self.name} FROM {table} ORDER BY random() LIMIT 1)")


class Table:
    def __init__(self, connection, name):
        self.name, quoted = name, name.replace("'", "''")
        self.columns = [Column(row) for row in connection.run(COLUMNS.format(quoted))]
        self.free = [c for c in self.columns if not (c.in_key or c.unique or c.parent)]
        self.leaf = connection.value(
            f"SELECT NOT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = '{quoted}'::regclass)") == "t"

    def update(self, every_row=False):
        chosen = random.sample(self.free, min(len(self.free), random.randint(1, 2)))
        if not chosen:
            return None
        sets = ", ".join(
            f"{c.name} = " + ("NULL" if not c.not_null and random.random() < 0.1 else c.value(self.name)) for c in chosen)
        where = "" if every_row else f" WHERE ctid = (SELECT ctid FROM {self.name} ORDER BY random() LIMIT 1)"
        return f"UPDATE {self.name} SET {sets}{where}"

    def insert(self):
        """A copy of another row under a key of its own."""
        if not self.leaf:
            return None
        chosen = [c for c in self.columns if not (c.has_default and c.in_key)]
        values = [c.parent if c.parent and c.in_key else c.value(self.name) if c.in_key or c.unique else "o." + c.name
                  for c in chosen]
        names = ", ".join(c.name for c in chosen)
        return f"INSERT INTO {self.name} ({names}) SELECT {', '.join(values)} FROM {self.name} o ORDER BY random() LIMIT 1"

    def delete(self):
        if not self.leaf:
            return None
        return f"DELETE FROM {self.name} WHERE ctid = (SELECT ctid FROM {self.name} ORDER BY random() LIMIT 1)"


def main():
    url, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    connection = pq.Connection(url)
    tables = [Table(connection, name) for name in sys.argv[4:]]
    done = {"update": 0, "insert": 0, "delete": 0, "refused by a constraint": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        counted = []
        connection.run("BEGIN")
        try:
            for _ in range(random.randint(1, 4)):
                kind = random.choices(("update", "insert", "delete"), (6, 3, 1))[0]
                table = random.choice(tables)
                statement = table.update(random.random() < 0.02) if kind == "update" else getattr(table, kind)()
                if statement:
                    connection.run(statement)
                    counted.append(kind)
            connection.run("COMMIT")
            for kind in counted:
                done[kind] += 1
        except pq.Failure as failure:
            connection.run("ROLLBACK")
            if failure.sqlstate[:2] not in ("22", "23"):
                sys.exit(f"an application's own statement failed: {failure.sqlstate} {failure}")
            done["refused by a constraint"] += 1
        time.sleep(random.uniform(0, 0.01))
    print(", ".join(f"{n} {what}" if what.startswith("refused") else f"{n} {what}s" for what, n in done.items()))


main()
