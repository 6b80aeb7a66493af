-- Why: every bot works on a file of its own and copies it here, in order and exactly once, also
-- when an answer is lost after the commit. So each stream of facts has a position, and what lies
-- before it is not written again.
--
-- Works on PostgreSQL 15 to 18 with or without Supabase's roles. Pasting it twice is harmless.

select public.comet_only_ours('copy_streams');

-- A stream is one bot's file; position: microseconds since 1970 of the last fact that is here.
create table if not exists public.copy_streams (
    bot_id text not null default 'primary',
    stream uuid not null,
    position bigint not null default 0,
    updated_at timestamptz not null default now(),
    primary key (bot_id, stream)
);

-- Which kinds there are (bot/storage/kinds.py), and what table holds each; null for removals.
create or replace function public.comet_kinds() returns jsonb
language sql immutable parallel safe
return '{"guild_configs": "monitoring_config", "monitors": "monitors", "rosters": "rosters",
    "incidents": "alert_history", "states": "alert_states", "flips": "flips", "cards": "cards",
    "outbox": "outbox", "changes": "service_status_history", "samples": "system_stats",
    "metrics": "custom_metrics", "metrics_raw": "metrics_raw",
    "metrics_hourly": "metrics_hourly", "daily_summaries": "daily_summaries",
    "polls": "service_polls", "service_hours": "service_hourly",
    "conversations": "conversation_logs", "music": "music_logs", "bot_logs": "bot_logs",
    "states_removed": null, "guild_configs_removed": null, "member_removed": null}'::jsonb;

-- p: bot, facts: [{kind, rows}, …]. All of them in order, or none.
create or replace function public.comet_write(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_fact jsonb;
    v_answer jsonb;
    v_taken bigint := 0;
begin
    for v_fact in
        select value from jsonb_array_elements(p -> 'facts') with ordinality order by ordinality
    loop
        if not coalesce(public.comet_kinds() ? (v_fact ->> 'kind'), false) then
            raise exception 'unknown kind: %', v_fact ->> 'kind' using errcode = '22023';
        end if;
        execute format('select public.%I($1)', 'comet_import_' || (v_fact ->> 'kind'))
        into v_answer
        using jsonb_build_object('bot', p -> 'bot', 'rows', v_fact -> 'rows');
        v_taken := v_taken + coalesce((v_answer ->> 'taken')::bigint, 0);
    end loop;
    return jsonb_build_object('taken', v_taken);
end $$;

-- p: bot, stream, after, last, schema, facts. Answers with the position that is here afterwards.
-- What is here already is not written again; when only a part of it is, the rest follows, because
-- rows may come twice. `after` is the position that the sender has been told is here: where it is
-- not (a backup took this database's place), nothing is written, so that the sender can tell.
-- `schema` is the migration the sender writes for.
create or replace function public.comet_copy(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_stream uuid := (p ->> 'stream')::uuid;
    v_last bigint := (p ->> 'last')::bigint;
    v_position bigint;
begin
    if (p ->> 'schema')::integer > (select max(number) from public.comet_migrations) then
        raise exception 'migrations are behind: % is needed', p ->> 'schema'
            using errcode = '42P01';
    end if;
    insert into public.copy_streams (bot_id, stream) values (p ->> 'bot', v_stream)
    on conflict do nothing;
    select position into v_position from public.copy_streams
    where bot_id = p ->> 'bot' and stream = v_stream for update;
    if v_position >= v_last or v_position < (p ->> 'after')::bigint then
        return jsonb_build_object('position', v_position);
    end if;
    perform public.comet_write(p);
    update public.copy_streams set position = v_last, updated_at = clock_timestamp()
    where bot_id = p ->> 'bot' and stream = v_stream;
    return jsonb_build_object('position', v_last);
end $$;

-- p: bot, stream. last_stream and last_at are of the bot's other streams. Nothing of this bot is
-- newer than highest_position, neither a stream nor a row that changes: a sender whose clock is
-- behind must begin above it.
create or replace function public.comet_remote_state(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with own as (
        select stream, position, updated_at, stream = (p ->> 'stream')::uuid as is_asked
        from public.copy_streams where bot_id = p ->> 'bot'
    ), other as (
        select stream, updated_at from own where not is_asked order by updated_at desc limit 1
    )
    select jsonb_build_object(
        'schema_number', (select max(number) from public.comet_migrations),
        'position', coalesce((select position from own where is_asked), 0),
        'highest_position', greatest(
            0,
            (select max(position) from own),
            (select max(revision) from public.monitoring_config where bot_id = p ->> 'bot'),
            (select max(revision) from public.monitors where bot_id = p ->> 'bot'),
            (select max(revision) from public.alert_history where bot_id = p ->> 'bot'),
            (select max(revision) from public.alert_states where bot_id = p ->> 'bot'),
            (select max(revision) from public.cards where bot_id = p ->> 'bot'),
            (select max(revision) from public.outbox where bot_id = p ->> 'bot')),
        'last_stream', (select stream from other),
        'last_at', (select public.comet_time(updated_at) from other))
$$;

-- p: bot, kind, only_bot.
create or replace function public.comet_count(p jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
    v_table text := public.comet_kinds() ->> (p ->> 'kind');
    v_count bigint;
begin
    if v_table is null then
        raise exception 'unknown kind: %', p ->> 'kind' using errcode = '22023';
    end if;
    if p ->> 'only_bot' is null then
        execute format('select count(*) from public.%I', v_table) into v_count;
    elsif v_table = 'daily_summaries' then
        select count(*) into v_count from public.daily_summaries
        where summary_data ? (p ->> 'only_bot');
    else
        execute format('select count(*) from public.%I where bot_id = $1', v_table)
        into v_count using p ->> 'only_bot';
    end if;
    return to_jsonb(v_count);
end $$;

select public.comet_protect('copy_streams', 'nobody');
select public.comet_protect_functions();

insert into public.comet_migrations (number, name) values (6, 'copying') on conflict do nothing;
