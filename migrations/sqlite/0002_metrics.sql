-- Why: every metric must be readable by name (`system_metrics`, `latest_metrics`, ...), yet a
-- snapshot stored twice is a waste. So the names are a view over the snapshots, joined by what
-- other parts report in their own words; long charts read the hourly roll-up.

CREATE TABLE metric_names (
    metric INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- What was reported by name, exactly as reported. Time is in the key, so "the last hour of one
-- metric" is one short walk, and saving the same fact twice stores it once.
CREATE TABLE custom_metrics (
    metric INTEGER NOT NULL REFERENCES metric_names (metric),
    at_ms INTEGER NOT NULL,
    id TEXT NOT NULL,
    value REAL NOT NULL CHECK (typeof(value) = 'real' AND abs(value) < 1.8e308),
    labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
    bot INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (metric, at_ms, id)
) WITHOUT ROWID;

-- One hour of one metric; hour counts whole hours since 1970.
CREATE TABLE hourly (
    metric INTEGER NOT NULL REFERENCES metric_names (metric),
    hour INTEGER NOT NULL,
    bot INTEGER NOT NULL DEFAULT 1,
    avg_value REAL NOT NULL,
    min_value REAL NOT NULL,
    max_value REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (metric, hour, bot)
) WITHOUT ROWID;

-- All points by name. A condition on sample_key (= ms * 256 + bot) reaches the base tables.
CREATE VIEW metric_points AS
SELECT sample_key, 1 AS part, 'cpu_usage' AS metric_name, cpu_usage / 100.0 AS metric_value,
    '{}' AS labels, NULL AS id FROM samples WHERE cpu_usage IS NOT NULL
UNION ALL SELECT sample_key, 2, 'memory_usage', ram_usage / 100.0, '{}', NULL FROM samples WHERE ram_usage IS NOT NULL
UNION ALL SELECT sample_key, 3, 'swap_usage', swap_usage / 100.0, '{}', NULL FROM samples WHERE swap_usage IS NOT NULL
UNION ALL SELECT sample_key, 4, 'disk_usage', disk_usage / 100.0, '{}', NULL FROM samples WHERE disk_usage IS NOT NULL
UNION ALL SELECT sample_key, 5, 'network_rx', network_rx, '{}', NULL FROM samples WHERE network_rx IS NOT NULL
UNION ALL SELECT sample_key, 6, 'network_tx', network_tx, '{}', NULL FROM samples WHERE network_tx IS NOT NULL
UNION ALL SELECT sample_key, 7, 'load_average_1m', load_average_1m / 100.0, '{}', NULL FROM samples WHERE load_average_1m IS NOT NULL
UNION ALL SELECT sample_key, 8, 'load_average_5m', load_average_5m / 100.0, '{}', NULL FROM samples WHERE load_average_5m IS NOT NULL
UNION ALL SELECT sample_key, 9, 'load_average_15m', load_average_15m / 100.0, '{}', NULL FROM samples WHERE load_average_15m IS NOT NULL
UNION ALL SELECT sample_key, 10, 'process_cpu', process_cpu / 100.0, '{}', NULL FROM samples WHERE process_cpu IS NOT NULL
UNION ALL SELECT sample_key, 11, 'memory_rss', memory_rss / 100.0, '{}', NULL FROM samples WHERE memory_rss IS NOT NULL
UNION ALL SELECT sample_key, 12, 'memory_heap', memory_heap / 100.0, '{}', NULL FROM samples WHERE memory_heap IS NOT NULL
UNION ALL SELECT sample_key, 13, 'threads', threads, '{}', NULL FROM samples WHERE threads IS NOT NULL
UNION ALL SELECT sample_key, 14, 'open_files', open_files, '{}', NULL FROM samples WHERE open_files IS NOT NULL
UNION ALL SELECT sample_key, 15, 'uptime', uptime, '{}', NULL FROM samples WHERE uptime IS NOT NULL
UNION ALL SELECT sample_key, 16, 'loop_lag_p99', loop_lag_p99 / 100.0, '{}', NULL FROM samples WHERE loop_lag_p99 IS NOT NULL
UNION ALL SELECT sample_key, 17, 'loop_lag_max', loop_lag_max / 100.0, '{}', NULL FROM samples WHERE loop_lag_max IS NOT NULL
UNION ALL SELECT sample_key, 18, 'missed_ticks', missed_ticks, '{}', NULL FROM samples WHERE missed_ticks IS NOT NULL
UNION ALL SELECT sample_key, 19, 'task_lateness_max', task_lateness_max / 100.0, '{}', NULL FROM samples WHERE task_lateness_max IS NOT NULL
UNION ALL SELECT sample_key, 20, 'ping_gateway', ping_gateway / 100.0, '{}', NULL FROM samples WHERE ping_gateway IS NOT NULL
UNION ALL SELECT sample_key, 21, 'discord_away', discord_away / 10.0, '{}', NULL FROM samples WHERE discord_away IS NOT NULL
UNION ALL SELECT sample_key, 22, 'gateway_reconnects', gateway_reconnects, '{}', NULL FROM samples WHERE gateway_reconnects IS NOT NULL
UNION ALL SELECT sample_key, 23, 'guild_count', guild_count, '{}', NULL FROM samples WHERE guild_count IS NOT NULL
UNION ALL SELECT sample_key, 24, 'user_count', user_count, '{}', NULL FROM samples WHERE user_count IS NOT NULL
UNION ALL SELECT sample_key, 25, 'channel_count', channel_count, '{}', NULL FROM samples WHERE channel_count IS NOT NULL
UNION ALL SELECT sample_key, 26, 'command_count', command_count, '{}', NULL FROM samples WHERE command_count IS NOT NULL
UNION ALL SELECT sample_key, 27, 'command_errors', command_errors, '{}', NULL FROM samples WHERE command_errors IS NOT NULL
UNION ALL SELECT sample_key, 28, 'command_error_rate', command_error_rate / 100.0, '{}', NULL FROM samples WHERE command_error_rate IS NOT NULL
UNION ALL SELECT sample_key, 29, 'command_latency_p50', command_latency_p50 / 100.0, '{}', NULL FROM samples WHERE command_latency_p50 IS NOT NULL
UNION ALL SELECT sample_key, 30, 'command_latency_p95', command_latency_p95 / 100.0, '{}', NULL FROM samples WHERE command_latency_p95 IS NOT NULL
UNION ALL SELECT sample_key, 31, 'command_latency_p99', command_latency_p99 / 100.0, '{}', NULL FROM samples WHERE command_latency_p99 IS NOT NULL
UNION ALL SELECT sample_key, 32, 'kuma_age', kuma_age / 10.0, '{}', NULL FROM samples WHERE kuma_age IS NOT NULL
UNION ALL SELECT sample_key, 33, 'monitors_up', monitors_up, '{}', NULL FROM samples WHERE monitors_up IS NOT NULL
UNION ALL SELECT sample_key, 34, 'monitors_down', monitors_down, '{}', NULL FROM samples WHERE monitors_down IS NOT NULL
UNION ALL SELECT sample_key, 35, 'monitors_unknown', monitors_unknown, '{}', NULL FROM samples WHERE monitors_unknown IS NOT NULL
UNION ALL SELECT sample_key, 36, 'store_failing', store_failing / 10.0, '{}', NULL FROM samples WHERE store_failing IS NOT NULL
UNION ALL SELECT sample_key, 37, 'store_queue', store_queue, '{}', NULL FROM samples WHERE store_queue IS NOT NULL
UNION ALL SELECT sample_key, 38, 'remote_away', remote_away / 10.0, '{}', NULL FROM samples WHERE remote_away IS NOT NULL
UNION ALL SELECT sample_key, 39, 'outbox_queued', outbox_queued, '{}', NULL FROM samples WHERE outbox_queued IS NOT NULL
UNION ALL SELECT sample_key, 40, 'outbox_age', outbox_age / 10.0, '{}', NULL FROM samples WHERE outbox_age IS NOT NULL
UNION ALL SELECT sample_key, 41, 'web_auth_failures', web_auth_failures, '{}', NULL FROM samples WHERE web_auth_failures IS NOT NULL
UNION ALL SELECT sample_key, 42, 'ping_lavalink', ping_lavalink / 100.0, '{}', NULL FROM samples WHERE ping_lavalink IS NOT NULL
UNION ALL SELECT s.sample_key, 2048 + e.key, json_extract(e.value, '$[0]'),
    json_extract(e.value, '$[2]'), json_extract(e.value, '$[1]'), NULL
    FROM samples AS s, json_each(s.extra) AS e WHERE s.extra IS NOT NULL
UNION ALL SELECT c.at_ms * 256 + c.bot, NULL, n.name, c.value, c.labels, c.id
    FROM custom_metrics AS c JOIN metric_names AS n ON n.metric = c.metric;

-- Every reading by its number here, which is also part of the ids of its points.
CREATE TABLE readings (
    part INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
INSERT INTO readings (part, name) VALUES
    (1, 'cpu_usage'),
    (2, 'memory_usage'),
    (3, 'swap_usage'),
    (4, 'disk_usage'),
    (5, 'network_rx'),
    (6, 'network_tx'),
    (7, 'load_average_1m'),
    (8, 'load_average_5m'),
    (9, 'load_average_15m'),
    (10, 'process_cpu'),
    (11, 'memory_rss'),
    (12, 'memory_heap'),
    (13, 'threads'),
    (14, 'open_files'),
    (15, 'uptime'),
    (16, 'loop_lag_p99'),
    (17, 'loop_lag_max'),
    (18, 'missed_ticks'),
    (19, 'task_lateness_max'),
    (20, 'ping_gateway'),
    (21, 'discord_away'),
    (22, 'gateway_reconnects'),
    (23, 'guild_count'),
    (24, 'user_count'),
    (25, 'channel_count'),
    (26, 'command_count'),
    (27, 'command_errors'),
    (28, 'command_error_rate'),
    (29, 'command_latency_p50'),
    (30, 'command_latency_p95'),
    (31, 'command_latency_p99'),
    (32, 'kuma_age'),
    (33, 'monitors_up'),
    (34, 'monitors_down'),
    (35, 'monitors_unknown'),
    (36, 'store_failing'),
    (37, 'store_queue'),
    (38, 'remote_away'),
    (39, 'outbox_queued'),
    (40, 'outbox_age'),
    (41, 'web_auth_failures'),
    (42, 'ping_lavalink');

-- Not over metric_points: with the snapshots in the outer loop a condition on the time is looked
-- at once for each snapshot instead of once for each reading. Otherwise a DELETE by time that
-- finds nothing old would keep the writer out for seven seconds at thirty days (now 0.2).
CREATE VIEW system_metrics AS
SELECT
    printf('%08x-%04x-8%03x-', (s.sample_key >> 24) & 4294967295, (s.sample_key >> 8) & 65535,
        r.part) || (SELECT uuid_tail FROM bots WHERE bot = s.sample_key & 255) AS id,
    strftime('%Y-%m-%d %H:%M:%f', (s.sample_key >> 8) / 1000.0, 'unixepoch') AS timestamp,
    r.name AS metric_name,
    CASE r.part
        WHEN 1 THEN s.cpu_usage / 100.0
        WHEN 2 THEN s.ram_usage / 100.0
        WHEN 3 THEN s.swap_usage / 100.0
        WHEN 4 THEN s.disk_usage / 100.0
        WHEN 5 THEN s.network_rx
        WHEN 6 THEN s.network_tx
        WHEN 7 THEN s.load_average_1m / 100.0
        WHEN 8 THEN s.load_average_5m / 100.0
        WHEN 9 THEN s.load_average_15m / 100.0
        WHEN 10 THEN s.process_cpu / 100.0
        WHEN 11 THEN s.memory_rss / 100.0
        WHEN 12 THEN s.memory_heap / 100.0
        WHEN 13 THEN s.threads
        WHEN 14 THEN s.open_files
        WHEN 15 THEN s.uptime
        WHEN 16 THEN s.loop_lag_p99 / 100.0
        WHEN 17 THEN s.loop_lag_max / 100.0
        WHEN 18 THEN s.missed_ticks
        WHEN 19 THEN s.task_lateness_max / 100.0
        WHEN 20 THEN s.ping_gateway / 100.0
        WHEN 21 THEN s.discord_away / 10.0
        WHEN 22 THEN s.gateway_reconnects
        WHEN 23 THEN s.guild_count
        WHEN 24 THEN s.user_count
        WHEN 25 THEN s.channel_count
        WHEN 26 THEN s.command_count
        WHEN 27 THEN s.command_errors
        WHEN 28 THEN s.command_error_rate / 100.0
        WHEN 29 THEN s.command_latency_p50 / 100.0
        WHEN 30 THEN s.command_latency_p95 / 100.0
        WHEN 31 THEN s.command_latency_p99 / 100.0
        WHEN 32 THEN s.kuma_age / 10.0
        WHEN 33 THEN s.monitors_up
        WHEN 34 THEN s.monitors_down
        WHEN 35 THEN s.monitors_unknown
        WHEN 36 THEN s.store_failing / 10.0
        WHEN 37 THEN s.store_queue
        WHEN 38 THEN s.remote_away / 10.0
        WHEN 39 THEN s.outbox_queued
        WHEN 40 THEN s.outbox_age / 10.0
        WHEN 41 THEN s.web_auth_failures
        WHEN 42 THEN s.ping_lavalink / 100.0
    END AS metric_value,
    '{}' AS labels,
    strftime('%Y-%m-%d %H:%M:%f', (s.sample_key >> 8) / 1000.0, 'unixepoch') AS created_at,
    (SELECT bot_id FROM bots WHERE bot = s.sample_key & 255) AS bot_id
FROM samples AS s CROSS JOIN readings AS r
WHERE CASE r.part
        WHEN 1 THEN s.cpu_usage
        WHEN 2 THEN s.ram_usage
        WHEN 3 THEN s.swap_usage
        WHEN 4 THEN s.disk_usage
        WHEN 5 THEN s.network_rx
        WHEN 6 THEN s.network_tx
        WHEN 7 THEN s.load_average_1m
        WHEN 8 THEN s.load_average_5m
        WHEN 9 THEN s.load_average_15m
        WHEN 10 THEN s.process_cpu
        WHEN 11 THEN s.memory_rss
        WHEN 12 THEN s.memory_heap
        WHEN 13 THEN s.threads
        WHEN 14 THEN s.open_files
        WHEN 15 THEN s.uptime
        WHEN 16 THEN s.loop_lag_p99
        WHEN 17 THEN s.loop_lag_max
        WHEN 18 THEN s.missed_ticks
        WHEN 19 THEN s.task_lateness_max
        WHEN 20 THEN s.ping_gateway
        WHEN 21 THEN s.discord_away
        WHEN 22 THEN s.gateway_reconnects
        WHEN 23 THEN s.guild_count
        WHEN 24 THEN s.user_count
        WHEN 25 THEN s.channel_count
        WHEN 26 THEN s.command_count
        WHEN 27 THEN s.command_errors
        WHEN 28 THEN s.command_error_rate
        WHEN 29 THEN s.command_latency_p50
        WHEN 30 THEN s.command_latency_p95
        WHEN 31 THEN s.command_latency_p99
        WHEN 32 THEN s.kuma_age
        WHEN 33 THEN s.monitors_up
        WHEN 34 THEN s.monitors_down
        WHEN 35 THEN s.monitors_unknown
        WHEN 36 THEN s.store_failing
        WHEN 37 THEN s.store_queue
        WHEN 38 THEN s.remote_away
        WHEN 39 THEN s.outbox_queued
        WHEN 40 THEN s.outbox_age
        WHEN 41 THEN s.web_auth_failures
        WHEN 42 THEN s.ping_lavalink
    END IS NOT NULL
UNION ALL SELECT
    printf('%08x-%04x-8%03x-', (s.sample_key >> 24) & 4294967295, (s.sample_key >> 8) & 65535,
        2048 + e.key) || (SELECT uuid_tail FROM bots WHERE bot = s.sample_key & 255),
    strftime('%Y-%m-%d %H:%M:%f', (s.sample_key >> 8) / 1000.0, 'unixepoch'),
    json_extract(e.value, '$[0]'),
    json_extract(e.value, '$[2]'),
    json_extract(e.value, '$[1]'),
    strftime('%Y-%m-%d %H:%M:%f', (s.sample_key >> 8) / 1000.0, 'unixepoch'),
    (SELECT bot_id FROM bots WHERE bot = s.sample_key & 255)
FROM samples AS s, json_each(s.extra) AS e WHERE s.extra IS NOT NULL
UNION ALL SELECT
    c.id,
    strftime('%Y-%m-%d %H:%M:%f', c.at_ms / 1000.0, 'unixepoch'),
    n.name,
    c.value,
    c.labels,
    strftime('%Y-%m-%d %H:%M:%f', c.at_ms / 1000.0, 'unixepoch'),
    (SELECT bot_id FROM bots WHERE bot = c.bot)
FROM custom_metrics AS c JOIN metric_names AS n ON n.metric = c.metric;

CREATE TRIGGER system_metrics_insert INSTEAD OF INSERT ON system_metrics
BEGIN
    SELECT RAISE(ABORT, 'timestamp is not a time')
    WHERE NEW.timestamp IS NOT NULL AND julianday(NEW.timestamp) IS NULL;
    SELECT RAISE(ABORT, 'metric_name is missing') WHERE NEW.metric_name IS NULL;
    INSERT INTO bots (bot_id) SELECT coalesce(NEW.bot_id, 'primary')
    WHERE NOT EXISTS (SELECT 1 FROM bots WHERE bot_id = coalesce(NEW.bot_id, 'primary'));
    INSERT INTO metric_names (name) SELECT NEW.metric_name
    WHERE NOT EXISTS (SELECT 1 FROM metric_names WHERE name = NEW.metric_name);
    INSERT INTO custom_metrics (metric, at_ms, id, value, labels, bot)
    VALUES (
        (SELECT metric FROM metric_names WHERE name = NEW.metric_name),
        CAST(round(julianday(coalesce(NEW.timestamp, strftime('%Y-%m-%d %H:%M:%f', 'now'))) * 86400000.0) AS INTEGER) - 210866760000000,
        coalesce(NEW.id, (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6))))),
        NEW.metric_value,
        coalesce(NEW.labels, '{}'),
        (SELECT bot FROM bots WHERE bot_id = coalesce(NEW.bot_id, 'primary'))
    );
END;

-- Deleting a reading by name empties that reading of its snapshot and nothing else; a snapshot
-- with no reading left goes altogether. Retention itself deletes from the base tables.
CREATE TRIGGER system_metrics_delete INSTEAD OF DELETE ON system_metrics
BEGIN
    UPDATE samples SET
        cpu_usage = iif(OLD.metric_name = 'cpu_usage', NULL, cpu_usage),
        ram_usage = iif(OLD.metric_name = 'memory_usage', NULL, ram_usage),
        swap_usage = iif(OLD.metric_name = 'swap_usage', NULL, swap_usage),
        disk_usage = iif(OLD.metric_name = 'disk_usage', NULL, disk_usage),
        network_rx = iif(OLD.metric_name = 'network_rx', NULL, network_rx),
        network_tx = iif(OLD.metric_name = 'network_tx', NULL, network_tx),
        load_average_1m = iif(OLD.metric_name = 'load_average_1m', NULL, load_average_1m),
        load_average_5m = iif(OLD.metric_name = 'load_average_5m', NULL, load_average_5m),
        load_average_15m = iif(OLD.metric_name = 'load_average_15m', NULL, load_average_15m),
        process_cpu = iif(OLD.metric_name = 'process_cpu', NULL, process_cpu),
        memory_rss = iif(OLD.metric_name = 'memory_rss', NULL, memory_rss),
        memory_heap = iif(OLD.metric_name = 'memory_heap', NULL, memory_heap),
        threads = iif(OLD.metric_name = 'threads', NULL, threads),
        open_files = iif(OLD.metric_name = 'open_files', NULL, open_files),
        uptime = iif(OLD.metric_name = 'uptime', NULL, uptime),
        loop_lag_p99 = iif(OLD.metric_name = 'loop_lag_p99', NULL, loop_lag_p99),
        loop_lag_max = iif(OLD.metric_name = 'loop_lag_max', NULL, loop_lag_max),
        missed_ticks = iif(OLD.metric_name = 'missed_ticks', NULL, missed_ticks),
        task_lateness_max = iif(OLD.metric_name = 'task_lateness_max', NULL, task_lateness_max),
        ping_gateway = iif(OLD.metric_name = 'ping_gateway', NULL, ping_gateway),
        discord_away = iif(OLD.metric_name = 'discord_away', NULL, discord_away),
        gateway_reconnects = iif(OLD.metric_name = 'gateway_reconnects', NULL, gateway_reconnects),
        guild_count = iif(OLD.metric_name = 'guild_count', NULL, guild_count),
        user_count = iif(OLD.metric_name = 'user_count', NULL, user_count),
        channel_count = iif(OLD.metric_name = 'channel_count', NULL, channel_count),
        command_count = iif(OLD.metric_name = 'command_count', NULL, command_count),
        command_errors = iif(OLD.metric_name = 'command_errors', NULL, command_errors),
        command_error_rate = iif(OLD.metric_name = 'command_error_rate', NULL, command_error_rate),
        command_latency_p50 = iif(OLD.metric_name = 'command_latency_p50', NULL, command_latency_p50),
        command_latency_p95 = iif(OLD.metric_name = 'command_latency_p95', NULL, command_latency_p95),
        command_latency_p99 = iif(OLD.metric_name = 'command_latency_p99', NULL, command_latency_p99),
        kuma_age = iif(OLD.metric_name = 'kuma_age', NULL, kuma_age),
        monitors_up = iif(OLD.metric_name = 'monitors_up', NULL, monitors_up),
        monitors_down = iif(OLD.metric_name = 'monitors_down', NULL, monitors_down),
        monitors_unknown = iif(OLD.metric_name = 'monitors_unknown', NULL, monitors_unknown),
        store_failing = iif(OLD.metric_name = 'store_failing', NULL, store_failing),
        store_queue = iif(OLD.metric_name = 'store_queue', NULL, store_queue),
        remote_away = iif(OLD.metric_name = 'remote_away', NULL, remote_away),
        outbox_queued = iif(OLD.metric_name = 'outbox_queued', NULL, outbox_queued),
        outbox_age = iif(OLD.metric_name = 'outbox_age', NULL, outbox_age),
        web_auth_failures = iif(OLD.metric_name = 'web_auth_failures', NULL, web_auth_failures),
        ping_lavalink = iif(OLD.metric_name = 'ping_lavalink', NULL, ping_lavalink),
        extra = CASE WHEN extra IS NULL THEN NULL ELSE (
            SELECT nullif(json_group_array(json(e.value)), '[]') FROM json_each(extra) AS e
            WHERE NOT (json_extract(e.value, '$[0]') = OLD.metric_name AND json_extract(e.value, '$[1]') = OLD.labels)) END
    WHERE sample_key = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000) * 256 + (SELECT bot FROM bots WHERE bot_id = OLD.bot_id)
        AND NOT EXISTS (SELECT 1 FROM custom_metrics WHERE id = OLD.id AND at_ms = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000)
            AND metric = (SELECT metric FROM metric_names WHERE name = OLD.metric_name));
    DELETE FROM samples WHERE sample_key = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000) * 256 + (SELECT bot FROM bots WHERE bot_id = OLD.bot_id)
        AND NOT EXISTS (SELECT 1 FROM custom_metrics WHERE id = OLD.id AND at_ms = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000)
            AND metric = (SELECT metric FROM metric_names WHERE name = OLD.metric_name)) AND extra IS NULL
        AND coalesce(
        cpu_usage, ram_usage, swap_usage, disk_usage, network_rx, network_tx,
        load_average_1m, load_average_5m, load_average_15m, process_cpu, memory_rss,
        memory_heap, threads, open_files, uptime, loop_lag_p99, loop_lag_max,
        missed_ticks, task_lateness_max, ping_gateway, discord_away, gateway_reconnects,
        guild_count, user_count, channel_count, command_count, command_errors,
        command_error_rate, command_latency_p50, command_latency_p95,
        command_latency_p99, kuma_age, monitors_up, monitors_down, monitors_unknown,
        store_failing, store_queue, remote_away, outbox_queued, outbox_age,
        web_auth_failures, ping_lavalink
        ) IS NULL;
    DELETE FROM custom_metrics
    WHERE metric = (SELECT metric FROM metric_names WHERE name = OLD.metric_name)
        AND at_ms = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000) AND id = OLD.id;
END;

CREATE VIEW performance_metrics AS
SELECT metric_name AS metric_type, metric_value, timestamp AS recorded_at FROM system_metrics;

CREATE TRIGGER performance_metrics_insert INSTEAD OF INSERT ON performance_metrics
BEGIN
    INSERT INTO system_metrics (metric_name, metric_value, timestamp)
    VALUES (NEW.metric_type, NEW.metric_value, NEW.recorded_at);
END;

CREATE TRIGGER performance_metrics_delete INSTEAD OF DELETE ON performance_metrics
BEGIN
    UPDATE samples SET
        cpu_usage = iif(OLD.metric_type = 'cpu_usage', NULL, cpu_usage),
        ram_usage = iif(OLD.metric_type = 'memory_usage', NULL, ram_usage),
        swap_usage = iif(OLD.metric_type = 'swap_usage', NULL, swap_usage),
        disk_usage = iif(OLD.metric_type = 'disk_usage', NULL, disk_usage),
        network_rx = iif(OLD.metric_type = 'network_rx', NULL, network_rx),
        network_tx = iif(OLD.metric_type = 'network_tx', NULL, network_tx),
        load_average_1m = iif(OLD.metric_type = 'load_average_1m', NULL, load_average_1m),
        load_average_5m = iif(OLD.metric_type = 'load_average_5m', NULL, load_average_5m),
        load_average_15m = iif(OLD.metric_type = 'load_average_15m', NULL, load_average_15m),
        process_cpu = iif(OLD.metric_type = 'process_cpu', NULL, process_cpu),
        memory_rss = iif(OLD.metric_type = 'memory_rss', NULL, memory_rss),
        memory_heap = iif(OLD.metric_type = 'memory_heap', NULL, memory_heap),
        threads = iif(OLD.metric_type = 'threads', NULL, threads),
        open_files = iif(OLD.metric_type = 'open_files', NULL, open_files),
        uptime = iif(OLD.metric_type = 'uptime', NULL, uptime),
        loop_lag_p99 = iif(OLD.metric_type = 'loop_lag_p99', NULL, loop_lag_p99),
        loop_lag_max = iif(OLD.metric_type = 'loop_lag_max', NULL, loop_lag_max),
        missed_ticks = iif(OLD.metric_type = 'missed_ticks', NULL, missed_ticks),
        task_lateness_max = iif(OLD.metric_type = 'task_lateness_max', NULL, task_lateness_max),
        ping_gateway = iif(OLD.metric_type = 'ping_gateway', NULL, ping_gateway),
        discord_away = iif(OLD.metric_type = 'discord_away', NULL, discord_away),
        gateway_reconnects = iif(OLD.metric_type = 'gateway_reconnects', NULL, gateway_reconnects),
        guild_count = iif(OLD.metric_type = 'guild_count', NULL, guild_count),
        user_count = iif(OLD.metric_type = 'user_count', NULL, user_count),
        channel_count = iif(OLD.metric_type = 'channel_count', NULL, channel_count),
        command_count = iif(OLD.metric_type = 'command_count', NULL, command_count),
        command_errors = iif(OLD.metric_type = 'command_errors', NULL, command_errors),
        command_error_rate = iif(OLD.metric_type = 'command_error_rate', NULL, command_error_rate),
        command_latency_p50 = iif(OLD.metric_type = 'command_latency_p50', NULL, command_latency_p50),
        command_latency_p95 = iif(OLD.metric_type = 'command_latency_p95', NULL, command_latency_p95),
        command_latency_p99 = iif(OLD.metric_type = 'command_latency_p99', NULL, command_latency_p99),
        kuma_age = iif(OLD.metric_type = 'kuma_age', NULL, kuma_age),
        monitors_up = iif(OLD.metric_type = 'monitors_up', NULL, monitors_up),
        monitors_down = iif(OLD.metric_type = 'monitors_down', NULL, monitors_down),
        monitors_unknown = iif(OLD.metric_type = 'monitors_unknown', NULL, monitors_unknown),
        store_failing = iif(OLD.metric_type = 'store_failing', NULL, store_failing),
        store_queue = iif(OLD.metric_type = 'store_queue', NULL, store_queue),
        remote_away = iif(OLD.metric_type = 'remote_away', NULL, remote_away),
        outbox_queued = iif(OLD.metric_type = 'outbox_queued', NULL, outbox_queued),
        outbox_age = iif(OLD.metric_type = 'outbox_age', NULL, outbox_age),
        web_auth_failures = iif(OLD.metric_type = 'web_auth_failures', NULL, web_auth_failures),
        ping_lavalink = iif(OLD.metric_type = 'ping_lavalink', NULL, ping_lavalink),
        extra = CASE WHEN extra IS NULL THEN NULL ELSE (
            SELECT nullif(json_group_array(json(e.value)), '[]') FROM json_each(extra) AS e
            WHERE NOT (json_extract(e.value, '$[0]') = OLD.metric_type)) END
    WHERE sample_key BETWEEN (CAST(round(julianday(OLD.recorded_at) * 86400000.0) AS INTEGER) - 210866760000000) * 256 AND (CAST(round(julianday(OLD.recorded_at) * 86400000.0) AS INTEGER) - 210866760000000) * 256 + 255;
    DELETE FROM samples WHERE sample_key BETWEEN (CAST(round(julianday(OLD.recorded_at) * 86400000.0) AS INTEGER) - 210866760000000) * 256 AND (CAST(round(julianday(OLD.recorded_at) * 86400000.0) AS INTEGER) - 210866760000000) * 256 + 255 AND extra IS NULL
        AND coalesce(
        cpu_usage, ram_usage, swap_usage, disk_usage, network_rx, network_tx,
        load_average_1m, load_average_5m, load_average_15m, process_cpu, memory_rss,
        memory_heap, threads, open_files, uptime, loop_lag_p99, loop_lag_max,
        missed_ticks, task_lateness_max, ping_gateway, discord_away, gateway_reconnects,
        guild_count, user_count, channel_count, command_count, command_errors,
        command_error_rate, command_latency_p50, command_latency_p95,
        command_latency_p99, kuma_age, monitors_up, monitors_down, monitors_unknown,
        store_failing, store_queue, remote_away, outbox_queued, outbox_age,
        web_auth_failures, ping_lavalink
        ) IS NULL;
    DELETE FROM custom_metrics
    WHERE metric = (SELECT metric FROM metric_names WHERE name = OLD.metric_type)
        AND at_ms = (CAST(round(julianday(OLD.recorded_at) * 86400000.0) AS INTEGER) - 210866760000000) AND value = OLD.metric_value;
END;

-- The newest value of each reading is the first one met walking backwards. Readings with labels
-- are looked for in the newest day of snapshots, or the walk could be thirty days of JSON.
CREATE VIEW latest_metrics AS
SELECT metric_name, metric_value, labels,
    strftime('%Y-%m-%d %H:%M:%f', (newest >> 8) / 1000.0, 'unixepoch') AS timestamp
FROM (
    SELECT metric_name, metric_value, labels, max(sample_key) AS newest FROM (
SELECT * FROM (SELECT sample_key, 'cpu_usage' AS metric_name, cpu_usage / 100.0 AS metric_value, '{}' AS labels FROM samples WHERE cpu_usage IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'memory_usage', ram_usage / 100.0, '{}' FROM samples WHERE ram_usage IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'swap_usage', swap_usage / 100.0, '{}' FROM samples WHERE swap_usage IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'disk_usage', disk_usage / 100.0, '{}' FROM samples WHERE disk_usage IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'network_rx', network_rx, '{}' FROM samples WHERE network_rx IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'network_tx', network_tx, '{}' FROM samples WHERE network_tx IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'load_average_1m', load_average_1m / 100.0, '{}' FROM samples WHERE load_average_1m IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'load_average_5m', load_average_5m / 100.0, '{}' FROM samples WHERE load_average_5m IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'load_average_15m', load_average_15m / 100.0, '{}' FROM samples WHERE load_average_15m IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'process_cpu', process_cpu / 100.0, '{}' FROM samples WHERE process_cpu IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'memory_rss', memory_rss / 100.0, '{}' FROM samples WHERE memory_rss IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'memory_heap', memory_heap / 100.0, '{}' FROM samples WHERE memory_heap IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'threads', threads, '{}' FROM samples WHERE threads IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'open_files', open_files, '{}' FROM samples WHERE open_files IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'uptime', uptime, '{}' FROM samples WHERE uptime IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'loop_lag_p99', loop_lag_p99 / 100.0, '{}' FROM samples WHERE loop_lag_p99 IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'loop_lag_max', loop_lag_max / 100.0, '{}' FROM samples WHERE loop_lag_max IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'missed_ticks', missed_ticks, '{}' FROM samples WHERE missed_ticks IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'task_lateness_max', task_lateness_max / 100.0, '{}' FROM samples WHERE task_lateness_max IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'ping_gateway', ping_gateway / 100.0, '{}' FROM samples WHERE ping_gateway IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'discord_away', discord_away / 10.0, '{}' FROM samples WHERE discord_away IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'gateway_reconnects', gateway_reconnects, '{}' FROM samples WHERE gateway_reconnects IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'guild_count', guild_count, '{}' FROM samples WHERE guild_count IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'user_count', user_count, '{}' FROM samples WHERE user_count IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'channel_count', channel_count, '{}' FROM samples WHERE channel_count IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_count', command_count, '{}' FROM samples WHERE command_count IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_errors', command_errors, '{}' FROM samples WHERE command_errors IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_error_rate', command_error_rate / 100.0, '{}' FROM samples WHERE command_error_rate IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_latency_p50', command_latency_p50 / 100.0, '{}' FROM samples WHERE command_latency_p50 IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_latency_p95', command_latency_p95 / 100.0, '{}' FROM samples WHERE command_latency_p95 IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'command_latency_p99', command_latency_p99 / 100.0, '{}' FROM samples WHERE command_latency_p99 IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'kuma_age', kuma_age / 10.0, '{}' FROM samples WHERE kuma_age IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'monitors_up', monitors_up, '{}' FROM samples WHERE monitors_up IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'monitors_down', monitors_down, '{}' FROM samples WHERE monitors_down IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'monitors_unknown', monitors_unknown, '{}' FROM samples WHERE monitors_unknown IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'store_failing', store_failing / 10.0, '{}' FROM samples WHERE store_failing IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'store_queue', store_queue, '{}' FROM samples WHERE store_queue IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'remote_away', remote_away / 10.0, '{}' FROM samples WHERE remote_away IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'outbox_queued', outbox_queued, '{}' FROM samples WHERE outbox_queued IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'outbox_age', outbox_age / 10.0, '{}' FROM samples WHERE outbox_age IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'web_auth_failures', web_auth_failures, '{}' FROM samples WHERE web_auth_failures IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT * FROM (SELECT sample_key, 'ping_lavalink', ping_lavalink / 100.0, '{}' FROM samples WHERE ping_lavalink IS NOT NULL ORDER BY sample_key DESC LIMIT 1)
UNION ALL SELECT s.sample_key, json_extract(e.value, '$[0]'), json_extract(e.value, '$[2]'),
    json_extract(e.value, '$[1]')
    FROM samples AS s, json_each(s.extra) AS e WHERE s.extra IS NOT NULL
    AND s.sample_key > (SELECT max(sample_key) FROM samples) - 86400000 * 256
UNION ALL SELECT c.at_ms * 256 + c.bot, n.name, c.value, c.labels
    FROM metric_names AS n JOIN custom_metrics AS c ON c.metric = n.metric
    AND c.at_ms = (SELECT max(x.at_ms) FROM custom_metrics AS x WHERE x.metric = n.metric)
    ) GROUP BY metric_name
);

-- Percentiles interpolate between the two nearest values, as percentile_cont does.
CREATE VIEW metrics_last_24h AS
WITH
points AS (
    SELECT metric_name, metric_value FROM metric_points
    WHERE sample_key >= (CAST(round(julianday(strftime('%Y-%m-%d %H:%M:%f', 'now')) * 86400000.0) AS INTEGER) - 210866760000000 - 86400000) * 256
),
ranked AS (
    SELECT metric_name, metric_value,
        row_number() OVER (PARTITION BY metric_name ORDER BY metric_value) - 1 AS place,
        count(*) OVER (PARTITION BY metric_name) - 1 AS last
    FROM points
),
placed AS (
    SELECT metric_name, metric_value, place,
        last * 0.50 AS at50, last * 0.95 AS at95, last * 0.99 AS at99
    FROM ranked
)
SELECT
    metric_name,
    avg(metric_value) AS avg_value,
    min(metric_value) AS min_value,
    max(metric_value) AS max_value,
    sum(metric_value * max(0.0, 1 - abs(place - at50))) AS p50,
    sum(metric_value * max(0.0, 1 - abs(place - at95))) AS p95,
    sum(metric_value * max(0.0, 1 - abs(place - at99))) AS p99,
    count(*) AS count
FROM placed GROUP BY metric_name;

CREATE VIEW metrics_hourly AS
SELECT
    strftime('%Y-%m-%d %H:%M:%f', h.hour * 3600, 'unixepoch') AS hour,
    n.name AS metric_name,
    h.avg_value, h.min_value, h.max_value, h.count,
    (SELECT bot_id FROM bots WHERE bot = h.bot) AS bot_id,
    strftime('%Y-%m-%d %H:%M:%f', h.hour * 3600 + 3600, 'unixepoch') AS created_at
FROM hourly AS h JOIN metric_names AS n ON n.metric = h.metric;

CREATE TRIGGER metrics_hourly_insert INSTEAD OF INSERT ON metrics_hourly
BEGIN
    SELECT RAISE(ABORT, 'hour is not a time') WHERE julianday(NEW.hour) IS NULL;
    INSERT INTO bots (bot_id) SELECT coalesce(NEW.bot_id, 'primary')
    WHERE NOT EXISTS (SELECT 1 FROM bots WHERE bot_id = coalesce(NEW.bot_id, 'primary'));
    INSERT INTO metric_names (name) SELECT NEW.metric_name
    WHERE NOT EXISTS (SELECT 1 FROM metric_names WHERE name = NEW.metric_name);
    INSERT INTO hourly (metric, hour, bot, avg_value, min_value, max_value, count)
    VALUES (
        (SELECT metric FROM metric_names WHERE name = NEW.metric_name),
        CAST(strftime('%s', NEW.hour) AS INTEGER) / 3600,
        (SELECT bot FROM bots WHERE bot_id = coalesce(NEW.bot_id, 'primary')),
        NEW.avg_value, NEW.min_value, NEW.max_value, NEW.count
    );
END;

CREATE TRIGGER metrics_hourly_delete INSTEAD OF DELETE ON metrics_hourly
BEGIN
    DELETE FROM hourly
    WHERE metric = (SELECT metric FROM metric_names WHERE name = OLD.metric_name)
        AND hour = CAST(strftime('%s', OLD.hour) AS INTEGER) / 3600
        AND bot = (SELECT bot FROM bots WHERE bot_id = OLD.bot_id);
END;

-- Whatever does not fit a number: one JSON document per look.
CREATE TABLE metrics_raw (
    id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6)))),
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    metric_type TEXT NOT NULL,
    data TEXT NOT NULL CHECK (json_valid(data)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX metrics_raw_timestamp ON metrics_raw (timestamp);

CREATE TABLE daily_summaries (
    date TEXT NOT NULL PRIMARY KEY,
    summary_data TEXT NOT NULL CHECK (json_valid(summary_data)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) WITHOUT ROWID;
