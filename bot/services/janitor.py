"""Keeps house: rolls hours up, deletes what is too old, lets go of monitors long gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from bot.services.alerting import Alerting
from bot.services.fleet import Fleet
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import Store, StoreError

PERIOD_S = 60.0
SLICE_ROWS = 500
MAX_SLICES = 20
LATE = timedelta(minutes=2)
"""An hour is rolled up this long after its end, so that its last samples are in."""


ALERTS_KEPT = timedelta(days=400)
POLLS_KEPT = timedelta(hours=48)


def retention(
    *, metrics_days: int, hourly_days: int, conversation_days: int, music_days: int, log_days: int
) -> dict[str, timedelta]:
    """How long rows stay, by the kinds of `Store.delete_expired`."""
    metrics = timedelta(days=metrics_days)
    return {
        "samples": metrics,
        "metrics": metrics,
        "metrics_raw": metrics,
        "metrics_hourly": timedelta(days=hourly_days),
        "alerts": ALERTS_KEPT,
        "services": ALERTS_KEPT,
        "polls": POLLS_KEPT,
        "conversations": timedelta(days=conversation_days),
        "music": timedelta(days=music_days),
        "bot_logs": timedelta(days=log_days),
    }


class Janitor:
    """One small piece of each chore per beat, so that the writer is never held for long."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        fleet: Fleet,
        alerting: Alerting,
        keep: Mapping[str, timedelta],
        now: Callable[[], datetime],
    ) -> None:
        """`keep`: see `retention`."""
        self._store = store
        self._recorder = recorder
        self._fleet = fleet
        self._alerting = alerting
        self._keep = keep
        self._now = now
        self._rolled_hour: datetime | None = None
        self.deleted = 0

    async def tick(self) -> None:
        """1. monitors, 2. roll-ups, 3. retention. A store that is failing is left in peace."""
        await self._forget_monitors()
        if self._recorder.waiting:
            return
        now = self._now()
        try:
            await self._roll_up(now)
            await self._delete(now)
        except StoreError as error:
            if not error.retriable:
                raise

    async def _forget_monitors(self) -> None:
        for key in self._fleet.long_gone(self._now()):
            await self._alerting.retire(key)
            self._fleet.forget(key)

            async def write(store: Store, key: str = key) -> None:
                await store.forget_monitor(key)

            await self._recorder.put(Fact(FactKind.KEEP, "a monitor long gone", write))

    async def _roll_up(self, now: datetime) -> None:
        hour = (now - LATE).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        if self._rolled_hour == hour:
            return
        # After a start the hours of the last day may be missing; repeating one is harmless.
        first = hour - timedelta(hours=23) if self._rolled_hour is None else hour
        while first <= hour:
            await self._store.save_hourly(first)
            first += timedelta(hours=1)
            await asyncio.sleep(0)
        self._rolled_hour = hour

    async def _delete(self, now: datetime) -> None:
        cutoffs = {kind: now - span for kind, span in self._keep.items()}
        for _ in range(MAX_SLICES):
            gone = sum((await self._store.delete_expired(cutoffs, SLICE_ROWS)).values())
            self.deleted += gone
            if gone == 0:
                return
            await asyncio.sleep(0.05)
