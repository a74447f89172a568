-- What lets a request that comes twice be drawn and charged once.

ALTER TABLE attempts ADD COLUMN fingerprint BLOB;  -- of what a client that repeats by itself asked for

CREATE TABLE idempotency (
    team TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    call_id TEXT NOT NULL,
    user TEXT,
    created INTEGER NOT NULL,
    answered INTEGER NOT NULL,  -- 1: its call delivered, so its pictures are the answer for good
    PRIMARY KEY (team, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created);
