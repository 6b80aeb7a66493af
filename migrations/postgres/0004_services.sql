-- Why: a thousand monitors polled every minute are 1.4 million checks a day. Only changes are
-- worth a row of their own; the checks themselves are kept packed, one row per poll, for two
-- days, and as one packed row per hour afterwards.

select public.comet_only_ours('monitors', 'rosters', 'service_polls', 'service_hourly');

create table if not exists public.service_status_history (
    id uuid primary key default gen_random_uuid(),
    service_id text not null,
    service_name text not null,
    status text not null,
    response_time double precision,
    error_message text,
    checked_at timestamptz not null default now(),
    created_at timestamptz not null default clock_timestamp()
);
select public.comet_adopt('service_status_history', '[
    ["service_id", "text", null], ["service_name", "text", null], ["status", "text", null],
    ["response_time", "double precision"], ["error_message", "text"],
    ["checked_at", "timestamp with time zone", "now()"],
    ["created_at", "timestamp with time zone", "clock_timestamp()"],
    ["bot_id", "text collate \"C\"", "''primary''"]]');
create index if not exists service_status_history_service
    on public.service_status_history (service_id, checked_at);
create index if not exists service_status_history_checked
    on public.service_status_history (checked_at, id);

-- last_seen_at is behind the times for a monitor in its instance's newest poll: that poll's own
-- time counts (a thousand rows rewritten every minute would say nothing new).
create table if not exists public.monitors (
    bot_id text collate "C" not null default 'primary',
    key text collate "C" not null,
    name text not null,
    type text,
    url text,
    hostname text,
    port text,
    tags jsonb not null default '{}',
    status text not null default 'unknown',
    changed_at timestamptz not null check (isfinite(changed_at)),
    last_seen_at timestamptz not null check (isfinite(last_seen_at)),
    forgotten boolean not null default false,
    revision bigint not null default 0,
    primary key (bot_id, key)
);

-- Which monitors a poll spoke of: their keys in the order of their code points.
create table if not exists public.rosters (
    bot_id text collate "C" not null default 'primary',
    roster_id uuid not null,
    instance text collate "C" not null,
    keys text[] not null,
    primary key (bot_id, roster_id)
);

create or replace function public.comet_sum(p_numbers integer[]) returns bigint
language sql immutable parallel safe
return (select coalesce(sum(n), 0) from unnest(p_numbers) as n);

create or replace function public.comet_product(p_some integer[], p_others integer[])
returns bigint language sql immutable parallel safe
return (select coalesce(sum(a::bigint * b), 0) from unnest(p_some, p_others) as u (a, b));

-- One number per monitor of the roster, in its order. statuses: 0 down, 1 up, 2 pending,
-- 3 maintenance, 4 unknown. times: tenths of a millisecond, -1 for no answer. What is summed up
-- beside them (other is pending and maintenance) spares all monitors together the unpacking.
create table if not exists public.service_polls (
    bot_id text collate "C" not null default 'primary',
    instance text collate "C" not null,
    at timestamptz not null,
    valid_s double precision not null,
    roster_id uuid not null,
    statuses smallint[] not null,
    times integer[] not null,
    up integer generated always as (cardinality(array_positions(statuses, 1::smallint))) stored,
    down integer generated always as (cardinality(array_positions(statuses, 0::smallint))) stored,
    unknown integer
        generated always as (cardinality(array_positions(statuses, 4::smallint))) stored,
    silent integer generated always as (cardinality(array_positions(times, -1))) stored,
    times_sum bigint generated always as (
        public.comet_sum(times) + cardinality(array_positions(times, -1))) stored,
    primary key (bot_id, instance, at),
    check (cardinality(statuses) = cardinality(times)),
    check (isfinite(at))
);
create index if not exists service_polls_at on public.service_polls (at);

-- One hour of one instance: checks, milliseconds up, down and otherwise (pending, maintenance),
-- answers and their mean time in tenths of a millisecond.
create table if not exists public.service_hourly (
    bot_id text collate "C" not null default 'primary',
    instance text collate "C" not null,
    hour timestamptz not null,
    roster_id uuid not null,
    checks integer[] not null,
    up_ms integer[] not null,
    down_ms integer[] not null,
    other_ms integer[] not null,
    answered integer[] not null,
    mean_tenths integer[] not null,
    checks_sum bigint generated always as (public.comet_sum(checks)) stored,
    up_sum bigint generated always as (public.comet_sum(up_ms)) stored,
    down_sum bigint generated always as (public.comet_sum(down_ms)) stored,
    other_sum bigint generated always as (public.comet_sum(other_ms)) stored,
    answered_sum bigint generated always as (public.comet_sum(answered)) stored,
    times_sum bigint generated always as (public.comet_product(answered, mean_tenths)) stored,
    primary key (bot_id, instance, hour)
);
create index if not exists service_hourly_hour on public.service_hourly (hour);

-- Monitors

-- Identity and status come from the newest change, by changed_at. last_seen_at only rises. A row
-- that says nothing of last_seen_at or forgotten leaves them as they are.
create or replace function public.comet_import_monitors(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with given as (
        select coalesce(r.bot_id, p ->> 'bot') as bot, r.*
        from jsonb_populate_recordset(null::public.monitors, p -> 'rows') with ordinality as r
    ), valid as (
        select g.*, coalesce(g.revision, greatest(m.revision, public.comet_now_us())) as rising,
            g.revision is null or m.revision is null or g.revision > m.revision as is_newer
        from given as g left join public.monitors as m on m.bot_id = g.bot and m.key = g.key
        where g.revision is null or m.revision is null or g.revision >= m.revision
    ), told as (
        select bot, key, name, type, url, hostname, port, tags, status, changed_at, last_seen_at,
            forgotten, rising, is_newer, ordinality from valid
        union all
        select bot_id, m.key, name, type, url, hostname, port, tags, status, changed_at,
            last_seen_at, forgotten, revision, false, 0
        from public.monitors as m
        where (bot_id, m.key) in (select bot, key from valid)
    ), newest as (
        select distinct on (bot, key) * from told
        order by bot, key, changed_at desc, rising desc, ordinality desc
    ), marks as (
        select bot, key, coalesce(max(last_seen_at), min(changed_at)) as last_seen_at,
            coalesce((array_agg(forgotten order by rising desc, ordinality desc)
                filter (where forgotten is not null))[1], false) as forgotten,
            max(rising) as revision, bool_or(is_newer) as is_newer
        from told group by bot, key
    ), taken as (
        insert into public.monitors as m (
            bot_id, key, name, type, url, hostname, port, tags, status, changed_at, last_seen_at,
            forgotten, revision
        )
        select n.bot, n.key, n.name, n.type, n.url, n.hostname, n.port, n.tags, n.status,
            n.changed_at, k.last_seen_at, k.forgotten, k.revision
        from newest as n join marks as k on k.bot = n.bot and k.key = n.key
        on conflict (bot_id, key) do update set
            name = excluded.name, type = excluded.type, url = excluded.url,
            hostname = excluded.hostname, port = excluded.port, tags = excluded.tags,
            status = excluded.status, changed_at = excluded.changed_at,
            last_seen_at = greatest(m.last_seen_at, excluded.last_seen_at),
            forgotten = excluded.forgotten, revision = excluded.revision
        returning m.bot_id, m.key
    )
    select jsonb_build_object('taken', count(*))
    from taken as t join marks as k on k.bot = t.bot_id and k.key = t.key where k.is_newer
$$;
-- Changes are history and nothing else, unless a row says under `monitor` who the monitor is:
-- then one that is new brings its monitor up to date. Unknown means that nobody saw it.
create or replace function public.comet_import_changes(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_fresh uuid[];
    v_told jsonb;
begin
    with fresh as (
        insert into public.service_status_history (
            bot_id, id, service_id, service_name, status, response_time, error_message,
            checked_at
        )
        select coalesce(bot_id, p ->> 'bot'), id, service_id, service_name, status,
            response_time, error_message, checked_at
        from jsonb_populate_recordset(null::public.service_status_history, p -> 'rows')
            with ordinality
        order by ordinality
        on conflict do nothing returning id
    )
    select coalesce(array_agg(id), '{}') into v_fresh from fresh;
    select jsonb_agg((c.change -> 'monitor') || jsonb_build_object(
        'bot_id', coalesce(c.change ->> 'bot_id', p ->> 'bot'),
        'key', c.change -> 'service_id', 'name', c.change -> 'service_name',
        'status', c.change -> 'status', 'changed_at', c.change -> 'checked_at',
        'last_seen_at', case when c.change ->> 'status' <> 'unknown'
            then c.change -> 'checked_at' end,
        'forgotten', case when c.change ->> 'status' <> 'unknown' then false end
    ) order by c.place) into v_told
    from jsonb_array_elements(p -> 'rows') with ordinality as c (change, place)
    where c.change ? 'monitor' and (c.change ->> 'id')::uuid = any (v_fresh);
    if v_told is not null then
        perform public.comet_import_monitors(jsonb_build_object('bot', p -> 'bot', 'rows', v_told));
    end if;
    return jsonb_build_object('taken', cardinality(v_fresh));
end
$$;
create or replace function public.comet_export_changes(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'service_status_history',
        '{bot_id,id,service_id,service_name,status,response_time,error_message,checked_at}',
        '{checked_at,id}', 'checked_at')
$$;

create or replace function public.comet_forget_monitor(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with gone as (
        update public.monitors
        set forgotten = true, revision = greatest(revision, public.comet_now_us())
        where bot_id = p ->> 'bot' and key = p ->> 'key' and not forgotten
        returning key
    )
    select to_jsonb(count(*)) from gone
$$;

-- When the newest poll of its instance saw a monitor.
create or replace function public.comet_newest_looks(p_bot text)
returns table (key text, at timestamptz)
language sql stable set search_path = '' as $$
    select k.key, max(newest.at)
    from (select distinct instance from public.rosters where bot_id = p_bot) as i
    cross join lateral (
        select * from public.service_polls
        where bot_id = p_bot and instance = i.instance order by at desc limit 1
    ) as newest
    join public.rosters as r on r.bot_id = p_bot and r.roster_id = newest.roster_id
    cross join lateral unnest(r.keys, newest.statuses) as k (key, status)
    where k.status <> 4 group by k.key
$$;

-- Whoever takes monitors over may not get the poll that saw them last, so they say it themselves.
create or replace function public.comet_export_monitors(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with answer as materialized (
        select public.comet_page(
            p, 'monitors',
            '{bot_id,key,name,type,url,hostname,port,tags,status,changed_at,last_seen_at,
            forgotten,revision}',
            '{bot_id,key}') as page
    ), told as (
        select r.monitor, r.place
        from answer cross join jsonb_array_elements(page -> 'rows') with ordinality
            as r (monitor, place)
    ), looks as (
        select b.bot_id, l.key, l.at
        from (select distinct monitor ->> 'bot_id' as bot_id from told) as b
        cross join lateral public.comet_newest_looks(b.bot_id) as l
    )
    select jsonb_build_object('next', (select page -> 'next' from answer), 'rows', coalesce(
        jsonb_agg(monitor || jsonb_build_object('last_seen_at', public.comet_time(
            greatest((monitor ->> 'last_seen_at')::timestamptz, l.at))) order by place), '[]'))
    from told left join looks as l
        on l.bot_id = monitor ->> 'bot_id' and l.key = monitor ->> 'key'
$$;

create or replace function public.comet_load_monitors(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(
        to_jsonb(m) || jsonb_build_object('last_seen_at', greatest(m.last_seen_at, l.at))
        order by m.key), '[]')
    from public.monitors as m
    left join public.comet_newest_looks(p ->> 'bot') as l on l.key = m.key
    where m.bot_id = p ->> 'bot' and not m.forgotten
$$;

-- The history of one monitor, newest first, and who it is as far as that is known.
create or replace function public.comet_service_history(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select jsonb_build_object(
        'monitor', (
            select to_jsonb(m) from public.monitors as m
            where m.bot_id = p ->> 'bot' and m.key = p ->> 'key'),
        'changes', coalesce(
            jsonb_agg(to_jsonb(h) order by h.checked_at desc, h.created_at desc, h.id desc), '[]'))
    from (
        select * from public.service_status_history
        where bot_id = p ->> 'bot' and service_id = p ->> 'key'
            and checked_at >= (p ->> 'since')::timestamptz
        order by checked_at desc, created_at desc, id desc limit (p ->> 'limit')::bigint
    ) as h
$$;

-- Polls

create or replace function public.comet_import_rosters(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(p, 'rosters', '{bot_id,roster_id,instance,keys}',
        '{bot_id,roster_id}')
$$;
create or replace function public.comet_export_rosters(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'rosters', '{bot_id,roster_id,instance,keys}', '{bot_id,roster_id}')
$$;

-- 1. The polls themselves; those that are there already stay.
-- 2. Monitors that nobody introduced get a row under their key.
-- 3. Monitors that the newest poll of their instance no longer sees keep the time of the last
--    poll that saw them.
-- A row with `is_live` is a look taken now: another poll of the same millisecond moves to the
-- next, and whom it sees is no longer forgotten.
create or replace function public.comet_import_polls(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_before public.service_polls[];
    v_fresh public.service_polls[];
    v_clash public.service_polls;
begin
    select array_agg(newest.poll) into v_before
    from (
        select distinct coalesce(r.bot_id, p ->> 'bot') as bot_id, r.instance
        from jsonb_populate_recordset(null::public.service_polls, p -> 'rows') as r
    ) as i
    cross join lateral (
        select s as poll from public.service_polls as s
        where s.bot_id = i.bot_id and s.instance = i.instance order by s.at desc limit 1
    ) as newest;

    with fresh as (
        insert into public.service_polls as s (
            bot_id, instance, at, valid_s, roster_id, statuses, times)
        select coalesce(bot_id, p ->> 'bot'), instance, at, valid_s, roster_id, statuses, times
        from jsonb_populate_recordset(null::public.service_polls, p -> 'rows')
            with ordinality
        order by ordinality
        on conflict do nothing returning s as poll
    )
    select array_agg(poll) into v_fresh from fresh;

    for v_clash in
        select r.* from jsonb_array_elements(p -> 'rows') as e (poll)
        cross join lateral jsonb_populate_record(null::public.service_polls, e.poll) as r
        where e.poll ? 'is_live' and v_fresh is null
    loop
        v_clash.bot_id := coalesce(v_clash.bot_id, p ->> 'bot');
        loop
            exit when exists (
                select from public.service_polls as s
                where s.bot_id = v_clash.bot_id and s.instance = v_clash.instance
                    and s.at = v_clash.at and s.valid_s = v_clash.valid_s
                    and s.roster_id = v_clash.roster_id
                    and s.statuses = v_clash.statuses and s.times = v_clash.times);
            v_clash.at := v_clash.at + interval '1 millisecond';
            with fresh as (
                insert into public.service_polls as s (
                    bot_id, instance, at, valid_s, roster_id, statuses, times)
                values (v_clash.bot_id, v_clash.instance, v_clash.at, v_clash.valid_s,
                    v_clash.roster_id, v_clash.statuses, v_clash.times)
                on conflict do nothing returning s as poll
            )
            select array_agg(poll) into v_fresh from fresh;
            exit when v_fresh is not null;
        end loop;
    end loop;
    if v_fresh is null then
        return jsonb_build_object('taken', 0);
    end if;

    -- EXCEPT compares two whole sets: the planner, which knows nothing of the size of these
    -- arrays, would otherwise compare each key with each.
    with missing as (
        select f.bot_id, k.key
        from (select distinct bot_id, roster_id from unnest(v_fresh)) as f
        join public.rosters as r on r.bot_id = f.bot_id and r.roster_id = f.roster_id
        cross join lateral unnest(r.keys) as k (key)
        except
        select m.bot_id, m.key from public.monitors as m
        where m.bot_id in (select bot_id from unnest(v_fresh))
    )
    insert into public.monitors (bot_id, key, name, status, changed_at, last_seen_at)
    select distinct on (m.bot_id, m.key) m.bot_id, m.key, m.key,
        ('{down,up,pending,maintenance,unknown}'::text[])[
            f.statuses[array_position(r.keys, m.key)] + 1],
        f.at, f.at
    from missing as m
    join (
        select distinct on (bot_id, roster_id) * from unnest(v_fresh)
        order by bot_id, roster_id, at
    ) as f on f.bot_id = m.bot_id
    join public.rosters as r on r.bot_id = f.bot_id and r.roster_id = f.roster_id
        and m.key = any (r.keys)
    order by m.bot_id, m.key, f.at
    on conflict do nothing;

    with chain as (
        select c.bot_id, c.instance, c.at, c.roster_id, c.statuses
        from unnest(v_before || v_fresh) as c
        where not exists (
            select from unnest(v_before) as b
            where b.bot_id = c.bot_id and b.instance = c.instance and b.at > c.at)
    ), newest as (
        select distinct on (bot_id, instance) * from chain order by bot_id, instance, at desc
    ), earlier as (
        select c.* from chain as c join newest as n
            on n.bot_id = c.bot_id and n.instance = c.instance and c.at < n.at
    ), gone as (
        select e.bot_id, k.key
        from (select distinct bot_id, roster_id from earlier) as e
        join public.rosters as r on r.bot_id = e.bot_id and r.roster_id = e.roster_id
        cross join lateral unnest(r.keys) as k (key)
        except
        select n.bot_id, k.key from newest as n
        join public.rosters as r on r.bot_id = n.bot_id and r.roster_id = n.roster_id
        cross join lateral unnest(r.keys, n.statuses) as k (key, status)
        where k.status <> 4
    ), places as materialized (
        select r.bot_id, r.roster_id, g.key, array_position(r.keys, g.key) as place
        from gone as g join public.rosters as r on r.bot_id = g.bot_id
        where r.roster_id in (select roster_id from earlier)
    ), last as (
        select s.bot_id, s.key, max(e.at) as at
        from places as s join earlier as e on e.bot_id = s.bot_id and e.roster_id = s.roster_id
        where e.statuses[s.place] <> 4 group by s.bot_id, s.key
    )
    update public.monitors as m set last_seen_at = last.at
    from last where m.bot_id = last.bot_id and m.key = last.key and m.last_seen_at < last.at;

    if p -> 'rows' @> '[{"is_live": true}]' then
        update public.monitors as m
        set forgotten = false, last_seen_at = greatest(m.last_seen_at, f.at),
            revision = greatest(m.revision, public.comet_now_us())
        from unnest(v_fresh) as f join public.rosters as r
            on r.bot_id = f.bot_id and r.roster_id = f.roster_id
        where m.forgotten and m.bot_id = f.bot_id
            and f.statuses[array_position(r.keys, m.key)] <> 4;
    end if;
    return jsonb_build_object('taken', cardinality(v_fresh));
end
$$;
create or replace function public.comet_export_polls(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'service_polls', '{bot_id,instance,at,valid_s,roster_id,statuses,times}',
        '{instance,at,bot_id}', 'at')
$$;

-- The hour that knows of more checks stands, of equal ones the one written last.
create or replace function public.comet_import_service_hours(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with taken as (
        insert into public.service_hourly as h (
            bot_id, instance, hour, roster_id, checks, up_ms, down_ms, other_ms, answered,
            mean_tenths
        )
        select distinct on (1, 2, 3) coalesce(bot_id, p ->> 'bot'), instance, hour, roster_id,
            checks, up_ms, down_ms, other_ms, answered, mean_tenths
        from jsonb_populate_recordset(null::public.service_hourly, p -> 'rows') with ordinality
        order by 1, 2, 3, public.comet_sum(checks) desc, ordinality desc
        on conflict (bot_id, instance, hour) do update set
            roster_id = excluded.roster_id, checks = excluded.checks, up_ms = excluded.up_ms,
            down_ms = excluded.down_ms, other_ms = excluded.other_ms,
            answered = excluded.answered, mean_tenths = excluded.mean_tenths
        where public.comet_sum(excluded.checks) >= h.checks_sum
            and (h.roster_id, h.checks, h.up_ms, h.down_ms, h.other_ms, h.answered, h.mean_tenths)
            is distinct from (excluded.roster_id, excluded.checks, excluded.up_ms,
                excluded.down_ms, excluded.other_ms, excluded.answered, excluded.mean_tenths)
        returning 1
    )
    select jsonb_build_object('taken', count(*)) from taken
$$;
create or replace function public.comet_export_service_hours(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'service_hourly',
        '{bot_id,instance,hour,roster_id,checks,up_ms,down_ms,other_ms,answered,mean_tenths}',
        '{instance,hour,bot_id}', 'hour')
$$;

-- Uptime and response times

-- The polls of a window, each with the time (ms) it speaks for: until the next one, as long as
-- it may be trusted. A poll from up to four hours before may still speak for the window's start.
create or replace function public.comet_looks(
    p_bot text, p_instance text, p_start timestamptz, p_end timestamptz
) returns table (at timestamptz, cover_ms double precision, is_inside boolean)
language sql stable set search_path = '' as $$
    select l.at,
        greatest(0, extract(epoch from
            least(l.at + least(l.valid_s, 14400) * interval '1 second', l.next_at, p_end)
            - greatest(l.at, p_start)) * 1000)::double precision,
        l.at >= p_start
    from (
        select s.at, s.valid_s, lead(s.at, 1, p_end) over (order by s.at) as next_at
        from public.service_polls as s
        where s.bot_id = p_bot and s.instance = p_instance
            and s.at >= p_start - interval '4 hours' and s.at < p_end
    ) as l
$$;

-- From when on polls answer for a window; before that, whole hours do. The hour in which the
-- oldest poll lies has lost some of its polls already if it was rolled up; if it was not, its
-- polls are all there ever were.
create or replace function public.comet_polls_from(
    p_bot text, p_instance text, p_start timestamptz, p_end timestamptz
) returns timestamptz
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select least(p_end, greatest(p_start, case
        when first.at > p_start and exists (
            select from public.service_hourly as h
            where h.bot_id = p_bot and h.instance = p_instance
                and h.hour = date_trunc('hour', first.at))
        then date_trunc('hour', first.at) + interval '1 hour'
        else coalesce(first.at, p_end) end))
    from (
        select min(s.at) as at from public.service_polls as s
        where s.bot_id = p_bot and s.instance = p_instance
    ) as first
$$;

-- How much of an hour lies in a window, 0 to 1.
create or replace function public.comet_share(
    p_hour timestamptz, p_start timestamptz, p_end timestamptz
) returns double precision language sql immutable parallel safe
return greatest(0, extract(epoch from
    least(p_hour + interval '1 hour', p_end) - greatest(p_hour, p_start)) / 3600)::double precision;

-- Sums over a window, in milliseconds and tenths of a millisecond. Hours count by how much of
-- them lies in the window. monitors: for how many unknown time counts.
create or replace function public.comet_stats_of_one(
    p_bot text, p_key text, p_start timestamptz, p_end timestamptz
) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with places as materialized (
        select r.instance, r.roster_id, array_position(r.keys, p_key) as place
        from public.rosters as r where r.bot_id = p_bot and p_key = any (r.keys)
    ), fleets as materialized (
        select f.instance, public.comet_polls_from(p_bot, f.instance, p_start, p_end) as polls_at
        from (select distinct instance from places) as f
    ), parts as (
        select round(h.checks[place] * share) as checks, h.up_ms[place] * share as up_ms,
            h.down_ms[place] * share as down_ms, h.other_ms[place] * share as other_ms,
            h.answered[place]::bigint as answered,
            h.answered[place]::bigint * h.mean_tenths[place] as times_sum
        from fleets as f
        join public.service_hourly as h on h.bot_id = p_bot and h.instance = f.instance
            and h.hour >= date_trunc('hour', p_start) and h.hour < f.polls_at
        join places as s on s.roster_id = h.roster_id
        cross join lateral public.comet_share(h.hour, p_start, f.polls_at) as share
        union all
        select count(*) filter (where is_inside),
            coalesce(sum(cover_ms) filter (where status = 1), 0),
            coalesce(sum(cover_ms) filter (where status = 0), 0),
            coalesce(sum(cover_ms) filter (where status in (2, 3)), 0),
            count(*) filter (where is_inside and tenths >= 0),
            coalesce(sum(tenths) filter (where is_inside and tenths >= 0), 0)
        from (
            select l.cover_ms, l.is_inside, s.statuses[place] as status, s.times[place] as tenths
            from fleets as f
            cross join lateral public.comet_looks(p_bot, f.instance, f.polls_at, p_end) as l
            join public.service_polls as s
                on s.bot_id = p_bot and s.instance = f.instance and s.at = l.at
            join places on places.roster_id = s.roster_id
        ) as looks
    )
    select jsonb_build_object(
        'monitors', 1, 'checks', sum(checks), 'up_ms', sum(up_ms), 'down_ms', sum(down_ms),
        'other_ms', sum(other_ms), 'answered', sum(answered), 'times_sum', sum(times_sum))
    from parts
$$;

create or replace function public.comet_stats_of_all(
    p_bot text, p_start timestamptz, p_end timestamptz
) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with fleets as materialized (
        select f.instance, public.comet_polls_from(p_bot, f.instance, p_start, p_end) as polls_at
        from (select distinct instance from public.rosters where bot_id = p_bot) as f
    ), parts as (
        select round(checks_sum * share) as checks, up_sum * share as up_ms,
            down_sum * share as down_ms, other_sum * share as other_ms,
            answered_sum as answered, times_sum
        from fleets as f
        join public.service_hourly as h on h.bot_id = p_bot and h.instance = f.instance
            and h.hour >= date_trunc('hour', p_start) and h.hour < f.polls_at
        cross join lateral public.comet_share(h.hour, p_start, f.polls_at) as share
        union all
        select coalesce(sum(size) filter (where is_inside), 0),
            coalesce(sum(cover_ms * up), 0), coalesce(sum(cover_ms * down), 0),
            coalesce(sum(cover_ms * (size - up - down - unknown)), 0),
            coalesce(sum(size - silent) filter (where is_inside), 0),
            coalesce(sum(times_sum) filter (where is_inside), 0)
        from (
            select l.cover_ms, l.is_inside, cardinality(s.statuses) as size, s.up, s.down,
                s.unknown, s.silent, s.times_sum
            from fleets as f
            cross join lateral public.comet_looks(p_bot, f.instance, f.polls_at, p_end) as l
            join public.service_polls as s
                on s.bot_id = p_bot and s.instance = f.instance and s.at = l.at
        ) as looks
    )
    select jsonb_build_object(
        'monitors', (
            select count(*) from public.monitors as m
            left join public.comet_newest_looks(p_bot) as l on l.key = m.key
            where m.bot_id = p_bot and not m.forgotten
                and greatest(m.last_seen_at, l.at) >= p_start),
        'checks', sum(checks), 'up_ms', sum(up_ms), 'down_ms', sum(down_ms),
        'other_ms', sum(other_ms), 'answered', sum(answered), 'times_sum', sum(times_sum))
    from parts
$$;

-- One monitor (p.key), or all of them: unknown time counts for each that was seen in the window
-- or later.
create or replace function public.comet_service_stats(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select case when p ->> 'key' is null then public.comet_stats_of_all(
        p ->> 'bot', (p ->> 'start')::timestamptz, (p ->> 'end')::timestamptz)
    else public.comet_stats_of_one(
        p ->> 'bot', p ->> 'key', (p ->> 'start')::timestamptz, (p ->> 'end')::timestamptz) end
$$;

-- Answered times (tenths of a millisecond) of each p.every-th poll, oldest first, by monitor.
create or replace function public.comet_response_times(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with polls as materialized (
        select n.*, (row_number() over (partition by n.instance order by n.at) - 1) as place
        from (
            select instance, at from public.service_polls
            where bot_id = p ->> 'bot' and at >= (p ->> 'start')::timestamptz
                and at < (p ->> 'end')::timestamptz
        ) as n
    ), answers as (
        select k.key, array_agg(k.tenths order by s.at) as times
        from polls
        join public.service_polls as s
            on s.bot_id = p ->> 'bot' and s.instance = polls.instance and s.at = polls.at
        join public.rosters as r on r.bot_id = s.bot_id and r.roster_id = s.roster_id
        cross join lateral unnest(r.keys, s.times) as k (key, tenths)
        where polls.place % greatest(1, (p ->> 'every')::bigint) = 0 and k.tenths >= 0
            and k.key is not null
        group by k.key
    )
    select coalesce(jsonb_object_agg(key, times), '{}') from answers
$$;

-- Hours

-- SHA-1, which PostgreSQL has only as an extension.
create or replace function public.comet_sha1(p_data bytea) returns bytea
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_size constant integer := length(p_data);
    v_padded bytea;
    v_words bigint[];
    v_state bigint[] := array[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
    v_mask constant bigint := 4294967295;
begin
    v_padded := p_data || '\x80'::bytea
        || decode(repeat('00', (119 - v_size % 64) % 64), 'hex') || int8send(v_size * 8::bigint);
    for v_block in 0 .. length(v_padded) / 64 - 1 loop
        for i in 0 .. 15 loop
            t := v_block * 64 + i * 4;
            v_words[i] := (get_byte(v_padded, t::integer)::bigint << 24)
                | (get_byte(v_padded, t::integer + 1) << 16)
                | (get_byte(v_padded, t::integer + 2) << 8) | get_byte(v_padded, t::integer + 3);
        end loop;
        for i in 16 .. 79 loop
            t := v_words[i - 3] # v_words[i - 8] # v_words[i - 14] # v_words[i - 16];
            v_words[i] := ((t << 1) | (t >> 31)) & v_mask;
        end loop;
        a := v_state[1]; b := v_state[2]; c := v_state[3]; d := v_state[4]; e := v_state[5];
        for i in 0 .. 79 loop
            if i < 20 then
                f := (b & c) | ((~b & v_mask) & d); k := 1518500249;
            elsif i < 40 then
                f := b # c # d; k := 1859775393;
            elsif i < 60 then
                f := (b & c) | (b & d) | (c & d); k := 2400959708;
            else
                f := b # c # d; k := 3395469782;
            end if;
            t := ((((a << 5) | (a >> 27)) & v_mask) + f + e + k + v_words[i]) & v_mask;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & v_mask; b := a; a := t;
        end loop;
        v_state := array[(v_state[1] + a) & v_mask, (v_state[2] + b) & v_mask,
            (v_state[3] + c) & v_mask, (v_state[4] + d) & v_mask, (v_state[5] + e) & v_mask];
    end loop;
    return decode((select string_agg(lpad(to_hex(w), 8, '0'), '' order by n)
        from unnest(v_state) with ordinality as u (w, n)), 'hex');
end
$$;

-- The id a roster has wherever it is made: a version 5 UUID, in the namespace of URLs, of the
-- instance and the keys, one a line.
create or replace function public.comet_roster_id(p_instance text, p_keys text[]) returns uuid
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_hash bytea := substr(public.comet_sha1('\x6ba7b8119dad11d180b400c04fd430c8'::bytea
        || convert_to(array_to_string(p_instance || p_keys, E'\n'), 'UTF8')), 1, 16);
begin
    v_hash := set_byte(v_hash, 6, get_byte(v_hash, 6) & 15 | 80);
    v_hash := set_byte(v_hash, 8, get_byte(v_hash, 8) & 63 | 128);
    return encode(v_hash, 'hex')::uuid;
end
$$;

-- One hour (p.hour) of each instance out of its polls; an hour without polls gives nothing.
-- p.only_bot: of that bot alone. Answers how many rows are new or changed.
create or replace function public.comet_roll_up_services(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_hour constant timestamptz := date_trunc('hour', (p ->> 'hour')::timestamptz);
    v_fleet record;
    v_keys text[];
    v_row jsonb;
    v_roster uuid;
    v_taken bigint := 0;
begin
    for v_fleet in
        select distinct bot_id, instance from public.rosters
        where p ->> 'only_bot' is null or bot_id = p ->> 'only_bot'
    loop
        with monitors as (
            select k.key, count(*) filter (where l.is_inside) as checks,
                coalesce(sum(l.cover_ms) filter (where k.status = 1), 0) as up_ms,
                coalesce(sum(l.cover_ms) filter (where k.status = 0), 0) as down_ms,
                coalesce(sum(l.cover_ms) filter (where k.status in (2, 3)), 0) as other_ms,
                count(*) filter (where l.is_inside and k.tenths >= 0) as answered,
                coalesce(round(avg(k.tenths::double precision)
                    filter (where l.is_inside and k.tenths >= 0)), 0) as mean_tenths
            from public.comet_looks(
                v_fleet.bot_id, v_fleet.instance, v_hour, v_hour + interval '1 hour') as l
            join public.service_polls as s on s.bot_id = v_fleet.bot_id
                and s.instance = v_fleet.instance and s.at = l.at
            join public.rosters as r on r.bot_id = s.bot_id and r.roster_id = s.roster_id
            cross join lateral unnest(r.keys, s.statuses, s.times) as k (key, status, tenths)
            where l.cover_ms > 0
            group by k.key
        )
        select array_agg(key order by key collate "C"), jsonb_build_object(
            'bot_id', v_fleet.bot_id, 'instance', v_fleet.instance, 'hour', v_hour,
            'checks', jsonb_agg(checks order by key collate "C"),
            'up_ms', jsonb_agg(round(up_ms) order by key collate "C"),
            'down_ms', jsonb_agg(round(down_ms) order by key collate "C"),
            'other_ms', jsonb_agg(round(other_ms) order by key collate "C"),
            'answered', jsonb_agg(answered order by key collate "C"),
            'mean_tenths', jsonb_agg(mean_tenths order by key collate "C"))
        into v_keys, v_row from monitors;
        continue when v_keys is null;
        select roster_id into v_roster from public.rosters
        where bot_id = v_fleet.bot_id and instance = v_fleet.instance and keys = v_keys;
        if v_roster is null then
            v_roster := public.comet_roster_id(v_fleet.instance, v_keys);
            insert into public.rosters (bot_id, roster_id, instance, keys)
            values (v_fleet.bot_id, v_roster, v_fleet.instance, v_keys) on conflict do nothing;
        end if;
        v_taken := v_taken + (public.comet_import_service_hours(jsonb_build_object(
            'rows', jsonb_build_array(v_row || jsonb_build_object('roster_id', v_roster))
        )) ->> 'taken')::bigint;
    end loop;
    return to_jsonb(v_taken);
end
$$;

select public.comet_protect('service_status_history', 'viewers');
select public.comet_protect('monitors', 'admins');
select public.comet_protect('rosters', 'nobody');
select public.comet_protect('service_polls', 'admins');
select public.comet_protect('service_hourly', 'admins');
select public.comet_protect_functions();

insert into public.comet_migrations (number, name) values (4, 'services') on conflict do nothing;
