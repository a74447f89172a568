-- What somebody was told, or is to be told. The id says what it is about, so nothing is told twice.

CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    facts BLOB NOT NULL
) STRICT;

CREATE TABLE alert_deliveries (
    alert TEXT NOT NULL,
    hook TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (alert, hook)
) STRICT, WITHOUT ROWID;
