"""The Store on PostgreSQL, whichever way it is reached: verbs are calls of `comet_*` functions."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from bot.storage.migrations import latest_number
from bot.storage.pg_alerting import AlertingVerbs
from bot.storage.pg_errors import Dropped
from bot.storage.pg_housekeeping import HousekeepingVerbs
from bot.storage.pg_logs import LogVerbs
from bot.storage.pg_metrics import MetricsVerbs
from bot.storage.pg_services import ServicesVerbs
from bot.storage.pg_travel import TravelVerbs
from bot.storage.sqlite_rows import json_text
from bot.storage.sqlite_uptime import Pause
from bot.storage.store import StoreUnavailable

TIMEOUT_S: Final = 10.0
"""Longer than Supabase's own limit for a statement (8 s), so that its answer is still heard."""

_MANY_ROWS: Final = 50
"""From so many rows on the JSON is made in a thread: 500 rows cost a loop 20 ms."""

_HOLDERS: Final = frozenset(("facts", "rows"))
"""Arguments with many rows in them."""

_READS: Final = frozenset(
    (
        "count",
        "due_hours",
        "guild_configs",
        "incidents",
        "latest_metrics",
        "member_data",
        "metric_series",
        "metric_stats",
        "most_active",
        "open_incidents",
        "popular_songs",
        "remote_state",
        "response_times",
        "service_history",
        "service_stats",
        "size",
    )
)
"""With `export_…` and `load_…` the verbs that change nothing, and so may be repeated."""


class PgStore(
    HousekeepingVerbs, MetricsVerbs, ServicesVerbs, AlertingVerbs, LogVerbs, TravelVerbs, ABC
):
    """Store in a PostgreSQL database that has our migrations; see `store.RemoteStore`.

    `name` says to people which database is meant, without any secret. Nothing is cached here:
    whatever another process wrote is seen at once.
    """

    def __init__(self, name: str, bot_id: str) -> None:
        self.name = name
        self.bot_id = bot_id
        self._opening = asyncio.Lock()
        self._is_open = False

    async def look(self) -> int:
        """The number of its last migration, however old; without opening the store."""
        async with self._opening:
            if self._is_open:
                return await self._schema_number()
            try:
                await self._connect()
                return await self._schema_number()
            finally:
                await self._disconnect()

    async def open(self) -> None:
        """Connect, and see that the schema is not behind this program. Harmless when repeated.

        A newer schema is fine: migrations only ever add. Raises StoreUnavailable("schema") for
        an older one, and whatever else keeps us out.
        """
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._connect()
                number, wanted = await self._schema_number(), latest_number("postgres")
                if number < wanted:
                    raise StoreUnavailable("schema", f"{number} < {wanted}")
                self._is_open = True
            finally:
                if not self._is_open:
                    await self._disconnect()

    async def close(self) -> None:
        """Harmless when repeated, and when the store never opened."""
        async with self._opening:
            self._is_open = False
            await self._disconnect()

    async def schema_version(self) -> int:
        """The number of the last migration applied; 0 for a database without any."""
        self._ensure_open()
        return await self._schema_number()

    async def call(self, verb: str, /, **arguments: object) -> Any:
        """See `pg_call.Calls`. A reading call that lost its connection is made once more."""
        self._ensure_open()
        text = await _json_of({"bot": self.bot_id, **arguments})
        try:
            return await self._send(verb, text)
        except Dropped:
            if verb not in _READS and not verb.startswith(("export_", "load_")):
                raise
        return await self._send(verb, text)

    def _ensure_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("closed")

    @abstractmethod
    async def server_time(self) -> datetime | None:
        """What the server's clock shows; None when it does not say."""

    @abstractmethod
    async def _connect(self) -> None:
        """Ready for `_send`. Raises StoreError; `_disconnect` follows in any case."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Harmless when repeated, and before `_connect`."""

    @abstractmethod
    async def _send(self, verb: str, arguments: str) -> Any:
        """What `comet_<verb>` answers to these JSON arguments. Raises StoreError."""

    @abstractmethod
    async def _schema_number(self) -> int: ...


async def _json_of(arguments: Mapping[str, object]) -> str:
    if _rows_in(arguments) < _MANY_ROWS:
        return json_text(arguments)
    return await asyncio.to_thread(_paced_json, arguments, Pause())


def _paced_json(value: object, pause: Pause) -> str:
    """As `json_text`, row by row, with room for the event loop in between.

    All of it at once would keep the interpreter lock for milliseconds, thread or not.
    """
    if isinstance(value, Mapping) and not _HOLDERS.isdisjoint(value):
        parts = [f"{json_text(str(k))}:{_paced_json(part, pause)}" for k, part in value.items()]
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return f"[{','.join([_paced_json(part, pause) for part in value])}]"
    pause()
    return json_text(value)


async def from_json(text: str) -> Any:
    """What an answer says; a long one is read beside the loop."""
    return json.loads(text) if len(text) < 50_000 else await asyncio.to_thread(json.loads, text)


def _rows_in(value: object, depth: int = 3) -> int:
    """About how many rows some arguments hold, without looking into them."""
    if isinstance(value, Mapping):
        return max((_rows_in(part, depth) for part in value.values()), default=0)
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = sum(_rows_in(part, depth - 1) for part in value[:_MANY_ROWS]) if depth else 0
        return len(value) + inner
    return 0
