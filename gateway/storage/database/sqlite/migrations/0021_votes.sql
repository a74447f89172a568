-- What people said of pairs of experiments, without knowing who drew which; one row for each person and pair.

CREATE TABLE shadow_votes (
    pair TEXT NOT NULL,
    voter TEXT NOT NULL,
    experiment TEXT NOT NULL,
    choice INTEGER NOT NULL CHECK (choice BETWEEN -1 AND 1),  -- 1: the challenger's picture is better
    at INTEGER NOT NULL,        -- when they chose; a later choice of theirs takes its place
    imported INTEGER NOT NULL,  -- when their first one came in
    PRIMARY KEY (pair, voter)
) STRICT, WITHOUT ROWID;
CREATE INDEX shadow_votes_by_experiment ON shadow_votes (experiment);
