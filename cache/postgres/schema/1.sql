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

-- Who retrieves what. Not worth a log, for a claim that a crash forgets costs
-- one retrieval.
CREATE UNLOGGED TABLE stsmap.claims (
	domain  text COLLATE "C" PRIMARY KEY,
	owner   text NOT NULL,
	made    timestamptz NOT NULL,
	expires timestamptz NOT NULL
);

-- What was put or deleted lately. Numbers are handed out in another order than
-- transactions commit, so readers do not go by a number: they remember the
-- snapshot that they last read with, and what is new is what it did not see.
CREATE TABLE stsmap.changes (
	n      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
	domain text COLLATE "C" NOT NULL
);
CREATE INDEX changes_xid ON stsmap.changes (xid);

-- Changes that the snapshot trimmed saw are removed, and next will become
-- trimmed when it is ten minutes old. One row.
CREATE TABLE stsmap.feed (
	one     boolean PRIMARY KEY DEFAULT true CHECK (one),
	trimmed pg_snapshot NOT NULL,
	next    pg_snapshot NOT NULL,
	at      timestamptz NOT NULL -- when next was taken
);
INSERT INTO stsmap.feed (trimmed, next, at) VALUES (pg_current_snapshot(), pg_current_snapshot(), now());
