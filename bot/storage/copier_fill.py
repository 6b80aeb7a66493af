"""Gives an empty file back what the remote store remembers of its bot.

Before anything runs: settings, monitors, alerting as it stood, and the last day. The rest of the
history follows while the bot works, the newest first. When the remote was away at that moment,
the bot has begun a new life: only what does not clash with that is fetched then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from bot.core.alert import Ending
from bot.core.incident import OutboxStatus
from bot.storage.copier_link import BATCH_ROWS, Link, key_of
from bot.storage.copier_walk import DONE, Walk
from bot.storage.kinds import BY_NAME
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_journal import micros
from bot.storage.sqlite_rows import exact_time, finite, to_time
from bot.storage.store import StoreError

logger = logging.getLogger(__name__)

WANTED: Final = "wanted"
DAY: Final = timedelta(hours=24)
WINDOW: Final = timedelta(days=7)
"""History comes in such pieces, the newest first."""

_RECENT: Final = (
    "flips",
    "changes",
    "polls",
    "service_hours",
    "metrics_hourly",
    "samples",
    "metrics",
)
_HISTORY: Final = (
    "incidents",
    "flips",
    "changes",
    "metrics_hourly",
    "service_hours",
    "samples",
    "metrics",
    "polls",
    "daily_summaries",
    "metrics_raw",
    "conversations",
    "music",
    "bot_logs",
)


@dataclass(slots=True)
class _Way:
    """Where fetching history stands: the window [start, end) of a kind, and the page in it."""

    kind: str = _HISTORY[0]
    cursor: list[object] | None = None
    start: str | None = None
    end: str | None = None
    oldest: str | None = None


class Fill:
    """From the remote store into the local one; nothing of it is copied back."""

    def __init__(
        self, local: SqliteStore, link: Link, walk: Walk, now: Callable[[], datetime]
    ) -> None:
        self._local = local
        self._link = link
        self._walk = walk
        self._now = now
        self._skipped = 0

    async def is_wanted(self) -> bool:
        """Whether the file is empty and has not been filled yet; remembered in the file."""
        state = (await self._local.copy_state()).get("fill")
        if state is None:
            state = WANTED if await self._local.is_empty() else DONE
            await self._local.put_copy_state(fill=state)
        return state == WANTED and await self._local.is_empty()

    async def first(self) -> None:
        """What the bot must know before it decides anything, in one step; then the last day."""
        since = self._now() - DAY
        alerting = await self._link.ask(self._link.remote.load_alerting())
        oldest = {
            "incidents": min([since, *(one.fired_at for one in alerting.incidents)]),
            "cards": min([since, *(card.opened_at for card in alerting.cards)]),
            "outbox": min([since, *(item.created_at for item in alerting.outbox)]),
        }
        groups = [
            (kind, await self._link.all(kind, oldest.get(kind)))
            for kind in (
                "guild_configs",
                "monitors",
                "rosters",
                "incidents",
                "states",
                "cards",
                "outbox",
            )
        ]
        await self._local.take_rows(groups, fill=_text(_Way()), walk=DONE)
        for kind in _RECENT:
            cursor: list[object] | None = None
            while True:
                page = await self._link.page(kind, cursor, BATCH_ROWS, since)
                await self._take(kind, page.rows)
                if (cursor := page.next) is None:
                    break
        taken = sum(len(rows) for _, rows in groups)
        if taken:
            logger.info("filled from the remote store: %d settings, monitors and alerts", taken)

    async def late(self) -> None:
        """The remote is here at last, but the bot has begun a new life without it.

        Settings and monitors it did not know are taken over. What the old life left open over
        there is closed: nobody watches it any more.
        """
        if (await self._local.copy_state()).get("fill") != WANTED:
            return
        base = await self._local.raise_clock(micros(self._now()))
        groups = []
        for kind in ("guild_configs", "monitors", "rosters"):
            here = {key_of(kind, row) for row in await self._here(kind)}
            rows = [r for r in await self._link.all(kind) if key_of(kind, r) not in here]
            groups.append((kind, rows))
        await self._bury(base)
        await self._local.take_rows(groups, fill=_text(_Way()))
        logger.warning("the remote store was away at the start; settings and history follow now")

    async def _bury(self, base: int) -> None:
        remote = self._link.remote
        left = await self._link.ask(remote.load_alerting())
        at = exact_time(self._now())
        endings: dict[str, dict[str, object]] = {
            "incidents": {"resolved": True, "resolved_at": at, "ending": Ending.RETIRED.value},
            "cards": {"closed_at": at},
            "outbox": {"status": OutboxStatus.DROPPED.value, "last_error": "another life"},
        }
        is_open: dict[str, Callable[[dict[str, object]], bool]] = {
            "incidents": lambda row: not row["resolved"],
            "cards": lambda row: row["closed_at"] is None,
            "outbox": lambda row: row["status"] == OutboxStatus.QUEUED.value,
        }
        oldest = {
            "incidents": [one.fired_at for one in left.incidents],
            "cards": [card.opened_at for card in left.cards],
            "outbox": [item.created_at for item in left.outbox],
        }
        for kind, ending in endings.items():
            if not oldest[kind]:
                continue
            here = {key_of(kind, row) for row in await self._here(kind)}
            rows = [
                {**row, **ending, "revision": base}
                for row in await self._link.all(kind, min(oldest[kind]))
                if is_open[kind](row) and key_of(kind, row) not in here
            ]
            for row in rows:
                if kind == "incidents":
                    row["version"] = int(finite(row.get("version")) or 0) + 1
            for start in range(0, len(rows), BATCH_ROWS):
                part = rows[start : start + BATCH_ROWS]
                await self._link.ask(remote.import_rows(kind, part))
        await self._walk.remove_strays("states")

    async def step(self) -> bool:
        """Fetch one page of history; False when there is no more. Raises Away."""
        text = (await self._local.copy_state()).get("fill")
        if text in (None, DONE, WANTED):
            return False
        way = _Way(**json.loads(str(text)))
        if _is_windowed(way.kind):
            await self._fetch_window(way)
        else:
            page = await self._link.page(way.kind, way.cursor, BATCH_ROWS)
            way.cursor = page.next
            await self._take(way.kind, page.rows, way if page.next else _after(way))
        return True

    async def _fetch_window(self, way: _Way) -> None:
        """A page of the window; behind its last one, the window before."""
        kind = BY_NAME[way.kind]
        assert kind.at is not None
        if way.oldest is None:
            first = (await self._link.page(way.kind, None, 1)).rows
            if not first:
                await self._take(way.kind, [], _after(way))
                return
            now = self._now()
            way.oldest = str(first[0][kind.at])
            # Clocks differ: nothing is newer than an hour from now.
            way.start, way.end = exact_time(now - WINDOW), exact_time(now + DAY)
        assert way.start is not None and way.end is not None
        start, end = to_time(way.start), to_time(way.end)
        page = await self._link.page(way.kind, way.cursor, BATCH_ROWS, start)
        rows = [row for row in page.rows if to_time(row[kind.at]) < end]
        way.cursor = page.next
        if page.next is None or len(rows) < len(page.rows):
            way.cursor, way.end, way.start = None, way.start, exact_time(start - WINDOW)
            if start <= to_time(way.oldest):
                await self._take(way.kind, rows, _after(way))
                return
        await self._take(way.kind, rows, way)

    async def _take(
        self, kind: str, rows: Sequence[dict[str, object]], way: _Way | str | None = ""
    ) -> None:
        """Rows into the file, with how far that has come; one that cannot be is left behind."""
        state = {} if isinstance(way, str) else {"fill": DONE if way is None else _text(way)}
        try:
            await self._local.take_rows([(kind, rows)], **state)
            return
        except StoreError as error:
            if error.retriable:
                raise
        for row in rows:
            try:
                await self._local.take_rows([(kind, [row])])
            except StoreError as error:
                if error.retriable:
                    raise
                self._skipped += 1
                logger.error("a row of %s does not come back: %s", kind, error)
        await self._local.take_rows([], **state)

    async def _here(self, kind: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        cursor: list[object] | None = None
        while True:
            page = await self._local.export_rows(kind, cursor, BATCH_ROWS)
            found += page.rows
            if (cursor := page.next) is None:
                return found


def _is_windowed(kind: str) -> bool:
    """Whether its pages come by time, so that a window can be read from its start."""
    return BY_NAME[kind].at is not None and BY_NAME[kind].order[0] == BY_NAME[kind].at


def _after(way: _Way) -> _Way | None:
    place = _HISTORY.index(way.kind) + 1
    return None if place == len(_HISTORY) else _Way(_HISTORY[place])


def _text(way: _Way) -> str:
    return json.dumps(asdict(way))
