-- How accounts' invoices are made from list prices, and what that has counted so far.

CREATE TABLE billing_terms (
    account TEXT PRIMARY KEY,
    terms BLOB NOT NULL  -- JSON of policies.billing.Billing
) STRICT, WITHOUT ROWID;

CREATE TABLE billing_counters (
    account TEXT NOT NULL,
    counter TEXT NOT NULL,  -- '2026-11/requests', 'credit/autumn', ...
    value INTEGER NOT NULL,
    PRIMARY KEY (account, counter)
) STRICT, WITHOUT ROWID;

CREATE TABLE billing_moves (
    seq INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    attempt_id TEXT NOT NULL,  -- empty for a correction of an endpoint as a whole
    at INTEGER NOT NULL,
    moves BLOB NOT NULL  -- JSON: counter -> what was added to it
) STRICT;

CREATE TRIGGER billing_moves_are_never_edited BEFORE UPDATE ON billing_moves
BEGIN SELECT RAISE(ABORT, 'what was counted is never edited'); END;
CREATE TRIGGER billing_moves_are_never_deleted BEFORE DELETE ON billing_moves
BEGIN SELECT RAISE(ABORT, 'what was counted is never deleted'); END;

ALTER TABLE attempts ADD COLUMN listed INTEGER;  -- nano-dollars by the list, where billing made the cost of them
