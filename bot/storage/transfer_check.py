"""Reads the rows of one kind on both sides and says which of them differ.

Both sides are walked in the same order, page by page; what has not met its like yet waits, and
stops waiting as soon as neither side can bring it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from bot.core.readings import READINGS
from bot.storage.kinds import Cursor, Kind, RowPage, WireRow
from bot.storage.sqlite_rows import EPOCH, clean, finite, to_time

Pages: TypeAlias = Callable[[Cursor | None], Awaitable[RowPage]]
Value: TypeAlias = object
Key: TypeAlias = tuple[Value, ...]

_QUANTA: Final = {
    **{reading.column: reading.quantum for reading in READINGS if reading.column is not None},
    "ping_lavalink": 0.01,
}
_SLACK: Final = timedelta(seconds=5)
"""A snapshot whose place was taken stands a little later than it was taken."""

_WHOLE: Final = 2**53
"""Up to here every whole number is a float of the same value."""

_COUNTS: Final = {"metrics_hourly": "count", "service_hours": "checks"}
"""Of two roll-ups of one hour the one that counted more stands."""


class Meaning:
    """What makes two rows of a kind the same."""

    def __init__(self, kind: Kind, is_coarse: bool) -> None:
        """`is_coarse`: one side keeps milliseconds only; no more of a time can be compared."""
        self.kind = kind
        self.is_coarse = is_coarse
        left_out = {*kind.unverified, "revision"}
        if kind.at != "created_at":
            left_out.add("created_at")
        if kind.name == "daily_summaries":
            # One row for all bots: which of them made it first says nothing.
            left_out |= {"bot_id", "summary_data"}
        self.columns = tuple(column for column in kind.columns if column not in left_out)

    def key(self, row: WireRow) -> Key:
        return tuple(self._value(column, row.get(column)) for column in self.kind.key)

    def order(self, row: WireRow) -> Key | None:
        """Where a row stands in the walk; None where each side has an order of its own."""
        if self.kind.order == ("position",):
            return None
        return tuple(self._value(column, row.get(column)) for column in self.kind.order)

    def at(self, row: WireRow) -> datetime | None:
        value = None if self.kind.at is None else row.get(self.kind.at)
        return None if value is None else _time(value)

    def content(self, row: WireRow) -> Key:
        return tuple(self._value(column, row.get(column)) for column in self.columns)

    def is_same(self, ours: WireRow, theirs: WireRow) -> bool:
        """Whether the target holds what the source holds. It may hold more of a summary."""
        # Nearly always both say it in the same words.
        if any(ours.get(column) != theirs.get(column) for column in self.columns):
            mine, there = self.content(ours), self.content(theirs)
            if mine != there and _numbers_alike(mine) != _numbers_alike(there):
                return False
        if self.kind.name != "daily_summaries":
            return True
        one, whole = ours.get("summary_data"), theirs.get("summary_data")
        if not isinstance(one, Mapping) or not isinstance(whole, Mapping):
            return one == whole
        return all(
            _numbers_alike(whole.get(bot)) == _numbers_alike(part) for bot, part in one.items()
        )

    def is_newer(self, ours: WireRow, theirs: WireRow) -> bool:
        """Whether the target's row, though another, rightly stands against the source's."""
        name = self.kind.name
        if (column := _COUNTS.get(name)) is not None:
            return _sum(theirs.get(column)) > _sum(ours.get(column))
        if not self.kind.is_changing:
            return False
        if name == "outbox" and (ours.get("status") == "queued") != (
            theirs.get("status") == "queued"
        ):
            return ours.get("status") == "queued"
        return self._stamp(theirs, ours) > self._stamp(ours, theirs)

    def _stamp(self, row: WireRow, other: WireRow) -> float:
        if self.kind.name == "incidents":
            return _sum(row.get("version"))
        if "revision" in row and "revision" in other:
            return _sum(row["revision"])
        return revision_of(row)

    def _value(self, column: str, value: object) -> Value:
        if value is None:
            return None
        if _is_time(column):
            at = _time(value)
            return at.replace(microsecond=at.microsecond // 1000 * 1000) if self.is_coarse else at
        if isinstance(value, str):
            return clean(value)
        if self.kind.name == "samples" and (quantum := _QUANTA.get(column)) is not None:
            number = finite(value)
            return None if number is None else round(number / quantum)
        return value


def _numbers_alike(value: object) -> object:
    """PostgreSQL writes 1e300 in JSON as all its three hundred digits, which are read as a whole
    number of its own."""
    if isinstance(value, int) and not -_WHOLE <= value <= _WHOLE:
        return float(value)
    if isinstance(value, Mapping):
        return {key: _numbers_alike(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers_alike(part) for part in value]
    return value


def revision_of(row: WireRow) -> int:
    """What a row without a revision is worth against others: its latest time, in microseconds."""
    times = [_time(value) for column, value in row.items() if value and _is_time(column)]
    return max(((at - EPOCH) // timedelta(microseconds=1) for at in times), default=0)


def _time(text: object) -> datetime:
    """1970 for what somebody else wrote and is no time; no other store will take that row."""
    try:
        return to_time(text)
    except ValueError:
        return EPOCH


def _is_time(column: str) -> bool:
    return column in ("timestamp", "hour", "at") or column.endswith("_at")


def _sum(value: object) -> float:
    if isinstance(value, list):
        return sum(map(_sum, value))
    return finite(value) or 0.0


@dataclass(slots=True)
class Differences:
    """What a comparison found. Keys are those of `Kind.key`, as text."""

    read: int = 0
    """Rows that were read from the source."""
    same: int = 0
    newer: int = 0
    """Rows that stand on the target although the source has others, or none: they are younger."""
    before: int = 0
    """Rows that were on the target before."""
    others: int = 0
    """Rows of other bots on the target."""
    late: int = 0
    """Rows that came to the source while it was read."""
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        return not (self.missing or self.different or self.unexpected)


class Times(NamedTuple):
    """When the transfer was first started, and when this run of it was."""

    started_at: datetime
    run_at: datetime


class Comparison:
    """One walk over one kind. `on_wrong` gets each row that the target lacks or has otherwise."""

    def __init__(
        self,
        meaning: Meaning,
        times: Times,
        *,
        had_rows: bool,
        refused: set[str],
        on_wrong: Callable[[WireRow], Awaitable[None]],
        on_read: Callable[[int], None],
    ) -> None:
        """`had_rows`: whether rows of the kind were on the target before the transfer.

        `refused`: keys of rows that it can never take. `on_read` is told of rows of the source.
        """
        self._meaning = meaning
        self._times = times
        self._had_rows = had_rows
        self._refused = refused
        self._on_wrong = on_wrong
        self._on_read = on_read
        self._bots: set[object] = set()
        self.found = Differences()

    async def walk(self, source: Pages, target: Pages) -> Differences:
        """1. read the side that is behind, 2. pair rows up, 3. judge those left behind."""
        ours, theirs = _Side(source, self._meaning), _Side(target, self._meaning)
        try:
            while not (ours.is_over and theirs.is_over):
                await self._step(ours, theirs)
        finally:
            await ours.close()
            await theirs.close()
        return self.found

    async def _step(self, ours: _Side, theirs: _Side) -> None:
        reads_ours = not ours.is_over and (theirs.is_over or ours.is_behind(theirs))
        side, other = (ours, theirs) if reads_ours else (theirs, ours)
        rows = await side.read()
        if reads_ours:
            self.found.read += len(rows)
            self._on_read(len(rows))
            self._bots.update(row.get("bot_id") for row in rows)
        for row in rows:
            key = self._meaning.key(row)
            if (match := other.waiting.pop(key, None)) is None:
                side.waiting[key] = row
            elif reads_ours:
                await self._compare(row, match)
            else:
                await self._compare(match, row)
        for left in ours.given_up(theirs):
            await self._lacking(left)
        for left in theirs.given_up(ours):
            self._extra(left)

    async def _compare(self, ours: WireRow, theirs: WireRow) -> None:
        if self._meaning.is_same(ours, theirs):
            self.found.same += 1
        elif self._meaning.is_newer(ours, theirs):
            self.found.newer += 1
        else:
            self.found.different.append(key_text(self._meaning.kind, ours))
            await self._on_wrong(ours)

    async def _lacking(self, row: WireRow) -> None:
        key = key_text(self._meaning.kind, row)
        at = self._meaning.at(row)
        if key in self._refused:
            return
        if at is not None and at >= self._times.run_at:
            self.found.late += 1
        else:
            self.found.missing.append(key)
            await self._on_wrong(row)

    def _extra(self, row: WireRow) -> None:
        if self._bots and row.get("bot_id") not in self._bots:
            self.found.others += 1
        elif self._is_young(row):
            self.found.newer += 1
        elif self._had_rows:
            self.found.before += 1
        else:
            self.found.unexpected.append(key_text(self._meaning.kind, row))

    def _is_young(self, row: WireRow) -> bool:
        at = self._meaning.at(row)
        if at is not None and at >= self._times.started_at:
            return True
        if self._meaning.kind.is_changing:
            started = (self._times.started_at - EPOCH) // timedelta(microseconds=1)
            return max(_sum(row.get("revision")), revision_of(row)) >= started
        return self._meaning.kind.at is None


def key_text(kind: Kind, row: WireRow) -> str:
    """A row's key for people and files; never anything else of the row."""
    return " ".join(str(row.get(column)) for column in kind.key)


class _Side:
    """One side of the walk: the rows read and not paired up yet, in its order."""

    def __init__(self, pages: Pages, meaning: Meaning) -> None:
        self._pages = pages
        self._meaning = meaning
        self._ahead: asyncio.Task[RowPage] | None = None
        self._last: Key | None = None
        self._pages_read = 0
        self.waiting: dict[Key, WireRow] = {}
        self.is_over = False

    async def read(self) -> list[dict[str, object]]:
        """The next page; the one after that is fetched meanwhile."""
        page = await (self._ahead or self._pages(None))
        self.is_over = page.next is None
        self._pages_read += 1
        self._ahead = None if self.is_over else asyncio.create_task(self._fetch(page.next))
        if page.rows:
            self._last = self._meaning.order(page.rows[-1])
        return page.rows

    async def _fetch(self, cursor: Cursor | None) -> RowPage:
        return await self._pages(cursor)

    async def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    def is_behind(self, other: _Side) -> bool:
        """Without a common order both go on at one pace: mostly it is much the same order."""
        if self._meaning.order({}) is None:
            return self._pages_read <= other._pages_read
        if self._last is None:
            return True
        if other._last is None:
            return False
        return self._last <= other._last

    def given_up(self, other: _Side) -> list[WireRow]:
        """Rows for which the other side has nothing any more."""
        if other.is_over:
            found = list(self.waiting.values())
            self.waiting.clear()
            return found
        if other._last is None:
            return []
        bound = tuple(
            value - _SLACK if isinstance(value, datetime) else value for value in other._last
        )
        found = []
        for key, row in list(self.waiting.items()):
            if not self._meaning.order(row) < bound:  # type: ignore[operator]
                break
            found.append(row)
            del self.waiting[key]
        return found
