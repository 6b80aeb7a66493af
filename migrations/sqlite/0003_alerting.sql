-- Why: an alert must survive a restart, and must be told even if the process dies between
-- deciding and telling. So the change (flip), where the alert now stands, its public row in
-- `alert_history` and the outbox are written in one step; delivery is noted afterwards.

-- One row per incident and subject. The second half of the columns is what the program itself
-- needs; whoever inserts by hand may leave it out. A write with an older version is ignored.
CREATE TABLE alert_history (
    id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    rule_name TEXT NOT NULL,
    severity TEXT NOT NULL DEFAULT 'warning',
    category TEXT NOT NULL DEFAULT 'system',
    message TEXT NOT NULL DEFAULT '',
    metrics_snapshot TEXT DEFAULT '{}',
    resolved INTEGER NOT NULL DEFAULT 0,
    resolved_at TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    triggered_at TEXT GENERATED ALWAYS AS (timestamp) VIRTUAL,
    metrics_data TEXT GENERATED ALWAYS AS (metrics_snapshot) VIRTUAL,
    subject TEXT NOT NULL DEFAULT '',
    scope TEXT NOT NULL DEFAULT 'operator',
    metric TEXT NOT NULL DEFAULT '',
    level REAL NOT NULL DEFAULT 0,
    value REAL,
    status TEXT NOT NULL DEFAULT '',
    ending TEXT,
    unknown_s REAL NOT NULL DEFAULT 0,
    silent INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}',
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX alert_history_timestamp ON alert_history (timestamp);
CREATE INDEX alert_history_subject ON alert_history (subject, timestamp);
CREATE INDEX alert_history_open ON alert_history (timestamp) WHERE resolved = 0;

CREATE VIEW active_alerts AS
SELECT
    id, rule_name, severity, category, subject, message,
    round((julianday('now') - julianday(timestamp)) * 86400.0, 3) AS age_seconds,
    timestamp, value, status, metrics_snapshot
FROM alert_history WHERE resolved = 0;

-- Where each alert that is not at rest stands.
CREATE TABLE alert_states (
    rule_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    phase TEXT NOT NULL,
    since_at TEXT NOT NULL,
    evaluated_at TEXT NOT NULL,
    severity TEXT NOT NULL,
    incident_id TEXT,
    value REAL,
    status TEXT NOT NULL DEFAULT '',
    data_at TEXT,
    clear_since_at TEXT,
    unknown_s REAL NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}',
    hold_since_at TEXT,
    terms TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (rule_name, subject)
) WITHOUT ROWID;

CREATE TABLE flips (
    flip_id TEXT NOT NULL PRIMARY KEY,
    incident_id TEXT NOT NULL,
    rule_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    at TEXT NOT NULL,
    fired_at TEXT NOT NULL,
    severity TEXT NOT NULL,
    category TEXT NOT NULL,
    scope TEXT NOT NULL,
    metric TEXT NOT NULL,
    level REAL NOT NULL,
    value REAL,
    status TEXT NOT NULL DEFAULT '',
    ending TEXT,
    duration_s REAL,
    unknown_s REAL NOT NULL DEFAULT 0,
    silent INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX flips_at ON flips (at);

-- position keeps the order in which things were decided.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY,
    outbox_id TEXT NOT NULL UNIQUE,
    flip_id TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    guild_id TEXT,
    channel_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    status TEXT NOT NULL,
    card_id TEXT,
    attempted_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    delivered_at TEXT,
    reply_message_id TEXT
);
CREATE INDEX outbox_queued ON outbox (position) WHERE status = 'queued';
CREATE INDEX outbox_created ON outbox (created_at);

-- incident_ids is a JSON array, in the order the card tells them.
CREATE TABLE cards (
    card_id TEXT NOT NULL PRIMARY KEY,
    marker TEXT NOT NULL,
    guild_id TEXT,
    channel_id TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    incident_ids TEXT NOT NULL,
    is_storm INTEGER NOT NULL DEFAULT 0,
    message_id TEXT,
    attempted_at TEXT,
    folded_at TEXT,
    closed_at TEXT
);
CREATE INDEX cards_open ON cards (opened_at) WHERE closed_at IS NULL;
CREATE INDEX cards_closed ON cards (closed_at) WHERE closed_at IS NOT NULL;
