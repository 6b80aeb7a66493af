"""Carries local facts to the remote store, in order and exactly once.

The process works on its own file; the journal in that file says what the remote store has not
got yet. Nothing here is ever in the way of the bot: while the remote is away, facts wait on disk.

A batch goes like this:
1. read the oldest facts of the journal,
2. `copy` them, up to the last position, in one transaction over there,
3. strike them out here.
A kill between 2 and 3 is healed by the position that the remote keeps for this file's stream, and
a remote that lacks what it had gives itself away by the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from bot.core.copying import Copying, CopyPhase
from bot.storage.copier_fill import Fill, TakeUp
from bot.storage.copier_link import BATCH_ROWS, Away, Link, Refused, fitting, slim
from bot.storage.copier_walk import DONE, Walk
from bot.storage.kinds import FactGroup
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_journal import NOTE_BYTES, JournalSize, Noted, time_of
from bot.storage.sqlite_rows import exact_time
from bot.storage.store import RemoteState, RemoteStore, StoreError

logger = logging.getLogger(__name__)

FILL_PATIENCE_S: Final = 30.0
"""How long a start with an empty disk waits for the remote store."""
WORK_S: Final = 6.0
"""How long one tick works at most before it lets its caller see that it is alive."""
LOOK_S: Final = 60.0
"""How often the remote is asked how far it is, besides after every trouble."""
RETRY_MAX_S: Final = 60.0
NEEDS_SOMEBODY: Final = frozenset(("key", "rights", "schema"))
"""Reasons that do not go away by themselves: everything is kept, and the remote left in peace."""
HICCUP_S: Final = 10.0
"""Shorter absences are nobody's concern: what was lost is asked again."""
MAX_ROWS: Final = 1_000_000
MAX_BYTES: Final = 256 * 1024 * 1024
"""What may wait; beyond, the oldest samples and polls are given up, never alerts or settings."""
GIVE_UP_ROWS: Final = 2000
GIVE_UP_SLICES: Final = 20
STEP_BACK: Final = timedelta(days=2)
"""How much earlier a walk begins than it seems it must: clocks step, and positions run ahead."""


class Copier:
    """Copies one bot's file. Call `fill` before anything else runs, then `tick` on a beat.

    The journal must have been started. No method raises on account of a store.
    """

    def __init__(
        self,
        local: SqliteStore,
        remote: RemoteStore,
        bot_id: str,
        now: Callable[[], datetime],
        rng: random.Random | None = None,
        *,
        backend: str = "postgresql",
    ) -> None:
        """`backend` is what people call the remote store."""
        self._backend = backend
        self._local = local
        self._remote = remote
        self._now = now
        self._rng = rng or random.Random()
        self._link = Link(remote, bot_id)
        self._walk = Walk(local, self._link, now)
        self._fill = Fill(local, self._link, self._walk, now)
        self._stream: UUID | None = None
        self._told = 0
        self._own_streams: set[UUID] = set()
        self._other: tuple[UUID | None, datetime | None] | None = None
        self._is_other_said = False
        self._looked_s: float | None = None
        self._limit = BATCH_ROWS
        self._rosters: set[str] = set()
        self._away_since_s: float | None = None
        self._attempts = 0
        self._next_try_s = 0.0
        self._reason: str | None = None
        self._said_reason: str | None = None
        self._said: set[str] = set()
        self._size = JournalSize(0, 0, None)
        self._sized_s = float("-inf")
        self._counts: dict[str, object] = {}
        self._last_copied_at: datetime | None = None

    def tell_late(self, take_up: TakeUp) -> None:
        """Call this when what the remote remembers comes only after the start."""
        self._fill.on_late = take_up

    # What people are told

    @property
    def status(self) -> Copying:
        since_s = self._away_since_s
        away_s = 0.0 if since_s is None else time.monotonic() - since_s
        age_s = None
        if self._size.depth and self._size.oldest is not None:
            age_s = max(0.0, (self._now() - time_of(self._size.oldest)).total_seconds())
        return Copying(
            backend=self._backend,
            depth=self._size.depth,
            waiting_bytes=self._size.bytes,
            oldest_age_s=age_s,
            away_s=away_s,
            reason=self._reason,
            refused=self._count("refused"),
            given_up=self._count("given_up"),
            copied_total=self._count("copied"),
            last_copied_at=self._last_copied_at,
            phase=self._phase(),
        )

    def _phase(self) -> CopyPhase:
        if self._counts.get("fill") not in (None, DONE):
            return CopyPhase.FILLING
        is_behind = self._counts.get("walk") != DONE or self._size.depth > BATCH_ROWS
        return CopyPhase.CATCHING_UP if is_behind else CopyPhase.COPYING

    def _count(self, name: str) -> int:
        return int(str(self._counts.get(name, 0)))

    # Before anything else runs

    async def fill(self, patience_s: float = FILL_PATIENCE_S) -> bool:
        """Give an empty file what the remote store remembers of this bot; True when all is well.

        A remote that stays away for `patience_s`, or that somebody has to see to, is not waited
        for: what does not clash by then is fetched when it is back.
        """
        try:
            async with asyncio.timeout(patience_s):
                while await self._fill.is_wanted():
                    try:
                        await self._meet()
                        await self._fill.first()
                    except Away as trouble:
                        self._note_away(trouble.error)
                        if trouble.error.reason in NEEDS_SOMEBODY:
                            # Half a minute will not mend a wrong key.
                            raise TimeoutError from trouble
                        await asyncio.sleep(max(0.0, self._next_try_s - time.monotonic()))
        except TimeoutError:
            logger.warning("the remote store stays away; starting with an empty memory")
            return False
        except StoreError as error:
            logger.error("cannot fill from the remote store: %s", error)
            return False
        except Exception as error:
            self._say_once(f"filling failed unexpectedly: {type(error).__name__}", error)
            return False
        finally:
            await self._measure(is_due=True)
        return True

    # On a beat

    async def tick(self) -> None:
        """Carry what waits, for some seconds at most. Returns at once while there is nothing
        to do, or nothing can be done."""
        if time.monotonic() >= self._next_try_s:
            try:
                await self._work(time.monotonic() + WORK_S)
            except Away as trouble:
                self._note_away(trouble.error)
            except StoreError as error:
                # Our own file: whoever writes to it says so, too.
                self._say_once(f"the journal cannot be read or written: {error}")
            except Exception as error:
                self._next_try_s = time.monotonic() + LOOK_S
                self._say_once(f"copying failed unexpectedly: {type(error).__name__}", error)
        await self._measure()

    async def _work(self, until_s: float) -> None:
        if self._looked_s is None or time.monotonic() - self._looked_s >= LOOK_S:
            await self._meet()
            await self._fill.late()
        while (
            await self._walk.step(only_early=True)
            or await self._copy()
            or await self._walk.step()
            or await self._fill.step()
        ):
            if time.monotonic() >= until_s:
                return
            await asyncio.sleep(0)

    async def _meet(self) -> None:
        """Compare notes: how far is the remote, and how far did it say it was?"""
        await self._link.ask(self._remote.open())
        state = await self._local.copy_state()
        stream = UUID(str(state["stream"]))
        if stream != self._stream:
            self._stream = stream
            self._own_streams.add(stream)
        there = await self._link.ask(self._remote.remote_state(stream))
        told = self._told = int(str(state.get("told", 0)))
        # First: what may have to be sent again must win against all that is there.
        await self._local.raise_clock(max(there.position, there.highest_position))
        if there.position > told:
            # Ours, if the answer to our last batch was lost; then the journal knows it.
            if await self._local.journal_arrived(there.position):
                self._told = there.position
            else:
                await self._new_stream()
        elif there.position < told:
            await self._start_over(there.position)
        self._look_for_others(there)
        self._looked_s = time.monotonic()
        self._note_back()

    async def _new_stream(self) -> None:
        """Somebody else went on with our stream: a copy of this file, or this file before it was
        restored. Two must never share one, or each would skip what the other has sent."""
        logger.warning("another copy of this file was copied from; going on under a new name")
        await self._walk.again(self._now())
        self._stream = uuid4()
        self._own_streams.add(self._stream)
        await self._local.put_copy_state(stream=str(self._stream), told=None)
        self._told = 0

    async def _start_over(self, position: int) -> None:
        """The remote has forgotten: it was restored from a backup, or is another one."""
        since = time_of(position) - STEP_BACK if position else None
        logger.warning(
            "the remote store lacks what it had; sending everything since %s again",
            "ever" if since is None else exact_time(since)[:19],
        )
        await self._walk.again(since)
        await self._local.put_copy_state(told=position)
        self._told = position

    def _look_for_others(self, there: RemoteState) -> None:
        """Whoever moves on between two looks of ours is alive, whatever the clocks say."""
        other = (there.last_stream, there.last_at)
        moved = self._other is not None and other != self._other
        self._other = other
        if not moved or there.last_stream is None or there.last_stream in self._own_streams:
            return
        if not self._is_other_said:
            self._is_other_said = True
            logger.warning(
                "another process with the same BOT_ID (%s) copies to the same database; "
                "give each its own",
                self._link.bot_id,
            )

    async def _copy(self) -> bool:
        """One batch; False when nothing waits."""
        page = await self._local.journal_page(self._limit)
        if not page:
            return False
        fits = fitting(noted.row for noted in page)
        limit = fits + fits // 4 if fits < len(page) else self._limit * 2
        page = page[:fits]
        last = page[-1].position
        present = sum(noted.row is not None for noted in page)
        if not present:
            await self._local.journal_done(last, given_up=len(page))
            return True
        assert self._stream is not None
        groups, rosters = await self._groups(page)
        try:
            call = self._remote.copy(self._stream, self._told, last, groups)
            reached = await self._link.give(call)
        except Refused as refusal:
            await self._set_aside(page, refusal.error)
            return True
        except Away:
            # It may be too slow for so much at once.
            self._limit = max(1, len(page) // 2)
            raise
        if reached != last:
            if reached > last:
                await self._new_stream()
                self._looked_s = None
            else:
                await self._start_over(reached)
            return True
        self._told = last
        await self._local.journal_done(
            last, copied=present, given_up=len(page) - present, is_told=True
        )
        self._rosters |= rosters
        self._limit = min(BATCH_ROWS, limit)
        self._last_copied_at = self._now()
        self._size = JournalSize(max(0, self._size.depth - len(page)), self._size.bytes, last)
        self._sized_s = min(self._sized_s, time.monotonic() - 8.0)
        return True

    async def _set_aside(self, page: Sequence[Noted], error: StoreError) -> None:
        """Halve the batch until the one row that is never taken stands alone."""
        if len(page) > 1:
            self._limit = max(1, len(page) // 2)
            return
        position, kind, row = page[0]
        assert row is not None
        self._say_once(f"the remote store refuses a row of {kind} for good: {error}")
        await self._local.refuse(position, kind, row, str(error))

    async def _groups(self, page: Sequence[Noted]) -> tuple[list[FactGroup], set[str]]:
        """Facts by kind, each in order; before them the rosters that polls among them need."""
        groups: list[FactGroup] = []
        rosters: set[str] = set()
        for _, kind, row in page:
            if row is None:
                continue
            if "roster_id" in row:
                rosters.add(str(row["roster_id"]))
            if not groups or groups[-1].kind != kind:
                groups.append(FactGroup(kind, []))
            groups[-1].rows.append(row)
        missing = sorted(rosters - self._rosters)
        if missing:
            groups.insert(0, FactGroup("rosters", await self._local.rows_of("rosters", missing)))
        return [FactGroup(kind, slim(kind, rows)) for kind, rows in groups], rosters

    # How it goes

    def _note_away(self, error: StoreError) -> None:
        now_s = time.monotonic()
        self._looked_s = None
        self._rosters.clear()
        if self._away_since_s is None:
            self._away_since_s = now_s
        self._reason = error.reason
        needs_somebody = error.reason in NEEDS_SOMEBODY
        is_worth_it = needs_somebody or now_s - self._away_since_s >= HICCUP_S
        if is_worth_it and self._said_reason != error.reason:
            self._said_reason = error.reason
            logger.warning("the remote store cannot be had (%s); what is new waits here", error)
        delay_s = RETRY_MAX_S
        if not needs_somebody:
            delay_s = self._rng.uniform(0.0, min(RETRY_MAX_S, 2.0**self._attempts))
        self._attempts = min(10, self._attempts + 1)
        self._next_try_s = now_s + delay_s

    def _note_back(self) -> None:
        if self._said_reason is not None and self._away_since_s is not None:
            away_s = time.monotonic() - self._away_since_s
            logger.warning("the remote store is back after %.0f s", away_s)
        self._away_since_s = self._reason = self._said_reason = None
        self._attempts = 0

    def _say_once(self, text: str, error: Exception | None = None) -> None:
        if text not in self._said:
            if len(self._said) > 100:
                self._said.clear()
            self._said.add(text)
            logger.error("%s", text, exc_info=error)

    async def _measure(self, *, is_due: bool = False) -> None:
        """How much waits; too much is made less. Counting a great deal is done seldom."""
        now_s = time.monotonic()
        if not is_due and now_s - self._sized_s < min(600.0, max(10.0, self._size.depth / 2000)):
            return
        try:
            self._size = await self._local.journal_size()
            await self._make_room()
            self._counts = await self._local.copy_state()
        except StoreError as error:
            self._say_once(f"the journal cannot be read or written: {error}")
        self._sized_s = now_s

    async def _make_room(self) -> None:
        for _ in range(GIVE_UP_SLICES):
            if self._size.depth <= MAX_ROWS and self._size.bytes <= MAX_BYTES:
                return
            gone = await self._local.journal_give_up(GIVE_UP_ROWS)
            if not gone:
                return
            self._say_once("too much waits for the remote store; the oldest samples are given up")
            self._size = replace(
                self._size,
                depth=self._size.depth - gone,
                bytes=self._size.bytes - gone * NOTE_BYTES,
            )
