ALTER TABLE keys ADD COLUMN ipm INTEGER CHECK (ipm >= 0);  -- pictures per minute

-- What was erased, when and by whom; never what it was.
CREATE TABLE erasures (
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    images INTEGER NOT NULL,
    recipes INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    payloads INTEGER NOT NULL
) STRICT;
CREATE TRIGGER erasures_are_never_edited BEFORE UPDATE ON erasures
BEGIN SELECT RAISE(ABORT, 'the record of erasures is append-only'); END;
CREATE TRIGGER erasures_are_never_deleted BEFORE DELETE ON erasures
BEGIN SELECT RAISE(ABORT, 'the record of erasures is append-only'); END;
