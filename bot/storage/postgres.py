"""Store in PostgreSQL over asyncpg; the only place that knows asyncpg, loaded when chosen."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from bot.storage import pg_errors, pg_migrations
from bot.storage.pg_store import TIMEOUT_S, PgStore, from_json
from bot.storage.store import StoreUnavailable

if TYPE_CHECKING:
    import asyncpg

POOLER_PORT: Final = 6543
MOST_CONNECTIONS: Final = 4
CALL_OFF_S: Final = 0.5
"""A server that takes longer to hear of it is hung up on."""

_NOT_FOR_THE_SERVER: Final = frozenset(
    (
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "connection_limit",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "pgbouncer",
        "pool_timeout",
        "require_auth",
        "schema",
        "socket_timeout",
        "sslcompression",
        "sslsni",
        "supa",
        "tcp_user_timeout",
        "uselibpqcompat",
    )
)
"""Parameters that other clients want in an address. asyncpg would ask the server to set them."""


class PostgresStore(PgStore):
    """See `pg_store.PgStore`. `dsn` is an address as libpq takes it, `sslmode` included.

    `migrate` applies what is pending when the store opens. Connections that died are replaced
    when they are next needed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        bot_id: str = "primary",
        migrate: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(address_of(dsn), bot_id)
        self._dsn = dsn
        self._migrate = migrate
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def server_time(self) -> datetime | None:
        async with self._connection() as connection:
            found: datetime = await connection.fetchval("select clock_timestamp()")
            return found

    async def _connect(self) -> None:
        if self._migrate:
            async with connect(self._dsn, timeout_s=self._timeout_s) as connection:
                await pg_migrations.migrate(connection)
        with _translated():
            asyncpg = await _asyncpg()
            self._pool = await asyncpg.create_pool(
                # The pool would otherwise keep knocking, and logging, while the server is away.
                min_size=0,
                max_size=MOST_CONNECTIONS,
                command_timeout=self._timeout_s,
                # A call leaves nothing behind in its session, so nothing has to be reset.
                reset=_leave_as_it_is,
                **_options(self._dsn, self._timeout_s),
            )

    async def _disconnect(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with _translated():
            try:
                async with asyncio.timeout(1.0):
                    await pool.close()
            except (TimeoutError, OSError):
                pool.terminate()

    async def _send(self, verb: str, arguments: str) -> Any:
        async with self._connection() as connection:
            query = f"select public.comet_{verb}($1::jsonb)"
            answer = await connection.fetchval(query, arguments)
        return None if answer is None else await from_json(answer)

    async def _schema_number(self) -> int:
        async with self._connection() as connection:
            return await pg_migrations.number(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("closed")
        with _translated():
            connection = await pool.acquire(timeout=self._timeout_s)
            try:
                yield connection
            finally:
                # A statement that was broken off is called off on the server. The pool waits for
                # that, and would let its own impatience take the place of a cancellation.
                with suppress(TimeoutError):
                    await pool.release(connection, timeout=CALL_OFF_S)


@asynccontextmanager
async def connect(
    dsn: str, *, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """One connection without a limit for its commands, as migrations need. Raises StoreError."""
    with _translated():
        asyncpg = await _asyncpg()
        connection = await asyncpg.connect(**_options(dsn, timeout_s))
        try:
            yield connection
        finally:
            try:
                await connection.close(timeout=1.0)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


def address_of(dsn: str) -> str:
    """Where an address leads, without user, password and parameters."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2] or "localhost"
    return f"{host}{unquote(parts.path)}"


def is_pooled(dsn: str) -> bool:
    """Whether a pooler may hand every statement to another session (Supabase: port 6543).

    asyncpg's prepared statements live in one session.
    """
    parts = urlsplit(dsn)
    text = f"{parts.hostname} {parts.query}".lower()
    return parts.port == POOLER_PORT or "pgbouncer" in text or "pooler" in text


def _options(dsn: str, timeout_s: float) -> dict[str, Any]:
    parts = urlsplit(dsn)
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name not in _NOT_FOR_THE_SERVER
    ]
    options: dict[str, Any] = {
        "dsn": parts._replace(query=urlencode(query)).geturl(),
        "timeout": timeout_s,
        "server_settings": {"application_name": "comet"},
    }
    if is_pooled(dsn):
        options["statement_cache_size"] = 0
    return options


async def _leave_as_it_is(connection: object) -> None:
    """What asyncpg calls before a connection goes back to the pool."""


async def _asyncpg() -> Any:
    """asyncpg, imported in a thread the first time, so that the loop need not wait."""
    return await asyncio.to_thread(importlib.import_module, "asyncpg")


@contextmanager
def _translated() -> Iterator[None]:
    """Every error of asyncpg's as a StoreError."""
    try:
        yield
    except (TimeoutError, ImportError) as error:
        raise pg_errors.away(error) from error
    except OSError as error:
        raise pg_errors.Dropped(error) from error
    except Exception as error:
        if not type(error).__module__.startswith("asyncpg"):
            raise
        code = getattr(error, "sqlstate", None)
        if not code:
            raise pg_errors.Dropped(error) from error
        if code[:2] == "08" or code in ("57P01", "57P02"):
            raise pg_errors.Dropped(error) from error
        message = getattr(error, "message", None) or str(error)
        raise pg_errors.from_sqlstate(code, message) from error
