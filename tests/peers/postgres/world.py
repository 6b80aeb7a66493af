"""What Supabase has put into a cluster and a database before a project's owner arrives.

As its self-hosted images and documentation describe it, with the rule of 30 October 2026: new
tables in `public` are granted to nobody, not even to service_role. Functions stay executable by
everybody unless revoked, which is PostgreSQL's own rule.

Not here: `safeupdate`, which on Supabase refuses UPDATE and DELETE without WHERE in everything
that comes through PostgREST, functions included; `unsafe_statements` finds those by reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from tests.peers.postgres.server import ADMIN, PASSWORD, PostgresServer, run_apart

MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations" / "postgres"

_ROLES = f"""
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password '{PASSWORD}';
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres;

-- The session's limit is the authenticator's, PostgREST then adds that of the role.
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';

alter role postgres set search_path = "$user", public, extensions;
alter role authenticator set search_path = "$user", public, extensions;
"""

_DATABASE = """
create schema extensions;
grant usage on schema extensions to postgres, anon, authenticated, service_role;
create extension if not exists pgcrypto schema extensions;
create extension if not exists "uuid-ossp" schema extensions;
create extension if not exists pg_stat_statements schema extensions;

grant usage on schema public to postgres, anon, authenticated, service_role;

create schema auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;
create function auth.jwt() returns jsonb language sql stable as $$
    select nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;
create function auth.role() returns text language sql stable as $$
    select auth.jwt() ->> 'role'
$$;
create function auth.uid() returns uuid language sql stable as $$
    select (auth.jwt() ->> 'sub')::uuid
$$;

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

-- PostgREST learns of new tables and functions by these.
create function extensions.pgrst_watch() returns event_trigger language plpgsql as $$
begin
    notify pgrst, 'reload schema';
end
$$;
create event trigger pgrst_ddl_watch on ddl_command_end
    execute function extensions.pgrst_watch();
create event trigger pgrst_drop_watch on sql_drop
    execute function extensions.pgrst_watch();
"""


# What Supabase grants when a project's owner switches pg_cron on.
_CRON = """
create extension pg_cron;
grant usage on schema cron to postgres;
grant execute on all functions in schema cron to postgres;
grant select on cron.job to postgres;
grant all on cron.job_run_details to postgres;
"""


_CHANGE = re.compile(
    r'\b(?:delete\s+from|update\s+(?:only\s+)?[\w."]+\s+(?:(?:as\s+)?\w+\s+)?set)\b', re.IGNORECASE
)


def make_roles(server: PostgresServer) -> None:
    """Supabase's roles, once for each cluster; again changes nothing."""
    if not server.fetch("select from pg_roles where rolname = 'anon'"):
        server.execute(_ROLES, user=ADMIN)


def make_world(server: PostgresServer, database: str) -> None:
    """Supabase's schemas and the like in one database."""
    make_roles(server)
    server.execute(_DATABASE, database=database, user=ADMIN)


def add_cron(server: PostgresServer, database: str) -> None:
    """pg_cron, or its stand-in; the real one only in a server opened with `cron`."""
    server.execute(_CRON, database=database, user=ADMIN)


def migrations() -> list[Path]:
    """The bot's own files for PostgreSQL, in order."""
    return sorted(MIGRATIONS.glob("[0-9]*.sql"))


def unsafe_statements(sql: str) -> list[str]:
    """UPDATEs and DELETEs without a WHERE of their own, in bodies of functions too.

    Dynamic SQL is a literal and is not looked at.
    """
    # Comments and literals first: neither may lend a WHERE nor end a statement.
    text = re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", sql, flags=re.DOTALL)
    found = []
    for start in _CHANGE.finditer(text):
        depth = 0
        own: list[str] = []  # what stands outside of parentheses opened on the way
        for piece in re.findall(r"[();]|[^();]+", text[start.start() :]):
            if piece == ";" or (piece == ")" and depth == 0):
                break
            depth += (piece == "(") - (piece == ")")
            if depth == 0 and piece != ")":
                own.append(piece)
        statement = " ".join("".join(own).split())
        if not re.search(r"\bwhere\b", statement, re.IGNORECASE):
            found.append(statement)
    return found


def migrate(server: PostgresServer, database: str, files: Sequence[Path] | None = None) -> None:
    """Run them as `postgres`, each in one transaction; the file is named where one fails."""

    async def work() -> None:
        connection = await asyncpg.connect(server.dsn(database))
        try:
            for file in migrations() if files is None else files:
                try:
                    async with connection.transaction():
                        await connection.execute(file.read_text(encoding="utf-8"))
                except asyncpg.PostgresError as error:
                    error.add_note(f"in {file.name}, position {getattr(error, 'position', None)}")
                    raise
        finally:
            await connection.close()

    run_apart(work())
