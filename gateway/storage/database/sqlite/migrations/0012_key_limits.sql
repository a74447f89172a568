-- What keys may do beside their budgets and rates; rotation; and who changed what of a key.

ALTER TABLE keys ADD COLUMN tiers TEXT;  -- JSON: words; NULL is all
ALTER TABLE keys ADD COLUMN max_price INTEGER CHECK (max_price > 0);  -- nano-dollars a picture
ALTER TABLE keys ADD COLUMN max_call_price INTEGER CHECK (max_call_price > 0);  -- nano-dollars a call
ALTER TABLE keys ADD COLUMN max_pixels INTEGER CHECK (max_pixels > 0);
ALTER TABLE keys ADD COLUMN concurrency INTEGER CHECK (concurrency > 0);  -- calls in flight
ALTER TABLE keys ADD COLUMN former BLOB;  -- hash of the secret before the last rotation
ALTER TABLE keys ADD COLUMN former_until INTEGER;

-- `images` was all that keys were asked for; what it allowed has names of its own now.
UPDATE keys SET scopes = replace(
    scopes, '"images"', '"images:write","images:read","decisions:read","models:read","quotes:read"'
);

CREATE TABLE changes (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    of TEXT NOT NULL,
    name TEXT NOT NULL,
    action TEXT NOT NULL,
    detail BLOB NOT NULL  -- JSON; never a secret, nor a hash of one
) STRICT;
CREATE TRIGGER changes_are_never_edited BEFORE UPDATE ON changes
BEGIN SELECT RAISE(ABORT, 'the record of changes is append-only'); END;
CREATE TRIGGER changes_are_never_deleted BEFORE DELETE ON changes
BEGIN SELECT RAISE(ABORT, 'the record of changes is append-only'); END;
