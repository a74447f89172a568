-- Money is nano-dollars, times are microseconds since 1970 in UTC, tickets, outcomes and requests are JSON.

CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    call_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    account TEXT NOT NULL,
    offer_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'intent', 'accepted', 'settled', 'released', 'suspended')),
    hold_cost INTEGER NOT NULL CHECK (hold_cost >= 0),
    hold_charge INTEGER NOT NULL CHECK (hold_charge >= 0),
    cost INTEGER NOT NULL DEFAULT 0,
    charge INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    count INTEGER NOT NULL,
    steps INTEGER,
    owner TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER,
    ticket BLOB,
    outcome BLOB,
    prices INTEGER NOT NULL,
    policy TEXT NOT NULL,
    reservation INTEGER NOT NULL  -- 1: it only kept money aside for a part that waited; nothing was ordered
) STRICT, WITHOUT ROWID;  -- ids grow with time: one tree to write instead of a table and its index
CREATE INDEX attempts_of_call ON attempts (call_id);
-- Small: what is over leaves it.
CREATE INDEX attempts_open ON attempts (started) WHERE state <> 'settled' AND state <> 'released';

CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    book TEXT NOT NULL CHECK (book IN ('cost', 'charge')),
    party TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'settle', 'release', 'suspend', 'correction')),
    amount INTEGER NOT NULL,
    attempt_id TEXT NOT NULL,  -- empty: a correction of an endpoint as a whole
    endpoint TEXT NOT NULL DEFAULT '',  -- only without an attempt
    note TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX corrections_once ON entries (book, party, note) WHERE kind = 'correction';
CREATE TRIGGER entries_are_never_edited BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only: write a correction'); END;
CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only: write a correction'); END;

-- Always the sum of the entries. Book 'key': the part of the charges that one API key caused.
CREATE TABLE balances (
    book TEXT NOT NULL CHECK (book IN ('cost', 'charge', 'key')),
    party TEXT NOT NULL,
    held INTEGER NOT NULL,
    posted INTEGER NOT NULL,
    PRIMARY KEY (book, party)
) STRICT, WITHOUT ROWID;

CREATE TABLE teams (team TEXT PRIMARY KEY, budget INTEGER CHECK (budget >= 0)) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    team TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    models TEXT,
    budget INTEGER CHECK (budget >= 0),
    rpm INTEGER CHECK (rpm >= 0),
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER
) STRICT;

CREATE TABLE owners (
    owner TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
    call_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    team TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (call_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE recipes (
    call_id TEXT PRIMARY KEY,
    team TEXT NOT NULL,
    user TEXT,
    request BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE assets (
    id TEXT PRIMARY KEY,
    call_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    team TEXT NOT NULL,
    position INTEGER NOT NULL,
    path TEXT NOT NULL,  -- its last part is the id, by which it is found
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    seed TEXT,  -- sellers use all 64 bits, which SQLite's integers cannot hold
    model TEXT NOT NULL,
    offer_id TEXT NOT NULL,
    tier TEXT NOT NULL,
    intent TEXT NOT NULL,
    cost INTEGER NOT NULL,
    parent_id TEXT,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX assets_of_call ON assets (call_id);
CREATE INDEX assets_of_parent ON assets (parent_id) WHERE parent_id IS NOT NULL;
