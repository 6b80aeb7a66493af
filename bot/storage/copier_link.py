"""What the parts of the copier share: asking the remote store, and how much goes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

from bot.storage.kinds import BY_NAME, RowPage, WireRow
from bot.storage.store import RemoteStore, StoreError, StoreUnavailable

T = TypeVar("T")

BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 64 * 1024
"""Twice as large a batch carries a tenth more in the same time, but whoever makes JSON of it lets
the event loop wait twice as long: 64 KB are 3 ms, measured."""
_SAMPLE_BYTES: Final = 1000
CALL_S: Final = 20.0
"""Longer than any store's own limit: only for one that forgets to have any."""


class Away(Exception):
    """The remote store cannot be had now, for the reason that `error` gives."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))
        self.error = error


class Refused(Exception):
    """The remote store will never take what it was given."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))
        self.error = error


class Link:
    """The way to the remote store. Its faults are told apart from those of the local one."""

    def __init__(self, remote: RemoteStore, bot_id: str) -> None:
        self.remote = remote
        self.bot_id = bot_id

    async def ask(self, call: Awaitable[T]) -> T:
        """The answer of a call that reads. Raises Away."""
        try:
            return await self.give(call)
        except Refused as refusal:
            raise Away(refusal.error) from refusal

    async def give(self, call: Awaitable[T]) -> T:
        """The answer of a call that writes. Raises Away and Refused."""
        try:
            async with asyncio.timeout(CALL_S):
                return await call
        except TimeoutError as error:
            raise Away(StoreUnavailable("away", f"no answer in {CALL_S:.0f} s")) from error
        except StoreError as error:
            raise (Away if error.retriable else Refused)(error) from error

    async def page(
        self, kind: str, after: list[object] | None, limit: int, since_at: datetime | None = None
    ) -> RowPage:
        """This bot's rows of the remote store."""
        return await self.ask(
            self.remote.export_rows(kind, after, limit, since_at=since_at, bot_id=self.bot_id)
        )

    async def all(self, kind: str, since_at: datetime | None = None) -> list[dict[str, object]]:
        """All of them; for kinds of which there are never very many."""
        found: list[dict[str, object]] = []
        cursor: list[object] | None = None
        while True:
            page = await self.page(kind, cursor, BATCH_ROWS, since_at)
            found += page.rows
            if (cursor := page.next) is None:
                return found


def weigh(row: WireRow) -> int:
    """About how many bytes of JSON a row makes."""
    if "ping_lavalink" in row and not row.get("extra"):
        # A snapshot: fifty numbers, and very many of them.
        return _SAMPLE_BYTES
    total = 2
    for name, value in row.items():
        total += len(name) + 4
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list | tuple):
            total += 6 * len(value) + sum(len(one) for one in value if isinstance(one, str))
        elif isinstance(value, Mapping):
            total += len(str(value))
        else:
            total += 8
    return total


def fitting(rows: Iterable[WireRow | None]) -> int:
    """How many of the first rows make one batch; at least one."""
    total = count = 0
    for row in rows:
        total += 0 if row is None else weigh(row)
        if count and total > BATCH_BYTES:
            break
        count += 1
    return count


def slim(kind: str, rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Readings that were not taken need not be said."""
    if kind != "samples":
        return list(rows)
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def key_of(kind: str, row: WireRow) -> tuple[object, ...]:
    return tuple(row.get(column) for column in BY_NAME[kind].key if column != "bot_id")
