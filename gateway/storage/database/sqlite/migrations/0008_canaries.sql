-- Policies that were tried beside the one in force, one at a time.

CREATE TABLE canaries (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    base INTEGER NOT NULL,  -- the revision that was in force when it began
    share REAL NOT NULL,
    teams TEXT NOT NULL,  -- JSON; empty: of every team
    started INTEGER NOT NULL,
    author TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'passed', 'promoted', 'rolled back', 'aborted', 'superseded')),
    ended INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    report BLOB  -- JSON: both sides in figures
) STRICT;
CREATE UNIQUE INDEX canaries_one_at_a_time ON canaries (state) WHERE state = 'running';
