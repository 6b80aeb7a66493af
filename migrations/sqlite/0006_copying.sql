-- Why: with a remote store every fact must get there in order and exactly once, also when the
-- process is killed between any two steps. So the very transaction that stores a row notes it in
-- the journal, and what has arrived is struck out afterwards.

-- position: microseconds since 1970, pushed on where the clock stands still or steps back, so
-- that it only ever rises; the newest row therefore stays even when it has arrived.
-- ref: the key of a row that never changes; it is read when its turn comes.
-- body: a row that may change, as it was then: a JSON array of its columns.
CREATE TABLE journal (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    ref,
    body TEXT
);
-- A member's wish to be forgotten looks for what still waits.
CREATE INDEX journal_members ON journal (ref) WHERE kind IN ('conversations', 'music');

-- How far copying has come, by name.
CREATE TABLE copy_state (
    name TEXT NOT NULL PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

-- Rows the remote store can never take, with its reason; the newest thousand.
CREATE TABLE copy_refused (
    number INTEGER PRIMARY KEY,
    position INTEGER,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL
);
