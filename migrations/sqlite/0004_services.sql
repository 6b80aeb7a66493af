-- Why: a thousand monitors polled every minute are 1.4 million checks a day. Only changes are
-- worth a row of their own; the checks themselves are kept packed, one row per poll, for two
-- days, and as one packed row per hour afterwards.

CREATE TABLE service_status_history (
    id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    service_id TEXT NOT NULL,
    service_name TEXT NOT NULL,
    status TEXT NOT NULL,
    response_time REAL,
    error_message TEXT,
    checked_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX service_status_history_service ON service_status_history (service_id, checked_at);
CREATE INDEX service_status_history_checked ON service_status_history (checked_at);

-- last_seen_at is behind the times for a monitor in its instance's newest poll: that poll's own
-- time counts (a thousand rows rewritten every minute would say nothing new).
CREATE TABLE monitors (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    type TEXT,
    url TEXT,
    hostname TEXT,
    port TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'unknown',
    changed_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    forgotten INTEGER NOT NULL DEFAULT 0
);

-- Which monitors a poll spoke of: their numbers, 4 bytes each, little endian, ascending.
CREATE TABLE rosters (
    roster INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    numbers BLOB NOT NULL,
    UNIQUE (instance, numbers)
);

-- statuses: one byte per monitor of the roster (0 down, 1 up, 2 pending, 3 maintenance,
-- 4 unknown). times: 4 signed bytes per monitor, little endian, tenths of a millisecond, -1 for
-- no answer. The counts are those of the whole poll; other is pending and maintenance.
CREATE TABLE polls (
    instance TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    valid_ms INTEGER NOT NULL,
    roster INTEGER NOT NULL,
    up INTEGER NOT NULL,
    down INTEGER NOT NULL,
    other INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    times_sum INTEGER NOT NULL,
    statuses BLOB NOT NULL,
    times BLOB NOT NULL
);
CREATE UNIQUE INDEX polls_at ON polls (instance, at_ms);

-- One hour of one instance. body: six columns of 4-byte numbers, one per monitor of the roster,
-- compressed with zlib: checks, ms up, ms down, ms other, answered, mean response time in tenths
-- of a millisecond. The numbers beside it are their sums.
CREATE TABLE service_hourly (
    instance TEXT NOT NULL,
    hour INTEGER NOT NULL,
    roster INTEGER NOT NULL,
    checks INTEGER NOT NULL,
    up_ms INTEGER NOT NULL,
    down_ms INTEGER NOT NULL,
    other_ms INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    times_sum INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX service_hourly_hour ON service_hourly (instance, hour);
