"""The remote store that somebody's settings name."""

from __future__ import annotations

from bot.storage.pg_store import PgStore
from bot.storage.postgres import PostgresStore
from bot.storage.supabase import SupabaseStore


def remote_store(
    backend: str,
    *,
    database_url: str | None,
    supabase_url: str | None,
    supabase_key: str | None,
    bot_id: str,
    migrate: bool = False,
) -> PgStore | None:
    """The closed store of a backend that has what it needs; None for "sqlite", which has none.

    `migrate` lets a store that may do so bring its schema up to date when it opens.
    """
    if backend == "postgresql" and database_url:
        return PostgresStore(database_url, bot_id=bot_id, migrate=migrate)
    if backend == "supabase" and supabase_url and supabase_key:
        return SupabaseStore(supabase_url, supabase_key, bot_id=bot_id)
    return None
