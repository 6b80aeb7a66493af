"""What other cogs report: conversations, songs, numbers. Checked, bounded, then remembered.

Other cogs are other people's code: whatever they send, they get no exception back and the bot
stays well. What is not kept is counted and said in the log, at most once a minute per reason.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

from bot.core import report
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import Conversation, Song, Store

logger = logging.getLogger(__name__)

Mode: TypeAlias = Literal["full", "metadata", "off"]
Kind: TypeAlias = Literal["conversations", "music", "metrics"]
Labels: TypeAlias = tuple[tuple[str, str], ...]
Write: TypeAlias = Callable[[Store], Awaitable[None]]

RATES: Final[dict[Kind, tuple[float, float]]] = {
    "conversations": (10.0, 200.0),
    "music": (10.0, 200.0),
    "metrics": (50.0, 500.0),
}
"""(kept per second for as long as it takes, kept at once)."""

NAMES_LIMIT: Final = 500
"""Different metric names per process; each is a row, a series and a line of `/metrics`."""

SERIES_LIMIT: Final = 1_000
"""Series remembered with their newest value; the one not heard of for longest goes first."""

HELD_BYTES: Final = 8 * 1024 * 1024
"""Reports in memory while the store is slow or away, texts included."""

ROW_BYTES: Final = 1_000
SAY_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept, and for how many days.

    `metadata` keeps of a conversation when it was and whose (id and name), both texts empty; of
    a song when, where and its title, but nobody's name or id. `off` keeps nothing.
    """

    conversation_mode: Mode = "full"
    music_mode: Mode = "full"
    conversation_days: int = 90
    music_days: int = 90


@dataclass(slots=True)
class Tally:
    """Since the start. `refused` made no sense, `flooded` came too fast or were too much."""

    kept: int = 0
    refused: int = 0
    flooded: int = 0


class Newest(NamedTuple):
    value: float
    at: datetime


class Activity:
    """The one door for other cogs, as `bot.comet` or through events (see `cogs/activity.py`).

    Every `report_…` returns True once the report is with the recorder (on disk, or in its
    bounded memory while the disk refuses), and False when it is not kept. None raises.
    """

    def __init__(
        self,
        recorder: Recorder,
        keeping: Keeping,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keeping = keeping
        self.tallies: dict[Kind, Tally] = {kind: Tally() for kind in RATES}
        self.latest: dict[tuple[str, Labels], Newest] = {}
        """The newest value of each series, the one heard of last at the end."""
        self._recorder = recorder
        self._now = now
        self._new_id = new_id
        self._buckets = {kind: _Bucket(*rate, monotonic) for kind, rate in RATES.items()}
        self._complaints = _Complaints(monotonic)
        self._names: set[str] = set()
        self._held_bytes = 0

    async def report_conversation(
        self,
        user_id: object = None,
        user_name: object = None,
        prompt: object = None,
        response: object = None,
        timestamp: object = None,
        **others: object,
    ) -> bool:
        """A question and its answer. Texts beyond 20,000 characters are cut, and marked so.

        `user_id`: number, text or a discord user; `user_name` may then be left out.
        `timestamp`: now if left out. Fields of other names are not looked at.
        """
        mode = self.keeping.conversation_mode
        if mode == "off":
            return False

        def make() -> tuple[Write, int]:
            whole = mode == "full"
            said = report.text("prompt", prompt), report.text("response", response)
            conversation = Conversation(
                conversation_id=self._new_id(),
                user_id=report.snowflake("user_id", user_id),
                user_name=report.name("user_name", user_name, user_id),
                prompt=said[0] if whole else "",
                response=said[1] if whole else "",
                at=report.moment(timestamp, self._now()),
            )

            async def write(store: Store) -> None:
                await store.save_conversation(conversation)

            return write, _size(conversation.prompt, conversation.response)

        return await self._keep("conversations", make)

    async def report_song(
        self,
        guild_id: object = None,
        song_title: object = None,
        requested_by: object = None,
        requested_by_id: object = None,
        timestamp: object = None,
        **others: object,
    ) -> bool:
        """A song that began to play. `requested_by_id` as `user_id` in `report_conversation`.

        A song nobody asked for has neither `requested_by` nor `requested_by_id`; a name without
        an id is refused, because nobody could ask for it to be deleted.
        """
        mode = self.keeping.music_mode
        if mode == "off":
            return False

        def make() -> tuple[Write, int]:
            whole = mode == "full"
            who = called = ""
            if requested_by is not None or requested_by_id is not None:
                who = report.snowflake("requested_by_id", requested_by_id)
                called = report.name("requested_by", requested_by, requested_by_id)
            song = Song(
                song_id=self._new_id(),
                guild_id=report.snowflake("guild_id", guild_id),
                song_title=report.title("song_title", song_title),
                requested_by=called if whole else "",
                requested_by_id=who if whole else "",
                at=report.moment(timestamp, self._now()),
            )

            async def write(store: Store) -> None:
                await store.save_song(song)

            return write, _size(song.song_title, song.requested_by)

        return await self._keep("music", make)

    save_conversation_log = report_conversation
    save_music_log = report_song

    async def report_metric(
        self,
        name: object = None,
        value: object = None,
        labels: object = None,
        timestamp: object = None,
        **others: object,
    ) -> bool:
        """A number of one's own, kept exactly as reported.

        `name`: letters, digits and _, none of the bot's own; 500 different ones at most.
        `labels`: up to 10 names with values of at most 200 characters.
        """

        def make() -> tuple[Write, int]:
            known, number = report.metric_name(name), report.number(value)
            tags, at = report.labels(labels), report.moment(timestamp, self._now())
            if known not in self._names and len(self._names) >= NAMES_LIMIT:
                raise report.Refused(f"there are {NAMES_LIMIT} metric names already")
            self._names.add(known)
            metric_id = self._new_id()

            async def write(store: Store) -> None:
                await store.save_metric(metric_id, known, number, tags, at)

            self._remember(known, tags, Newest(number, at))
            return write, _size(*tags.values())

        return await self._keep("metrics", make)

    def complain(self, kind: Kind, reason: str, said: str | None = None) -> None:
        """Count and say that a report was refused. `reason` is one of few."""
        self.tallies[kind].refused += 1
        self._complaints.say(f"{kind} {reason}", f"a report ({kind}) is refused: {said or reason}")

    def beat(self) -> None:
        """Say what was held back for a minute. Called now and then."""
        self._complaints.say_rest()

    async def _keep(self, kind: Kind, make: Callable[[], tuple[Write, int]]) -> bool:
        tally = self.tallies[kind]
        if not self._buckets[kind].take():
            tally.flooded += 1
            per_s = RATES[kind][0]
            self._complaints.say(
                f"{kind} flood", f"reports ({kind}) come faster than {per_s:g} a second; not kept"
            )
            return False
        try:
            write, size = make()
        except report.Refused as refusal:
            self.complain(kind, refusal.reason, str(refusal))
            return False
        except Exception as error:
            # Objects of other cogs may do anything when they are looked at.
            self.complain(kind, f"it cannot be read ({type(error).__name__})")
            return False
        if self._held_bytes + size > HELD_BYTES:
            tally.flooded += 1
            self._complaints.say(
                f"{kind} held",
                f"reports ({kind}) wait for the store in too great a number; not kept",
            )
            return False
        tally.kept += 1
        self._held_bytes += size
        # Given back when the write is gone, whatever became of it: written, refused, given up.
        weakref.finalize(write, self._release, size).atexit = False
        await self._recorder.put(Fact(FactKind.SAMPLE, f"a report ({kind})", write))
        return True

    def _release(self, size: int) -> None:
        self._held_bytes -= size

    def _remember(self, name: str, labels: dict[str, str], newest: Newest) -> None:
        key = (name, tuple(labels.items()))
        known = self.latest.pop(key, None)
        self.latest[key] = newest if known is None or known.at <= newest.at else known
        if len(self.latest) > SERIES_LIMIT:
            del self.latest[next(iter(self.latest))]


class _Bucket:
    """Lets so many through at once, and so many a second after that."""

    def __init__(self, per_s: float, at_once: float, monotonic: Callable[[], float]) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._monotonic = monotonic
        self._left = at_once
        self._looked_s = monotonic()

    def take(self) -> bool:
        now_s = self._monotonic()
        self._left = min(self._at_once, self._left + (now_s - self._looked_s) * self._per_s)
        self._looked_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Complaints:
    """Says a thing at once, then at most once a minute with how often it happened meanwhile."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[str, tuple[float, int, str]] = {}

    def say(self, key: str, text: str) -> None:
        said_s, unsaid, _ = self._said.get(key, (None, 0, ""))
        now_s = self._monotonic()
        if said_s is not None and now_s - said_s < SAY_AGAIN_S:
            self._said[key] = (said_s, unsaid + 1, text)
            return
        self._said[key] = (now_s, 0, text)
        logger.warning("%s%s", text, f" ({unsaid} more meanwhile)" if unsaid else "")

    def say_rest(self) -> None:
        now_s = self._monotonic()
        for key, (said_s, unsaid, text) in list(self._said.items()):
            if now_s - said_s < SAY_AGAIN_S:
                continue
            if unsaid:
                logger.warning("%s (%d more meanwhile)", text, unsaid)
                self._said[key] = (now_s, 0, text)
            else:
                del self._said[key]


def _size(*texts: str) -> int:
    return ROW_BYTES + sum(map(sys.getsizeof, texts))
