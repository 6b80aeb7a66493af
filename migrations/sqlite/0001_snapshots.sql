-- Why: one snapshot every ten seconds must cost about a hundred bytes, so that thirty days stay
-- under 40 MB with everything included. The base table holds whole numbers of quanta (the comment
-- behind each column says how large one is) under a single integer key; `system_stats` shows
-- them as people expect: percent, MB, ms, seconds, text times.

-- bot_id to a small number; uuid_tail ends the ids that are derived rather than stored.
CREATE TABLE bots (
    bot INTEGER PRIMARY KEY CHECK (bot BETWEEN 1 AND 255),
    bot_id TEXT NOT NULL UNIQUE,
    uuid_tail TEXT NOT NULL DEFAULT (lower(substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
        || '-' || hex(randomblob(6))))
);

-- sample_key = milliseconds since 1970 * 256 + bot: a rowid, so that rows are only ever appended
-- to full pages. `id` stays empty unless a row came in with an id of its own.
-- status: 0 online, 1 degraded, 2 offline, or a text of its own.
-- extra: [[name, {label: value}, number], ...] for readings without a column.
CREATE TABLE samples (
    sample_key INTEGER PRIMARY KEY,
    cpu_usage INTEGER,               -- 1/100
    ram_usage INTEGER,               -- 1/100
    swap_usage INTEGER,              -- 1/100
    disk_usage INTEGER,              -- 1/100
    network_rx INTEGER,              -- 1
    network_tx INTEGER,              -- 1
    load_average_1m INTEGER,         -- 1/100
    load_average_5m INTEGER,         -- 1/100
    load_average_15m INTEGER,        -- 1/100
    process_cpu INTEGER,             -- 1/100
    memory_rss INTEGER,              -- 1/100
    memory_heap INTEGER,             -- 1/100
    threads INTEGER,                 -- 1
    open_files INTEGER,              -- 1
    uptime INTEGER,                  -- 1
    loop_lag_p99 INTEGER,            -- 1/100
    loop_lag_max INTEGER,            -- 1/100
    missed_ticks INTEGER,            -- 1
    task_lateness_max INTEGER,       -- 1/100
    ping_gateway INTEGER,            -- 1/100
    discord_away INTEGER,            -- 1/10
    gateway_reconnects INTEGER,      -- 1
    guild_count INTEGER,             -- 1
    user_count INTEGER,              -- 1
    channel_count INTEGER,           -- 1
    command_count INTEGER,           -- 1
    command_errors INTEGER,          -- 1
    command_error_rate INTEGER,      -- 1/100
    command_latency_p50 INTEGER,     -- 1/100
    command_latency_p95 INTEGER,     -- 1/100
    command_latency_p99 INTEGER,     -- 1/100
    kuma_age INTEGER,                -- 1/10
    monitors_up INTEGER,             -- 1
    monitors_down INTEGER,           -- 1
    monitors_unknown INTEGER,        -- 1
    store_failing INTEGER,           -- 1/10
    store_queue INTEGER,             -- 1
    remote_away INTEGER,             -- 1/10
    outbox_queued INTEGER,           -- 1
    outbox_age INTEGER,              -- 1/10
    web_auth_failures INTEGER,       -- 1
    ping_lavalink INTEGER,           -- 1/100
    status DEFAULT 0,
    extra TEXT,
    id TEXT,
    at_ms INTEGER GENERATED ALWAYS AS (sample_key >> 8) VIRTUAL
);

CREATE VIEW system_stats AS
SELECT
    coalesce(s.id, printf('%08x-%04x-8000-', (s.at_ms >> 16) & 4294967295, s.at_ms & 65535)
        || b.uuid_tail) AS id,
    b.bot_id AS bot_id,
    s.cpu_usage / 100.0 AS cpu_usage,
    s.ram_usage / 100.0 AS ram_usage,
    s.memory_rss / 100.0 AS memory_rss,
    s.memory_heap / 100.0 AS memory_heap,
    s.ping_gateway / 100.0 AS ping_gateway,
    s.ping_lavalink / 100.0 AS ping_lavalink,
    s.guild_count AS server_count,
    s.guild_count AS guild_count,
    s.uptime AS uptime,
    CASE s.status WHEN 0 THEN 'online' WHEN 1 THEN 'degraded' WHEN 2 THEN 'offline'
        ELSE s.status END AS status,
    strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS timestamp,
    strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS updated_at,
    strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS created_at,
    s.swap_usage / 100.0 AS swap_usage,
    s.disk_usage / 100.0 AS disk_usage,
    s.network_rx AS network_rx,
    s.network_tx AS network_tx,
    s.load_average_1m / 100.0 AS load_average_1m,
    s.load_average_5m / 100.0 AS load_average_5m,
    s.load_average_15m / 100.0 AS load_average_15m,
    s.process_cpu / 100.0 AS process_cpu,
    s.threads AS threads,
    s.open_files AS open_files,
    s.loop_lag_p99 / 100.0 AS loop_lag_p99,
    s.loop_lag_max / 100.0 AS loop_lag_max,
    s.missed_ticks AS missed_ticks,
    s.task_lateness_max / 100.0 AS task_lateness_max,
    s.discord_away / 10.0 AS discord_away,
    s.gateway_reconnects AS gateway_reconnects,
    s.user_count AS user_count,
    s.channel_count AS channel_count,
    s.command_count AS command_count,
    s.command_errors AS command_errors,
    s.command_error_rate / 100.0 AS command_error_rate,
    s.command_latency_p50 / 100.0 AS command_latency_p50,
    s.command_latency_p95 / 100.0 AS command_latency_p95,
    s.command_latency_p99 / 100.0 AS command_latency_p99,
    s.kuma_age / 10.0 AS kuma_age,
    s.monitors_up AS monitors_up,
    s.monitors_down AS monitors_down,
    s.monitors_unknown AS monitors_unknown,
    s.store_failing / 10.0 AS store_failing,
    s.store_queue AS store_queue,
    s.remote_away / 10.0 AS remote_away,
    s.outbox_queued AS outbox_queued,
    s.outbox_age / 10.0 AS outbox_age,
    s.web_auth_failures AS web_auth_failures,
    s.extra AS extra
FROM samples AS s JOIN bots AS b ON b.bot = s.sample_key & 255;

-- No OR IGNORE inside these triggers: an outer INSERT OR REPLACE would turn it into REPLACE, and
-- the bot would get a new number.
--
-- Two rows of one bot in one millisecond cannot stand beside each other: the later one moves on
-- to the next free millisecond. The sub-select finds it in one look when there is no collision.
CREATE TRIGGER system_stats_insert INSTEAD OF INSERT ON system_stats
BEGIN
    SELECT RAISE(ABORT, 'timestamp is not a time')
    WHERE NEW.timestamp IS NOT NULL AND julianday(NEW.timestamp) IS NULL;
    INSERT INTO bots (bot_id) SELECT coalesce(NEW.bot_id, 'primary')
    WHERE NOT EXISTS (SELECT 1 FROM bots WHERE bot_id = coalesce(NEW.bot_id, 'primary'));
    SELECT RAISE(IGNORE)
    WHERE NEW.id IS NOT NULL AND EXISTS (
        SELECT 1 FROM samples AS x WHERE x.id = NEW.id AND x.sample_key BETWEEN
            (CAST(round(julianday(NEW.timestamp) * 86400000.0) AS INTEGER) - 210866760000000) * 256 AND (CAST(round(julianday(NEW.timestamp) * 86400000.0) AS INTEGER) - 210866760000000 + 1000) * 256);
    INSERT INTO samples (
        sample_key,
        cpu_usage, ram_usage, swap_usage, disk_usage, network_rx, network_tx,
        load_average_1m, load_average_5m, load_average_15m, process_cpu, memory_rss,
        memory_heap, threads, open_files, uptime, loop_lag_p99, loop_lag_max,
        missed_ticks, task_lateness_max, ping_gateway, discord_away, gateway_reconnects,
        guild_count, user_count, channel_count, command_count, command_errors,
        command_error_rate, command_latency_p50, command_latency_p95,
        command_latency_p99, kuma_age, monitors_up, monitors_down, monitors_unknown,
        store_failing, store_queue, remote_away, outbox_queued, outbox_age,
        web_auth_failures, ping_lavalink,
        status, extra, id)
    SELECT
        (SELECT k.sample_key FROM (
            WITH RECURSIVE free(sample_key) AS (
                SELECT (CAST(round(julianday(coalesce(NEW.timestamp, strftime('%Y-%m-%d %H:%M:%f', 'now'))) * 86400000.0) AS INTEGER) - 210866760000000)
                    * 256 + b.bot
                UNION ALL
                SELECT free.sample_key + 256 FROM free
                WHERE EXISTS (SELECT 1 FROM samples AS x WHERE x.sample_key = free.sample_key)
            ) SELECT max(sample_key) AS sample_key FROM free) AS k),
        iif(abs(NEW.cpu_usage) < 9e13, CAST(round(NEW.cpu_usage * 100) AS INTEGER), NULL),
        iif(abs(NEW.ram_usage) < 9e13, CAST(round(NEW.ram_usage * 100) AS INTEGER), NULL),
        iif(abs(NEW.swap_usage) < 9e13, CAST(round(NEW.swap_usage * 100) AS INTEGER), NULL),
        iif(abs(NEW.disk_usage) < 9e13, CAST(round(NEW.disk_usage * 100) AS INTEGER), NULL),
        iif(abs(NEW.network_rx) < 9e13, CAST(round(NEW.network_rx) AS INTEGER), NULL),
        iif(abs(NEW.network_tx) < 9e13, CAST(round(NEW.network_tx) AS INTEGER), NULL),
        iif(abs(NEW.load_average_1m) < 9e13, CAST(round(NEW.load_average_1m * 100) AS INTEGER), NULL),
        iif(abs(NEW.load_average_5m) < 9e13, CAST(round(NEW.load_average_5m * 100) AS INTEGER), NULL),
        iif(abs(NEW.load_average_15m) < 9e13, CAST(round(NEW.load_average_15m * 100) AS INTEGER), NULL),
        iif(abs(NEW.process_cpu) < 9e13, CAST(round(NEW.process_cpu * 100) AS INTEGER), NULL),
        iif(abs(NEW.memory_rss) < 9e13, CAST(round(NEW.memory_rss * 100) AS INTEGER), NULL),
        iif(abs(NEW.memory_heap) < 9e13, CAST(round(NEW.memory_heap * 100) AS INTEGER), NULL),
        iif(abs(NEW.threads) < 9e13, CAST(round(NEW.threads) AS INTEGER), NULL),
        iif(abs(NEW.open_files) < 9e13, CAST(round(NEW.open_files) AS INTEGER), NULL),
        iif(abs(NEW.uptime) < 9e13, CAST(round(NEW.uptime) AS INTEGER), NULL),
        iif(abs(NEW.loop_lag_p99) < 9e13, CAST(round(NEW.loop_lag_p99 * 100) AS INTEGER), NULL),
        iif(abs(NEW.loop_lag_max) < 9e13, CAST(round(NEW.loop_lag_max * 100) AS INTEGER), NULL),
        iif(abs(NEW.missed_ticks) < 9e13, CAST(round(NEW.missed_ticks) AS INTEGER), NULL),
        iif(abs(NEW.task_lateness_max) < 9e13, CAST(round(NEW.task_lateness_max * 100) AS INTEGER), NULL),
        iif(abs(NEW.ping_gateway) < 9e13, CAST(round(NEW.ping_gateway * 100) AS INTEGER), NULL),
        iif(abs(NEW.discord_away) < 9e13, CAST(round(NEW.discord_away * 10) AS INTEGER), NULL),
        iif(abs(NEW.gateway_reconnects) < 9e13, CAST(round(NEW.gateway_reconnects) AS INTEGER), NULL),
        iif(abs(coalesce(NEW.guild_count, NEW.server_count)) < 9e13, CAST(round(coalesce(NEW.guild_count, NEW.server_count)) AS INTEGER), NULL),
        iif(abs(NEW.user_count) < 9e13, CAST(round(NEW.user_count) AS INTEGER), NULL),
        iif(abs(NEW.channel_count) < 9e13, CAST(round(NEW.channel_count) AS INTEGER), NULL),
        iif(abs(NEW.command_count) < 9e13, CAST(round(NEW.command_count) AS INTEGER), NULL),
        iif(abs(NEW.command_errors) < 9e13, CAST(round(NEW.command_errors) AS INTEGER), NULL),
        iif(abs(NEW.command_error_rate) < 9e13, CAST(round(NEW.command_error_rate * 100) AS INTEGER), NULL),
        iif(abs(NEW.command_latency_p50) < 9e13, CAST(round(NEW.command_latency_p50 * 100) AS INTEGER), NULL),
        iif(abs(NEW.command_latency_p95) < 9e13, CAST(round(NEW.command_latency_p95 * 100) AS INTEGER), NULL),
        iif(abs(NEW.command_latency_p99) < 9e13, CAST(round(NEW.command_latency_p99 * 100) AS INTEGER), NULL),
        iif(abs(NEW.kuma_age) < 9e13, CAST(round(NEW.kuma_age * 10) AS INTEGER), NULL),
        iif(abs(NEW.monitors_up) < 9e13, CAST(round(NEW.monitors_up) AS INTEGER), NULL),
        iif(abs(NEW.monitors_down) < 9e13, CAST(round(NEW.monitors_down) AS INTEGER), NULL),
        iif(abs(NEW.monitors_unknown) < 9e13, CAST(round(NEW.monitors_unknown) AS INTEGER), NULL),
        iif(abs(NEW.store_failing) < 9e13, CAST(round(NEW.store_failing * 10) AS INTEGER), NULL),
        iif(abs(NEW.store_queue) < 9e13, CAST(round(NEW.store_queue) AS INTEGER), NULL),
        iif(abs(NEW.remote_away) < 9e13, CAST(round(NEW.remote_away * 10) AS INTEGER), NULL),
        iif(abs(NEW.outbox_queued) < 9e13, CAST(round(NEW.outbox_queued) AS INTEGER), NULL),
        iif(abs(NEW.outbox_age) < 9e13, CAST(round(NEW.outbox_age * 10) AS INTEGER), NULL),
        iif(abs(NEW.web_auth_failures) < 9e13, CAST(round(NEW.web_auth_failures) AS INTEGER), NULL),
        iif(abs(NEW.ping_lavalink) < 9e13, CAST(round(NEW.ping_lavalink * 100) AS INTEGER), NULL),
        CASE coalesce(NEW.status, 'online') WHEN 'online' THEN 0 WHEN 'degraded' THEN 1
            WHEN 'offline' THEN 2 ELSE NEW.status END,
        NEW.extra,
        NEW.id
    FROM bots AS b WHERE b.bot_id = coalesce(NEW.bot_id, 'primary');
END;

CREATE TRIGGER system_stats_delete INSTEAD OF DELETE ON system_stats
BEGIN
    DELETE FROM samples WHERE sample_key = (CAST(round(julianday(OLD.timestamp) * 86400000.0) AS INTEGER) - 210866760000000) * 256
        + (SELECT bot FROM bots WHERE bot_id = OLD.bot_id);
END;
