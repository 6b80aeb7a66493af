"""Gives an empty file back what the remote store remembers of its bot.

Before anything runs: settings, monitors, alerting as it stood, and the last day. The rest of the
history follows while the bot works, the newest first. When the remote was away at that moment,
the bot has begun a new life: only what does not clash with that is fetched then, and whoever
works with it is told (`Fill.on_late`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from bot.core.incident import GuildConfig, OutboxStatus
from bot.storage.copier_link import BATCH_ROWS, Link, key_of
from bot.storage.copier_walk import DONE, Walk
from bot.storage.kinds import BY_NAME, WireRow
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_rows import exact_time, to_time
from bot.storage.store import AlertingState, StoreError

logger = logging.getLogger(__name__)

WANTED: Final = "wanted"
DAY: Final = timedelta(hours=24)
WINDOW: Final = timedelta(days=7)
"""History comes in such pieces, the newest first."""

TakeUp: TypeAlias = Callable[[Sequence[GuildConfig], AlertingState], Awaitable[None]]
"""Gets all settings, and what an earlier life of this bot left unfinished. May come twice."""

_Key: TypeAlias = tuple[object, ...]
_SETTINGS: Final = ("guild_configs", "monitors", "rosters")
_ALERTING: Final = ("incidents", "cards", "outbox")
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
        self.on_late: TakeUp | None = None

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
        oldest = _oldest(await self._link.ask(self._link.remote.load_alerting()), since)
        groups = [
            (kind, await self._link.all(kind, oldest.get(kind)))
            for kind in (*_SETTINGS, "incidents", "states", "cards", "outbox")
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

        What it did not know is taken over, but for how alerts stood: that it has seen itself.
        What the old life left open is for whoever alerts to end.
        """
        if (await self._local.copy_state()).get("fill") != WANTED:
            return
        left = await self._link.ask(self._link.remote.load_alerting())
        oldest = _oldest(left, self._now() - DAY)
        here = {
            kind: {key_of(kind, row): row for row in await self._here(kind)}
            for kind in (*_SETTINGS, *_ALERTING)
        }
        groups = [
            (kind, [r for r in await self._link.all(kind, since) if key_of(kind, r) not in known])
            for kind, known in here.items()
            for since in (oldest.get(kind),)
        ]
        await self._local.take_rows(groups)
        await self._walk.remove_strays("states")
        if self.on_late is not None:
            await self.on_late(await self._local.guild_configs(), _unfinished(left, here))
        await self._local.put_copy_state(fill=_text(_Way()))
        logger.warning("the remote store was away at the start; settings and history follow now")

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


def _oldest(alerting: AlertingState, since: datetime) -> dict[str, datetime]:
    """From when on rows must be fetched so that nothing unfinished is left out."""
    return {
        "incidents": min([since, *(one.fired_at for one in alerting.incidents)]),
        "cards": min([since, *(card.opened_at for card in alerting.cards)]),
        "outbox": min([since, *(item.created_at for item in alerting.outbox)]),
    }


def _unfinished(left: AlertingState, here: Mapping[str, Mapping[_Key, WireRow]]) -> AlertingState:
    """Without what has been finished here since: the remote store does not know of that yet."""
    incidents, cards, outbox = (here[kind] for kind in _ALERTING)
    queued = OutboxStatus.QUEUED.value

    def row(known: Mapping[_Key, WireRow], one: UUID) -> WireRow:
        return known.get((str(one),), {})

    return AlertingState(
        states=[],
        incidents=[i for i in left.incidents if not row(incidents, i.incident_id).get("resolved")],
        cards=[c for c in left.cards if row(cards, c.card_id).get("closed_at") is None],
        outbox=[o for o in left.outbox if row(outbox, o.outbox_id).get("status", queued) == queued],
    )


def _is_windowed(kind: str) -> bool:
    """Whether its pages come by time, so that a window can be read from its start."""
    return BY_NAME[kind].at is not None and BY_NAME[kind].order[0] == BY_NAME[kind].at


def _after(way: _Way) -> _Way | None:
    place = _HISTORY.index(way.kind) + 1
    return None if place == len(_HISTORY) else _Way(_HISTORY[place])


def _text(way: _Way) -> str:
    return json.dumps(asdict(way))
