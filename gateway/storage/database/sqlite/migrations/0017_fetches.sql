-- How often a picture was fetched from here: whoever pays wants to know which ones nobody looks at.

CREATE TABLE fetches (
    asset_id TEXT PRIMARY KEY,
    times INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER fetches_go_with_their_picture AFTER DELETE ON assets
BEGIN DELETE FROM fetches WHERE asset_id = OLD.id; END;
