"""Keeps house: rolls hours up, sums days up, deletes what is too old, watches the room left.

Also lets go of monitors long gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Protocol
from uuid import UUID

from bot.core.forecast import Growth, forecast
from bot.core.summary import (
    SUMMARISED,
    DayCounts,
    Spread,
    day_bounds,
    local_day,
    replaces,
    summarise,
)
from bot.services.alerting import Alerting
from bot.services.fleet import Fleet
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import Store, StoreError

logger = logging.getLogger(__name__)

PERIOD_S = 60.0
SLICE_ROWS = 500
MAX_SLICES = 20
HOURS_PER_TICK = 100
LATE = timedelta(minutes=2)
"""An hour is rolled up this long after its end, so that its last samples are in."""
DAYS_LOOKED_BACK = 7
"""After a start the summaries of so many days are made again if rows came in for them."""

ALERTS_KEPT = timedelta(days=400)
POLLS_KEPT = timedelta(hours=48)

FLOOR_BYTES = 64 * 1024 * 1024
"""Less room than this beside the database is an emergency: four times what its log may hold.

The built-in rule DiskNearlyFull fires at the same number.
"""
SIZE_METRIC, FREE_METRIC = "store_bytes", "disk_free_bytes"
GROWTH_WINDOW = timedelta(days=7)

_HOUR = timedelta(hours=1)
_MILLISECOND = timedelta(milliseconds=1)


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


def free_bytes(directory: Path) -> int | None:
    """Room left for us where the database lies; None when nobody can tell."""
    try:
        told = os.statvfs(directory)
    except OSError:
        return None
    return told.f_bavail * told.f_frsize


class HouseStore(Store, Protocol):
    """The working store, which also counts days and gives room back."""

    async def day_counts(self, start_at: datetime, end_at: datetime) -> DayCounts:
        """What happened in [start, end), whose hours are rolled up."""

    async def daily_summary(self, day: date) -> dict[str, object] | None:
        """This bot's stored summary of a local day."""

    async def shrink(self) -> int:
        """Give back every byte that is not needed; how many."""


class Janitor:
    """One small piece of each chore per beat, so that the writer is never held for long."""

    def __init__(
        self,
        store: HouseStore,
        recorder: Recorder,
        fleet: Fleet,
        alerting: Alerting,
        keep: Mapping[str, timedelta],
        now: Callable[[], datetime],
        *,
        new_id: Callable[[], UUID],
        zone: tzinfo,
        sample_interval_s: float,
        free_bytes: Callable[[], int | None],
    ) -> None:
        """`keep`: see `retention`. `zone` is whose days are summed up."""
        self._store = store
        self._recorder = recorder
        self._fleet = fleet
        self._alerting = alerting
        self._keep = keep
        self._now = now
        self._new_id = new_id
        self._zone = zone
        self._sample_interval_s = sample_interval_s
        self._free_bytes = free_bytes
        self._days: set[date] = set()
        self._yesterday: date | None = None
        self._measured: datetime | None = None
        self._sizes: list[tuple[datetime, float]] = []
        self._growth = Growth()
        self._is_short = False
        self.deleted = 0

    def growth(self) -> Growth:
        """Size, growth and room as of the last beat; the trend needs a day of hourly sizes."""
        return self._growth

    async def tick(self) -> None:
        """1. monitors, 2. room, 3. roll-ups, 4. summaries, 5. retention.

        A store that is failing is left in peace, except that room is made for it. Unless the
        disk is nearly full, nothing is deleted before it has been rolled up.
        """
        await self._forget_monitors()
        try:
            await self._guard_room()
            if self._recorder.waiting:
                return
            now = self._now()
            await self._measure(now)
            if await self._roll_up(now):
                await self._sum_up(now)
                await self._delete(now, MAX_SLICES)
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

    # Room

    async def _guard_room(self) -> None:
        """When the disk is nearly full: what has expired goes at once, then all empty pages.

        No row goes before its time: what fills the disk is rarely this file, and history that
        was given up would not come back when somebody makes room.
        """
        free = self._free_bytes()
        if free is None or free >= FLOOR_BYTES:
            if self._is_short and free is not None:
                logger.warning("there is room on the disk again: %d MB", free >> 20)
            self._is_short = False
            return
        if not self._is_short:
            logger.critical("only %d MB are left on the database's disk", free >> 20)
        await self._delete(self._now(), None)
        given = await self._store.shrink()
        if given or not self._is_short:
            logger.warning("the database gave %d kB back", given >> 10)
        self._is_short = True

    async def _measure(self, now: datetime) -> None:
        """Size and room each minute; once an hour they are stored, and the trend is drawn."""
        size, free = await self._store.size_bytes(), self._free_bytes()
        hour = now.replace(minute=0, second=0, microsecond=0)
        if hour != self._measured:
            self._measured = hour
            await self._save_metric(SIZE_METRIC, float(size), now)
            if free is not None:
                await self._save_metric(FREE_METRIC, float(free), now)
            points = round(GROWTH_WINDOW / _HOUR)
            until = hour + _HOUR
            self._sizes = [
                (point.at, point.value)
                for point in await self._store.metric_series(
                    SIZE_METRIC, until - GROWTH_WINDOW, until, points
                )
            ]
        self._growth = forecast(self._sizes, size, free)

    async def _save_metric(self, name: str, value: float, at: datetime) -> None:
        metric_id = self._new_id()

        async def write(store: Store) -> None:
            await store.save_metric(metric_id, name, value, {}, at)

        await self._recorder.put(Fact(FactKind.SAMPLE, f"the metric {name}", write))

    # Roll-ups and summaries

    async def _roll_up(self, now: datetime) -> bool:
        """Hours that are new, and those for which something came in late. True: none is left."""
        hours = await self._store.due_hours(now - LATE, HOURS_PER_TICK)
        for hour in hours:
            await self._store.save_hourly(hour)
            # Where a zone is off by half an hour, an hour belongs to two days.
            self._days |= {local_day(at, self._zone) for at in (hour, hour + _HOUR - _MILLISECOND)}
            await asyncio.sleep(0)
        return len(hours) < HOURS_PER_TICK

    async def _sum_up(self, now: datetime) -> None:
        """One day per beat, the newest first; after a start the last days are looked at again."""
        yesterday = local_day(now, self._zone) - timedelta(days=1)
        if self._yesterday is None:
            self._days |= {yesterday - timedelta(days=n) for n in range(DAYS_LOOKED_BACK)}
        elif self._yesterday != yesterday:
            self._days.add(yesterday)
        self._yesterday = yesterday
        # Today comes again when it is over.
        self._days = {day for day in self._days if day <= yesterday}
        for day in sorted(self._days, reverse=True):
            if _first_full_hour(day_bounds(day, self._zone)[1]) + LATE <= now:
                await self._sum_up_day(day)
                self._days.discard(day)
                return

    async def _sum_up_day(self, day: date) -> None:
        start, end = day_bounds(day, self._zone)
        readings: dict[str, Spread] = {}
        last = end - _MILLISECOND
        for name in SUMMARISED:
            stats = await self._store.metric_stats(name, (last - start) / _HOUR, last)
            readings[name] = Spread(stats.avg_value, stats.min_value, stats.max_value, stats.p95)
        counts = await self._store.day_counts(start, end)
        summary = summarise(day, self._zone, self._sample_interval_s, readings, counts)
        if not replaces(summary, await self._store.daily_summary(day)):
            return

        async def write(store: Store) -> None:
            await store.save_daily_summary(day, summary)

        await self._recorder.put(Fact(FactKind.KEEP, f"the summary of {day}", write))

    # Retention

    async def _delete(self, now: datetime, slices: int | None) -> None:
        """So many slices at most; all there is to delete when `slices` is None."""
        cutoffs = {kind: now - span for kind, span in self._keep.items()}
        done = 0
        while slices is None or done < slices:
            gone = sum((await self._store.delete_expired(cutoffs, SLICE_ROWS)).values())
            self.deleted += gone
            if gone == 0:
                return
            done += 1
            await asyncio.sleep(0.05)


def _first_full_hour(at: datetime) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    return hour if hour == at else hour + _HOUR
