-- What sellers' own lists would change in our price book; and every text of synced prices there was, with who put it there.

CREATE TABLE price_proposals (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    account TEXT NOT NULL,
    offer TEXT NOT NULL,
    change BLOB NOT NULL,  -- JSON
    state TEXT NOT NULL CHECK (state IN ('open', 'applied', 'rejected', 'superseded')),
    ended INTEGER,
    actor TEXT NOT NULL,  -- who decided
    message TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_open_proposal ON price_proposals (offer) WHERE state = 'open';

CREATE TABLE price_revisions (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('saved', 'applied', 'rolled back')),
    message TEXT NOT NULL,
    content BLOB NOT NULL,
    changes BLOB NOT NULL,  -- JSON: what it changed in the price book
    prices_before INTEGER NOT NULL,  -- number of the catalogue
    prices INTEGER NOT NULL
) STRICT;

CREATE TRIGGER price_revisions_are_never_edited BEFORE UPDATE ON price_revisions
BEGIN SELECT RAISE(ABORT, 'the history of prices is append-only'); END;
CREATE TRIGGER price_revisions_are_never_deleted BEFORE DELETE ON price_revisions
BEGIN SELECT RAISE(ABORT, 'the history of prices is append-only'); END;
