-- Why: a database that nobody tends grows until its plan or its disk is full. So what is old goes in
-- small slices, hours are rolled up (again, when rows of them come in late) and the materialized
-- view is kept fresh: by pg_cron where it is there, else by whichever bot asks first, never by two
-- at once.
--
-- Works on PostgreSQL 15 to 18 with or without Supabase's roles. Pasting it twice is harmless.

-- Hours to roll up

-- Every row that a roll-up is made of notes its hour here, whoever inserts it. Its transaction holds
-- the note until it ends, so that nobody takes the note away between a row and its commit.
create table if not exists public.comet_due_hours (
    bot_id text collate "C" not null,
    hour timestamptz not null,
    noted bigint not null default 1,
    primary key (bot_id, hour)
) with (fillfactor = 50);

-- Its owner's rights: whoever may insert a metric need not know about this table.
create or replace function public.comet_note_hours() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into public.comet_due_hours as d (bot_id, hour)
    select distinct f.bot_id, date_bin('1 hour', f.timestamp, '2000-01-01 00:00:00+00') as hour
    from fresh as f where isfinite(f.timestamp) order by 1, 2
    on conflict (bot_id, hour) do update set noted = d.noted + 1;
    return null;
end $$;

-- A poll speaks for the time until the next one, so it may reach into later hours.
create or replace function public.comet_note_hours_of_polls() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into public.comet_due_hours as d (bot_id, hour)
    select distinct f.bot_id, h.hour
    from fresh as f
    cross join lateral generate_series(
        date_bin('1 hour', f.at, '2000-01-01 00:00:00+00'),
        f.at + make_interval(secs => least(greatest(f.valid_s, 0), 14400)),
        interval '1 hour') as h (hour)
    where isfinite(f.at) order by 1, 2
    on conflict (bot_id, hour) do update set noted = d.noted + 1;
    return null;
end $$;

create or replace trigger comet_due after insert on public.system_stats
    referencing new table as fresh for each statement
    execute function public.comet_note_hours();
create or replace trigger comet_due after insert on public.custom_metrics
    referencing new table as fresh for each statement
    execute function public.comet_note_hours();
create or replace trigger comet_due after insert on public.service_polls
    referencing new table as fresh for each statement
    execute function public.comet_note_hours_of_polls();

-- What was there before is rolled up once more; nobody noted which of it came late.
insert into public.comet_due_hours (bot_id, hour)
select bot_id, date_bin('1 hour', at, '2000-01-01 00:00:00+00') as hour
from (
    select bot_id, timestamp as at from public.system_stats
    union all select bot_id, timestamp from public.custom_metrics
    union all select bot_id, at from public.service_polls
    union all select bot_id, at + make_interval(secs => valid_s) from public.service_polls
) as rows
where isfinite(at) and not exists (select from public.comet_migrations where number = 7)
group by 1, 2 order by 1, 2
on conflict do nothing;

-- p: bot, before, limit. Hours of that bot that ended by then, oldest first.
create or replace function public.comet_due_hours(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(public.comet_time(hour) order by hour), '[]')
    from (
        select hour from public.comet_due_hours
        where bot_id = p ->> 'bot'
            and hour + interval '1 hour' <= (p ->> 'before')::timestamptz
        order by hour limit (p ->> 'limit')::bigint
    ) as due
$$;

-- p: bot, hour. Rolls one full hour of that bot up. The note goes first: a row that comes in while
-- this runs waits for it and then notes its hour anew.
create or replace function public.comet_save_hourly(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_hour constant timestamptz :=
        date_bin('1 hour', (p ->> 'hour')::timestamptz, '2000-01-01 00:00:00+00');
begin
    delete from public.comet_due_hours where bot_id = p ->> 'bot' and hour = v_hour;
    return public.comet_roll_up(jsonb_build_object(
        'bot', p -> 'bot', 'only_bot', p -> 'bot', 'hour', v_hour));
end $$;

-- What may go

-- How long rows stay, by kind. Several bots may share a database, and nobody may delete what another
-- still wants: of their wishes the longest counts. The row of bot '' counts where no bot has said
-- anything. A bot that is gone for good still has its say until its rows here are deleted.
create table if not exists public.comet_retention (
    kind text collate "C" not null check (kind in (
        'samples', 'metrics', 'metrics_raw', 'metrics_hourly', 'alerts', 'services', 'polls',
        'conversations', 'music', 'bot_logs')),
    bot_id text collate "C" not null default '',
    keep interval not null check (keep > interval '0'),
    updated_at timestamptz not null default now(),
    primary key (kind, bot_id)
);
insert into public.comet_retention (kind, keep) values
    ('samples', '30 days'), ('metrics', '30 days'), ('metrics_raw', '30 days'),
    ('metrics_hourly', '400 days'), ('alerts', '400 days'), ('services', '400 days'),
    ('polls', '48 hours'), ('conversations', '90 days'), ('music', '90 days'),
    ('bot_logs', '30 days')
on conflict do nothing;

-- p: bot, keep {kind: seconds}. This bot's wishes.
create or replace function public.comet_set_retention(p jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
    v_count bigint;
begin
    insert into public.comet_retention as r (kind, bot_id, keep)
    select k.key, p ->> 'bot', make_interval(secs => k.value::double precision)
    from jsonb_each_text(p -> 'keep') as k
    on conflict (kind, bot_id) do update set keep = excluded.keep, updated_at = now()
    where r.keep <> excluded.keep;
    get diagnostics v_count = row_count;
    return to_jsonb(v_count);
end $$;

-- {kind: time} before which rows may go now.
create or replace function public.comet_cutoffs() returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_object_agg(kind, now() - keep)
    from (
        select kind, coalesce(max(keep) filter (where bot_id <> ''), max(keep)) as keep
        from public.comet_retention group by kind
    ) as longest
$$;

-- Deletes at most so many rows of a table that are old by a condition, the oldest first, none that
-- somebody else is at; how many went. The condition knows the cut-off as $1 and the row as t.
create or replace function public.comet_delete_slice(
    p_table text, p_column text, p_cutoff timestamptz, p_limit bigint, p_condition text default ''
) returns bigint
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_count bigint;
begin
    if p_limit <= 0 then
        return 0;
    end if;
    execute format(
        'delete from public.%1$I where ctid = any (array('
        'select t.ctid from public.%1$I as t where t.%2$I < $1 %3$s '
        'order by t.%2$I limit $2 for update skip locked))',
        p_table, p_column, p_condition)
    using p_cutoff, p_limit;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- p: cutoffs {kind: time}, limit (per kind). Of all bots. Open incidents, what is queued in the
-- outbox with all it speaks of, and the newest poll of each instance and bot always stay.
create or replace function public.comet_delete_expired(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_kind text;
    v_cutoff timestamptz;
    v_limit constant bigint := (p ->> 'limit')::bigint;
    v_gone bigint;
    v_all jsonb := '{}';
    v_table record;
    c_unsent constant text :=
        'and not exists (select from public.outbox as o where o.status = ''queued'' and ';
begin
    for v_kind, v_cutoff in
        select key, value::timestamptz from jsonb_each_text(p -> 'cutoffs')
    loop
        v_gone := 0;
        for v_table in
            select * from (values
                ('samples', 'system_stats', 'timestamp', ''),
                ('metrics', 'custom_metrics', 'timestamp', ''),
                ('metrics_raw', 'metrics_raw', 'timestamp', ''),
                ('metrics_hourly', 'metrics_hourly', 'hour', ''),
                ('metrics_hourly', 'service_hourly', 'hour', ''),
                ('alerts', 'alert_history', 'timestamp',
                    'and t.resolved and coalesce(t.resolved_at, t.timestamp) < $1 '
                    || c_unsent || 'o.incident_id = t.id)'),
                ('alerts', 'flips', 'at',
                    c_unsent || 'o.incident_id = t.incident_id) and not exists (select '
                    'from public.alert_history as a where a.id = t.incident_id '
                    'and not a.resolved)'),
                ('alerts', 'outbox', 'created_at', 'and t.status <> ''queued'''),
                ('alerts', 'cards', 'closed_at', c_unsent || 'o.card_id = t.card_id)'),
                ('services', 'service_status_history', 'checked_at', ''),
                ('polls', 'service_polls', 'at',
                    'and exists (select from public.service_polls as n where '
                    'n.bot_id = t.bot_id and n.instance = t.instance and n.at > t.at)'),
                ('conversations', 'conversation_logs', 'timestamp', ''),
                ('music', 'music_logs', 'timestamp', ''),
                ('bot_logs', 'bot_logs', 'timestamp', '')
            ) as t (kind, name, aged_by, condition)
            where kind = v_kind
        loop
            v_gone := v_gone + public.comet_delete_slice(
                v_table.name, v_table.aged_by, v_cutoff, v_limit - v_gone, v_table.condition);
        end loop;
        if not found then
            raise exception 'unknown kind: %', v_kind using errcode = '22023';
        end if;
        v_all := v_all || jsonb_build_object(v_kind, v_gone);
    end loop;
    return v_all;
end $$;

-- Which monitors a poll spoke of is kept as long as anything speaks of it, and as long as a roll-up
-- is kept: a bot that still holds such a roster does not send it again.
alter table public.rosters
    add column if not exists created_at timestamptz not null default now();

create or replace function public.comet_delete_rosters() returns bigint
language plpgsql set search_path = '' as $$
declare
    v_count bigint;
begin
    delete from public.rosters as r
    where r.created_at < (public.comet_cutoffs() ->> 'metrics_hourly')::timestamptz
        and not exists (select from public.service_polls as s
            where s.bot_id = r.bot_id and s.roster_id = r.roster_id)
        and not exists (select from public.service_hourly as h
            where h.bot_id = r.bot_id and h.roster_id = r.roster_id);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Keeping house

-- When each chore was last done; 'pg_cron' is the whole round of its job.
create table if not exists public.comet_chores (
    chore text collate "C" primary key,
    done_at timestamptz not null default now()
);

-- Notes that a chore is done now, unless it was done within p_every.
create or replace function public.comet_is_time(p_chore text, p_every interval) returns boolean
language plpgsql set search_path = '' as $$
begin
    insert into public.comet_chores as c (chore, done_at) values (p_chore, clock_timestamp())
    on conflict (chore) do update set done_at = excluded.done_at
    where c.done_at <= clock_timestamp() - p_every;
    return found;
end $$;

-- Whether pg_cron keeps house here: our job is on, and it did come in the last hour. Its owner's
-- rights, because each role sees only its own jobs.
create or replace function public.comet_cron_keeps_house() returns boolean
language plpgsql stable security definer set search_path = '' as $$
declare
    v_is_on boolean := false;
begin
    -- Not any table of that name: whoever may make a schema could make that, too.
    if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
        return false;
    end if;
    execute 'select exists (select from cron.job where jobname = $1 and active '
        'and database = current_database())'
    into v_is_on using 'comet-housekeeping';
    return v_is_on and exists (
        select from public.comet_chores
        where chore = 'pg_cron' and done_at > now() - interval '1 hour');
exception when insufficient_privilege or undefined_column then
    return false;
end $$;

-- p: by ('bot' or 'pg_cron'). One round of at most a few seconds; what it did, and whether there is
-- `more` to do. Somebody else being at it, or pg_cron doing it, is an answer too: {"skipped": who}.
--
-- 1. Roll up what is due and over for two minutes. An hour that somebody is writing to is left for
--    the next round. 2. Only when none is left, delete what is too old. 3. Now and then: rosters
--    nobody speaks of, and the materialized view.
create or replace function public.comet_housekeeping(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_until constant timestamptz := clock_timestamp() + interval '3 seconds';
    v_by constant text := coalesce(p ->> 'by', 'bot');
    v_hour record;
    v_rolled_up bigint := 0;
    v_slice jsonb;
    v_deleted jsonb := '{}';
    v_more boolean := false;
    v_is_fresh boolean := false;
begin
    if v_by <> 'pg_cron' and public.comet_cron_keeps_house() then
        return jsonb_build_object('skipped', 'pg_cron');
    end if;
    if not pg_try_advisory_xact_lock(1129270612, 7) then
        return jsonb_build_object('skipped', 'busy');
    end if;
    if v_by = 'pg_cron' then
        perform public.comet_is_time('pg_cron', interval '0');
    end if;

    loop
        if clock_timestamp() >= v_until then
            v_more := true;
            exit;
        end if;
        select bot_id, hour into v_hour from public.comet_due_hours
        where hour <= now() - interval '62 minutes'
        order by hour, bot_id limit 1 for update skip locked;
        exit when not found;
        delete from public.comet_due_hours where bot_id = v_hour.bot_id and hour = v_hour.hour;
        begin
            perform public.comet_roll_up(jsonb_build_object(
                'bot', v_hour.bot_id, 'only_bot', v_hour.bot_id, 'hour', v_hour.hour));
            v_rolled_up := v_rolled_up + 1;
        exception when data_exception or integrity_constraint_violation then
            -- Rows that no sum can be made of must not keep everything else from being done.
            raise warning 'no roll-up of % of %: %', v_hour.hour, v_hour.bot_id, sqlerrm;
        end;
    end loop;

    while not v_more loop
        v_slice := public.comet_delete_expired(
            jsonb_build_object('cutoffs', public.comet_cutoffs(), 'limit', 1000));
        select jsonb_object_agg(key, value::bigint + coalesce((v_deleted ->> key)::bigint, 0))
        into v_deleted from jsonb_each_text(v_slice);
        exit when not exists (select from jsonb_each_text(v_slice) where value <> '0');
        v_more := clock_timestamp() >= v_until;
    end loop;

    if not v_more and public.comet_is_time('rosters', interval '1 day') then
        perform public.comet_delete_rosters();
    end if;
    if v_by = 'pg_cron' then
        perform public.comet_forget_runs();
    end if;
    if not v_more and public.comet_is_time('views', interval '10 minutes') then
        begin
            perform public.refresh_metrics_views();
            v_is_fresh := true;
        exception when query_canceled or insufficient_privilege or lock_not_available
            or data_exception then
            -- All the rest is done and must stay so.
            raise notice 'metrics_last_24h was not refreshed: %', sqlerrm;
        end;
    end if;
    return jsonb_build_object('rolled_up', v_rolled_up, 'deleted', v_deleted,
        'refreshed', v_is_fresh, 'more', v_more);
end $$;

-- pg_cron notes every run for ever; ours are kept for a week.
create or replace function public.comet_forget_runs() returns void
language plpgsql set search_path = '' as $$
begin
    execute 'delete from cron.job_run_details where runid = any (array('
        'select d.runid from cron.job_run_details as d join cron.job as j on j.jobid = d.jobid '
        'where j.jobname = $1 and d.end_time < now() - interval ''7 days'' limit 1000))'
    using 'comet-housekeeping';
exception when undefined_table or invalid_schema_name or insufficient_privilege then
    return;
end $$;

-- Lets pg_cron keep house every five minutes, where it is there; what it was told. Repeating it is
-- harmless. `select cron.unschedule('comet-housekeeping')` leaves it to the bots again.
create or replace function public.comet_schedule() returns text
language plpgsql set search_path = '' as $$
begin
    if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
        return 'pg_cron is not there: the bots keep house';
    end if;
    execute 'select cron.schedule($1, $2, $3)' using 'comet-housekeeping', '*/5 * * * *',
        'select public.comet_housekeeping(''{"by": "pg_cron"}'')';
    -- Until its first run the bots need not step in.
    perform public.comet_is_time('pg_cron', interval '0');
    return 'pg_cron keeps house';
exception when insufficient_privilege then
    raise notice 'pg_cron was not told to keep house: %', sqlerrm;
    return 'pg_cron may not be used: the bots keep house';
end $$;

select public.comet_protect('comet_due_hours', 'nobody');
select public.comet_protect('comet_retention', 'nobody');
select public.comet_protect('comet_chores', 'nobody');
select public.comet_protect_functions();
select public.comet_schedule();

insert into public.comet_migrations (number, name) values (7, 'housekeeping')
on conflict do nothing;
