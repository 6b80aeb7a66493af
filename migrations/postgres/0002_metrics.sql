-- Why: every metric must be readable by name (`system_metrics`, `latest_metrics`, …), yet a snapshot
-- stored twice is a waste. So the names are a view over the snapshots, joined by what other parts
-- report in their own words; long charts read the hourly roll-up.
--
-- Works on PostgreSQL 15 to 18 with or without Supabase's roles. Pasting it twice is harmless.

select public.comet_only_ours('custom_metrics');

-- What was reported by name, exactly as reported.
create table if not exists public.custom_metrics (
    id uuid primary key default gen_random_uuid(),
    bot_id text collate "C" not null default 'primary',
    timestamp timestamptz not null default date_trunc('milliseconds', now()),
    metric_name text collate "C" not null,
    metric_value double precision not null,
    labels jsonb not null default '{}',
    created_at timestamptz not null default now(),
    -- Neither NaN nor an infinity.
    constraint custom_metrics_value check (
        metric_value between '-1.7976931348623157e308' and '1.7976931348623157e308'),
    constraint custom_metrics_timestamp_check check (isfinite(timestamp))
);
create index if not exists custom_metrics_name
    on public.custom_metrics (metric_name, timestamp, id);
create index if not exists custom_metrics_timestamp on public.custom_metrics (timestamp);

-- Names that somebody else's tables, views and functions hold are freed; the rows of a table
-- `system_metrics` or `performance_metrics` go on under ours. The old table stays whole under its
-- new name.
do $$
declare
    v_name text;
    v_table text;
begin
    -- Times without a zone are UTC.
    perform set_config('timezone', 'UTC', true);
    foreach v_name in array array['performance_metrics', 'system_metrics'] loop
        v_table := public.comet_move_aside(v_name);
        continue when v_table is null or not exists (
            select from pg_class where oid = format('public.%I', v_table)::regclass
                and relkind in ('r', 'p'));
        execute format($sql$
            insert into public.custom_metrics (
                id, bot_id, timestamp, metric_name, metric_value, labels, created_at)
            select (%L || lpad(to_hex(row_number() over ()), 12, '0'))::uuid,
                coalesce(j ->> 'bot_id', 'primary'), date_trunc('milliseconds', m.at), m.name,
                (j ->> 'metric_value')::double precision,
                coalesce(nullif(j -> 'labels', 'null'), '{}'),
                coalesce((j ->> 'created_at')::timestamptz, m.at)
            from (
                select j, coalesce(j ->> 'metric_name', j ->> 'metric_type') as name,
                    coalesce(j ->> 'timestamp', j ->> 'recorded_at', j ->> 'created_at',
                        now()::text)::timestamptz as at
                from (select to_jsonb(t) as j from public.%I as t) as t
            ) as m
            where m.name is not null and case when jsonb_typeof(j -> 'metric_value') = 'number'
                then abs((j ->> 'metric_value')::numeric) <= 1.7976931348623157e308 else false end
        $sql$, substr(gen_random_uuid()::text, 1, 24), v_table);
    end loop;
    perform public.comet_move_aside(v.name) from (values
        ('latest_metrics'), ('metrics_last_24h')) as v (name);
    perform public.comet_move_aside_function(v.name) from (values
        ('get_metric_stats'), ('cleanup_old_metrics'), ('refresh_metrics_views')) as v (name);
end $$;

-- All metrics by name. One branch for each reading: whoever asks for one metric reads one column,
-- and an order by time is a merge of walks along the index. The ids are those of the snapshots with
-- the number of the reading in them.
create or replace view public.system_metrics as
select id, timestamp, metric_name, metric_value, labels, created_at, bot_id from (
    select overlay(id::text placing '8001' from 15 for 4)::uuid as id, timestamp,
        'cpu_usage'::text collate "C" as metric_name, cpu_usage as metric_value, '{}'::jsonb as labels,
        created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8002' from 15 for 4)::uuid, timestamp, 'memory_usage'::text collate "C",
        ram_usage, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8003' from 15 for 4)::uuid, timestamp, 'swap_usage'::text collate "C",
        swap_usage, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8004' from 15 for 4)::uuid, timestamp, 'disk_usage'::text collate "C",
        disk_usage, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8005' from 15 for 4)::uuid, timestamp, 'network_rx'::text collate "C",
        network_rx::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8006' from 15 for 4)::uuid, timestamp, 'network_tx'::text collate "C",
        network_tx::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8007' from 15 for 4)::uuid, timestamp, 'load_average_1m'::text collate "C",
        load_average_1m, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8008' from 15 for 4)::uuid, timestamp, 'load_average_5m'::text collate "C",
        load_average_5m, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8009' from 15 for 4)::uuid, timestamp, 'load_average_15m'::text collate "C",
        load_average_15m, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800a' from 15 for 4)::uuid, timestamp, 'process_cpu'::text collate "C",
        process_cpu, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800b' from 15 for 4)::uuid, timestamp, 'memory_rss'::text collate "C",
        memory_rss, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800c' from 15 for 4)::uuid, timestamp, 'memory_heap'::text collate "C",
        memory_heap, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800d' from 15 for 4)::uuid, timestamp, 'threads'::text collate "C",
        threads::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800e' from 15 for 4)::uuid, timestamp, 'open_files'::text collate "C",
        open_files::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '800f' from 15 for 4)::uuid, timestamp, 'uptime'::text collate "C",
        uptime::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8010' from 15 for 4)::uuid, timestamp, 'loop_lag_p99'::text collate "C",
        loop_lag_p99, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8011' from 15 for 4)::uuid, timestamp, 'loop_lag_max'::text collate "C",
        loop_lag_max, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8012' from 15 for 4)::uuid, timestamp, 'missed_ticks'::text collate "C",
        missed_ticks::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8013' from 15 for 4)::uuid, timestamp, 'task_lateness_max'::text collate "C",
        task_lateness_max, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8014' from 15 for 4)::uuid, timestamp, 'ping_gateway'::text collate "C",
        ping_gateway, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8015' from 15 for 4)::uuid, timestamp, 'discord_away'::text collate "C",
        discord_away, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8016' from 15 for 4)::uuid, timestamp, 'gateway_reconnects'::text collate "C",
        gateway_reconnects::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8017' from 15 for 4)::uuid, timestamp, 'guild_count'::text collate "C",
        guild_count::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8018' from 15 for 4)::uuid, timestamp, 'user_count'::text collate "C",
        user_count::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8019' from 15 for 4)::uuid, timestamp, 'channel_count'::text collate "C",
        channel_count::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801a' from 15 for 4)::uuid, timestamp, 'command_count'::text collate "C",
        command_count::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801b' from 15 for 4)::uuid, timestamp, 'command_errors'::text collate "C",
        command_errors::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801c' from 15 for 4)::uuid, timestamp, 'command_error_rate'::text collate "C",
        command_error_rate, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801d' from 15 for 4)::uuid, timestamp, 'command_latency_p50'::text collate "C",
        command_latency_p50, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801e' from 15 for 4)::uuid, timestamp, 'command_latency_p95'::text collate "C",
        command_latency_p95, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '801f' from 15 for 4)::uuid, timestamp, 'command_latency_p99'::text collate "C",
        command_latency_p99, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8020' from 15 for 4)::uuid, timestamp, 'kuma_age'::text collate "C",
        kuma_age, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8021' from 15 for 4)::uuid, timestamp, 'monitors_up'::text collate "C",
        monitors_up::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8022' from 15 for 4)::uuid, timestamp, 'monitors_down'::text collate "C",
        monitors_down::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8023' from 15 for 4)::uuid, timestamp, 'monitors_unknown'::text collate "C",
        monitors_unknown::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8024' from 15 for 4)::uuid, timestamp, 'store_failing'::text collate "C",
        store_failing, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8025' from 15 for 4)::uuid, timestamp, 'store_queue'::text collate "C",
        store_queue::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8026' from 15 for 4)::uuid, timestamp, 'remote_away'::text collate "C",
        remote_away, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8027' from 15 for 4)::uuid, timestamp, 'outbox_queued'::text collate "C",
        outbox_queued::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8028' from 15 for 4)::uuid, timestamp, 'outbox_age'::text collate "C",
        outbox_age, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '8029' from 15 for 4)::uuid, timestamp, 'web_auth_failures'::text collate "C",
        web_auth_failures::double precision, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all select overlay(id::text placing '802a' from 15 for 4)::uuid, timestamp, 'ping_lavalink'::text collate "C",
        ping_lavalink, '{}'::jsonb, created_at, bot_id from public.system_stats
    union all (select overlay(s.id::text placing to_hex(34815 + e.place) from 15 for 4)::uuid,
        s.timestamp, (e.reading ->> 0) collate "C",
        case jsonb_typeof(e.reading -> 2) when 'number' then (e.reading -> 2)::double precision end,
        coalesce(e.reading -> 1, '{}'), s.created_at, s.bot_id
        from public.system_stats s
        cross join lateral jsonb_array_elements(s.extra) with ordinality as e (reading, place)
        where s.extra is not null
        order by s.timestamp desc)
    union all select id, timestamp, metric_name, metric_value, labels, created_at, bot_id
        from public.custom_metrics
) as m
where metric_value is not null;
comment on view public.system_metrics is 'comet: every metric by name';

-- The same readings row by row, for whoever wants all of them of some snapshots.
create or replace view public.comet_readings as
select s.timestamp, s.bot_id, v.metric_name, v.metric_value
from public.system_stats s cross join lateral (values
    ('cpu_usage'::text collate "C", s.cpu_usage),
    ('memory_usage', s.ram_usage),
    ('swap_usage', s.swap_usage),
    ('disk_usage', s.disk_usage),
    ('network_rx', s.network_rx),
    ('network_tx', s.network_tx),
    ('load_average_1m', s.load_average_1m),
    ('load_average_5m', s.load_average_5m),
    ('load_average_15m', s.load_average_15m),
    ('process_cpu', s.process_cpu),
    ('memory_rss', s.memory_rss),
    ('memory_heap', s.memory_heap),
    ('threads', s.threads),
    ('open_files', s.open_files),
    ('uptime', s.uptime),
    ('loop_lag_p99', s.loop_lag_p99),
    ('loop_lag_max', s.loop_lag_max),
    ('missed_ticks', s.missed_ticks),
    ('task_lateness_max', s.task_lateness_max),
    ('ping_gateway', s.ping_gateway),
    ('discord_away', s.discord_away),
    ('gateway_reconnects', s.gateway_reconnects),
    ('guild_count', s.guild_count),
    ('user_count', s.user_count),
    ('channel_count', s.channel_count),
    ('command_count', s.command_count),
    ('command_errors', s.command_errors),
    ('command_error_rate', s.command_error_rate),
    ('command_latency_p50', s.command_latency_p50),
    ('command_latency_p95', s.command_latency_p95),
    ('command_latency_p99', s.command_latency_p99),
    ('kuma_age', s.kuma_age),
    ('monitors_up', s.monitors_up),
    ('monitors_down', s.monitors_down),
    ('monitors_unknown', s.monitors_unknown),
    ('store_failing', s.store_failing),
    ('store_queue', s.store_queue),
    ('remote_away', s.remote_away),
    ('outbox_queued', s.outbox_queued),
    ('outbox_age', s.outbox_age),
    ('web_auth_failures', s.web_auth_failures),
    ('ping_lavalink', s.ping_lavalink)
) as v (metric_name, metric_value)
where v.metric_value is not null;
comment on view public.comet_readings is 'comet: readings of snapshots, one row each';

create or replace function public.comet_reading_column(p_name text) returns text
language sql immutable parallel safe
return case when p_name = 'memory_usage' then 'ram_usage' when p_name in (
        'cpu_usage', 'memory_usage', 'swap_usage', 'disk_usage', 'network_rx', 'network_tx',
        'load_average_1m', 'load_average_5m', 'load_average_15m', 'process_cpu',
        'memory_rss', 'memory_heap', 'threads', 'open_files', 'uptime', 'loop_lag_p99',
        'loop_lag_max', 'missed_ticks', 'task_lateness_max', 'ping_gateway', 'discord_away',
        'gateway_reconnects', 'guild_count', 'user_count', 'channel_count', 'command_count',
        'command_errors', 'command_error_rate', 'command_latency_p50',
        'command_latency_p95', 'command_latency_p99', 'kuma_age', 'monitors_up',
        'monitors_down', 'monitors_unknown', 'store_failing', 'store_queue', 'remote_away',
        'outbox_queued', 'outbox_age', 'web_auth_failures', 'ping_lavalink'
    ) then p_name end;

create or replace function public.comet_system_metrics_insert() returns trigger
language plpgsql set search_path = '' as $$
begin
    new.id := coalesce(new.id, gen_random_uuid());
    new.bot_id := coalesce(new.bot_id, 'primary');
    new.timestamp := date_trunc('milliseconds', coalesce(new.timestamp, now()));
    new.labels := coalesce(new.labels, '{}');
    new.created_at := coalesce(new.created_at, now());
    insert into public.custom_metrics (
        id, bot_id, timestamp, metric_name, metric_value, labels, created_at)
    values (new.id, new.bot_id, new.timestamp, new.metric_name, new.metric_value, new.labels,
        new.created_at);
    return new;
end $$;

-- Deleting a reading by name empties that reading of its snapshot and nothing else; a snapshot
-- with no reading left goes altogether. The rows are first noted, then taken away in one go, or
-- every snapshot would be written anew for each of its readings. Retention itself deletes from the
-- base tables.
create unlogged table if not exists public.comet_deletions (
    id uuid not null,
    timestamp timestamptz not null,
    bot_id text collate "C" not null,
    metric_name text collate "C" not null,
    labels jsonb not null
);

create or replace function public.comet_system_metrics_delete() returns trigger
language plpgsql set search_path = '' as $$
begin
    insert into public.comet_deletions (id, timestamp, bot_id, metric_name, labels)
    values (old.id, old.timestamp, old.bot_id, old.metric_name, old.labels);
    return old;
end $$;

create or replace function public.comet_system_metrics_deleted() returns trigger
language plpgsql set search_path = '' as $$
begin
    with reported as (
        delete from public.custom_metrics c using public.comet_deletions d
        where c.id = d.id returning c.id
    )
    delete from public.comet_deletions d using reported where d.id = reported.id;

    delete from public.system_stats s using (
        select timestamp, bot_id, array_agg(metric_name) as names,
            array_agg(jsonb_build_array(metric_name, labels)) as labelled
        from public.comet_deletions group by timestamp, bot_id
    ) as g
    where s.timestamp = g.timestamp and s.bot_id = g.bot_id
        and not exists (
            select from public.comet_readings r where r.timestamp = s.timestamp
                and r.bot_id = s.bot_id and r.metric_name <> all (g.names))
        and not exists (
            select from jsonb_array_elements(s.extra) as e (reading)
            where jsonb_build_array(e.reading -> 0, coalesce(e.reading -> 1, '{}'))
                <> all (g.labelled));

    update public.system_stats s set
        cpu_usage = case when 'cpu_usage' <> all (g.names) then s.cpu_usage end,
        ram_usage = case when 'memory_usage' <> all (g.names) then s.ram_usage end,
        swap_usage = case when 'swap_usage' <> all (g.names) then s.swap_usage end,
        disk_usage = case when 'disk_usage' <> all (g.names) then s.disk_usage end,
        network_rx = case when 'network_rx' <> all (g.names) then s.network_rx end,
        network_tx = case when 'network_tx' <> all (g.names) then s.network_tx end,
        load_average_1m = case when 'load_average_1m' <> all (g.names) then s.load_average_1m end,
        load_average_5m = case when 'load_average_5m' <> all (g.names) then s.load_average_5m end,
        load_average_15m = case when 'load_average_15m' <> all (g.names) then s.load_average_15m end,
        process_cpu = case when 'process_cpu' <> all (g.names) then s.process_cpu end,
        memory_rss = case when 'memory_rss' <> all (g.names) then s.memory_rss end,
        memory_heap = case when 'memory_heap' <> all (g.names) then s.memory_heap end,
        threads = case when 'threads' <> all (g.names) then s.threads end,
        open_files = case when 'open_files' <> all (g.names) then s.open_files end,
        uptime = case when 'uptime' <> all (g.names) then s.uptime end,
        loop_lag_p99 = case when 'loop_lag_p99' <> all (g.names) then s.loop_lag_p99 end,
        loop_lag_max = case when 'loop_lag_max' <> all (g.names) then s.loop_lag_max end,
        missed_ticks = case when 'missed_ticks' <> all (g.names) then s.missed_ticks end,
        task_lateness_max = case when 'task_lateness_max' <> all (g.names) then s.task_lateness_max end,
        ping_gateway = case when 'ping_gateway' <> all (g.names) then s.ping_gateway end,
        discord_away = case when 'discord_away' <> all (g.names) then s.discord_away end,
        gateway_reconnects = case when 'gateway_reconnects' <> all (g.names) then s.gateway_reconnects end,
        guild_count = case when 'guild_count' <> all (g.names) then s.guild_count end,
        user_count = case when 'user_count' <> all (g.names) then s.user_count end,
        channel_count = case when 'channel_count' <> all (g.names) then s.channel_count end,
        command_count = case when 'command_count' <> all (g.names) then s.command_count end,
        command_errors = case when 'command_errors' <> all (g.names) then s.command_errors end,
        command_error_rate = case when 'command_error_rate' <> all (g.names) then s.command_error_rate end,
        command_latency_p50 = case when 'command_latency_p50' <> all (g.names) then s.command_latency_p50 end,
        command_latency_p95 = case when 'command_latency_p95' <> all (g.names) then s.command_latency_p95 end,
        command_latency_p99 = case when 'command_latency_p99' <> all (g.names) then s.command_latency_p99 end,
        kuma_age = case when 'kuma_age' <> all (g.names) then s.kuma_age end,
        monitors_up = case when 'monitors_up' <> all (g.names) then s.monitors_up end,
        monitors_down = case when 'monitors_down' <> all (g.names) then s.monitors_down end,
        monitors_unknown = case when 'monitors_unknown' <> all (g.names) then s.monitors_unknown end,
        store_failing = case when 'store_failing' <> all (g.names) then s.store_failing end,
        store_queue = case when 'store_queue' <> all (g.names) then s.store_queue end,
        remote_away = case when 'remote_away' <> all (g.names) then s.remote_away end,
        outbox_queued = case when 'outbox_queued' <> all (g.names) then s.outbox_queued end,
        outbox_age = case when 'outbox_age' <> all (g.names) then s.outbox_age end,
        web_auth_failures = case when 'web_auth_failures' <> all (g.names) then s.web_auth_failures end,
        ping_lavalink = case when 'ping_lavalink' <> all (g.names) then s.ping_lavalink end,
        extra = (
            select jsonb_agg(e.reading order by e.place)
            from jsonb_array_elements(s.extra) with ordinality as e (reading, place)
            where jsonb_build_array(e.reading -> 0, coalesce(e.reading -> 1, '{}'))
                <> all (g.labelled))
    from (
        select timestamp, bot_id, array_agg(metric_name) as names,
            array_agg(jsonb_build_array(metric_name, labels)) as labelled
        from public.comet_deletions group by timestamp, bot_id
    ) as g
    where s.timestamp = g.timestamp and s.bot_id = g.bot_id;

    delete from public.comet_deletions where true;
    return null;
end $$;

create or replace trigger comet_insert instead of insert on public.system_metrics
    for each row execute function public.comet_system_metrics_insert();
create or replace trigger comet_delete instead of delete on public.system_metrics
    for each row execute function public.comet_system_metrics_delete();
create or replace trigger comet_deleted after delete on public.system_metrics
    for each statement execute function public.comet_system_metrics_deleted();

-- Simple enough for PostgreSQL to pass INSERT and DELETE on by itself.
create or replace view public.performance_metrics as
select metric_name as metric_type, metric_value, timestamp as recorded_at
from public.system_metrics;
comment on view public.performance_metrics is 'comet: every metric by name, in other words';

-- The newest value of every metric. Each step of a walk jumps to the next different key of an index:
-- the next pattern of snapshots, the next name. Labelled readings count for a day.
create or replace view public.latest_metrics as
with recursive
patterns as (
    (select pattern, timestamp, bot_id, extra from public.system_stats
    order by pattern desc, timestamp desc limit 1)
    union all
    select n.pattern, n.timestamp, n.bot_id, n.extra from patterns p cross join lateral (
        select s.pattern, s.timestamp, s.bot_id, s.extra from public.system_stats s
        where s.pattern < p.pattern order by s.pattern desc, s.timestamp desc limit 1
    ) as n
),
names as (
    (select metric_name from public.custom_metrics order by metric_name limit 1)
    union all
    select (select min(c.metric_name) from public.custom_metrics c
        where c.metric_name > n.metric_name)
    from names n where n.metric_name is not null
)
select distinct on (metric_name) metric_name, metric_value, labels, timestamp from (
    select r.metric_name, r.metric_value, '{}'::jsonb as labels, r.timestamp, 1 as place
    from patterns p join public.comet_readings r
        on r.timestamp = p.timestamp and r.bot_id = p.bot_id
    union all
    select (e.reading ->> 0) collate "C",
        case jsonb_typeof(e.reading -> 2) when 'number' then (e.reading -> 2)::double precision end,
        coalesce(e.reading -> 1, '{}'), p.timestamp, 2
    from patterns p cross join lateral jsonb_array_elements(p.extra) as e (reading)
    where p.timestamp > (select max(timestamp) from public.system_stats) - interval '1 day'
    union all
    select n.metric_name, c.metric_value, c.labels, c.timestamp, 3
    from names n cross join lateral (
        select metric_value, labels, timestamp from public.custom_metrics
        where metric_name = n.metric_name order by timestamp desc, id desc limit 1
    ) as c
) as m
where metric_value is not null
order by metric_name, timestamp desc, place;
comment on view public.latest_metrics is 'comet: the newest value of every metric';

-- One hour of one metric of one bot.
create table if not exists public.metrics_hourly (
    hour timestamptz not null,
    metric_name text collate "C" not null,
    avg_value double precision not null,
    min_value double precision not null,
    max_value double precision not null,
    count integer not null default 0,
    bot_id text collate "C" not null default 'primary',
    created_at timestamptz not null default now()
);

-- Whatever does not fit a number: one JSON document per look.
create table if not exists public.metrics_raw (
    id uuid primary key default gen_random_uuid(),
    bot_id text collate "C" not null default 'primary',
    timestamp timestamptz not null default now(),
    metric_type text not null,
    data jsonb not null,
    created_at timestamptz not null default now()
);
create index if not exists metrics_raw_timestamp on public.metrics_raw (timestamp, id);

-- {bot_id: summary of that bot's day}; bot_id is who wrote first.
create table if not exists public.daily_summaries (
    date date primary key,
    summary_data jsonb not null,
    bot_id text collate "C" not null default 'primary',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Tables that were there already. A row of an hour that says nothing is made of no rows.
select public.comet_adopt('metrics_raw', '[
    ["bot_id", "text collate \"C\"", "''primary''"],
    ["timestamp", "timestamp with time zone", "now()"],
    ["metric_type", "text", null], ["data", "jsonb", null],
    ["created_at", "timestamp with time zone", "now()"]]');
select public.comet_adopt('metrics_hourly', '[
    ["hour", "timestamp with time zone", null], ["metric_name", "text collate \"C\"", null],
    ["avg_value", "double precision"], ["min_value", "double precision"],
    ["max_value", "double precision"], ["count", "integer", "0"],
    ["bot_id", "text collate \"C\"", "''primary''"],
    ["created_at", "timestamp with time zone", "now()"]]', false);
select public.comet_adopt('daily_summaries', '[
    ["date", "date", null], ["summary_data", "jsonb", null],
    ["bot_id", "text collate \"C\"", "''primary''"],
    ["created_at", "timestamp with time zone", "now()"],
    ["updated_at", "timestamp with time zone", "now()"]]', false);
do $$
declare
    v_constraint name;
begin
    -- Unique once was an hour and a name; now several bots share the table.
    for v_constraint in
        select c.conname from pg_constraint c
        where c.conrelid = 'public.metrics_hourly'::regclass and c.contype = 'u' and (
            select array_agg(a.attname::text order by a.attname) from pg_attribute a
            where a.attrelid = c.conrelid and a.attnum = any (c.conkey)
        ) = array['hour', 'metric_name']
    loop
        execute format('alter table public.metrics_hourly drop constraint %I', v_constraint);
    end loop;
end $$;
create unique index if not exists metrics_hourly_key
    on public.metrics_hourly (metric_name, hour, bot_id);
create index if not exists metrics_hourly_hour on public.metrics_hourly (hour);
create unique index if not exists daily_summaries_date on public.daily_summaries (date);

create materialized view if not exists public.metrics_last_24h as
select metric_name, sum(public.comet_tame(metric_value)) / count(*) as avg_value,
    min(metric_value) as min_value, max(metric_value) as max_value,
    percentile_cont(0.50) within group (order by metric_value) as p50,
    percentile_cont(0.95) within group (order by metric_value) as p95,
    percentile_cont(0.99) within group (order by metric_value) as p99,
    count(*) as count
from (
    select metric_name, metric_value from public.comet_readings
    where timestamp >= now() - interval '24 hours'
    union all
    select (e.reading ->> 0) collate "C",
        case jsonb_typeof(e.reading -> 2) when 'number' then (e.reading -> 2)::double precision end
    from public.system_stats s cross join lateral jsonb_array_elements(s.extra) as e (reading)
    where s.extra is not null and s.timestamp >= now() - interval '24 hours'
    union all
    select metric_name, metric_value from public.custom_metrics
    where timestamp >= now() - interval '24 hours'
) as m
where metric_name is not null and metric_value is not null
group by metric_name;
comment on materialized view public.metrics_last_24h is 'comet: the last 24 hours of every metric';
create unique index if not exists metrics_last_24h_name on public.metrics_last_24h (metric_name);

-- What people call

create or replace function public.get_metric_stats(metric_name text, hours double precision)
returns table (
    avg_value double precision, min_value double precision, max_value double precision,
    p50 double precision, p95 double precision, p99 double precision, count bigint
) language plpgsql stable set search_path = '' as $$
begin
    -- As text, so that it is planned for the one metric in question. Not comet_tame, which is not
    -- for everybody who may ask here.
    return query execute
        'select sum(least(greatest(m.metric_value, -1e300), 1e300)) / nullif(count(*), 0), '
        'min(m.metric_value), max(m.metric_value), '
        'percentile_cont(0.50) within group (order by m.metric_value), '
        'percentile_cont(0.95) within group (order by m.metric_value), '
        'percentile_cont(0.99) within group (order by m.metric_value), count(*) '
        'from public.system_metrics m where m.metric_name = $1 '
        'and m.timestamp >= $2 and m.timestamp <= $3'
        using $1, now() - $2 * interval '1 hour', now();
end $$;
comment on function public.get_metric_stats is 'comet: statistics of the last hours of one metric';

-- Snapshots and metrics older than so many days. Roll-ups, alerts and logs have terms of their own.
-- `system_metrics`: what was reported by name; the readings of snapshots go with these.
create or replace function public.cleanup_old_metrics(retention_days integer)
returns table (table_name text, deleted_count bigint)
language plpgsql set search_path = '' as $$
declare
    v_before timestamptz := now() - retention_days * interval '1 day';
    v_base text;
begin
    if retention_days is null or retention_days < 0 then
        raise exception 'retention_days must be 0 or more' using errcode = '22023';
    end if;
    for table_name, v_base in
        values ('system_stats', 'system_stats'), ('system_metrics', 'custom_metrics'),
            ('metrics_raw', 'metrics_raw')
    loop
        execute format('delete from public.%I where timestamp < $1', v_base) using v_before;
        get diagnostics deleted_count = row_count;
        return next;
    end loop;
end $$;
comment on function public.cleanup_old_metrics is 'comet: deletes old snapshots and metrics';

-- Its owner's rights, because nobody else may refresh a materialized view.
create or replace function public.refresh_metrics_views() returns void
language plpgsql security definer set search_path = '' as $$
begin
    -- The type by its full name: a temporary type of the caller's must not stand in for it.
    if (select relispopulated from pg_catalog.pg_class
        where oid = 'public.metrics_last_24h'::pg_catalog.regclass) then
        refresh materialized view concurrently public.metrics_last_24h;
    else
        refresh materialized view public.metrics_last_24h;
    end if;
end $$;
comment on function public.refresh_metrics_views is 'comet: brings metrics_last_24h up to date';

-- What the program calls

create or replace function public.comet_latest_metrics(p jsonb) returns jsonb
language sql stable set search_path = '' as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'metric_name', metric_name, 'metric_value', metric_value, 'labels', labels,
        'timestamp', public.comet_time(timestamp)) order by metric_name), '[]')
    from public.latest_metrics
$$;

-- A query for (at, value) of one metric from a time (incl.) to a time (excl.), given as expressions.
create or replace function public.comet_points(p_name text, p_from text, p_to text) returns text
language plpgsql immutable set search_path = '' as $$
declare
    v_column text := public.comet_reading_column(p_name);
begin
    return case when v_column is not null then format(
        'select s.timestamp as at, s.%1$I::double precision as value from public.system_stats s '
        'where s.timestamp >= %2$s and s.timestamp < %3$s and s.%1$I is not null',
        v_column, p_from, p_to)
    else format(
        'select s.timestamp as at, (e.reading -> 2)::double precision as value '
        'from public.system_stats s '
        'cross join lateral jsonb_array_elements(s.extra) as e (reading) '
        'where s.extra is not null and s.timestamp >= %2$s and s.timestamp < %3$s '
        'and e.reading ->> 0 = %1$L and jsonb_typeof(e.reading -> 2) = ''number''',
        p_name, p_from, p_to)
    end || format(
        ' union all select c.timestamp, c.metric_value from public.custom_metrics c '
        'where c.metric_name = %L and c.timestamp >= %s and c.timestamp < %s',
        p_name, p_from, p_to);
end $$;

create or replace function public.comet_ms(p_at timestamptz) returns bigint
language sql stable parallel safe
return floor(extract(epoch from p_at) * 1000)::bigint;

-- p: name, start_at, end_at, points. [[slot, average], …], oldest first; the span is cut into
-- `points` equal slots. Where a slot is half an hour or more, hours that were rolled up are read
-- from the roll-up and only what lies between them point by point.
create or replace function public.comet_metric_series(p jsonb) returns jsonb
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
    v_hour constant bigint := 3600000;
    v_name text := p ->> 'name';
    v_points bigint := (p ->> 'points')::bigint;
    v_start bigint := public.comet_ms((p ->> 'start_at')::timestamptz);
    v_end bigint := public.comet_ms((p ->> 'end_at')::timestamptz);
    v_span bigint := v_end - v_start;
    v_first timestamptz;
    v_last timestamptz;
    v_from timestamptz[];
    v_to timestamptz[];
    v_answer jsonb;
begin
    if v_points < 1 or v_span < 1 then
        return '[]';
    end if;
    v_from := array[to_timestamp(v_start / 1000.0)];
    v_to := array[to_timestamp(v_end / 1000.0)];
    v_first := v_to[1];
    v_last := v_from[1];
    if v_span >= v_points * v_hour / 2 then
        v_first := to_timestamp((v_start + v_hour - 1) / v_hour * 3600);
        v_last := to_timestamp(v_end / v_hour * 3600);
        -- What no roll-up covers: before, between and behind the hours that there are.
        select array_agg(g.reached order by g.reached), array_agg(g.next order by g.reached)
        into v_from, v_to
        from (
            select lag(h.hour + interval '1 hour', 1, v_from[1]) over (order by h.hour) as reached,
                h.hour as next
            from (
                select distinct hour from public.metrics_hourly
                where metric_name = v_name and hour >= v_first and hour < v_last
                    and avg_value is not null and count > 0
                union all select v_to[1]
            ) as h
        ) as g
        where g.reached < g.next;
    end if;
    execute format($sql$
        select coalesce(jsonb_agg(jsonb_build_array(slot, total / number) order by slot), '[]')
        from (
            select slot, sum(total) as total, sum(number) as number from (
                select (public.comet_ms(h.hour) - $1) * $2 / $3 as slot,
                    sum(public.comet_tame(h.avg_value) * h.count) as total, sum(h.count) as number
                from public.metrics_hourly h
                where h.metric_name = $4 and h.hour >= $5 and h.hour < $6
                    and h.avg_value is not null and h.count > 0
                group by 1
                union all
                select (round(date_part('epoch', x.at) * 1000)::bigint - $1) * $2 / $3,
                    sum(public.comet_tame(x.value)), count(*)
                from unnest($7, $8) as g (reached, next) cross join lateral (%s) as x
                group by 1
            ) as part group by slot
        ) as slots
    $sql$, public.comet_points(v_name, 'g.reached', 'g.next'))
    into v_answer
    using v_start, v_points, v_span, v_name, v_first, v_last, v_from, v_to;
    return v_answer;
end $$;

-- p: name, start_at, end_at (both included).
create or replace function public.comet_metric_stats(p jsonb) returns jsonb
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
    v_answer jsonb;
begin
    execute format($sql$
        select jsonb_build_object('avg_value', sum(public.comet_tame(value)) / nullif(count(*), 0),
            'min_value', min(value),
            'max_value', max(value),
            'p50', percentile_cont(0.50) within group (order by value),
            'p95', percentile_cont(0.95) within group (order by value),
            'p99', percentile_cont(0.99) within group (order by value), 'count', count(*))
        from (%s) as x
    $sql$, public.comet_points(p ->> 'name', '$1', '$2'))
    into v_answer
    using date_trunc('milliseconds', (p ->> 'start_at')::timestamptz),
        date_trunc('milliseconds', (p ->> 'end_at')::timestamptz) + interval '1 ms';
    return v_answer;
end $$;

-- p: hour, only_bot. Rolls one full hour up, of all bots or one; how many rows that gave. Rows that
-- came late are counted by doing it again. A roll-up of more rows stays: the rows it was made of may
-- be gone already.
create or replace function public.comet_roll_up_metrics(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_hour timestamptz := date_trunc('hour', (p ->> 'hour')::timestamptz);
    v_next timestamptz := v_hour + interval '1 hour';
    v_bot text := p ->> 'only_bot';
    v_count bigint;
begin
    insert into public.metrics_hourly as h (
        bot_id, metric_name, hour, avg_value, min_value, max_value, count)
    select bot_id, metric_name, v_hour, sum(public.comet_tame(metric_value)) / count(*),
        min(metric_value), max(metric_value), count(*)
    from (
        select r.bot_id, r.metric_name, r.metric_value from public.comet_readings r
        where r.timestamp >= v_hour and r.timestamp < v_next
        union all
        select s.bot_id, (e.reading ->> 0) collate "C", case jsonb_typeof(e.reading -> 2)
            when 'number' then (e.reading -> 2)::double precision end
        from public.system_stats s cross join lateral jsonb_array_elements(s.extra) as e (reading)
        where s.extra is not null and s.timestamp >= v_hour and s.timestamp < v_next
        union all
        select c.bot_id, c.metric_name, c.metric_value from public.custom_metrics c
        where c.timestamp >= v_hour and c.timestamp < v_next
    ) as m
    where metric_name is not null and metric_value is not null
        and (v_bot is null or bot_id = v_bot)
    group by bot_id, metric_name
    on conflict (metric_name, hour, bot_id) do update set avg_value = excluded.avg_value,
        min_value = excluded.min_value, max_value = excluded.max_value, count = excluded.count
    where excluded.count >= h.count;
    get diagnostics v_count = row_count;
    return to_jsonb(v_count);
end $$;

-- p: hour, only_bot. One full hour of metrics and services.
create or replace function public.comet_roll_up(p jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
    v_count bigint := public.comet_roll_up_metrics(p);
begin
    if to_regprocedure('public.comet_roll_up_services(jsonb)') is not null then
        execute 'select public.comet_roll_up_services($1)' using p;
    end if;
    return to_jsonb(v_count);
end $$;

create or replace function public.comet_import_metrics(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_taken bigint;
begin
    insert into public.custom_metrics (id, bot_id, timestamp, metric_name, metric_value, labels)
    select r.id, coalesce(r.bot_id, p ->> 'bot'), date_trunc('milliseconds', r.timestamp),
        r.metric_name, r.metric_value, coalesce(nullif(r.labels, 'null'), '{}')
    from jsonb_to_recordset(p -> 'rows') as r (
        id uuid, bot_id text, timestamp timestamptz, metric_name text,
        metric_value double precision, labels jsonb)
    on conflict do nothing;
    get diagnostics v_taken = row_count;
    return jsonb_build_object('taken', v_taken);
end $$;

create or replace function public.comet_export_metrics(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with page as (
        select bot_id, id, metric_name, timestamp, metric_value, labels from public.custom_metrics
        where (metric_name, timestamp, id) > (
                coalesce(p #>> '{after,0}', ''),
                coalesce((p #>> '{after,1}')::timestamptz, '-infinity'),
                coalesce((p #>> '{after,2}')::uuid, '00000000-0000-0000-0000-000000000000'))
            and timestamp >= coalesce((p ->> 'since')::timestamptz, '-infinity')
            and (p ->> 'only_bot' is null or bot_id = p ->> 'only_bot')
        order by metric_name, timestamp, id limit (p ->> 'limit')::bigint
    )
    select jsonb_build_object(
        'rows', coalesce(jsonb_agg(
            to_jsonb(r) || jsonb_build_object('timestamp', public.comet_time(r.timestamp))
            order by metric_name, timestamp, id), '[]'),
        'next', case when count(*) = (p ->> 'limit')::bigint then
            (array_agg(jsonb_build_array(metric_name, public.comet_time(timestamp), id)
                order by metric_name desc, timestamp desc, id desc))[1] end)
    from page r
$$;

create or replace function public.comet_import_metrics_raw(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_taken bigint;
begin
    insert into public.metrics_raw (id, bot_id, timestamp, metric_type, data)
    select r.id, coalesce(r.bot_id, p ->> 'bot'), r.timestamp, r.metric_type, r.data
    from jsonb_to_recordset(p -> 'rows') as r (
        id uuid, bot_id text, timestamp timestamptz, metric_type text, data jsonb)
    on conflict do nothing;
    get diagnostics v_taken = row_count;
    return jsonb_build_object('taken', v_taken);
end $$;

create or replace function public.comet_export_metrics_raw(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with page as (
        select bot_id, id, timestamp, metric_type, data from public.metrics_raw
        where (timestamp, id) > (
                coalesce((p #>> '{after,0}')::timestamptz, '-infinity'),
                coalesce((p #>> '{after,1}')::uuid, '00000000-0000-0000-0000-000000000000'))
            and timestamp >= coalesce((p ->> 'since')::timestamptz, '-infinity')
            and (p ->> 'only_bot' is null or bot_id = p ->> 'only_bot')
        order by timestamp, id limit (p ->> 'limit')::bigint
    )
    select jsonb_build_object(
        'rows', coalesce(jsonb_agg(
            to_jsonb(r) || jsonb_build_object('timestamp', public.comet_time(r.timestamp))
            order by timestamp, id), '[]'),
        'next', case when count(*) = (p ->> 'limit')::bigint then
            (array_agg(jsonb_build_array(public.comet_time(timestamp), id)
                order by timestamp desc, id desc))[1] end)
    from page r
$$;

-- Of two roll-ups of an hour the one made of more rows stands; of equals the one written last.
create or replace function public.comet_import_metrics_hourly(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_taken bigint;
begin
    insert into public.metrics_hourly as h (
        bot_id, metric_name, hour, avg_value, min_value, max_value, count)
    select distinct on (metric_name, hour, bot_id) bot_id, metric_name, hour,
        avg_value, min_value, max_value, count
    from (
        select coalesce(r.bot_id, p ->> 'bot') as bot_id, r.metric_name, r.hour, r.avg_value,
            r.min_value, r.max_value, public.comet_whole(r.count) as count, r.place
        from rows from (jsonb_to_recordset(p -> 'rows') as (
            bot_id text, metric_name text, hour timestamptz, avg_value double precision,
            min_value double precision, max_value double precision, count numeric)
        ) with ordinality as r (
            bot_id, metric_name, hour, avg_value, min_value, max_value, count, place)
    ) as given
    order by metric_name, hour, bot_id, count desc, place desc
    on conflict (metric_name, hour, bot_id) do update set avg_value = excluded.avg_value,
        min_value = excluded.min_value, max_value = excluded.max_value, count = excluded.count
    where excluded.count >= h.count and (excluded.avg_value, excluded.min_value,
        excluded.max_value, excluded.count) is distinct from (
        h.avg_value, h.min_value, h.max_value, h.count);
    get diagnostics v_taken = row_count;
    return jsonb_build_object('taken', v_taken);
end $$;

create or replace function public.comet_export_metrics_hourly(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with page as (
        select bot_id, metric_name, hour, avg_value, min_value, max_value, count
        from public.metrics_hourly
        where (metric_name, hour, bot_id) > (
                coalesce(p #>> '{after,0}', ''),
                coalesce((p #>> '{after,1}')::timestamptz, '-infinity'),
                coalesce(p #>> '{after,2}', ''))
            and hour >= coalesce((p ->> 'since')::timestamptz, '-infinity')
            and (p ->> 'only_bot' is null or bot_id = p ->> 'only_bot')
        order by metric_name, hour, bot_id limit (p ->> 'limit')::bigint
    )
    select jsonb_build_object(
        'rows', coalesce(jsonb_agg(
            to_jsonb(r) || jsonb_build_object('hour', public.comet_time(r.hour))
            order by metric_name, hour, bot_id), '[]'),
        'next', case when count(*) = (p ->> 'limit')::bigint then
            (array_agg(jsonb_build_array(metric_name, public.comet_time(hour), bot_id)
                order by metric_name desc, hour desc, bot_id desc))[1] end)
    from page r
$$;

-- Each bot has a key of its own in a day's summary.
create or replace function public.comet_import_daily_summaries(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_row record;
    v_taken bigint := 0;
begin
    for v_row in
        select * from jsonb_to_recordset(p -> 'rows') as r (
            bot_id text, date date, summary_data jsonb)
    loop
        insert into public.daily_summaries as d (bot_id, date, summary_data)
        values (coalesce(v_row.bot_id, p ->> 'bot'), v_row.date, v_row.summary_data)
        on conflict (date) do update set
            summary_data = case jsonb_typeof(d.summary_data) when 'object' then d.summary_data
                else jsonb_build_object('before_comet', d.summary_data) end
                || excluded.summary_data, updated_at = now()
        where jsonb_typeof(d.summary_data) <> 'object'
            or d.summary_data <> d.summary_data || excluded.summary_data;
        if found then
            v_taken := v_taken + 1;
        end if;
    end loop;
    return jsonb_build_object('taken', v_taken);
end $$;

-- With only_bot nothing but that bot's part of each day.
create or replace function public.comet_export_daily_summaries(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with page as (
        select coalesce(p ->> 'only_bot', bot_id) as bot_id, date,
            case when p ->> 'only_bot' is null then summary_data else jsonb_build_object(
                p ->> 'only_bot', summary_data -> (p ->> 'only_bot')) end as summary_data
        from public.daily_summaries
        where date > coalesce((p #>> '{after,0}')::date, '-infinity')
            and (p ->> 'only_bot' is null or summary_data ? (p ->> 'only_bot'))
        order by date limit (p ->> 'limit')::bigint
    )
    select jsonb_build_object(
        'rows', coalesce(jsonb_agg(to_jsonb(r) order by date), '[]'),
        'next', case when count(*) = (p ->> 'limit')::bigint
            then jsonb_build_array(max(date)) end)
    from page r
$$;

select public.comet_protect('comet_deletions', 'nobody');
select public.comet_protect(v.name, 'viewers') from (values
    ('custom_metrics'), ('system_metrics'), ('performance_metrics'), ('comet_readings'),
    ('latest_metrics'), ('metrics_hourly'), ('metrics_raw'),
    ('daily_summaries'), ('metrics_last_24h')) as v (name);
select public.comet_protect_functions();
select public.comet_protect_function(
    'public.get_metric_stats(text, double precision)', 'anon', 'authenticated', 'service_role');
select public.comet_protect_function('public.cleanup_old_metrics(integer)', 'service_role');
select public.comet_protect_function('public.refresh_metrics_views()', 'service_role');

insert into public.comet_migrations (number, name) values (2, 'metrics') on conflict do nothing;
