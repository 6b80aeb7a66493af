"""Databases as people have them before the bot comes: tables, views and rights of their own."""

from __future__ import annotations

from typing import Final

DASHBOARD: Final = """
CREATE TABLE system_stats (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    bot_id TEXT DEFAULT 'primary',
    cpu_usage REAL DEFAULT 0,
    ram_usage REAL DEFAULT 0,
    memory_rss REAL DEFAULT 0,
    memory_heap REAL DEFAULT 0,
    ping_gateway REAL DEFAULT 0,
    ping_lavalink REAL DEFAULT 0,
    server_count INTEGER DEFAULT 0,
    guild_count INTEGER DEFAULT 0,
    uptime INTEGER DEFAULT 0,
    status TEXT DEFAULT 'online',
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_system_stats_timestamp ON system_stats(timestamp DESC);
CREATE TABLE conversation_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    prompt TEXT NOT NULL,
    response TEXT NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE TABLE music_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    guild_id TEXT NOT NULL,
    song_title TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_by_id TEXT NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE TABLE bot_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    level VARCHAR(8) NOT NULL,
    message TEXT NOT NULL,
    context TEXT,
    server TEXT NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO system_stats (cpu_usage, server_count, timestamp)
    SELECT n * 1.1, 3, now() - n * INTERVAL '10 s' FROM generate_series(1, 50) AS n;
INSERT INTO system_stats (bot_id, timestamp) VALUES (NULL, NULL);
INSERT INTO conversation_logs (user_id, user_name, prompt, response, timestamp)
    VALUES ('7', 'みこ', 'q', 'a', NULL), ('8', 'そら', 'q', 'a', now());
INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id)
    VALUES ('1', 'Ahoy', 'みこ', '7');
INSERT INTO bot_logs (level, message, context, server)
    VALUES ('ERROR', 'boom', 'plain words', 'x'), ('INFO', 'on', '{"a": 1}', 'x');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.updated_at = now(); RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON system_stats FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE system_stats ENABLE ROW LEVEL SECURITY;
ALTER TABLE conversation_logs ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Enable read access for all users" ON system_stats FOR SELECT USING (true);
CREATE POLICY "Enable insert for all users" ON system_stats FOR INSERT WITH CHECK (true);
CREATE POLICY "All" ON conversation_logs FOR ALL USING (true) WITH CHECK (true);
CREATE VIEW popular_songs AS SELECT song_title, COUNT(*) AS count FROM music_logs GROUP BY 1;
CREATE VIEW recent_stats WITH (security_invoker = true) AS
    SELECT id, cpu_usage, ram_usage FROM system_stats ORDER BY timestamp DESC LIMIT 100;
COMMENT ON VIEW recent_stats IS 'for the wall';
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
ALTER PUBLICATION supabase_realtime ADD TABLE system_stats;
"""
"""The tables of a Supabase dashboard, with policies that show them to everybody."""

METRICS: Final = """
CREATE TABLE system_metrics (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    metric_name VARCHAR(100) NOT NULL,
    metric_value NUMERIC NOT NULL,
    labels JSONB DEFAULT '{}',
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE TABLE metrics_raw (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    metric_type VARCHAR(50) NOT NULL,
    data JSONB NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE TABLE metrics_hourly (
    id BIGSERIAL PRIMARY KEY,
    hour TIMESTAMPTZ NOT NULL,
    metric_name VARCHAR(100) NOT NULL,
    avg_value NUMERIC,
    min_value NUMERIC,
    max_value NUMERIC,
    count INTEGER,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    UNIQUE (hour, metric_name)
);
CREATE TABLE daily_summaries (
    id BIGSERIAL PRIMARY KEY,
    date DATE UNIQUE NOT NULL,
    summary_data JSONB NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE TABLE alert_history (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    rule_name VARCHAR(100) NOT NULL,
    severity VARCHAR(20) NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    category VARCHAR(50),
    message TEXT NOT NULL,
    metrics_snapshot JSONB,
    resolved BOOLEAN DEFAULT FALSE,
    resolved_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE VIEW latest_metrics AS SELECT DISTINCT ON (metric_name) metric_name, metric_value, labels,
    timestamp FROM system_metrics ORDER BY metric_name, timestamp DESC;
CREATE VIEW active_alerts AS SELECT id, timestamp, rule_name, severity, category, message,
    EXTRACT(EPOCH FROM (NOW() - timestamp)) AS age_seconds
    FROM alert_history WHERE resolved = FALSE ORDER BY timestamp DESC;
CREATE VIEW grave AS SELECT id, rule_name, severity, message FROM alert_history
    WHERE severity = 'critical';
CREATE VIEW grave_names AS SELECT id, rule_name FROM grave;
CREATE RULE nobody AS ON INSERT TO grave DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW alert_counts AS
    SELECT severity, COUNT(*) AS count FROM alert_history GROUP BY severity;
CREATE UNIQUE INDEX alert_counts_severity ON alert_counts (severity);
CREATE VIEW raw_ids AS SELECT id, metric_type FROM metrics_raw;
CREATE VIEW hours AS SELECT hour, metric_name, avg_value FROM metrics_hourly;
CREATE MATERIALIZED VIEW metrics_last_24h AS
    SELECT metric_name, AVG(metric_value) AS avg_value FROM system_metrics GROUP BY metric_name;
CREATE FUNCTION cleanup_old_metrics(retention_days INTEGER DEFAULT 30)
    RETURNS TABLE (table_name TEXT, deleted_count BIGINT) LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN DELETE FROM system_metrics; END $$;
INSERT INTO system_metrics (timestamp, metric_name, metric_value, labels)
    SELECT now() - n * INTERVAL '10 s', 'cpu_usage', n + 0.125, '{"host": "a"}'
    FROM generate_series(1, 100) AS n;
INSERT INTO metrics_raw (metric_type, data)
    SELECT 'system', '{"a": 1}' FROM generate_series(1, 7);
INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count) VALUES
    ('2026-01-01 00:00:00+00', 'cpu_usage', 1.5, 1, 2, 10),
    ('2026-01-01 01:00:00+00', 'cpu_usage', NULL, NULL, NULL, NULL);
INSERT INTO daily_summaries (date, summary_data)
    VALUES ('2026-01-01', '{"total": 1}'), ('2026-01-02', '[1, 2]');
INSERT INTO alert_history (rule_name, severity, category, message, metrics_snapshot, resolved)
    VALUES ('HighCPU', 'warning', 'system', 'm', '{"cpu": 1}', FALSE),
        ('X', 'critical', NULL, 'n', NULL, NULL), ('Y', 'info', 'a', 'o', '[]', TRUE);
REFRESH MATERIALIZED VIEW alert_counts;
REFRESH MATERIALIZED VIEW metrics_last_24h;
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
REVOKE ALL ON grave FROM anon;
REVOKE ALL ON alert_counts FROM anon, authenticated;
"""
"""The tables and views of a monitoring system on PostgreSQL, with numbers for ids."""

COGS: Final = """
CREATE TABLE monitoring_config (
    guild_id BIGINT PRIMARY KEY,
    alert_channel_id BIGINT NOT NULL,
    check_interval INTEGER DEFAULT 60,
    uptime_kuma_url TEXT,
    api_key_hash TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE service_status_history (
    id SERIAL PRIMARY KEY,
    service_id INTEGER NOT NULL,
    service_name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('up', 'down', 'warning')),
    response_time INTEGER,
    error_message TEXT,
    checked_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE alert_history (
    id SERIAL PRIMARY KEY,
    rule_name TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')),
    message TEXT,
    metrics_data TEXT,
    triggered_at TIMESTAMP NOT NULL,
    resolved_at TIMESTAMP,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE performance_metrics (
    id SERIAL PRIMARY KEY,
    metric_type TEXT NOT NULL,
    metric_value REAL NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO monitoring_config (guild_id, alert_channel_id, created_at, updated_at)
    VALUES (900719925474099312, 1, '2026-01-01', '2026-01-01 12:00:00'), (2, 3, NULL, NULL);
INSERT INTO service_status_history (service_id, service_name, status, response_time, checked_at)
    VALUES (1, 'a', 'up', 12, '2026-01-01 00:00:00'), (1, 'a', 'down', NULL, '2026-01-01 01:00:00');
INSERT INTO alert_history (rule_name, severity, message, metrics_data, triggered_at, resolved_at)
    VALUES ('high_cpu_usage', 'MEDIUM', 'm', '{"cpu": 90}', '2026-01-01 00:00:00', NULL),
        ('service_down', 'CRITICAL', NULL, 'no json', '2026-01-01 01:00:00', '2026-01-01 01:10:00'),
        ('slow', 'LOW', 'x', NULL, '2026-01-02', NULL);
INSERT INTO performance_metrics (metric_type, metric_value, recorded_at)
    VALUES ('memory_usage', 55.5, '2026-01-01'), ('loop', 1.25, '2026-01-01');
CREATE VIEW loud AS SELECT rule_name, triggered_at, metrics_data FROM alert_history;
"""
"""The tables of a bot's own monitoring cogs: numbers for snowflakes, times without a zone."""
