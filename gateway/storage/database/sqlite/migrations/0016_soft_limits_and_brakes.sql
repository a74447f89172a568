-- From which share of a budget on something is done about it, and what.

ALTER TABLE budgets ADD COLUMN soft INTEGER CHECK (soft BETWEEN 1 AND 99);  -- per cent of the limit
ALTER TABLE budgets ADD COLUMN soft_then TEXT NOT NULL DEFAULT 'notify'
    CHECK (soft_then IN ('notify', 'preview', 'queue'));

-- Keys that spend far more than usual are paused for a time.
ALTER TABLE keys ADD COLUMN paused_until INTEGER;
ALTER TABLE keys ADD COLUMN unbraked_until INTEGER;  -- somebody released it: not paused again before

-- What a key had been charged in all when an hour began in which it spent anything: what hours cost is their difference.
CREATE TABLE key_hours (
    key_id TEXT NOT NULL,
    hour INTEGER NOT NULL,  -- since 1970, in UTC
    opened INTEGER NOT NULL,  -- nano-dollars
    PRIMARY KEY (key_id, hour)
) STRICT, WITHOUT ROWID;
