-- Version 1. PostgreSQL 13 or later.
--
-- A domain is written as it is, with bytes other than printable ASCII, and the
-- percent sign, as %XX. Times are milliseconds since 1970, UTC; the zero time
-- of an entry is -62135596800000.

CREATE TABLE stsmap.version (
	version integer PRIMARY KEY,
	since   timestamptz NOT NULL DEFAULT now()
);

-- The columns before entry repeat what the server has to compare or sort by;
-- refresh and used may be ahead of what entry says, and count.
CREATE TABLE stsmap.entries (
	domain  text COLLATE "C" PRIMARY KEY,
	policy  boolean NOT NULL,  -- false: an absence
	fetched bigint  NOT NULL,
	expires bigint  NOT NULL,
	refresh bigint,            -- NULL: never
	used    bigint  NOT NULL,
	entry   bytea   NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX entries_refresh ON stsmap.entries (refresh) WHERE refresh IS NOT NULL;
CREATE INDEX entries_expires ON stsmap.entries (expires);

-- The fetches under way. UNLOGGED, since a claim lost in a crash costs one more
-- fetch.
CREATE UNLOGGED TABLE stsmap.claims (
	domain  text COLLATE "C" PRIMARY KEY,
	owner   text NOT NULL,
	made    timestamptz NOT NULL,
	expires timestamptz NOT NULL
);
