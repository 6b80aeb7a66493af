-- Why: what a guild chose must outlive the process, and conversations, songs and log lines are
-- kept for the dashboards that read them. Snowflakes are text: as numbers, browsers round them.

CREATE TABLE monitoring_config (
    guild_id TEXT NOT NULL PRIMARY KEY,
    alert_channel_id TEXT NOT NULL,
    check_interval INTEGER NOT NULL DEFAULT 60,
    uptime_kuma_url TEXT,
    api_key_hash TEXT,
    locale TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE TABLE conversation_logs (
    id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    prompt TEXT NOT NULL,
    response TEXT NOT NULL,
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX conversation_logs_user ON conversation_logs (user_id, timestamp);
CREATE INDEX conversation_logs_timestamp ON conversation_logs (timestamp);

CREATE TABLE music_logs (
    id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    guild_id TEXT NOT NULL,
    song_title TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_by_id TEXT NOT NULL,
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX music_logs_guild ON music_logs (guild_id, timestamp);
CREATE INDEX music_logs_timestamp ON music_logs (timestamp);

CREATE VIEW popular_songs AS
SELECT song_title, count(*) AS count FROM music_logs
GROUP BY song_title ORDER BY count(*) DESC, song_title;

CREATE TABLE bot_logs (
    id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    level TEXT NOT NULL,
    logger TEXT,
    message TEXT NOT NULL,
    context TEXT,
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX bot_logs_timestamp ON bot_logs (timestamp);
