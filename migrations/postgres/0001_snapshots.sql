-- Why: a community's dashboards read snapshots by SQL or through Supabase, so here they are a plain
-- table: one row every ten seconds, only ever inserted. Before it come the helpers that give every
-- later table its row level security, its grants and, where an older table is adopted, its form.
--
-- Works on PostgreSQL 15 to 18 with or without Supabase's roles. Pasting it twice is harmless.

create table if not exists public.comet_migrations (
    number integer primary key,
    name text not null,
    applied_at timestamptz not null default now()
);

-- Our tables and views, and who may read them: 'viewers', 'admins' or 'nobody' (service_role only).
create table if not exists public.comet_tables (
    table_name text collate "C" primary key,
    audience text not null check (audience in ('viewers', 'admins', 'nobody')),
    can_open boolean not null,
    is_open boolean not null default false check (can_open or not is_open)
);

-- Small things. Their bodies are bound to what they mean when they are made, so that no
-- search_path can change them, and the planner can put them into the query that uses them.

-- As rows travel. What lies beyond the years 1 to 9999 reads as PostgreSQL itself writes it.
create or replace function public.comet_time(p_at timestamptz) returns text
language sql stable parallel safe
return case when p_at >= '0001-01-01 00:00:00+00' and p_at < '10000-01-01 00:00:00+00'
    then to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') else p_at::text end;

create or replace function public.comet_now_us() returns bigint
language sql volatile
return (extract(epoch from clock_timestamp()) * 1000000)::bigint;

create or replace function public.comet_flag(p_value jsonb) returns boolean
language sql immutable parallel safe
return case jsonb_typeof(p_value)
    when 'boolean' then p_value::boolean
    when 'number' then p_value::numeric <> 0
    when 'string' then (p_value #>> '{}')::boolean
end;

-- Numbers beyond what the column holds are missing, not refused.
create or replace function public.comet_whole(p_value numeric) returns integer
language sql immutable parallel safe
return case when p_value between -2147483648 and 2147483647 then p_value::integer end;

create or replace function public.comet_long(p_value numeric) returns bigint
language sql immutable parallel safe
return case when p_value between -9223372036854775808 and 9223372036854775807
    then p_value::bigint end;

-- A value as it goes into sums and averages: so large a number that some of them could leave the
-- range of numbers counts as 1e300.
create or replace function public.comet_tame(p_value double precision) returns double precision
language sql immutable parallel safe
return least(greatest(p_value, -1e300), 1e300);

-- Who may do what

-- Leaves a function to the roles named, as far as they exist, and to its owner.
create or replace function public.comet_protect_function(
    p_function regprocedure, variadic p_roles text[]
) returns void language plpgsql set search_path = '' as $$
declare
    v_role name;
begin
    execute format('revoke all on routine %s from public', p_function);
    for v_role in
        select rolname from pg_catalog.pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    loop
        execute format('revoke all on routine %s from %I', p_function, v_role);
        if v_role = any (p_roles) then
            execute format('grant execute on routine %s to %I', p_function, v_role);
        end if;
    end loop;
end $$;

create or replace function public.comet_protect_functions() returns void
language plpgsql set search_path = '' as $$
declare
    v_function regprocedure;
begin
    for v_function in
        select oid from pg_catalog.pg_proc
        where pronamespace = 'public'::regnamespace and proname like 'comet\_%'
    loop
        perform public.comet_protect_function(v_function, 'service_role');
    end loop;
end $$;

-- Row level security, grants and policies of one table or view, whatever they were before.
--
-- 'viewers': rows for a signed-in user whose token says comet_role viewer or admin in its
-- app_metadata (users cannot write that themselves); everybody's after comet_open, if p_can_open.
-- 'admins': the same for admin alone. Who may never read a table holds no grant on it either. The
-- restrictive policy keeps policies that somebody else made from showing more than that.
create or replace function public.comet_protect(
    p_table text, p_audience text, p_can_open boolean default true
) returns void language plpgsql set search_path = '' set client_min_messages = 'warning' as $$
declare
    v_relation oid;
    v_kind "char";
    v_audience text := p_audience;
    v_can_open boolean := p_can_open and p_audience = 'viewers';
    v_is_open boolean;
    v_role name;
    v_sequence regclass;
    v_readers text;
    v_may_read constant text := $sql$(select coalesce(nullif(current_setting(
        'request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'comet_role', ''))$sql$;
    v_who text;
begin
    select oid, relkind into v_relation, v_kind from pg_catalog.pg_class
    where relnamespace = 'public'::regnamespace and relname = p_table;
    if v_relation is null or v_kind not in ('r', 'p', 'v', 'm') then
        raise exception 'public.% is no table or view', p_table using errcode = '42P01';
    end if;
    -- Row level security cannot reach into a materialized view.
    if v_kind = 'm' then
        v_audience := 'nobody';
        v_can_open := false;
    end if;
    insert into public.comet_tables as t (table_name, audience, can_open)
    values (p_table, v_audience, v_can_open)
    on conflict (table_name) do update set audience = excluded.audience,
        can_open = excluded.can_open, is_open = t.is_open and excluded.can_open
    returning is_open into v_is_open;

    if v_kind = 'v' then
        execute format('alter view public.%I set (security_invoker = true)', p_table);
    elsif v_kind in ('r', 'p') then
        execute format('alter table public.%I enable row level security', p_table);
    end if;

    execute format('revoke all on table public.%I from public', p_table);
    for v_role in
        select rolname from pg_catalog.pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    loop
        execute format('revoke all on table public.%I from %I', p_table, v_role);
        if v_role = 'service_role' then
            execute format('grant all on table public.%I to %I', p_table, v_role);
        elsif v_can_open or (v_role = 'authenticated' and v_audience <> 'nobody') then
            execute format('grant select on table public.%I to %I', p_table, v_role);
        end if;
        for v_sequence in
            select d.objid::regclass from pg_catalog.pg_depend d
            join pg_catalog.pg_class c on c.oid = d.objid and c.relkind = 'S'
            where d.refobjid = v_relation and d.refobjsubid > 0
                and d.classid = 'pg_catalog.pg_class'::regclass
        loop
            execute format('revoke all on sequence %s from %I', v_sequence, v_role);
            if v_role = 'service_role' then
                execute format('grant all on sequence %s to %I', v_sequence, v_role);
            end if;
        end loop;
    end loop;

    if v_kind not in ('r', 'p') then
        return;
    end if;
    execute format('drop policy if exists comet_readers on public.%I', p_table);
    execute format('drop policy if exists comet_limits on public.%I', p_table);
    execute format('drop policy if exists comet_everybody on public.%I', p_table);
    select string_agg(quote_ident(rolname), ', ') into v_who from pg_catalog.pg_roles
    where rolname in ('anon', 'authenticated');
    if v_who is null or v_audience = 'nobody' then
        return;
    end if;
    v_readers := v_may_read
        || case v_audience when 'viewers' then ' in (''viewer'', ''admin'')' else ' = ''admin''' end;
    if v_is_open then
        execute format('create policy comet_everybody on public.%I for select to %s using (true)',
            p_table, v_who);
    else
        if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
            execute format('create policy comet_readers on public.%I for select to authenticated '
                'using (%s)', p_table, v_readers);
        end if;
        execute format('create policy comet_limits on public.%I as restrictive for all to %s '
            'using (%s)', p_table, v_who, v_readers);
    end if;
end $$;

-- Once more for all of them, for instance because Supabase's roles came later.
create or replace function public.comet_protect_all() returns void
language plpgsql set search_path = '' as $$
declare
    -- Read beforehand: a table that is being read cannot be altered, comet_tables neither.
    v_names constant text[] := array(
        select t.table_name from public.comet_tables t join pg_catalog.pg_class c
            on c.relname = t.table_name and c.relnamespace = 'public'::regnamespace);
    v_name text;
    v_audience text;
    v_can_open boolean;
begin
    foreach v_name in array v_names loop
        select audience, can_open into v_audience, v_can_open
        from public.comet_tables where table_name = v_name;
        perform public.comet_protect(v_name, v_audience, v_can_open);
    end loop;
    perform public.comet_protect_functions();
end $$;

-- For operators: show a table to everybody who holds the public key, and hide it again.
create or replace function public.comet_open(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
    update public.comet_tables set is_open = true where table_name = p_table and can_open
        and exists (select from pg_catalog.pg_class c where c.relkind in ('r', 'p')
            and c.relnamespace = 'public'::regnamespace and c.relname = p_table);
    if not found then
        raise exception 'public.% cannot be opened', p_table using hint =
            'Views show what the tables beneath them show; personal and internal data stay shut.';
    end if;
    perform public.comet_protect(table_name, audience, can_open)
    from public.comet_tables where table_name = p_table;
end $$;

create or replace function public.comet_close(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
    update public.comet_tables set is_open = false where table_name = p_table;
    if not found then
        raise exception 'public.% is none of the tables here', p_table;
    end if;
    perform public.comet_protect(table_name, audience, can_open)
    from public.comet_tables where table_name = p_table;
end $$;

-- Lets Supabase Realtime tell of new rows, where there is such a thing.
create or replace function public.comet_publish(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
    if exists (
        select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and not puballtables
    ) and not exists (
        select from pg_catalog.pg_publication_tables where pubname = 'supabase_realtime'
            and schemaname = 'public' and tablename = p_table
    ) then
        execute format('alter publication supabase_realtime add table public.%I', p_table);
    end if;
exception when insufficient_privilege then
    raise notice 'public.% was not added to supabase_realtime: not its owner', p_table;
end $$;

-- Adopting what was there before

-- Tables of other programs may have the names of ours that no document of ours ever gave away.
create or replace function public.comet_only_ours(variadic p_tables text[]) returns void
language plpgsql set search_path = '' as $$
declare
    v_table text;
begin
    foreach v_table in array p_tables loop
        if exists (
            select from pg_catalog.pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relname = v_table
                and not exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attname = 'bot_id' and not a.attisdropped)
        ) then
            raise exception 'public.% is there already and belongs to another program', v_table
                using errcode = '42P07',
                hint = 'Rename it, or give the bot a database (a Supabase project) of its own.';
        end if;
    end loop;
end $$;

-- What is no JSON becomes a JSON text.
create or replace function public.comet_json(p_text text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
    return p_text::jsonb;
exception when data_exception then
    return to_jsonb(p_text);
end $$;

-- No column under a view can change its type. So the views that read a table, be it by way of other
-- views, are taken down; the answer holds all that comet_put_views_back makes them anew of.
create or replace function public.comet_take_views_down(p_table regclass) returns jsonb
language plpgsql set search_path = '' as $$
declare
    v_views jsonb;
    v_view record;
begin
    with recursive readers as (
        select p_table::oid as oid, 0 as depth
        union
        select w.ev_class, r.depth + 1 from readers r
        join pg_catalog.pg_depend d on d.refobjid = r.oid
            and d.refclassid = 'pg_catalog.pg_class'::regclass
            and d.classid = 'pg_catalog.pg_rewrite'::regclass
        join pg_catalog.pg_rewrite w on w.oid = d.objid and w.ev_class <> r.oid
    ), views as (
        select c.oid, max(r.depth) as depth, c.relkind, c.relowner, c.relacl, c.reloptions,
            case c.relkind when 'm' then 'materialized view' else 'view' end as kind,
            case when not c.relispopulated then ' with no data' end as emptiness,
            format('%I.%I', n.nspname, c.relname) as name
        from readers r join pg_catalog.pg_class c on c.oid = r.oid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where r.depth > 0 group by c.oid, n.nspname
    )
    select jsonb_agg(jsonb_build_object(
        'name', v.name,
        'kind', v.kind,
        'make', format('create %s %s %s as %s%s', v.kind, v.name,
            'with (' || array_to_string(v.reloptions, ', ') || ')',
            rtrim(pg_catalog.pg_get_viewdef(v.oid), ';'), v.emptiness),
        'more', (select coalesce(jsonb_agg(m.statement order by m.place), '[]') from (
            select 1 as place, pg_catalog.pg_get_indexdef(i.indexrelid) as statement
            from pg_catalog.pg_index i where i.indrelid = v.oid
            union all
            select 2, pg_catalog.pg_get_ruledef(w.oid) from pg_catalog.pg_rewrite w
            where w.ev_class = v.oid and w.rulename <> '_RETURN'
            union all
            select 3, pg_catalog.pg_get_triggerdef(t.oid) from pg_catalog.pg_trigger t
            where t.tgrelid = v.oid and not t.tgisinternal
            union all
            select 4, format('grant %s on %s to %s%s', a.privilege_type, v.name,
                case a.grantee when 0 then 'public'
                    else quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end,
                case when a.is_grantable then ' with grant option' else '' end)
            from aclexplode(v.relacl) a
            union all
            select 5, format('alter table %s owner to %I', v.name,
                pg_catalog.pg_get_userbyid(v.relowner))
            where pg_catalog.pg_get_userbyid(v.relowner) <> current_user
            union all
            select 6, format('comment on %s %s is %L', v.kind, v.name, d.description)
            from obj_description(v.oid, 'pg_class') as d (description)
            where d.description is not null
        ) as m)
    ) order by v.depth) into v_views from views v;
    for v_view in
        select value ->> 'kind' as kind, value ->> 'name' as name
        from jsonb_array_elements(v_views) with ordinality order by ordinality desc
    loop
        execute format('drop %s %s', v_view.kind, v_view.name);
    end loop;
    return v_views;
end $$;

create or replace function public.comet_put_views_back(p_views jsonb) returns void
language plpgsql set search_path = '' as $$
declare
    v_view jsonb;
    v_statement text;
begin
    for v_view in
        select value from jsonb_array_elements(p_views) with ordinality order by ordinality
    loop
        begin
            execute v_view ->> 'make';
        exception when syntax_error_or_access_rule_violation then
            raise exception 'drop the view % first, it would no longer work: %',
                v_view ->> 'name', sqlerrm using errcode = '42P16';
        end;
        -- New views may get rights by default that this one had not.
        for v_statement in
            select distinct format('revoke all on %s from %s', v_view ->> 'name', case a.grantee
                when 0 then 'public' else quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end)
            from pg_catalog.pg_class c cross join lateral aclexplode(c.relacl) a
            where c.oid = (v_view ->> 'name')::regclass and a.grantee <> c.relowner
        loop
            execute v_statement;
        end loop;
        for v_statement in select value from jsonb_array_elements_text(v_view -> 'more') loop
            execute v_statement;
        end loop;
    end loop;
end $$;

-- Makes a table that was there before fit for what we write, and touches none that is. p_columns:
-- [name, type] of a column that may be empty, [name, type, default] of one that may not,
-- [name, type, default, true] of one with a default that may be empty all the same, and
-- [name, type, null] of one without which the table is none of what we can adopt.
--
-- Missing columns are added, types changed by way of text (a real 12.34 becomes 12.34 and not
-- 12.34000015258789; times without a zone are UTC), conditions on single columns of ours dropped;
-- columns that we know nothing of may stay empty.
create or replace function public.comet_adopt(
    p_table text, p_columns jsonb, p_has_id boolean default true
) returns void language plpgsql
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    v_table constant regclass := format('public.%I', p_table)::regclass;
    v_column record;
    v_name text;
    v_views jsonb;
begin
    for v_column in
        select w.value ->> 0 as name, w.value ->> 1 as type, w.value ->> 2 as filling,
            jsonb_array_length(w.value) = 3 and w.value ->> 2 is null as is_needed,
            jsonb_array_length(w.value) = 3 and w.value ->> 2 is not null as is_filled,
            a.attnum, a.attnotnull, a.atthasdef, pg_catalog.format_type(a.atttypid, a.atttypmod)
                || case c.collname when 'C' then ' collate "C"' else '' end as old_type
        from jsonb_array_elements(p_columns) as w
        left join pg_catalog.pg_attribute a on a.attrelid = v_table
            and a.attname = w.value ->> 0 and not a.attisdropped
        left join pg_catalog.pg_collation c on c.oid = a.attcollation
    loop
        if v_column.attnum is null then
            if v_column.is_needed then
                raise exception 'public.% is there already, but without a column %',
                    p_table, v_column.name using errcode = '42703', hint =
                    'Rename it and migrate again: its rows stay where they are.';
            end if;
            execute format('alter table %s add column %I %s%s%s', v_table, v_column.name,
                v_column.type, ' default ' || v_column.filling,
                case when v_column.is_filled then ' not null' end);
            continue;
        end if;
        for v_name in
            select conname from pg_catalog.pg_constraint
            where conrelid = v_table and contype = 'c' and conkey = array[v_column.attnum]
                and conname <> p_table || '_' || v_column.name
        loop
            execute format('alter table %s drop constraint %I', v_table, v_name);
        end loop;
        if v_column.old_type <> v_column.type then
            if v_views is null then
                v_views := coalesce(public.comet_take_views_down(v_table), '[]');
            end if;
            execute format(
                'alter table %1$s alter column %2$I drop default, alter column %2$I type %3$s using '
                || case v_column.type when 'jsonb' then 'public.comet_json(%2$I::text)'
                    else '%2$I::text::%4$s' end,
                v_table, v_column.name, v_column.type,
                split_part(v_column.type, ' collate', 1));
            v_column.atthasdef := false;
        end if;
        if v_column.filling is not null and not v_column.atthasdef then
            execute format('alter table %s alter column %I set default %s',
                v_table, v_column.name, v_column.filling);
        end if;
        if v_column.is_filled and not v_column.attnotnull then
            execute format('update %1$s set %2$I = %3$s where %2$I is null',
                v_table, v_column.name, v_column.filling);
            execute format('alter table %s alter column %I set not null',
                v_table, v_column.name);
        end if;
    end loop;
    if p_has_id then
        if v_views is null and exists (
            select from pg_catalog.pg_attribute where attrelid = v_table and attname = 'id'
                and atttypid <> 'uuid'::regtype and not attisdropped
        ) then
            v_views := coalesce(public.comet_take_views_down(v_table), '[]');
        end if;
        perform public.comet_adopt_id(p_table);
    end if;
    for v_name in
        select a.attname from pg_catalog.pg_attribute a
        where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped and a.attnotnull
            and not a.atthasdef and a.attidentity = '' and a.attname <> 'id'
            and not exists (select from jsonb_array_elements(p_columns) w
                where w.value ->> 0 = a.attname)
    loop
        execute format('alter table %s alter column %I drop not null', v_table, v_name);
    end loop;
    perform public.comet_put_views_back(v_views);
exception when data_exception or integrity_constraint_violation then
    -- Not in the database's own words: they repeat what stands in the row.
    raise exception 'public.% is there already, and its rows do not fit (%)', p_table, sqlstate
        using errcode = '42P07',
        hint = 'Rename it and migrate again: its rows stay where they are.';
when dependent_objects_still_exist or datatype_mismatch or feature_not_supported
    or invalid_table_definition or undefined_function then
    raise exception 'public.% is there already and cannot be changed: %', p_table, sqlerrm
        using errcode = '42P07',
        hint = 'Rename it and migrate again: its rows stay where they are.';
end $$;

-- Makes `id` a uuid that fills itself and is unique. A serial number stays readable as its last
-- twelve hex digits; the rest is drawn once, so that rows of two such tables never meet.
create or replace function public.comet_adopt_id(p_table text) returns void
language plpgsql set search_path = '' as $$
declare
    v_table regclass := format('public.%I', p_table)::regclass;
    v_type text;
    v_sequence text;
begin
    select pg_catalog.format_type(atttypid, null) into v_type
    from pg_catalog.pg_attribute where attrelid = v_table and attname = 'id' and not attisdropped;
    if v_type in ('smallint', 'integer', 'bigint') then
        v_sequence := pg_catalog.pg_get_serial_sequence(v_table::text, 'id');
        execute format('alter table %s alter column id drop identity if exists', v_table);
        execute format('alter table %s alter column id drop default, alter column id type uuid '
            'using (%L || lpad(to_hex(id::bigint), 12, ''0''))::uuid',
            v_table, substr(gen_random_uuid()::text, 1, 24));
        if v_sequence is not null then
            execute format('drop sequence if exists %s', v_sequence);
        end if;
    elsif v_type <> 'uuid' then
        execute format('alter table %s alter column id drop default, '
            'alter column id type uuid using id::text::uuid', v_table);
    end if;
    if not exists (
        select from pg_catalog.pg_attrdef d join pg_catalog.pg_attribute a
            on a.attrelid = d.adrelid and a.attnum = d.adnum
        where d.adrelid = v_table and a.attname = 'id'
    ) then
        execute format('alter table %s alter column id set default gen_random_uuid()', v_table);
    end if;
    if not exists (
        select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid
            and i.indkey::text = a.attnum::text
        where i.indrelid = v_table and a.attname = 'id' and i.indisunique and i.indpred is null
    ) then
        execute format('update %s set id = gen_random_uuid() where id is null', v_table);
        execute format('alter table %s alter column id set not null, add unique (id)', v_table);
    end if;
end $$;

-- The name under which something of somebody else's is kept when ours needs its name. Whoever could
-- see it under the old name sees ours or nothing.
create or replace function public.comet_move_aside(p_name text) returns text
language plpgsql set search_path = '' as $$
declare
    v_kind "char";
    v_new text := p_name || '_before_comet';
    v_number integer := 1;
    v_role name;
begin
    select relkind into v_kind from pg_catalog.pg_class
    where relnamespace = 'public'::regnamespace and relname = p_name
        and coalesce(obj_description(oid, 'pg_class'), '') not like 'comet:%';
    if v_kind is null then
        return null;
    end if;
    while to_regclass(format('public.%I', v_new)) is not null loop
        v_number := v_number + 1;
        v_new := p_name || '_before_comet_' || v_number;
    end loop;
    execute format('alter %s public.%I rename to %I',
        case v_kind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end,
        p_name, v_new);
    if v_kind in ('r', 'p') then
        execute format('alter table public.%I enable row level security', v_new);
    end if;
    execute format('revoke all on table public.%I from public', v_new);
    for v_role in
        select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated')
    loop
        execute format('revoke all on table public.%I from %I', v_new, v_role);
    end loop;
    raise notice 'public.% was there already and is now called %', p_name, v_new;
    return v_new;
end $$;

create or replace function public.comet_move_aside_function(p_name text) returns void
language plpgsql set search_path = '' as $$
declare
    v_function record;
    v_new text;
    v_number integer;
begin
    for v_function in
        select oid::regprocedure as signature, proargtypes from pg_catalog.pg_proc
        where pronamespace = 'public'::regnamespace and proname = p_name
            and coalesce(obj_description(oid, 'pg_proc'), '') not like 'comet:%'
    loop
        v_new := p_name || '_before_comet';
        v_number := 1;
        while exists (
            select from pg_catalog.pg_proc where pronamespace = 'public'::regnamespace
                and proname = v_new and proargtypes = v_function.proargtypes
        ) loop
            v_number := v_number + 1;
            v_new := p_name || '_before_comet_' || v_number;
        end loop;
        perform public.comet_protect_function(v_function.signature, 'service_role');
        execute format('alter routine %s rename to %I', v_function.signature, v_new);
        raise notice 'function % was there already and is now called %', v_function.signature, v_new;
    end loop;
end $$;

-- Snapshots

create table if not exists public.system_stats (id uuid primary key default gen_random_uuid());
alter table public.system_stats
    add column if not exists bot_id text collate "C" not null default 'primary',
    add column if not exists cpu_usage double precision,
    add column if not exists ram_usage double precision,
    add column if not exists memory_rss double precision,
    add column if not exists memory_heap double precision,
    add column if not exists ping_gateway double precision,
    add column if not exists ping_lavalink double precision,
    add column if not exists server_count integer,
    add column if not exists guild_count integer,
    add column if not exists uptime integer,
    add column if not exists status text not null default 'online',
    add column if not exists timestamp timestamptz not null default now(),
    add column if not exists updated_at timestamptz not null default now(),
    add column if not exists created_at timestamptz not null default now(),
    add column if not exists swap_usage double precision,
    add column if not exists disk_usage double precision,
    add column if not exists network_rx bigint,
    add column if not exists network_tx bigint,
    add column if not exists load_average_1m double precision,
    add column if not exists load_average_5m double precision,
    add column if not exists load_average_15m double precision,
    add column if not exists process_cpu double precision,
    add column if not exists threads integer,
    add column if not exists open_files integer,
    add column if not exists loop_lag_p99 double precision,
    add column if not exists loop_lag_max double precision,
    add column if not exists missed_ticks integer,
    add column if not exists task_lateness_max double precision,
    add column if not exists discord_away double precision,
    add column if not exists gateway_reconnects integer,
    add column if not exists user_count integer,
    add column if not exists channel_count integer,
    add column if not exists command_count integer,
    add column if not exists command_errors integer,
    add column if not exists command_error_rate double precision,
    add column if not exists command_latency_p50 double precision,
    add column if not exists command_latency_p95 double precision,
    add column if not exists command_latency_p99 double precision,
    add column if not exists kuma_age double precision,
    add column if not exists monitors_up integer,
    add column if not exists monitors_down integer,
    add column if not exists monitors_unknown integer,
    add column if not exists store_failing double precision,
    add column if not exists store_queue integer,
    add column if not exists remote_away double precision,
    add column if not exists outbox_queued integer,
    add column if not exists outbox_age double precision,
    add column if not exists web_auth_failures integer,
    -- [[name, {label: value}, number], ...]: readings without a column.
    add column if not exists extra jsonb;

-- A table that was there already: doubles instead of reals, and nothing stands for what was not
-- read, where a default of 0 stood.
select public.comet_adopt('system_stats', '[["bot_id", "text collate \"C\""]]' || (
    select jsonb_agg(jsonb_build_array(c.name, t.type)) from (values
        ('double precision', '{
        cpu_usage, ram_usage, memory_rss, memory_heap, ping_gateway, ping_lavalink, swap_usage,
        disk_usage, load_average_1m, load_average_5m, load_average_15m, process_cpu,
        loop_lag_p99, loop_lag_max, task_lateness_max, discord_away, command_error_rate,
        command_latency_p50, command_latency_p95, command_latency_p99, kuma_age, store_failing,
        remote_away, outbox_age}'::text[]),
        ('integer', '{
        server_count, guild_count, uptime, threads, open_files, missed_ticks, gateway_reconnects,
        user_count, channel_count, command_count, command_errors, monitors_up, monitors_down,
        monitors_unknown, store_queue, outbox_queued, web_auth_failures}'),
        ('bigint', '{network_rx, network_tx}')
    ) as t (type, names) cross join lateral unnest(t.names) as c (name)));
do $$
declare
    v_column text;
begin
    for v_column in
        select a.attname from pg_attribute a join pg_attrdef d
            on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = 'public.system_stats'::regclass and a.attgenerated = '' and a.attname not in
            ('id', 'bot_id', 'status', 'timestamp', 'updated_at', 'created_at')
    loop
        execute format('alter table public.system_stats alter column %I drop default', v_column);
    end loop;
    alter table public.system_stats alter column bot_id set default 'primary';
    if exists (
        select from pg_attribute where attrelid = 'public.system_stats'::regclass and not attnotnull
            and attname in ('bot_id', 'status', 'timestamp', 'updated_at', 'created_at')
    ) then
        update public.system_stats set bot_id = coalesce(bot_id, 'primary'),
            status = coalesce(status, 'online'),
            timestamp = coalesce(timestamp, created_at, updated_at, now()),
            updated_at = coalesce(updated_at, timestamp, now()),
            created_at = coalesce(created_at, timestamp, now())
        where bot_id is null or status is null or timestamp is null
            or updated_at is null or created_at is null;
        alter table public.system_stats alter column bot_id set not null,
            alter column status set not null, alter column timestamp set not null,
            alter column updated_at set not null, alter column created_at set not null;
    end if;
    if not exists (
        select from pg_constraint where conrelid = 'public.system_stats'::regclass
            and conname = 'system_stats_extra_check'
    ) then
        alter table public.system_stats add constraint system_stats_extra_check
            check (jsonb_typeof(extra) = 'array');
    end if;
    -- Times are whole milliseconds, and no two rows of one bot have the same.
    if to_regclass('public.system_stats_timestamp') is null then
        loop
            update public.system_stats s set timestamp = d.at
            from (
                select id, date_trunc('milliseconds', timestamp) + interval '1 ms' * (row_number()
                    over (partition by date_trunc('milliseconds', timestamp), bot_id
                        order by timestamp, id) - 1) as at
                from public.system_stats
            ) d where d.id = s.id and d.at <> s.timestamp;
            exit when not found;
        end loop;
    end if;
end $$;

-- The first carries pages and "the newest ten", the second the same of one bot. (A BRIN index is
-- smaller, but cannot find the newest rows without reading all of them.)
create unique index if not exists system_stats_timestamp
    on public.system_stats (timestamp, bot_id);
create index if not exists system_stats_bot on public.system_stats (bot_id, timestamp);
-- Rows that hold the same readings are of one pattern, and there are few patterns. The newest value
-- of every reading is in the newest row of one of them: nobody walks thirty days back to find a
-- reading that was never taken. (A column and not an expression of the index: under row level
-- security only what cannot leak may be looked up in an index.)
alter table public.system_stats add column if not exists pattern bigint generated always as (
    hashtextextended(
        coalesce(jsonb_path_query_array(extra, '$[*][0]')::text, ''),
        ((cpu_usage is not null)::integer::bigint << 0) |
        ((ram_usage is not null)::integer::bigint << 1) |
        ((swap_usage is not null)::integer::bigint << 2) |
        ((disk_usage is not null)::integer::bigint << 3) |
        ((network_rx is not null)::integer::bigint << 4) |
        ((network_tx is not null)::integer::bigint << 5) |
        ((load_average_1m is not null)::integer::bigint << 6) |
        ((load_average_5m is not null)::integer::bigint << 7) |
        ((load_average_15m is not null)::integer::bigint << 8) |
        ((process_cpu is not null)::integer::bigint << 9) |
        ((memory_rss is not null)::integer::bigint << 10) |
        ((memory_heap is not null)::integer::bigint << 11) |
        ((threads is not null)::integer::bigint << 12) |
        ((open_files is not null)::integer::bigint << 13) |
        ((uptime is not null)::integer::bigint << 14) |
        ((loop_lag_p99 is not null)::integer::bigint << 15) |
        ((loop_lag_max is not null)::integer::bigint << 16) |
        ((missed_ticks is not null)::integer::bigint << 17) |
        ((task_lateness_max is not null)::integer::bigint << 18) |
        ((ping_gateway is not null)::integer::bigint << 19) |
        ((discord_away is not null)::integer::bigint << 20) |
        ((gateway_reconnects is not null)::integer::bigint << 21) |
        ((guild_count is not null)::integer::bigint << 22) |
        ((user_count is not null)::integer::bigint << 23) |
        ((channel_count is not null)::integer::bigint << 24) |
        ((command_count is not null)::integer::bigint << 25) |
        ((command_errors is not null)::integer::bigint << 26) |
        ((command_error_rate is not null)::integer::bigint << 27) |
        ((command_latency_p50 is not null)::integer::bigint << 28) |
        ((command_latency_p95 is not null)::integer::bigint << 29) |
        ((command_latency_p99 is not null)::integer::bigint << 30) |
        ((kuma_age is not null)::integer::bigint << 31) |
        ((monitors_up is not null)::integer::bigint << 32) |
        ((monitors_down is not null)::integer::bigint << 33) |
        ((monitors_unknown is not null)::integer::bigint << 34) |
        ((store_failing is not null)::integer::bigint << 35) |
        ((store_queue is not null)::integer::bigint << 36) |
        ((remote_away is not null)::integer::bigint << 37) |
        ((outbox_queued is not null)::integer::bigint << 38) |
        ((outbox_age is not null)::integer::bigint << 39) |
        ((web_auth_failures is not null)::integer::bigint << 40) |
        ((ping_lavalink is not null)::integer::bigint << 41)
    )
) stored;
create index if not exists system_stats_pattern on public.system_stats (pattern, timestamp);
create index if not exists system_stats_extra on public.system_stats (timestamp)
    where extra is not null;

-- Two snapshots of one bot in one millisecond cannot stand beside each other: the later one moves
-- on to the next free millisecond. server_count is another name of guild_count.
create or replace function public.comet_system_stats_row() returns trigger
language plpgsql set search_path = '' as $$
begin
    if tg_op = 'INSERT' then
        new.id := coalesce(new.id, gen_random_uuid());
        new.bot_id := coalesce(new.bot_id, 'primary');
        new.status := coalesce(new.status, 'online');
        new.timestamp := date_trunc('milliseconds', coalesce(new.timestamp, now()));
        if not isfinite(new.timestamp) then
            raise exception 'timestamp is no time' using errcode = '22008';
        end if;
        while exists (
            select from public.system_stats s
            where s.timestamp = new.timestamp and s.bot_id = new.bot_id
        ) loop
            new.timestamp := new.timestamp + interval '1 ms';
        end loop;
        new.guild_count := coalesce(new.guild_count, new.server_count);
    elsif new.guild_count is not distinct from old.guild_count then
        new.guild_count := new.server_count;
    end if;
    new.server_count := new.guild_count;
    return new;
end $$;
create or replace trigger comet_row before insert or update of guild_count, server_count
    on public.system_stats for each row execute function public.comet_system_stats_row();

-- What the program calls

create or replace function public.comet_sample_wire(s public.system_stats) returns jsonb
language sql stable parallel safe
return jsonb_build_object(
        'bot_id', s.bot_id, 'id', s.id, 'timestamp', public.comet_time(s.timestamp),
        'status', s.status,
        'cpu_usage', s.cpu_usage,
        'ram_usage', s.ram_usage,
        'swap_usage', s.swap_usage,
        'disk_usage', s.disk_usage,
        'network_rx', s.network_rx,
        'network_tx', s.network_tx,
        'load_average_1m', s.load_average_1m,
        'load_average_5m', s.load_average_5m,
        'load_average_15m', s.load_average_15m,
        'process_cpu', s.process_cpu,
        'memory_rss', s.memory_rss,
        'memory_heap', s.memory_heap,
        'threads', s.threads,
        'open_files', s.open_files,
        'uptime', s.uptime,
        'loop_lag_p99', s.loop_lag_p99,
        'loop_lag_max', s.loop_lag_max,
        'missed_ticks', s.missed_ticks,
        'task_lateness_max', s.task_lateness_max,
        'ping_gateway', s.ping_gateway,
        'discord_away', s.discord_away,
        'gateway_reconnects', s.gateway_reconnects,
        'guild_count', s.guild_count,
        'user_count', s.user_count,
        'channel_count', s.channel_count,
        'command_count', s.command_count,
        'command_errors', s.command_errors,
        'command_error_rate', s.command_error_rate,
        'command_latency_p50', s.command_latency_p50,
        'command_latency_p95', s.command_latency_p95,
        'command_latency_p99', s.command_latency_p99,
        'kuma_age', s.kuma_age,
        'monitors_up', s.monitors_up,
        'monitors_down', s.monitors_down,
        'monitors_unknown', s.monitors_unknown,
        'store_failing', s.store_failing,
        'store_queue', s.store_queue,
        'remote_away', s.remote_away,
        'outbox_queued', s.outbox_queued,
        'outbox_age', s.outbox_age,
        'web_auth_failures', s.web_auth_failures,
        'ping_lavalink', s.ping_lavalink,
        'extra', s.extra);

-- p: bot, rows. Rows that are there already stay as they are.
create or replace function public.comet_import_samples(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_taken bigint;
begin
    insert into public.system_stats (
        id, bot_id, timestamp, status, extra,
        cpu_usage, ram_usage, swap_usage, disk_usage, network_rx, network_tx, load_average_1m,
        load_average_5m, load_average_15m, process_cpu, memory_rss, memory_heap, threads,
        open_files, uptime, loop_lag_p99, loop_lag_max, missed_ticks, task_lateness_max,
        ping_gateway, discord_away, gateway_reconnects, guild_count, user_count, channel_count,
        command_count, command_errors, command_error_rate, command_latency_p50,
        command_latency_p95, command_latency_p99, kuma_age, monitors_up, monitors_down,
        monitors_unknown, store_failing, store_queue, remote_away, outbox_queued, outbox_age,
        web_auth_failures, ping_lavalink
    )
    select
        r.id, coalesce(r.bot_id, p ->> 'bot'), r.timestamp, r.status, nullif(r.extra, 'null'),
        r.cpu_usage, r.ram_usage, r.swap_usage, r.disk_usage, public.comet_long(r.network_rx),
        public.comet_long(r.network_tx), r.load_average_1m, r.load_average_5m,
        r.load_average_15m, r.process_cpu, r.memory_rss, r.memory_heap,
        public.comet_whole(r.threads), public.comet_whole(r.open_files),
        public.comet_whole(r.uptime), r.loop_lag_p99, r.loop_lag_max,
        public.comet_whole(r.missed_ticks), r.task_lateness_max, r.ping_gateway, r.discord_away,
        public.comet_whole(r.gateway_reconnects), public.comet_whole(r.guild_count),
        public.comet_whole(r.user_count), public.comet_whole(r.channel_count),
        public.comet_whole(r.command_count), public.comet_whole(r.command_errors),
        r.command_error_rate, r.command_latency_p50, r.command_latency_p95,
        r.command_latency_p99, r.kuma_age, public.comet_whole(r.monitors_up),
        public.comet_whole(r.monitors_down), public.comet_whole(r.monitors_unknown),
        r.store_failing, public.comet_whole(r.store_queue), r.remote_away,
        public.comet_whole(r.outbox_queued), r.outbox_age,
        public.comet_whole(r.web_auth_failures), r.ping_lavalink
    from jsonb_to_recordset(p -> 'rows') as r (
        id uuid, bot_id text, timestamp timestamptz, status text, extra jsonb,
        cpu_usage double precision, ram_usage double precision, swap_usage double precision,
        disk_usage double precision, network_rx numeric, network_tx numeric, load_average_1m
        double precision, load_average_5m double precision, load_average_15m double precision,
        process_cpu double precision, memory_rss double precision, memory_heap double precision,
        threads numeric, open_files numeric, uptime numeric, loop_lag_p99 double precision,
        loop_lag_max double precision, missed_ticks numeric, task_lateness_max double precision,
        ping_gateway double precision, discord_away double precision, gateway_reconnects
        numeric, guild_count numeric, user_count numeric, channel_count numeric, command_count
        numeric, command_errors numeric, command_error_rate double precision,
        command_latency_p50 double precision, command_latency_p95 double precision,
        command_latency_p99 double precision, kuma_age double precision, monitors_up numeric,
        monitors_down numeric, monitors_unknown numeric, store_failing double precision,
        store_queue numeric, remote_away double precision, outbox_queued numeric, outbox_age
        double precision, web_auth_failures numeric, ping_lavalink double precision
    )
    on conflict do nothing;
    get diagnostics v_taken = row_count;
    return jsonb_build_object('taken', v_taken);
end $$;

-- p: bot, row. The same snapshot again is the same; another one of that millisecond takes the next
-- free one, and the id that belongs to it: time, then bot.
create or replace function public.comet_save_sample(p jsonb) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
    v_row jsonb := p -> 'row';
    v_ms bigint := round(date_part('epoch', (v_row ->> 'timestamp')::timestamptz) * 1000);
    v_tail text := substr(v_row ->> 'id', 19);
    v_content jsonb := jsonb_strip_nulls(v_row - 'id' - 'timestamp');
    v_hex text;
begin
    loop
        v_hex := lpad(to_hex(v_ms), 12, '0');
        v_row := v_row || jsonb_build_object(
            'id', left(v_hex, 8) || '-' || right(v_hex, 4) || '-8000' || v_tail,
            'timestamp', public.comet_time(to_timestamp(v_ms / 1000.0)));
        if public.comet_import_samples(
            jsonb_build_object('bot', p -> 'bot', 'rows', jsonb_build_array(v_row))
        ) ->> 'taken' = '1' then
            return jsonb_build_object('taken', 1);
        end if;
        if v_content = (
            select jsonb_strip_nulls(public.comet_sample_wire(s) - 'id' - 'timestamp')
            from public.system_stats s where s.id = (v_row ->> 'id')::uuid
        ) then
            return jsonb_build_object('taken', 0);
        end if;
        v_ms := v_ms + 1;
    end loop;
end $$;

-- p: after, limit, since, only_bot.
create or replace function public.comet_export_samples(p jsonb) returns jsonb
language sql stable set search_path = '' set timezone = 'UTC' as $$
    with page as (
        select s from public.system_stats s
        where (s.timestamp, s.bot_id) > (
                coalesce((p #>> '{after,0}')::timestamptz, '-infinity'),
                coalesce(p #>> '{after,1}', ''))
            and s.timestamp >= coalesce((p ->> 'since')::timestamptz, '-infinity')
            and (p ->> 'only_bot' is null or s.bot_id = p ->> 'only_bot')
        order by s.timestamp, s.bot_id limit (p ->> 'limit')::bigint
    )
    select jsonb_build_object(
        'rows', coalesce(jsonb_agg(public.comet_sample_wire(s)
            order by (s).timestamp, (s).bot_id), '[]'),
        'next', case when count(*) = (p ->> 'limit')::bigint then
            (array_agg(jsonb_build_array(public.comet_time((s).timestamp), (s).bot_id)
                order by (s).timestamp desc, (s).bot_id desc))[1] end)
    from page
$$;

-- Bytes of everything of ours, indices included.
create or replace function public.comet_size(p jsonb) returns jsonb
language sql stable set search_path = '' as $$
    select to_jsonb(coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint)
    from public.comet_tables t join pg_catalog.pg_class c
        on c.relname = t.table_name and c.relnamespace = 'public'::regnamespace
    where c.relkind in ('r', 'p', 'm')
$$;

select public.comet_protect('comet_migrations', 'nobody');
select public.comet_protect('comet_tables', 'nobody');
select public.comet_protect('system_stats', 'viewers');
select public.comet_protect_functions();
select public.comet_publish('system_stats');

insert into public.comet_migrations (number, name) values (1, 'snapshots') on conflict do nothing;
