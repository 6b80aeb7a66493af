"""The part of the SQLite store that keeps house: roll-ups, summaries, retention, space."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

from bot.core.summary import DayCounts
from bot.storage import sqlite_metrics, sqlite_retention, sqlite_summary, sqlite_uptime
from bot.storage.sqlite_file import Job, SqliteFile
from bot.storage.sqlite_rows import HOUR_MS, from_ms, json_text, public_time, to_ms
from bot.storage.store import StoreError

T = TypeVar("T")

_SLICE_S = 0.006
"""How long one slice of a deletion may hold the writer; slices grow and shrink to keep to it."""
_FIRST_SLICE = 50
"""Rows, and never fewer: on a slow disk it is the commit that takes its time, whatever is in it."""


class HousekeepingVerbs(SqliteFile):
    """For `SqliteStore`; see `store.Store` for the promises."""

    def __init__(self, path: Path, *, bot_id: str = "primary", busy_timeout_s: float = 5.0) -> None:
        super().__init__(path, bot_id=bot_id, busy_timeout_s=busy_timeout_s)
        self._slices: dict[str, int] = {}

    # Roll-ups

    async def due_hours(self, before: datetime, limit: int) -> list[datetime]:
        end = to_ms(before) // HOUR_MS
        hours = await self._read(lambda db: sqlite_metrics.due_hours(db, end, limit))
        return [from_ms(hour * HOUR_MS) for hour in hours]

    async def save_hourly(self, hour_at: datetime) -> None:
        """Read and reckoned beside the writer, which only gets the finished rows.

        What comes in for this hour meanwhile keeps it due.
        """
        hour = to_ms(hour_at) // HOUR_MS
        await self._write_alone(lambda db: sqlite_metrics.take_due(db, hour))
        metrics = await self._read(lambda db: sqlite_metrics.roll_up(db, hour))
        services = await self._read(lambda db: sqlite_uptime.roll_up(db, hour))

        def save(db: sqlite3.Connection) -> None:
            sqlite_metrics.save_roll_up(db, self._numbers, hour, metrics)
            sqlite_uptime.save_roll_up(db, self._roster, hour, services)
            sqlite_metrics.note_rolled_up(db, hour)

        await self._write(save)

    # Summaries of days

    async def day_counts(self, start_at: datetime, end_at: datetime) -> DayCounts:
        """What is known of [start, end). Its hours must be rolled up before."""
        start_ms, end_ms = to_ms(start_at), to_ms(end_at)
        return await self._read(lambda db: sqlite_summary.count_day(db, start_ms, end_ms))

    async def daily_summary(self, day: date) -> dict[str, object] | None:
        """This bot's summary of a day, if there is one."""
        return await self._read(lambda db: sqlite_summary.read(db, day.isoformat(), self._bot_id))

    async def save_daily_summary(self, day: date, summary: Mapping[str, object]) -> None:
        plain: dict[str, object] = json.loads(json_text(summary))
        now = public_time(datetime.now(UTC))
        await self._write(
            lambda db: sqlite_summary.save(db, day.isoformat(), self._bot_id, plain, now)
        )

    # Retention and space

    async def delete_expired(self, cutoffs: Mapping[str, datetime], limit: int) -> dict[str, int]:
        """In slices of some milliseconds, between which other writes get their turn."""
        if unknown := set(cutoffs) - sqlite_retention.KINDS:
            raise StoreError("refused", f"unknown kinds: {sorted(unknown)}", retriable=False)
        metrics = await self._read(
            lambda db: [int(number) for (number,) in db.execute("SELECT metric FROM metric_names")]
        )
        deleted = dict.fromkeys(cutoffs, 0)
        for kind, cutoff in cutoffs.items():
            for deletion in sqlite_retention.deletions(kind, cutoff, metrics):
                deleted[kind] += await self._delete(deletion, limit - deleted[kind])
        if deleted.get("polls") or deleted.get("metrics_hourly"):
            await self._write(self._delete_rosters)
        await self._write_alone(sqlite_retention.give_back_space)
        return deleted

    async def _delete(self, deletion: sqlite_retention.Deletion, limit: int) -> int:
        deleted = 0
        # By statement: what is quick with one table's rows is slow with another's.
        size = self._slices.get(deletion.statement, _FIRST_SLICE)
        while deleted < limit:
            wanted = min(size, limit - deleted)
            count, took_s = await self._write_alone(_timed(deletion.job(wanted)))
            deleted += count
            if took_s > _SLICE_S:
                size = max(_FIRST_SLICE, size // 2)
            elif took_s < _SLICE_S / 3 and count == wanted:
                size = min(5000, size * 2)
            self._slices[deletion.statement] = size
            if count < wanted:
                break
        return deleted

    def _delete_rosters(self, db: sqlite3.Connection) -> None:
        if sqlite_retention.delete_unused_rosters(db):
            self._roster.forget()

    async def shrink(self) -> int:
        """Give every empty page back to the disk, and what the log no longer needs.

        For a disk that is nearly full: slices of a few milliseconds, but many of them. The log
        is emptied first, so that there is room for what the moved pages add to it.
        Returns how many bytes smaller the file and its log are.
        """
        before = await self.size_bytes()
        await self._write_alone(sqlite_retention.empty_log)
        while await self._write_alone(sqlite_retention.free_pages):
            pass
        await self._write_alone(sqlite_retention.empty_log)
        return max(0, before - await self.size_bytes())


def _timed(job: Job[T]) -> Job[tuple[T, float]]:
    def run(db: sqlite3.Connection) -> tuple[T, float]:
        started = time.perf_counter()
        result = job(db)
        return result, time.perf_counter() - started

    return run
