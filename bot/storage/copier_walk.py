"""Carries what is there already: the history of a file that is copied for the first time, and
everything again when the remote store has lost what it was given.

Where the walk has come to stands in the file, so that it goes on after a kill. Rows that change
bear the position at which the walk began: whatever the journal says of them later wins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from bot.storage.copier_link import (
    BATCH_BYTES,
    BATCH_ROWS,
    Link,
    Refused,
    key_of,
    slim,
    weigh,
)
from bot.storage.kinds import BY_NAME, KINDS
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_journal import micros
from bot.storage.sqlite_rows import exact_time, to_time

DONE: Final = "done"
WISHES_KEPT: Final = timedelta(days=400)
_NAMES: Final = tuple(kind.name for kind in KINDS)
_EARLY: Final = _NAMES[: _NAMES.index("outbox") + 1]


@dataclass(slots=True)
class Way:
    """Where a walk stands. `since` leaves out older rows that never change; `is_strict` takes
    settings off the remote store that are not here."""

    base: int
    kind: str = _NAMES[0]
    cursor: list[object] | None = None
    since: str | None = None
    is_strict: bool = False
    is_wished: bool = False


class Walk:
    """One page per step."""

    def __init__(self, local: SqliteStore, link: Link, now: Callable[[], datetime]) -> None:
        self._local = local
        self._link = link
        self._now = now
        self._limit = BATCH_ROWS
        self.copied = 0

    async def again(self, since: datetime | None) -> None:
        """Walk (from the start, if a walk is on) through all that changes and what is newer."""
        way = await self._new(is_strict=True)
        running = (await self._local.copy_state()).get("walk")
        if since is not None and running == DONE:
            way.since = exact_time(since)
        await self._keep(way)

    async def step(self, *, only_early: bool = False) -> bool:
        """Carry one page; False when there is nothing to walk for. Raises Away.

        `only_early`: settings and alerting alone. They go before the journal, so that what waits
        to be told is told in the same order over there; history may come after it.
        """
        state = await self._local.copy_state()
        text = state.get("walk")
        if text == DONE:
            return False
        if text is None:
            await self._keep(await self._new(is_strict="walked" in state))
            return True
        way = Way(**json.loads(str(text)))
        if only_early and way.kind not in _EARLY:
            return False
        if not way.is_wished:
            await self._repeat_wishes()
            way.is_wished = True
            await self._keep(way)
            return True
        return await self._carry(way)

    async def _new(self, *, is_strict: bool) -> Way:
        base = await self._local.raise_clock(micros(self._now()))
        self._limit = BATCH_ROWS
        return Way(base, is_strict=is_strict)

    async def _keep(self, way: Way) -> None:
        await self._local.put_copy_state(walk=json.dumps(asdict(way)))

    async def _repeat_wishes(self) -> None:
        """Whoever asked to be forgotten is forgotten in what a backup brought back, too."""
        await self._local.forget_wishes(self._now() - WISHES_KEPT)
        if wishes := await self._local.wishes():
            await self._link.ask(self._link.remote.import_rows("member_removed", wishes))

    async def _carry(self, way: Way) -> bool:
        kind = BY_NAME[way.kind]
        since = None if way.since is None or kind.is_changing else to_time(way.since)
        page = await self._local.export_rows(way.kind, way.cursor, self._limit, since_at=since)
        if (weight := sum(map(weigh, page.rows))) > BATCH_BYTES and len(page.rows) > 1:
            self._limit = max(1, min(len(page.rows) - 1, self._limit * BATCH_BYTES // weight))
            return True
        if kind.is_changing:
            for row in page.rows:
                row["revision"] = way.base
        if page.rows:
            try:
                rows = slim(way.kind, page.rows)
                await self._link.give(self._link.remote.import_rows(way.kind, rows))
            except Refused as refusal:
                if len(page.rows) > 1:
                    self._limit = max(1, len(page.rows) // 2)
                    return True
                await self._local.refuse(None, way.kind, page.rows[0], str(refusal.error))
            else:
                self.copied += len(page.rows)
        way.cursor = page.next
        if page.next is None:
            await self._end_kind(way)
            return True
        await self._keep(way)
        return True

    async def _end_kind(self, way: Way) -> None:
        if way.kind == "states" or (way.kind == "guild_configs" and way.is_strict):
            await self.remove_strays(way.kind)
        self._limit = BATCH_ROWS
        place = _NAMES.index(way.kind) + 1
        if place == len(_NAMES):
            await self._local.put_copy_state(walk=DONE, walked=1)
            return
        way.kind, way.cursor = _NAMES[place], None
        await self._keep(way)

    async def remove_strays(self, kind: str) -> None:
        """Take away, over there, what is not here any more."""
        here = {key_of(kind, row) for row in await self._all_here(kind)}
        strays = [row for row in await self._link.all(kind) if key_of(kind, row) not in here]
        columns = ("bot_id", *(c for c in BY_NAME[kind].key if c != "bot_id"))
        removed = [{column: row.get(column) for column in columns} for row in strays]
        for start in range(0, len(removed), BATCH_ROWS):
            part = removed[start : start + BATCH_ROWS]
            await self._link.ask(self._link.remote.import_rows(f"{kind}_removed", part))

    async def _all_here(self, kind: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        cursor: list[object] | None = None
        while True:
            page = await self._local.export_rows(kind, cursor, BATCH_ROWS)
            found += page.rows
            if (cursor := page.next) is None:
                return found
