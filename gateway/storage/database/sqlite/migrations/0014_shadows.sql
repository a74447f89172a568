-- Pairs of experiments, and budgets of what their copies cost.

CREATE TABLE shadow_pairs (
    id TEXT PRIMARY KEY,
    experiment TEXT NOT NULL,
    challenger TEXT NOT NULL,
    call_id TEXT NOT NULL,    -- the live call
    shadow_call TEXT NOT NULL,  -- its copy; pictures of both sides are kept under it
    at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    team TEXT NOT NULL,
    user TEXT,
    body BLOB NOT NULL,       -- JSON: both sides
    measures BLOB             -- JSON: name -> figure; NULL until the pictures were measured
) STRICT, WITHOUT ROWID;
CREATE INDEX shadow_pairs_by_experiment ON shadow_pairs (experiment, at);
CREATE INDEX shadow_pairs_by_call ON shadow_pairs (call_id);
CREATE INDEX shadow_pairs_by_copy ON shadow_pairs (shadow_call);
CREATE INDEX shadow_pairs_by_end ON shadow_pairs (expires);
CREATE INDEX shadow_pairs_by_user ON shadow_pairs (user) WHERE user IS NOT NULL;
CREATE INDEX shadow_pairs_unmeasured ON shadow_pairs (at) WHERE measures IS NULL;

CREATE TABLE shadow_left_out (
    experiment TEXT NOT NULL,
    day TEXT NOT NULL,
    reason TEXT NOT NULL,
    calls INTEGER NOT NULL,   -- that were picked and not copied
    PRIMARY KEY (experiment, day, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets_with_shadows (
    id TEXT PRIMARY KEY,
    of TEXT NOT NULL CHECK (of IN ('gateway', 'team', 'key', 'user', 'tag', 'model', 'account', 'shadow')),
    name TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    window TEXT NOT NULL,
    zone TEXT NOT NULL,
    created INTEGER NOT NULL,
    extra INTEGER NOT NULL DEFAULT 0,
    extra_until INTEGER,
    removed INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO budgets_with_shadows
    SELECT id, of, name, amount, window, zone, created, extra, extra_until, removed FROM budgets;
DROP TABLE budgets;
ALTER TABLE budgets_with_shadows RENAME TO budgets;
