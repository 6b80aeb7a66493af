-- Why: what a guild chose must outlive the process, and conversations, songs and log lines are
-- kept for the dashboards that read them. Snowflakes are text: as numbers, browsers round them.

create table if not exists public.monitoring_config (
    bot_id text collate "C" not null default 'primary',
    guild_id text collate "C" not null,
    alert_channel_id text not null,
    check_interval integer not null default 60,
    uptime_kuma_url text,
    api_key_hash text,
    locale text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    revision bigint not null default 0,
    primary key (bot_id, guild_id)
);
select public.comet_adopt('monitoring_config', '[
    ["bot_id", "text collate \"C\"", "''primary''"],
    ["guild_id", "text collate \"C\"", null], ["alert_channel_id", "text", null],
    ["check_interval", "integer", "60"], ["uptime_kuma_url", "text"], ["api_key_hash", "text"],
    ["locale", "text"],
    ["created_at", "timestamp with time zone", "now()"],
    ["updated_at", "timestamp with time zone", "now()"],
    ["revision", "bigint", "0"]]', false);
-- A guild's settings were unique once; now several bots may share the table.
do $$
declare
    v_key name;
begin
    select conname into v_key from pg_constraint
    where conrelid = 'public.monitoring_config'::regclass and contype = 'p';
    if (
        select count(*) from pg_attribute a join pg_constraint c
            on c.conrelid = a.attrelid and c.conname = v_key and a.attnum = any (c.conkey)
        where a.attrelid = 'public.monitoring_config'::regclass
            and a.attname in ('bot_id', 'guild_id')
    ) = 2 then
        return;
    end if;
    if v_key is not null then
        execute format('alter table public.monitoring_config drop constraint %I', v_key);
    end if;
    alter table public.monitoring_config add primary key (bot_id, guild_id);
end
$$;

create table if not exists public.conversation_logs (
    id uuid primary key default gen_random_uuid(),
    user_id text not null,
    user_name text not null,
    prompt text not null,
    response text not null,
    timestamp timestamptz not null default now(),
    created_at timestamptz not null default now()
);
select public.comet_adopt('conversation_logs', '[
    ["user_id", "text", null], ["user_name", "text", null], ["prompt", "text", null],
    ["response", "text", null], ["timestamp", "timestamp with time zone", "now()"],
    ["created_at", "timestamp with time zone", "now()"],
    ["bot_id", "text collate \"C\"", "''primary''"]]');
create index if not exists conversation_logs_user
    on public.conversation_logs (user_id, timestamp);
create index if not exists conversation_logs_timestamp
    on public.conversation_logs (timestamp, id);

create table if not exists public.music_logs (
    id uuid primary key default gen_random_uuid(),
    guild_id text not null,
    song_title text not null,
    requested_by text not null,
    requested_by_id text not null,
    timestamp timestamptz not null default now(),
    created_at timestamptz not null default now()
);
select public.comet_adopt('music_logs', '[
    ["guild_id", "text", null], ["song_title", "text", null], ["requested_by", "text", null],
    ["requested_by_id", "text", null], ["timestamp", "timestamp with time zone", "now()"],
    ["created_at", "timestamp with time zone", "now()"],
    ["bot_id", "text collate \"C\"", "''primary''"]]');
create index if not exists music_logs_guild on public.music_logs (guild_id, timestamp);
create index if not exists music_logs_member on public.music_logs (requested_by_id, timestamp);
create index if not exists music_logs_timestamp on public.music_logs (timestamp, id);

create table if not exists public.bot_logs (
    id uuid primary key default gen_random_uuid(),
    level text not null,
    logger text,
    message text not null,
    context jsonb,
    timestamp timestamptz not null default now()
);
select public.comet_adopt('bot_logs', '[
    ["level", "text", null], ["logger", "text"], ["message", "text", null],
    ["context", "jsonb"], ["timestamp", "timestamp with time zone", "now()"],
    ["bot_id", "text collate \"C\"", "''primary''"]]');
create index if not exists bot_logs_timestamp on public.bot_logs (timestamp, id);

-- On the table itself the words `song_title, count` ask PostgREST for something else.
select public.comet_move_aside('popular_songs');
create or replace view public.popular_songs with (security_invoker = true) as
select song_title, count(*) as count from public.music_logs
group by song_title order by count(*) desc, song_title;
comment on view public.popular_songs is 'comet: how often each song was played';

-- Settings of guilds

create or replace function public.comet_import_guild_configs(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(
        p, 'monitoring_config',
        '{bot_id,guild_id,alert_channel_id,locale,created_at,updated_at}',
        '{bot_id,guild_id}', true, '{}', '{created_at}')
$$;
create or replace function public.comet_export_guild_configs(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(
        p, 'monitoring_config',
        '{bot_id,guild_id,alert_channel_id,locale,created_at,updated_at,revision}',
        '{bot_id,guild_id}')
$$;
create or replace function public.comet_import_guild_configs_removed(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with gone as (
        delete from public.monitoring_config as c
        using jsonb_populate_recordset(null::public.monitoring_config, p -> 'rows') as r
        where c.bot_id = coalesce(r.bot_id, p ->> 'bot') and c.guild_id = r.guild_id
        returning c.guild_id
    )
    select jsonb_build_object('taken', count(*)) from gone
$$;
create or replace function public.comet_guild_configs(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(to_jsonb(c) - 'api_key_hash' order by c.guild_id), '[]')
    from public.monitoring_config as c where c.bot_id = p ->> 'bot'
$$;

-- Logs

create or replace function public.comet_import_conversations(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(p, 'conversation_logs',
        '{bot_id,id,user_id,user_name,prompt,response,timestamp}', '{id}')
$$;
create or replace function public.comet_export_conversations(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(p, 'conversation_logs',
        '{bot_id,id,user_id,user_name,prompt,response,timestamp}', '{timestamp,id}', 'timestamp')
$$;

create or replace function public.comet_import_music(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(p, 'music_logs',
        '{bot_id,id,guild_id,song_title,requested_by,requested_by_id,timestamp}', '{id}')
$$;
create or replace function public.comet_export_music(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(p, 'music_logs',
        '{bot_id,id,guild_id,song_title,requested_by,requested_by_id,timestamp}',
        '{timestamp,id}', 'timestamp')
$$;

create or replace function public.comet_import_bot_logs(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_take(p, 'bot_logs',
        '{bot_id,id,level,logger,message,context,timestamp}', '{id}')
$$;
create or replace function public.comet_export_bot_logs(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select public.comet_page(p, 'bot_logs',
        '{bot_id,id,level,logger,message,context,timestamp}', '{timestamp,id}', 'timestamp')
$$;

-- What is kept about members (rows of user_id, at), up to a time. Rows that name nobody are
-- nobody's.
create or replace function public.comet_import_member_removed(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    with members as (
        select coalesce(r.bot_id, p ->> 'bot') as bot_id, r.user_id, r.at
        from jsonb_to_recordset(p -> 'rows') as r (bot_id text, user_id text, at timestamptz)
        where r.user_id <> ''
    ), conversations as (
        delete from public.conversation_logs as c using members as m
        where c.bot_id = m.bot_id and c.user_id = m.user_id and c.timestamp <= m.at
        returning c.id
    ), songs as (
        delete from public.music_logs as s using members as m
        where s.bot_id = m.bot_id and s.requested_by_id = m.user_id and s.timestamp <= m.at
        returning s.id
    )
    select jsonb_build_object(
        'taken', (select count(*) from conversations) + (select count(*) from songs))
$$;
create or replace function public.comet_delete_member_data(p jsonb) returns jsonb
language sql set search_path = '' set timezone = 'UTC' as $$
    select public.comet_import_member_removed(jsonb_build_object(
        'bot', p -> 'bot',
        'rows', jsonb_build_array(jsonb_build_object('user_id', p -> 'user_id', 'at', p -> 'at'))
    )) -> 'taken'
$$;
create or replace function public.comet_member_data(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select jsonb_build_object(
        'conversations', (
            select coalesce(jsonb_agg(to_jsonb(c) order by c.timestamp, c.id), '[]')
            from public.conversation_logs as c
            where c.bot_id = p ->> 'bot' and c.user_id = p ->> 'user_id'),
        'songs', (
            select coalesce(jsonb_agg(to_jsonb(s) order by s.timestamp, s.id), '[]')
            from public.music_logs as s
            where s.bot_id = p ->> 'bot' and s.requested_by_id = p ->> 'user_id'))
$$;

-- [title, times played], the most played first. A song without a title is none.
create or replace function public.comet_popular_songs(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(jsonb_build_array(song_title, played)
        order by played desc, song_title collate "C"), '[]')
    from (
        select song_title, count(*) as played from public.music_logs
        where bot_id = p ->> 'bot' and timestamp >= (p ->> 'since')::timestamptz
            and (p ->> 'guild_id' is null or guild_id = p ->> 'guild_id') and song_title <> ''
        group by song_title order by played desc, song_title collate "C"
        limit (p ->> 'limit')::bigint
    ) as songs
$$;

-- [user id, newest user name, conversations], the most active first.
create or replace function public.comet_most_active(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(jsonb_build_array(user_id, user_name, held)
        order by held desc, user_id collate "C"), '[]')
    from (
        select user_id, count(*) as held,
            (array_agg(user_name order by timestamp desc, id desc))[1] as user_name
        from public.conversation_logs
        where bot_id = p ->> 'bot' and timestamp >= (p ->> 'since')::timestamptz
        group by user_id order by held desc, user_id collate "C" limit (p ->> 'limit')::bigint
    ) as members
$$;

select public.comet_protect('monitoring_config', 'admins');
select public.comet_protect('conversation_logs', 'admins');
select public.comet_protect('music_logs', 'admins');
select public.comet_protect('popular_songs', 'admins');
select public.comet_protect('bot_logs', 'admins');
select public.comet_protect_functions();

insert into public.comet_migrations (number, name) values (5, 'settings_and_logs')
on conflict do nothing;
