-- What was agreed with a provider account about a month. Lines come first, then the statement that locks them.

CREATE TABLE statements (
    account TEXT NOT NULL,
    month TEXT NOT NULL,  -- 2026-11, in UTC
    closed INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,  -- the last ledger entry it knows of; later ones of its month count in the next
    invoice TEXT NOT NULL,  -- SHA-256 of the invoice it was held against
    note TEXT NOT NULL,  -- why a difference was accepted
    PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;

CREATE TABLE statement_lines (
    account TEXT NOT NULL,
    month TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    orders INTEGER NOT NULL,
    images INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    late INTEGER NOT NULL,  -- the part of the cost that belongs to an earlier month, and was posted after its close
    invoiced INTEGER NOT NULL,
    PRIMARY KEY (account, month, endpoint)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER statements_are_never_edited BEFORE UPDATE ON statements
BEGIN SELECT RAISE(ABORT, 'a closed statement is locked: what changes later counts in the next month'); END;
CREATE TRIGGER statements_are_never_deleted BEFORE DELETE ON statements
BEGIN SELECT RAISE(ABORT, 'a closed statement is locked: what changes later counts in the next month'); END;
CREATE TRIGGER statement_lines_are_never_edited BEFORE UPDATE ON statement_lines
BEGIN SELECT RAISE(ABORT, 'a closed statement is locked: what changes later counts in the next month'); END;
CREATE TRIGGER statement_lines_are_never_deleted BEFORE DELETE ON statement_lines
BEGIN SELECT RAISE(ABORT, 'a closed statement is locked: what changes later counts in the next month'); END;
CREATE TRIGGER statement_lines_are_locked BEFORE INSERT ON statement_lines
WHEN EXISTS (SELECT 1 FROM statements WHERE account = NEW.account AND month = NEW.month)
BEGIN SELECT RAISE(ABORT, 'a closed statement is locked: what changes later counts in the next month'); END;
