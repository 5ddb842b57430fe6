-- A small foreign database for `Scripts/test --full`: two schemas, names with capitals, composite keys, a tree, an enum,
-- a domain, arrays, ranges, bytea, an identity, a generated column, and one table that cannot be tracked.
CREATE SCHEMA "Shop";
CREATE TYPE "Shop".state AS ENUM ('new', 'paid', 'sent');
CREATE DOMAIN "Shop".percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);

CREATE TABLE "Shop"."Category" (
  id integer PRIMARY KEY, parent integer REFERENCES "Shop"."Category", name varchar(40) NOT NULL UNIQUE);
CREATE TABLE "Shop"."Product" (
  code char(6) PRIMARY KEY, "Category id" integer NOT NULL REFERENCES "Shop"."Category", price numeric(10,2) NOT NULL,
  discount "Shop".percent DEFAULT 0, tags text[], picture bytea, valid daterange, facts jsonb,
  gross numeric(12,2) GENERATED ALWAYS AS (price * 1.2) STORED);
CREATE TABLE "Shop"."Order" (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, placed timestamptz NOT NULL DEFAULT now(),
  state "Shop".state NOT NULL DEFAULT 'new', customer uuid NOT NULL DEFAULT gen_random_uuid(), note text);
CREATE TABLE "Shop"."Order line" (
  "order" bigint REFERENCES "Shop"."Order", product char(6) REFERENCES "Shop"."Product", qty smallint NOT NULL CHECK (qty >= 0),
  took interval, PRIMARY KEY ("order", product));
CREATE TABLE public.reading (
  sensor inet, at timestamp, value double precision, bits bit(8), flags boolean, PRIMARY KEY (sensor, at));
CREATE TABLE public.log (at timestamptz, line text); -- no primary key

INSERT INTO "Shop"."Category" SELECT n, nullif(n / 3, 0), 'Category ' || n FROM generate_series(1, 20) n;
INSERT INTO "Shop"."Product" (code, "Category id", price, tags, picture, valid, facts)
  SELECT format('P%s', n), 1 + n % 20, n * 1.25, ARRAY['a,b', NULL, 'ö"' || n], '', daterange(date '2020-01-01' + n, NULL),
    jsonb_build_object('n', n, 'null', NULL) FROM generate_series(1, 200) n;
INSERT INTO "Shop"."Order" (state, note)
  SELECT (ARRAY['new', 'paid', 'sent'])[1 + n % 3]::"Shop".state, E'line\\one\n\ttwo' FROM generate_series(1, 300) n;
INSERT INTO "Shop"."Order line" SELECT 1 + n / 5, format('P%s', 1 + n % 200), n % 9, n * interval '1 minute' FROM generate_series(0, 1499) n;
INSERT INTO public.reading SELECT '10.0.0.0'::inet + n, '2024-01-01'::timestamp + n * interval '1 s',
  CASE n % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE n / 7.0 END, (n % 256)::bit(8), n % 2 = 0
  FROM generate_series(1, 500) n;
