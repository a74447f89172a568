-- What an account was ordered lately is looked at again and again: while any of it is suspended, and hour by hour.
CREATE INDEX attempts_of_account ON attempts (account, started);
