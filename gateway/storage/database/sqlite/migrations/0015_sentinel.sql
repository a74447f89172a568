-- What was drawn to see whether offers have changed.

CREATE TABLE sentinel_draws (
    id TEXT PRIMARY KEY,
    offer TEXT NOT NULL,
    prompt TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL  -- JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX sentinel_draws_by_offer ON sentinel_draws (offer, prompt, at);
