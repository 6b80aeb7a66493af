"""What Kuma itself sent about its monitors, weighed against what polls show.

A word (of a webhook) comes before `/metrics` knows of it: Kuma notifies first. So a poll that says
otherwise is disbelieved for two poll periods; then, or once a poll has agreed, polls count again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bot.core.kuma_webhook import Beat
from bot.core.observation import MonitorStatus
from bot.services.source import Source

BELIEVED_PERIODS: Final = 2
OFFSETS_KEPT: Final = 8
_CLOCK_SET_BACK: Final = timedelta(minutes=10)


@dataclass(slots=True)
class Word:
    """The newest word about one monitor. `told_at` is Kuma's clock, the other times are ours.

    `is_settled`: a poll begun after it agreed, or its time is over; it outweighs nothing then.
    """

    status: MonitorStatus
    told_at: datetime | None
    heard_at: datetime
    until_at: datetime
    is_settled: bool = False


class Words:
    """The newest word about each monitor, by key."""

    def __init__(self) -> None:
        self._by_key: dict[str, Word] = {}
        self._offsets: dict[str, deque[timedelta]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def take(self, key: str, beat: Beat, source: Source, now: datetime) -> bool:
        """Whether this is news. A repeated or late word is none, nor one that polls have passed."""
        last = self._by_key.get(key)
        happened_at = now - self._lateness(beat, source.instance, now)
        if last is not None and beat.at is not None and last.told_at is not None:
            is_older = beat.at < last.told_at and now - last.heard_at < _CLOCK_SET_BACK
            if beat.at == last.told_at or is_older:
                return False
        believed = timedelta(seconds=BELIEVED_PERIODS * source.period_s)
        until_at = happened_at + believed
        if until_at <= now:
            if source.last_good_at is not None and source.last_good_at >= happened_at:
                return False
            until_at = now + believed
        self._by_key[key] = Word(beat.status, beat.at, now, until_at)
        return True

    def _lateness(self, beat: Beat, instance: str, now: datetime) -> timedelta:
        """How much longer than others of late this beat was under way.

        The clocks of Kuma and ours need not agree, so the quickest of the last few beats stands
        for no delay at all. The first one is believed.
        """
        if beat.at is None:
            return timedelta()
        offset = now - beat.at
        offsets = self._offsets.setdefault(instance, deque(maxlen=OFFSETS_KEPT))
        offsets.append(offset)
        return offset - min(offsets)

    def holds(self, key: str, now: datetime) -> bool:
        """Whether the word still stands against silence: polls that fail, or leave it out."""
        word = self._by_key.get(key)
        return word is not None and not word.is_settled and now < word.until_at

    def against(
        self, key: str, polled: MonitorStatus, began_at: datetime, now: datetime
    ) -> MonitorStatus | None:
        """The status to believe instead of the `polled` one; None when the poll is believed.

        A poll that began before the word was heard can neither agree nor disagree with it.
        """
        word = self._by_key.get(key)
        if word is None or word.is_settled:
            return None
        if now >= word.until_at:
            word.is_settled = True
            return None
        if polled is word.status:
            word.is_settled = began_at >= word.heard_at
            return None
        return word.status

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def shift(self, step: timedelta) -> None:
        """Our clock was set."""
        for word in self._by_key.values():
            word.heard_at += step
            word.until_at += step
        self._offsets.clear()
