-- SQLite puts the words of a longer IN list into a tree of its own before it compares, once for each row that is
-- written: half of what an entry cost. And what belongs to a call is found by its id, which begins with the call's digits.

CREATE TABLE attempts_compared (
    id TEXT PRIMARY KEY,
    call_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    account TEXT NOT NULL,
    offer_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (
        state = 'settled' OR state = 'intent' OR state = 'accepted'
        OR state = 'released' OR state = 'reserved' OR state = 'suspended'
    ),
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
    reservation INTEGER NOT NULL,  -- 1: it only kept money aside for a part that waited; nothing was ordered
    fingerprint BLOB,  -- of what a client that repeats by itself asked for
    inputs BLOB,
    budgets BLOB,  -- JSON: the counters that its cost and its charge move
    listed INTEGER  -- nano-dollars by the list, where billing made the cost of them
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_compared SELECT id, call_id, part, team, key_id, account, offer_id, endpoint, state, hold_cost,
    hold_charge, cost, charge, width, height, count, steps, owner, started, ended, ticket, outcome, prices, policy,
    reservation, fingerprint, inputs, budgets, listed FROM attempts;
DROP TABLE attempts;
ALTER TABLE attempts_compared RENAME TO attempts;
-- Small: what is over leaves it.
CREATE INDEX attempts_open ON attempts (started) WHERE state <> 'settled' AND state <> 'released';

CREATE TABLE entries_compared (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    book TEXT NOT NULL CHECK (book = 'cost' OR book = 'charge'),
    party TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (
        kind = 'hold' OR kind = 'settle' OR kind = 'release' OR kind = 'suspend' OR kind = 'correction'
    ),
    amount INTEGER NOT NULL,
    attempt_id TEXT NOT NULL,  -- empty: a correction of an endpoint as a whole
    endpoint TEXT NOT NULL DEFAULT '',  -- only without an attempt
    note TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO entries_compared SELECT seq, at, book, party, kind, amount, attempt_id, endpoint, note FROM entries;
DROP TABLE entries;
ALTER TABLE entries_compared RENAME TO entries;
CREATE UNIQUE INDEX corrections_once ON entries (book, party, note) WHERE kind = 'correction';
CREATE TRIGGER entries_are_never_edited BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only: write a correction'); END;
CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are append-only: write a correction'); END;

CREATE TABLE balances_compared (
    book TEXT NOT NULL CHECK (
        book = 'cost' OR book = 'charge' OR book = 'key' OR book = 'budget cost' OR book = 'budget charge'
    ),
    party TEXT NOT NULL,
    held INTEGER NOT NULL,
    posted INTEGER NOT NULL,
    PRIMARY KEY (book, party)
) STRICT, WITHOUT ROWID;
INSERT INTO balances_compared SELECT book, party, held, posted FROM balances;
DROP TABLE balances;
ALTER TABLE balances_compared RENAME TO balances;

DROP INDEX assets_of_call;
