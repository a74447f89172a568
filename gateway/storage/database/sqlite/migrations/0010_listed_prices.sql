-- What a seller's own price list said when it was last read.

CREATE TABLE listed_prices (
    account TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    unit TEXT NOT NULL,
    nano_usd INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (account, endpoint)
) STRICT, WITHOUT ROWID;
