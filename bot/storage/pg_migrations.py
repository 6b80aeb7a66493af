"""Applies migrations/postgres over a connection: forward only, each file in one transaction.

A file may just as well be pasted into an SQL editor or pushed with Supabase's own tool: each
notes its own number in `public.comet_migrations` and does no harm when it comes twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bot.storage.migrations import Migration, available
from bot.storage.pg_errors import from_sqlstate
from bot.storage.store import StoreError, StoreUnavailable

if TYPE_CHECKING:
    import asyncpg

    Connection = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )

_LOCK: Final = 0x434F4D4554
"""`COMET`: two processes that start together must not both apply."""

_LOCK_WAIT: Final = "15s"


async def number(connection: Connection) -> int:
    """The number of the last migration applied; 0 for a database that has none of ours."""
    return max(await _applied(connection), default=0)


async def is_encrypted(connection: Connection) -> bool:
    """Whether this very connection is; one that never leaves the machine needs no cipher.

    Behind a pooler it tells of the pooler's own connection.
    """
    query = (
        "select ssl or inet_server_addr() is null or inet_server_addr() = inet_client_addr() "
        "from pg_catalog.pg_stat_ssl where pid = pg_backend_pid()"
    )
    return bool(await connection.fetchval(query))


async def pending(connection: Connection) -> list[Migration]:
    """What `migrate` would still apply, in order."""
    done = await _applied(connection)
    return [migration for migration in available("postgres") if migration.number not in done]


async def migrate(
    connection: Connection, said: Callable[[Migration], None] = lambda _: None
) -> list[Migration]:
    """Apply what is pending and return it; `said` hears of each file as it is done.

    1. Take the lock, which ends with the transaction: a pooler's sessions cannot hold longer.
    2. Look again at what is pending: another process may have been first.
    3. Run the file, which notes its own number, and commit. Any error undoes it altogether.
    4. At last tell PostgREST to look at the schema again, also when nothing was pending: a
       stale schema cache is mended by just that.
    """
    done: list[Migration] = []
    while True:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            todo = await pending(connection)
            if not todo:
                break
            migration = todo[0]
            # Readers queue up behind a lock that we wait for: give up and be started again.
            await connection.execute(f"set local lock_timeout = '{_LOCK_WAIT}'")
            try:
                await connection.execute(migration.path.read_text(encoding="utf-8"))
            except Exception as error:
                raise _failed(migration, error) from error
            if migration.number not in await _applied(connection):
                detail = f"{migration.path.name}: its number was not noted"
                raise StoreError("migration", detail, retriable=False)
        done.append(migration)
        said(migration)
    await connection.execute("notify pgrst, 'reload schema'")
    return done


def _failed(migration: Migration, error: Exception) -> Exception:
    """The file is named; what anybody can mend keeps its own reason."""
    code = getattr(error, "sqlstate", None)
    if not code:
        return error
    found = from_sqlstate(code, getattr(error, "message", None) or "")
    detail = f"{migration.path.name}: {found.detail}"
    if found.reason in ("away", "full", "readonly", "rights"):
        return StoreUnavailable(found.reason, detail)
    return StoreError("migration", detail, retriable=False)


async def grant_again(connection: Connection) -> None:
    """Rights and policies as the migrations gave them: for roles that came later, or lost some.

    Not part of `migrate`, which every start may run: it locks each table for a moment.
    """
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = '{_LOCK_WAIT}'")
        await connection.execute("select public.comet_protect_all()")


async def _applied(connection: Connection) -> set[int]:
    if await connection.fetchval("select to_regclass('public.comet_migrations')") is None:
        return set()
    rows = await connection.fetch("select number from public.comet_migrations")
    return {row["number"] for row in rows}
