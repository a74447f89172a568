-- A judge that answered nobody says nothing of the pair it was asked about: that is no try at it.

ALTER TABLE shadow_judgements ADD COLUMN of_all INTEGER NOT NULL DEFAULT 0;
UPDATE shadow_judgements SET of_all = 1 WHERE failure IN ('not reached', 'no answer in time', 'connection lost')
    OR (failure LIKE 'status %' AND failure NOT IN ('status 400', 'status 413', 'status 422'));
