-- What an application of a head office might have. hub adds no column to it.
CREATE TABLE catalogue (sku text PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL);
CREATE TABLE sale (
  id bigserial PRIMARY KEY, sku text NOT NULL REFERENCES catalogue, qty int NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE stock (sku text PRIMARY KEY, qty int NOT NULL, place text);
INSERT INTO catalogue VALUES ('tea', 'Green tea', 3.20), ('mug', 'Mug', 7.00), ('pot', 'Teapot', 21.00);
INSERT INTO stock VALUES ('tea', 100, 'shelf'), ('mug', 40, 'shelf');
