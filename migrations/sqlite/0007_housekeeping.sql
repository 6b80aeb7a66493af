-- Why: an hour is rolled up once, but rows of it may still come in hours later: out of memory after
-- a full disk, out of a backup, from another store. So every row that a roll-up is made of notes
-- its hour here, whoever writes it. On the usual path that is one look into a table of one row:
-- nothing is written but with the first row of an hour.

-- hour counts whole hours since 1970. is_taken: its roll-up has begun; a row that comes in after
-- that puts it back to 0, and then the hour stays due.
CREATE TABLE due_hours (
    hour INTEGER PRIMARY KEY,
    is_taken INTEGER NOT NULL DEFAULT 0
);

CREATE TRIGGER samples_due AFTER INSERT ON samples
BEGIN
    INSERT INTO due_hours (hour) VALUES ((NEW.sample_key >> 8) / 3600000)
    ON CONFLICT (hour) DO UPDATE SET is_taken = 0 WHERE is_taken <> 0;
END;

CREATE TRIGGER custom_metrics_due AFTER INSERT ON custom_metrics
BEGIN
    INSERT INTO due_hours (hour) VALUES (NEW.at_ms / 3600000)
    ON CONFLICT (hour) DO UPDATE SET is_taken = 0 WHERE is_taken <> 0;
END;

-- A poll speaks for the time until the next one, so it may reach into later hours.
CREATE TRIGGER polls_due AFTER INSERT ON polls
BEGIN
    INSERT INTO due_hours (hour)
    SELECT NEW.at_ms / 3600000 + step
    FROM (SELECT 0 AS step UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4)
    WHERE NEW.at_ms / 3600000 + step <= (NEW.at_ms + NEW.valid_ms) / 3600000
    ON CONFLICT (hour) DO UPDATE SET is_taken = 0 WHERE is_taken <> 0;
END;

-- What is there already is rolled up once more; nobody noted which of it came late.
INSERT INTO due_hours (hour)
SELECT (sample_key >> 8) / 3600000 FROM samples
UNION SELECT at_ms / 3600000 FROM custom_metrics
UNION SELECT at_ms / 3600000 FROM polls
UNION SELECT (at_ms + valid_ms) / 3600000 FROM polls;
