-- A decision takes a kilobyte or two. In the tree of a key, rows of more than a quarter of a page spill over into pages
-- of their own, one for each decision; rows that are found by an index do not, and two of them fit on a page.

CREATE TABLE decisions_in_order (
    call_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    team TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
INSERT INTO decisions_in_order SELECT call_id, part, number, at, team, body FROM decisions ORDER BY call_id, number;
DROP TABLE decisions;
ALTER TABLE decisions_in_order RENAME TO decisions;
CREATE UNIQUE INDEX decisions_of_call ON decisions (call_id, number);
