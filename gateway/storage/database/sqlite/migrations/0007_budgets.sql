-- Budgets with windows, beside those over the life of a key or team.

CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    of TEXT NOT NULL CHECK (of IN ('gateway', 'team', 'key', 'user', 'tag', 'model', 'account')),
    name TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    window TEXT NOT NULL,
    zone TEXT NOT NULL,
    created INTEGER NOT NULL,
    extra INTEGER NOT NULL DEFAULT 0,
    extra_until INTEGER,
    removed INTEGER  -- kept, for orders under way still count in it
) STRICT, WITHOUT ROWID;

ALTER TABLE attempts ADD COLUMN budgets BLOB;  -- JSON: the counters that its cost and its charge move

CREATE TABLE balances_with_budgets (
    book TEXT NOT NULL CHECK (book IN ('cost', 'charge', 'key', 'budget cost', 'budget charge')),
    party TEXT NOT NULL,
    held INTEGER NOT NULL,
    posted INTEGER NOT NULL,
    PRIMARY KEY (book, party)
) STRICT, WITHOUT ROWID;
INSERT INTO balances_with_budgets SELECT book, party, held, posted FROM balances;
DROP TABLE balances;
ALTER TABLE balances_with_budgets RENAME TO balances;
