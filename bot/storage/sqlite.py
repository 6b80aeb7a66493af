"""The Store in a file.

Two connections in two threads: what is written never waits behind a long read. Every fact is one
transaction and one hop into the writer's thread, and is on disk (WAL, synchronous=FULL) when the
call returns. After an error the next call works again as soon as its cause is gone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from bot.core.incident import GuildConfig, Incident
from bot.core.observation import Sample
from bot.storage import (
    migrations,
    sqlite_alerting,
    sqlite_metrics,
    sqlite_retention,
    sqlite_series,
    sqlite_services,
    sqlite_uptime,
)
from bot.storage.database import (
    DatabaseThread,
    check_pages,
    connect,
    from_os_error,
    from_sqlite_error,
    inspect_file,
    move_aside,
    prepare_file,
    size_of,
    snapshot,
    transact,
)
from bot.storage.sqlite_rows import (
    HOUR_MS,
    clean,
    exact_time,
    finite,
    insert,
    json_text,
    maybe_clean,
    overwrite,
    public_time,
    to_guild_config,
    to_ms,
)
from bot.storage.store import (
    AlertingState,
    Decision,
    KnownMonitor,
    LatestMetric,
    MetricPoint,
    MetricStats,
    Poll,
    Receipt,
    ServiceStats,
    StatusChange,
    StoreError,
    StoreUnavailable,
)

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

_CONFIG_COLUMNS = ("guild_id", "alert_channel_id", "created_at", "updated_at", "locale")
_UPSERT_CONFIG = insert(
    "monitoring_config",
    _CONFIG_COLUMNS,
    "guild_id",
    overwrite(_CONFIG_COLUMNS, "guild_id", "created_at"),
)

_SLICE_S = 0.010
"""How long one slice of a deletion may hold the writer; slices grow and shrink to keep to it."""

_REOPEN_AFTER = frozenset(("readonly", "cantopen", "io"))
"""What a connection may never recover from by itself, although its file has."""


class SqliteStore:
    """Store in one SQLite file; see `store.Store` for what the methods promise.

    `bot_id` is whose metrics `save_metric` saves. `busy_timeout_s` is how long to wait while
    another process holds the file before StoreUnavailable("locked").
    """

    def __init__(self, path: Path, *, bot_id: str = "primary", busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._bot_id = bot_id
        self._busy_timeout_s = busy_timeout_s
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._opening = asyncio.Lock()
        self._is_stale = False
        self._numbers = sqlite_metrics.Numbers()
        self._roster = sqlite_services.Roster()
        self._latest = sqlite_metrics.LatestReader()
        self._slice = 200

    # Opening and closing

    async def open(self) -> None:
        """Make or open the file and bring its schema up to date. Harmless when repeated.

        Raises StoreTooNew and StoreForeign without having changed the file, StoreCorrupt when
        it is damaged (see `set_aside`), StoreUnavailable when it cannot be had now.
        """
        async with self._opening:
            if self._writer is None:
                await self._connect()

    async def _connect(self) -> None:
        self._forget()
        self._latest = sqlite_metrics.LatestReader()
        writer = DatabaseThread(self._make_writer)
        try:
            await writer.start()
            await self._guarded(writer, self._prepare)
            reader = DatabaseThread(
                partial(connect, self.path, busy_timeout_s=self._busy_timeout_s, is_writer=False)
            )
            await reader.start()
        except BaseException as error:
            await _close_quietly(writer)
            if isinstance(error, sqlite3.Error):
                raise from_sqlite_error(error, self.path) from error
            if isinstance(error, OSError):
                raise from_os_error(error) from error
            raise
        self._writer, self._reader = writer, reader
        self._is_stale = False

    def _make_writer(self) -> sqlite3.Connection:
        prepare_file(self.path)
        inspect_file(self.path)
        return connect(self.path, busy_timeout_s=self._busy_timeout_s, is_writer=True)

    def _prepare(self, db: sqlite3.Connection) -> None:
        migrations.ensure_ours(db)
        check_pages(db)
        migrations.migrate(db)

    async def close(self) -> None:
        """Harmless when repeated, and when the store never opened."""
        async with self._opening:
            self._is_stale = False
            await self._disconnect()

    async def _disconnect(self) -> None:
        # The reader first: the last connection to close folds the WAL into the file.
        for connection in (self._reader, self._writer):
            if connection is not None:
                await _close_quietly(connection)
        self._reader = self._writer = None

    async def set_aside(self, now: datetime) -> Path:
        """Move a damaged file (with -wal and -shm) out of the way; nothing is ever deleted.

        The store is closed afterwards; `open` starts a new file.
        """
        await self.close()
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            return move_aside(self.path, f"{self.path.name}.corrupt-{stamp}")
        except OSError as error:
            raise from_os_error(error) from error

    async def schema_version(self) -> int:
        return await self._read(migrations.schema_number)

    async def size_bytes(self) -> int:
        """Bytes on disk, the WAL included."""
        return await self._read(lambda db: size_of(self.path))

    # Snapshots and metrics

    async def save_sample(self, sample: Sample) -> None:
        await self._write_alone(partial(self._save_sample, sample))

    def _save_sample(self, sample: Sample, db: sqlite3.Connection) -> None:
        """The usual case is a single statement, which is a transaction of its own."""
        row = sqlite_metrics.sample_row(sample)
        at_ms = to_ms(sample.at)
        bot = self._numbers.known_bot(sample.bot_id)
        if bot is not None and sqlite_metrics.insert_sample(db, bot, at_ms, row):
            return

        def place(db: sqlite3.Connection) -> None:
            bot = self._numbers.bot(db, sample.bot_id)
            sqlite_metrics.place_sample(db, bot, at_ms, row)

        transact(place, db)

    async def save_metric(
        self, metric_id: UUID, name: str, value: float, labels: Mapping[str, str], at: datetime
    ) -> None:
        """Raises StoreError("refused") for NaN and infinities: they are not values."""
        number = finite(value)
        if number is None:
            raise StoreError("refused", f"{name}: not a number", retriable=False)
        await self._write(
            lambda db: sqlite_metrics.save_metric(
                db, self._numbers, self._bot_id, metric_id, name, number, labels, to_ms(at)
            )
        )

    async def latest_metrics(self) -> list[LatestMetric]:
        return await self._read(self._latest.read)

    async def metric_series(
        self, name: str, start_at: datetime, end_at: datetime, points: int
    ) -> list[MetricPoint]:
        start_ms, end_ms = to_ms(start_at), to_ms(end_at)
        return await self._read(lambda db: sqlite_series.series(db, name, start_ms, end_ms, points))

    async def metric_stats(self, name: str, hours: float, now: datetime) -> MetricStats:
        start_ms, end_ms = to_ms(now - timedelta(hours=hours)), to_ms(now)
        return await self._read(lambda db: sqlite_series.stats(db, name, start_ms, end_ms))

    async def save_hourly(self, hour_at: datetime) -> None:
        """Read and reckoned beside the writer, which only gets the finished rows."""
        hour = to_ms(hour_at) // HOUR_MS
        metrics = await self._read(lambda db: sqlite_metrics.roll_up(db, hour))
        services = await self._read(lambda db: sqlite_uptime.roll_up(db, hour))

        def save(db: sqlite3.Connection) -> None:
            sqlite_metrics.save_roll_up(db, self._numbers, hour, metrics)
            sqlite_uptime.save_roll_up(db, self._roster, hour, services)

        if metrics or services:
            await self._write(save)

    async def save_daily_summary(self, day: date, summary: Mapping[str, object]) -> None:
        text, now = json_text(summary), _now()
        await self._write(
            lambda db: sqlite_metrics.save_daily_summary(db, day.isoformat(), text, now)
        )

    # Services

    async def save_poll(self, poll: Poll) -> None:
        now = _now()
        await self._write(lambda db: sqlite_services.save_poll(db, self._roster, poll, now))

    async def save_status_changes(self, changes: Sequence[StatusChange]) -> None:
        now = _now()
        await self._write(lambda db: sqlite_services.save_changes(db, self._roster, changes, now))

    async def load_monitors(self) -> list[KnownMonitor]:
        return await self._read(sqlite_services.monitors)

    async def forget_monitor(self, service_id: str) -> None:
        await self._write(lambda db: sqlite_services.forget_monitor(db, self._roster, service_id))

    async def service_history(
        self, service_id: str, since_at: datetime, limit: int
    ) -> list[StatusChange]:
        since = public_time(since_at)
        return await self._read(lambda db: sqlite_services.history(db, service_id, since, limit))

    async def service_stats(
        self, start_at: datetime, end_at: datetime, service_id: str | None = None
    ) -> ServiceStats:
        start_ms, end_ms = to_ms(start_at), to_ms(end_at)
        if service_id is None:
            return await self._read(lambda db: sqlite_uptime.stats_of_all(db, start_ms, end_ms))
        return await self._read(
            lambda db: sqlite_uptime.stats_of_one(db, service_id, start_ms, end_ms)
        )

    async def response_times(
        self, start_at: datetime, end_at: datetime, every: int
    ) -> dict[str, list[float]]:
        start_ms, end_ms = to_ms(start_at), to_ms(end_at)
        return await self._read(
            lambda db: sqlite_uptime.response_times(db, start_ms, end_ms, every)
        )

    # Alerting

    async def record_decision(self, decision: Decision) -> None:
        await self._write(lambda db: sqlite_alerting.record_decision(db, decision))

    async def record_receipt(self, receipt: Receipt) -> None:
        await self._write(lambda db: sqlite_alerting.record_receipt(db, receipt))

    async def load_alerting(self) -> AlertingState:
        return await self._read(sqlite_alerting.load)

    async def incidents(
        self, since_at: datetime, limit: int, service_id: str | None = None
    ) -> list[Incident]:
        since = public_time(since_at)
        return await self._read(lambda db: sqlite_alerting.incidents(db, since, limit, service_id))

    async def open_incidents(self) -> list[Incident]:
        return await self._read(sqlite_alerting.open_incidents)

    # Settings of guilds

    async def guild_configs(self) -> list[GuildConfig]:
        query = f"SELECT {', '.join(_CONFIG_COLUMNS)} FROM monitoring_config ORDER BY guild_id"
        return await self._read(lambda db: [to_guild_config(row) for row in db.execute(query)])

    async def save_guild_config(self, config: GuildConfig) -> None:
        row = (
            config.guild_id,
            config.alert_channel_id,
            exact_time(config.created_at),
            exact_time(config.updated_at),
            maybe_clean(config.locale),
        )
        await self._write(lambda db: db.execute(_UPSERT_CONFIG, row).rowcount)

    async def remove_guild_config(self, guild_id: str) -> None:
        statement = "DELETE FROM monitoring_config WHERE guild_id = ?"
        await self._write(lambda db: db.execute(statement, (clean(guild_id),)).rowcount)

    # Retention

    async def delete_expired(self, cutoffs: Mapping[str, datetime], limit: int) -> dict[str, int]:
        """In slices of about ten milliseconds, between which other writes get their turn."""
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
        while deleted < limit:
            wanted = min(self._slice, limit - deleted)
            count, took_s = await self._write_alone(_timed(deletion.job(wanted)))
            deleted += count
            if took_s > _SLICE_S:
                self._slice = max(20, self._slice // 2)
            if count < wanted:
                break
            if took_s < _SLICE_S / 4:
                self._slice = min(5000, self._slice * 2)
        return deleted

    def _delete_rosters(self, db: sqlite3.Connection) -> None:
        if sqlite_retention.delete_unused_rosters(db):
            self._roster.forget()

    # Jobs

    async def _write(self, job: Job[T]) -> T:
        """One transaction in the writer's thread."""
        return await self._write_alone(partial(transact, job))

    async def _write_alone(self, job: Job[T]) -> T:
        """A job that is a transaction by itself: a single statement, or one that begins its own."""
        if self._is_stale:
            await self._reopen()
        if self._writer is None:
            raise StoreUnavailable("closed")
        return await self._guarded(self._writer, partial(self._remembering, job))

    async def _read(self, job: Job[T]) -> T:
        """A job on one unchanging state of the database, in the reader's thread."""
        if self._is_stale:
            await self._reopen()
        if self._reader is None:
            raise StoreUnavailable("closed")
        return await self._guarded(self._reader, partial(snapshot, job))

    def _remembering(self, job: Job[T], db: sqlite3.Connection) -> T:
        try:
            return job(db)
        except BaseException:
            # Numbers given in a transaction that failed were taken back.
            self._forget()
            raise

    def _forget(self) -> None:
        self._numbers.forget()
        self._roster.forget()

    async def _guarded(self, thread: DatabaseThread, job: Job[T]) -> T:
        try:
            return await thread.run(job)
        except sqlite3.Error as error:
            mapped = from_sqlite_error(error, self.path)
            if mapped.reason in _REOPEN_AFTER:
                self._is_stale = True
            raise mapped from error
        except (OverflowError, UnicodeError) as error:
            raise StoreError("refused", str(error), retriable=False) from error

    async def _reopen(self) -> None:
        """Fresh connections, because the old ones may remember a trouble that is over."""
        async with self._opening:
            if self._is_stale:
                await self._disconnect()
                await self._connect()


def _timed(job: Job[T]) -> Job[tuple[T, float]]:
    def run(db: sqlite3.Connection) -> tuple[T, float]:
        started = time.perf_counter()
        result = job(db)
        return result, time.perf_counter() - started

    return run


async def _close_quietly(thread: DatabaseThread) -> None:
    """Close a connection that may be broken; what was acknowledged is on disk already."""
    try:
        await thread.close()
    except sqlite3.Error:
        return


def _now() -> str:
    return public_time(datetime.now(UTC))
