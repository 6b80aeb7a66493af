-- Why: an alert must survive a restart, and must be told even if the process dies between
-- deciding and telling. So the change (flip), where the alert now stands, its public row in
-- `alert_history` and the outbox are written in one step; delivery is noted afterwards.
-- Several bots may share these tables: each sees its own rows.

select public.comet_only_ours('alert_states', 'flips', 'outbox', 'cards');

-- One row per incident and subject. The second half of the columns is what the program itself
-- needs; whoever inserts by hand may leave it out. A write with an older version is ignored.
create table if not exists public.alert_history (
    id uuid primary key default gen_random_uuid(),
    timestamp timestamptz not null default now(),
    rule_name text not null,
    severity text not null default 'warning',
    category text not null default 'system',
    message text not null default '',
    metrics_snapshot jsonb default '{}',
    resolved boolean not null default false,
    resolved_at timestamptz,
    created_at timestamptz not null default clock_timestamp()
);

-- A table that was there before. Words for how grave an alert is are translated where they are
-- known; other rows keep what they say. `resolved` is told by when.
do $$
declare
    history constant regclass := 'public.alert_history';
    found record;
begin
    for found in
        select a.attname as name, w.base, exists (select from pg_attribute as b
            where b.attrelid = history and b.attname = w.base and not b.attisdropped) as is_double
        from (values ('triggered_at', 'timestamp'), ('metrics_data', 'metrics_snapshot'))
            as w (name, base)
        join pg_attribute as a
            on a.attrelid = history and a.attname = w.name and a.attgenerated = ''
    loop
        execute format('alter table %s rename %I to %I', history, found.name,
            case when found.is_double then found.name || '_before_comet' else found.base end);
    end loop;
    if not exists (
        select from pg_attribute where attrelid = history and attname = 'resolved'
    ) then
        alter table public.alert_history
            add column if not exists resolved_at timestamptz,
            add column resolved boolean not null default false;
        update public.alert_history set resolved = true where resolved_at is not null;
    end if;
end
$$;
select public.comet_adopt('alert_history', '[
    ["timestamp", "timestamp with time zone", "now()"],
    ["rule_name", "text", null],
    ["severity", "text", "''warning''"],
    ["category", "text", "''system''"],
    ["message", "text", "''''"],
    ["metrics_snapshot", "jsonb", "''{}''", true],
    ["resolved", "boolean", "false"],
    ["resolved_at", "timestamp with time zone"],
    ["created_at", "timestamp with time zone", "clock_timestamp()"],
    ["bot_id", "text collate \"C\"", "''primary''"],
    ["subject", "text collate \"C\"", "''''"],
    ["scope", "text", "''operator''"],
    ["metric", "text", "''''"],
    ["level", "double precision", "0"],
    ["value", "double precision"],
    ["status", "text", "''''"],
    ["ending", "text"],
    ["unknown_s", "double precision", "0"],
    ["silent", "boolean", "false"],
    ["detail", "jsonb", "''{}''"],
    ["version", "integer", "1"],
    ["revision", "bigint", "0"]]');
alter table public.alert_history
    add column if not exists triggered_at timestamptz generated always as (timestamp) stored,
    add column if not exists metrics_data jsonb generated always as (metrics_snapshot) stored;
do $$
begin
    if not exists (
        select from pg_constraint where conrelid = 'public.alert_history'::regclass
            and conname = 'alert_history_severity'
    ) then
        update public.alert_history set severity = case lower(severity)
            when 'high' then 'warning' when 'medium' then 'warning' when 'low' then 'info'
            else lower(severity) end
        where severity not in ('critical', 'warning', 'info') and lower(severity) in
            ('critical', 'high', 'medium', 'warning', 'low', 'info');
        alter table public.alert_history add constraint alert_history_severity
            check (severity in ('critical', 'warning', 'info')) not valid;
    end if;
end
$$;

create index if not exists alert_history_timestamp on public.alert_history (timestamp, id);
create index if not exists alert_history_bot on public.alert_history (bot_id, timestamp);
create index if not exists alert_history_subject on public.alert_history (subject, timestamp);
create index if not exists alert_history_open on public.alert_history (timestamp)
    where not resolved;

select public.comet_move_aside('active_alerts');
create or replace view public.active_alerts with (security_invoker = true) as
select
    id, rule_name, severity, category, subject, message,
    round(extract(epoch from now() - timestamp), 3)::double precision as age_seconds,
    timestamp, value, status, metrics_snapshot, bot_id
from public.alert_history where not resolved;
comment on view public.active_alerts is 'comet: alerts that are not resolved';

-- Where each alert that is not at rest stands.
create table if not exists public.alert_states (
    bot_id text collate "C" not null default 'primary',
    rule_name text collate "C" not null,
    subject text collate "C" not null,
    fingerprint text not null,
    phase text not null,
    since_at timestamptz not null,
    evaluated_at timestamptz not null,
    severity text not null,
    incident_id uuid,
    value double precision,
    status text not null default '',
    data_at timestamptz,
    clear_since_at timestamptz,
    unknown_s double precision not null default 0,
    detail jsonb not null default '{}',
    hold_since_at timestamptz,
    terms jsonb not null default '{}',
    revision bigint not null default 0,
    primary key (bot_id, rule_name, subject)
);

create table if not exists public.flips (
    bot_id text collate "C" not null default 'primary',
    flip_id uuid primary key,
    incident_id uuid not null,
    rule_name text not null,
    subject text not null,
    kind text not null,
    at timestamptz not null,
    fired_at timestamptz not null,
    severity text not null,
    category text not null,
    scope text not null,
    metric text not null,
    level double precision not null,
    value double precision,
    status text not null default '',
    ending text,
    duration_s double precision,
    unknown_s double precision not null default 0,
    silent boolean not null default false,
    detail jsonb not null default '{}'
);
create index if not exists flips_at on public.flips (at, flip_id);

-- position keeps the order in which things were decided.
create table if not exists public.outbox (
    bot_id text collate "C" not null default 'primary',
    position bigint generated by default as identity primary key,
    outbox_id uuid not null unique,
    flip_id uuid not null,
    incident_id uuid not null,
    kind text not null,
    guild_id text,
    channel_id text not null,
    created_at timestamptz not null,
    status text not null,
    card_id uuid,
    attempted_at timestamptz,
    attempts integer not null default 0,
    last_error text,
    delivered_at timestamptz,
    reply_message_id text,
    revision bigint not null default 0
);
create index if not exists outbox_queued on public.outbox (bot_id, position)
    where status = 'queued';
create index if not exists outbox_created on public.outbox (created_at);

-- incident_ids is a JSON array, in the order the card tells them.
create table if not exists public.cards (
    bot_id text collate "C" not null default 'primary',
    card_id uuid primary key,
    marker text not null,
    guild_id text,
    channel_id text not null,
    opened_at timestamptz not null,
    incident_ids jsonb not null check (jsonb_typeof(incident_ids) = 'array'),
    is_storm boolean not null default false,
    message_id text,
    attempted_at timestamptz,
    folded_at timestamptz,
    closed_at timestamptz,
    revision bigint not null default 0
);
create index if not exists cards_opened on public.cards (opened_at, card_id);
create index if not exists cards_open on public.cards (bot_id, opened_at) where closed_at is null;
create index if not exists cards_closed on public.cards (closed_at) where closed_at is not null;

-- Takes rows that travel into a table of ours; {"taken": how many were new or newer}.
-- A row that is there already stays. Where rows change, the higher revision stands, and of equal
-- ones the one that comes last; a row whose `guards` are lower than what is there is left out.
-- A row without revision is a change made now: then the columns `firsts` keep what they had.
create or replace function public.comet_take(
    p jsonb, source text, columns text[], key text[], is_changing boolean default false,
    guards text[] default '{}', firsts text[] default '{}'
) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    names constant text := (select string_agg(quote_ident(c), ', ') from unnest(columns) as c);
    keys constant text := (select string_agg(quote_ident(c), ', ') from unnest(key) as c);
    given constant text := format(
        'jsonb_populate_recordset(jsonb_populate_record(null::public.%I, '
        'jsonb_build_object(''bot_id'', $1 -> ''bot'')), $1 -> ''rows'') with ordinality',
        source);
    taken bigint;
begin
    if not is_changing then
        execute format(
            'insert into public.%I (%s) select %s from %s order by ordinality '
            'on conflict do nothing', source, names, names, given)
        using p;
        get diagnostics taken = row_count;
        return jsonb_build_object('taken', taken);
    end if;
    execute format(
        $q$
        with given as (
            select distinct on (%1$s) * from %2$s
            order by %1$s, %3$s revision desc nulls first, ordinality desc
        ), ready as (
            select %4$s, given.ordinality,
                coalesce(given.revision, greatest(known.revision, public.comet_now_us()))
                    as revision,
                given.revision is null or known.revision is null
                    or given.revision > known.revision as is_newer
            from given left join public.%5$I as known using (%1$s)
        ), taken as (
            insert into public.%5$I as known (%6$s, revision)
            select %6$s, revision from ready order by ordinality
            on conflict (%1$s) do update set %7$s, revision = excluded.revision
            where excluded.revision >= known.revision %8$s
            returning %9$s
        )
        select count(*) from taken join ready using (%1$s) where ready.is_newer
        $q$,
        keys,
        given,
        (select string_agg(format('%I desc, ', c), '') from unnest(guards) as c),
        (select string_agg(
            case when c = any (firsts) then format(
                'case when given.revision is null then coalesce(known.%1$I, given.%1$I) '
                'else given.%1$I end as %1$I', c)
            else format('given.%I', c) end, ', ') from unnest(columns) as c),
        source,
        names,
        (select string_agg(format('%1$I = excluded.%1$I', c), ', ')
            from unnest(columns) as c where c <> all (key)),
        (select string_agg(format('and excluded.%1$I >= known.%1$I', c), ' ')
            from unnest(guards) as c),
        (select string_agg(format('known.%I', c), ', ') from unnest(key) as c)
    ) into taken using p;
    return jsonb_build_object('taken', taken);
end
$$;

-- A page of rows that travel, in the order of `ordering`, behind p.after: {"rows", "next"}.
create or replace function public.comet_page(
    p jsonb, source text, columns text[], ordering text[], at_column text default null
) returns jsonb
language plpgsql stable set search_path = '' set timezone = 'UTC' as $$
declare
    wanted constant bigint := (p ->> 'limit')::bigint;
    types constant jsonb := (
        select jsonb_object_agg(attname, format_type(atttypid, null)) from pg_attribute
        where attrelid = format('public.%I', source)::regclass and attnum > 0
            and not attisdropped);
    conditions text := 'true';
    found jsonb;
    places jsonb;
begin
    if p ->> 'after' is not null then
        conditions := format('%s and (%s) > (%s)', conditions,
            (select string_agg(format(case types ->> c when 'text' then '%I collate "C"'
                else '%I' end, c), ', ' order by n)
            from unnest(ordering) with ordinality as o (c, n)),
            (select string_agg(format('%L::%s', p -> 'after' ->> (n - 1)::integer, types ->> c),
                ', ' order by n)
            from unnest(ordering) with ordinality as o (c, n)));
    end if;
    if at_column is not null and p ->> 'since' is not null then
        conditions := format('%s and %I >= %L::timestamptz', conditions, at_column, p ->> 'since');
    end if;
    if p ->> 'only_bot' is not null then
        conditions := format('%s and bot_id = %L', conditions, p ->> 'only_bot');
    end if;
    execute format(
        $q$
        select coalesce(jsonb_agg(wire), '[]'), jsonb_agg(place) from (
            select jsonb_build_object(%s) as wire, jsonb_build_array(%s) as place
            from public.%I where %s order by %s limit %s) as page
        $q$,
        (select string_agg(format(case types ->> c when 'timestamp with time zone'
            then '%1$L, public.comet_time(%1$I)' else '%1$L, %1$I' end, c), ', ')
        from unnest(columns) as c),
        (select string_agg(format(case types ->> c when 'timestamp with time zone'
            then 'public.comet_time(%I)' else '%I' end, c), ', ' order by n)
        from unnest(ordering) with ordinality as o (c, n)),
        source,
        conditions,
        (select string_agg(format(case types ->> c when 'text' then '%I collate "C"'
            else '%I' end, c), ', ' order by n)
        from unnest(ordering) with ordinality as o (c, n)),
        wanted + 1
    ) into found, places;
    if jsonb_array_length(found) <= wanted then
        return jsonb_build_object('rows', found, 'next', null);
    end if;
    return jsonb_build_object(
        'rows', found - wanted::integer, 'next', places -> (wanted - 1)::integer);
end
$$;

create or replace function public.comet_import_incidents(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(
        p, 'alert_history',
        '{bot_id,id,timestamp,rule_name,severity,category,message,metrics_snapshot,resolved,
        resolved_at,subject,scope,metric,level,value,status,ending,unknown_s,silent,detail,
        version}',
        '{id}', true, '{version}', '{metrics_snapshot}')
$$;
create or replace function public.comet_export_incidents(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'alert_history',
        '{bot_id,id,timestamp,rule_name,severity,category,message,metrics_snapshot,resolved,
        resolved_at,subject,scope,metric,level,value,status,ending,unknown_s,silent,detail,
        version,revision}',
        '{timestamp,id}', 'timestamp')
$$;

create or replace function public.comet_import_states(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(
        p, 'alert_states',
        '{bot_id,rule_name,subject,fingerprint,phase,since_at,evaluated_at,severity,incident_id,
        value,status,data_at,clear_since_at,unknown_s,detail,hold_since_at,terms}',
        '{bot_id,rule_name,subject}', true)
$$;
create or replace function public.comet_export_states(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'alert_states',
        '{bot_id,rule_name,subject,fingerprint,phase,since_at,evaluated_at,severity,incident_id,
        value,status,data_at,clear_since_at,unknown_s,detail,hold_since_at,terms,revision}',
        '{bot_id,rule_name,subject}')
$$;
create or replace function public.comet_import_states_removed(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with gone as (
        delete from public.alert_states as s
        using jsonb_populate_recordset(null::public.alert_states, p -> 'rows') as r
        where s.bot_id = coalesce(r.bot_id, p ->> 'bot')
            and s.rule_name = r.rule_name and s.subject = r.subject
        returning s.subject
    )
    select jsonb_build_object('taken', count(*)) from gone
$$;

create or replace function public.comet_import_flips(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(
        p, 'flips',
        '{bot_id,flip_id,incident_id,rule_name,subject,kind,at,fired_at,severity,category,scope,
        metric,level,value,status,ending,duration_s,unknown_s,silent,detail}',
        '{flip_id}')
$$;
create or replace function public.comet_export_flips(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'flips',
        '{bot_id,flip_id,incident_id,rule_name,subject,kind,at,fired_at,severity,category,scope,
        metric,level,value,status,ending,duration_s,unknown_s,silent,detail}',
        '{at,flip_id}', 'at')
$$;

create or replace function public.comet_import_cards(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(
        p, 'cards',
        '{bot_id,card_id,marker,guild_id,channel_id,opened_at,incident_ids,is_storm,message_id,
        attempted_at,folded_at,closed_at}',
        '{card_id}', true)
$$;
create or replace function public.comet_export_cards(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'cards',
        '{bot_id,card_id,marker,guild_id,channel_id,opened_at,incident_ids,is_storm,message_id,
        attempted_at,folded_at,closed_at,revision}',
        '{opened_at,card_id}', 'opened_at')
$$;

-- What was delivered or dropped never goes back into the queue. An item keeps the place in which
-- it first came, also among the rows of one batch.
create or replace function public.comet_import_outbox(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with given as (
        select r.*, min(r.ordinality) over (partition by r.outbox_id) as place
        from jsonb_populate_recordset(null::public.outbox, p -> 'rows') with ordinality as r
    ), last as (
        select distinct on (outbox_id) * from given
        order by outbox_id, status <> 'queued' desc, revision desc nulls first, ordinality desc
    ), ready as (
        select l.*, coalesce(l.revision, greatest(o.revision, public.comet_now_us())) as rising,
            l.revision is null or o.revision is null or l.revision > o.revision as is_newer
        from last as l left join public.outbox as o using (outbox_id)
    ), taken as (
        insert into public.outbox as o (
            bot_id, outbox_id, flip_id, incident_id, kind, guild_id, channel_id, created_at,
            status, card_id, attempted_at, attempts, last_error, delivered_at,
            reply_message_id, revision
        )
        select coalesce(bot_id, p ->> 'bot'), outbox_id, flip_id, incident_id, kind, guild_id,
            channel_id, created_at, status, card_id, attempted_at, attempts, last_error,
            delivered_at, reply_message_id, rising
        from ready order by place
        on conflict (outbox_id) do update set
            bot_id = excluded.bot_id, flip_id = excluded.flip_id,
            incident_id = excluded.incident_id, kind = excluded.kind,
            guild_id = excluded.guild_id, channel_id = excluded.channel_id,
            created_at = excluded.created_at, status = excluded.status,
            card_id = excluded.card_id, attempted_at = excluded.attempted_at,
            attempts = excluded.attempts, last_error = excluded.last_error,
            delivered_at = excluded.delivered_at,
            reply_message_id = excluded.reply_message_id, revision = excluded.revision
        where excluded.revision >= o.revision
            and (o.status = 'queued' or excluded.status <> 'queued')
        returning o.outbox_id
    )
    select jsonb_build_object('taken', count(*))
    from taken join ready using (outbox_id) where ready.is_newer
$$;
create or replace function public.comet_export_outbox(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'outbox',
        '{bot_id,outbox_id,flip_id,incident_id,kind,guild_id,channel_id,created_at,status,card_id,
        attempted_at,attempts,last_error,delivered_at,reply_message_id,revision}',
        '{position}', 'created_at')
$$;

-- What the program asks. Rows come as they are, times as JSON has them.

create or replace function public.comet_incident_row(a public.alert_history) returns jsonb
language sql stable parallel safe
return to_jsonb(a) - '{metrics_data,metrics_snapshot,triggered_at}'::text[];

create or replace function public.comet_incidents(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(public.comet_incident_row(a)
        order by a.timestamp desc, a.created_at desc, a.id desc), '[]')
    from public.alert_history as a
    where a.id in (
        select id from public.alert_history
        where bot_id = p ->> 'bot' and timestamp >= (p ->> 'since')::timestamptz
            and (p ->> 'subject' is null or subject = p ->> 'subject')
        order by timestamp desc, created_at desc, id desc
        limit (p ->> 'limit')::bigint)
$$;

create or replace function public.comet_open_incidents(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(public.comet_incident_row(a)
        order by a.timestamp desc, a.created_at desc, a.id desc), '[]')
    from public.alert_history as a
    where a.bot_id = p ->> 'bot' and not a.resolved
$$;

-- Everything alerting needs to go on: unfinished cards are those that are open or that a queued
-- item speaks of, itself or through one of their incidents.
create or replace function public.comet_load_alerting(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with queued as materialized (
        select * from public.outbox where bot_id = p ->> 'bot' and status = 'queued'
    ), unfinished as materialized (
        select * from public.cards as c
        where c.bot_id = p ->> 'bot' and (
            c.closed_at is null
            or exists (
                select from queued as q
                where q.card_id = c.card_id or c.incident_ids ? q.incident_id::text))
    ), spoken_of as (
        select id from public.alert_history where bot_id = p ->> 'bot' and not resolved
        union
        select incident_id from queued
        union
        select e.value::uuid from unfinished as c
        cross join jsonb_array_elements_text(c.incident_ids) as e
    )
    select jsonb_build_object(
        'states', (
            select coalesce(jsonb_agg(to_jsonb(s) order by s.rule_name, s.subject), '[]')
            from public.alert_states as s where s.bot_id = p ->> 'bot'),
        'incidents', (
            select coalesce(jsonb_agg(public.comet_incident_row(a)
                order by a.timestamp, a.created_at, a.id), '[]')
            from spoken_of join public.alert_history as a using (id)),
        'cards', (
            select coalesce(jsonb_agg(to_jsonb(c) order by c.opened_at, c.card_id), '[]')
            from unfinished as c),
        'outbox', (
            select coalesce(jsonb_agg(to_jsonb(q) order by q.position), '[]') from queued as q))
$$;

select public.comet_protect('alert_history', 'viewers');
select public.comet_protect('active_alerts', 'viewers');
select public.comet_protect('alert_states', 'nobody');
select public.comet_protect('flips', 'nobody');
select public.comet_protect('outbox', 'nobody');
select public.comet_protect('cards', 'nobody');
select public.comet_protect_functions();
select public.comet_publish('alert_history');

insert into public.comet_migrations (number, name) values (3, 'alerting') on conflict do nothing;
