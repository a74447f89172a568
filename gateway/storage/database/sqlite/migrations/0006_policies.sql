-- Every policy that was put in force here, or was meant to be, with who wrote it; and what was done with it.

CREATE TABLE policy_revisions (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    policy TEXT NOT NULL,
    label TEXT NOT NULL,  -- default@7
    content BLOB NOT NULL,
    digest TEXT NOT NULL,  -- SHA-256 of the content
    meaning TEXT NOT NULL,  -- of what it says, without remarks and spacing
    author TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('saved', 'applied', 'rolled back', 'canary', 'promoted')),
    message TEXT NOT NULL,
    parent INTEGER  -- the revision of this policy before it
) STRICT;

CREATE TABLE policy_events (
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    revision INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER policy_revisions_are_never_edited BEFORE UPDATE ON policy_revisions
BEGIN SELECT RAISE(ABORT, 'the history of policies is append-only'); END;
CREATE TRIGGER policy_revisions_are_never_deleted BEFORE DELETE ON policy_revisions
BEGIN SELECT RAISE(ABORT, 'the history of policies is append-only'); END;
CREATE TRIGGER policy_events_are_never_edited BEFORE UPDATE ON policy_events
BEGIN SELECT RAISE(ABORT, 'the history of policies is append-only'); END;
CREATE TRIGGER policy_events_are_never_deleted BEFORE DELETE ON policy_events
BEGIN SELECT RAISE(ABORT, 'the history of policies is append-only'); END;
