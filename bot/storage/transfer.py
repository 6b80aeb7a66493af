"""Moves every row from one store to another, and proves afterwards that it is there.

The source is only read. Rows that are on the target already stay, and of a row that changes the
newer form stands, so that a transfer may be repeated, interrupted, and run towards a store that
a bot is using.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from bot.storage.kinds import KINDS, Cursor, Kind, RowPage, WireRow
from bot.storage.sqlite_rows import to_time
from bot.storage.store import StoreError, StoreUnavailable
from bot.storage.transfer_check import (
    Comparison,
    Differences,
    Meaning,
    Pages,
    Times,
    key_text,
    revision_of,
)
from bot.storage.transfer_state import KindState, TransferState

T = TypeVar("T")

BATCH: Final = 500
PATIENCE_S: Final = 300.0
"""How long a store may be away in one go before the transfer stops (and can be resumed)."""

_WAIT_FOR: Final = frozenset(("away", "odd", "locked", "io"))
"""Reasons that pass by themselves; for the others somebody has to do something first."""

_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 15.0
_TRIES: Final = 4
"""So often a batch is sent as a whole before its halves are tried."""

_SLOW_S: Final = 3.0
_LEAST: Final = 10
_MOST_REFUSED: Final = 10_000


class Side(Protocol):
    """The part of a Store that a transfer needs."""

    async def export_rows(
        self,
        kind: str,
        after: Cursor | None,
        limit: int,
        *,
        since_at: datetime | None = None,
        bot_id: str | None = None,
    ) -> RowPage: ...

    async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int: ...

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int: ...


class Watcher(Protocol):
    """Told how it goes."""

    def moved(self, kind: str, rows: int) -> None:
        """So many more rows of the source are on the target."""

    def checked(self, kind: str, rows: int) -> None:
        """So many more rows of the source were read again."""

    def waiting(self, error: StoreError) -> None:
        """A store is away; it is tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one kind came out. `others`: rows of other bots that stay on the source.

    `repaired`: rows that had to be sent once more. `refused`: key to reason. `unread`: rows
    that the source counts, but did not give when it was read.
    """

    kind: Kind
    rows: int
    others: int
    repaired: int
    refused: dict[str, str]
    unread: int
    found: Differences

    @property
    def is_fine(self) -> bool:
        return self.found.is_fine and not self.refused and not self.unread


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of a kind: on the source (those meant), of other bots there, on the target.

    `is_own`: those meant are all of this bot, so that only its rows can be their counterparts.
    """

    kind: Kind
    rows: int
    others: int
    target: int
    is_own: bool


class Transfer:
    """One run. `count`, then `move`, then `check`; each may raise StoreError."""

    def __init__(
        self,
        source: Side,
        target: Side,
        state: TransferState,
        watcher: Watcher,
        *,
        now: datetime,
        bot_id: str,
        only_own: bool = False,
        is_coarse: bool = False,
        batch: int = BATCH,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`only_own`: leave rows of bots other than `bot_id` alone. `is_coarse`: see `Meaning`."""
        self._source = source
        self._target = target
        self._state = state
        self._watcher = watcher
        self._now = now
        self._bot_id = bot_id
        self._only_own = only_own
        self._is_coarse = is_coarse
        self._batch = batch
        self._limit = min(batch, 100)
        self._sleep = sleep
        self._counts: dict[str, Count] = {}

    async def count(self) -> list[Count]:
        """What there is on both sides; changes nothing."""
        for kind in KINDS:
            every = await self._count(self._source, kind)
            own = await self._count(self._source, kind, self._bot_id)
            rows, others = (own, every - own) if self._only_own else (every, 0)
            there = await self._count(self._target, kind)
            self._counts[kind.name] = Count(kind, rows, others, there, rows == own)
        return list(self._counts.values())

    async def _count(self, side: Side, kind: Kind, bot_id: str | None = None) -> int:
        return await self._try(lambda: side.count_rows(kind.name, bot_id=bot_id))

    def already_moved(self) -> int:
        """Rows that earlier runs have brought over."""
        return sum(state.sent for state in self._state.kinds.values())

    async def move(self) -> None:
        """Every kind in its order, from where an earlier run stopped."""
        for count in self._counts.values():
            state = self._state.kinds[count.kind.name]
            if not self._state.is_counted:
                state.before = count.target
            elif count.target < max(state.before, state.sent - len(state.refused)):
                # Not the target that the earlier run knew: it was emptied or made anew.
                self._state.kinds[count.kind.name] = KindState(before=count.target)
            elif state.is_moved:
                # Rows refused by an earlier run are tried again when they are found missing.
                state.refused.clear()
        self._state.is_counted = True
        self._state.save()
        for kind in KINDS:
            if not self._state.kinds[kind.name].is_moved:
                await self._move(kind)

    async def _move(self, kind: Kind) -> None:
        """While one batch is written the next one is read already."""
        state = self._state.kinds[kind.name]
        reading = asyncio.create_task(self._read(kind, state.cursor))
        try:
            while True:
                page = await reading
                if page.next is not None:
                    reading = asyncio.create_task(self._read(kind, page.next))
                await self._write(kind, [_dated(kind, row) for row in page.rows])
                state.cursor = page.next
                state.is_moved = page.next is None
                state.sent += len(page.rows)
                self._state.save()
                self._watcher.moved(kind.name, len(page.rows))
                if state.is_moved:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def check(self) -> list[Outcome]:
        """Read both sides again and compare every row.

        What the target lacks, or has otherwise, is sent once more, and then that kind is compared
        again: only what is still wrong then is reported.
        """
        outcomes = []
        for count in self._counts.values():
            kind, refused = count.kind, self._state.kinds[count.kind.name].refused
            known = len(refused)
            found = await self._compare(count, repairs=True)
            wrong = len(found.missing) + len(found.different)
            if wrong:
                found = await self._compare(count, repairs=False)
            still = len(found.missing) + len(found.different) + len(refused) - known
            repaired, unread = wrong - still, 0
            if found.read < count.rows:
                # A store in use may have let rows expire since they were counted.
                bot_id = self._bot_id if self._only_own else None
                unread = max(0, await self._count(self._source, kind, bot_id) - found.read)
            if unread:
                self._state.kinds[kind.name] = KindState(before=count.target)
                self._state.save()
            outcomes.append(
                Outcome(kind, count.rows, count.others, repaired, refused, unread, found)
            )
        if all(outcome.is_fine for outcome in outcomes):
            self._state.remove()
        return outcomes

    async def _compare(self, count: Count, *, repairs: bool) -> Differences:
        kind, state = count.kind, self._state.kinds[count.kind.name]
        waiting: list[WireRow] = []

        async def send_again(row: WireRow) -> None:
            if repairs:
                waiting.append(_dated(kind, row))
                if len(waiting) >= self._limit:
                    await flush()

        async def flush() -> None:
            rows, waiting[:] = list(waiting), []
            await self._write(kind, rows)

        def note(rows: int) -> None:
            if repairs:
                self._watcher.checked(kind.name, rows)

        comparison = Comparison(
            Meaning(kind, self._is_coarse),
            Times(self._state.started_at, self._now),
            had_rows=state.before > 0,
            refused=set(state.refused),
            on_wrong=send_again,
            on_read=note,
        )
        found = await comparison.walk(self._pages(kind), await self._target_pages(count))
        await flush()
        self._state.save()
        return found

    def _pages(self, kind: Kind) -> Pages:
        return lambda cursor: self._read(kind, cursor)

    async def _target_pages(self, count: Count) -> Pages:
        """Only as much of a long memory as can matter: from the source's oldest row on."""
        kind, since_at = count.kind, None
        # One summary holds those of all bots.
        bot_id = self._bot_id if count.is_own and kind.name != "daily_summaries" else None
        if self._state.kinds[kind.name].before and kind.at is not None:
            if count.rows == 0:
                return _nothing
            if kind.order[0] == kind.at:
                first = await self._read(kind, None, limit=1)
                if first.rows:
                    since_at = to_time(first.rows[0][kind.at]) - timedelta(minutes=1)

        async def read(cursor: Cursor | None) -> RowPage:
            return await self._try(
                lambda: self._target.export_rows(
                    kind.name, cursor, self._limit, since_at=since_at, bot_id=bot_id
                )
            )

        return read

    async def _read(self, kind: Kind, cursor: Cursor | None, limit: int | None = None) -> RowPage:
        return await self._try(
            lambda: self._source.export_rows(
                kind.name,
                cursor,
                limit or self._limit,
                bot_id=self._bot_id if self._only_own else None,
            )
        )

    async def _write(self, kind: Kind, rows: Sequence[WireRow]) -> None:
        """Bring rows over; halves of a batch in which one row can never be stored."""
        if not rows:
            return
        try:
            await self._try(
                lambda: self._target.import_rows(kind.name, rows),
                tries=_TRIES if len(rows) > 1 else None,
            )
        except StoreError as error:
            is_refused = error.reason == "refused"
            if is_refused and len(rows) == 1:
                refused = self._state.kinds[kind.name].refused
                refused[key_text(kind, rows[0])] = error.detail
                if len(refused) > _MOST_REFUSED:
                    raise
                return
            if len(rows) == 1 or not (is_refused or error.reason in _WAIT_FOR):
                raise
            # A batch too large to be written in time is halved just as well.
            middle = len(rows) // 2
            await self._write(kind, rows[:middle])
            await self._write(kind, rows[middle:])

    async def _try(self, call: Callable[[], Awaitable[T]], *, tries: int | None = None) -> T:
        """Again and again while the store is away, with growing pauses.

        With `tries` it gives up after so many, for then a smaller batch can be tried.
        """
        loop = asyncio.get_running_loop()
        wait_s, since_s, failed = _FIRST_WAIT_S, loop.time(), 0
        while True:
            begun_s = loop.time()
            try:
                result = await call()
            except StoreUnavailable as error:
                failed += 1
                self._limit = max(min(_LEAST, self._batch), self._limit // 2)
                is_long = loop.time() - since_s > PATIENCE_S or failed == tries
                if error.reason not in _WAIT_FOR or is_long:
                    raise
                self._watcher.waiting(error)
                await self._sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                took_s = loop.time() - begun_s
                if took_s > _SLOW_S:
                    self._limit = max(min(_LEAST, self._batch), self._limit // 2)
                elif took_s < _SLOW_S / 4:
                    self._limit = min(self._batch, 2 * self._limit)
                return result


def _dated(kind: Kind, row: WireRow) -> WireRow:
    """A row that says how new it is.

    Without this an old setting would be as new as the moment of its arrival. Incidents and the
    outbox have rules of their own for which of two forms stands.
    """
    if not kind.is_changing or kind.name in ("incidents", "outbox") or "revision" in row:
        return row
    return {**row, "revision": revision_of(row)}


async def _nothing(cursor: Cursor | None) -> RowPage:
    return RowPage([], None)
