-- What a judge was asked about pairs of experiments, and what it cost; one row for each time.

CREATE TABLE shadow_judgements (
    pair TEXT NOT NULL,
    at INTEGER NOT NULL,       -- when it was asked
    experiment TEXT NOT NULL,
    judgement INTEGER CHECK (judgement BETWEEN -1 AND 1),  -- 1: the challenger is better; NULL: it did not say
    failure TEXT,              -- why it did not; NULL while it is asked, and for good where that was cut short
    cost INTEGER NOT NULL,     -- nano-dollars, by the price in the settings
    PRIMARY KEY (pair, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX shadow_judgements_by_time ON shadow_judgements (at);
CREATE INDEX shadow_judgements_by_experiment ON shadow_judgements (experiment);
