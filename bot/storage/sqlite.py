"""The Store in a file.

Two connections in two threads: what is written never waits behind a long read. Every fact is one
transaction and one hop into the writer's thread, and is on disk (WAL, synchronous=FULL) when the
call returns. After an error the next call works again as soon as its cause is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from bot.core.incident import GuildConfig, Incident
from bot.core.observation import Sample
from bot.storage import (
    sqlite_alerting,
    sqlite_metrics,
    sqlite_series,
    sqlite_services,
    sqlite_uptime,
)
from bot.storage.database import transact
from bot.storage.sqlite_housekeeping import HousekeepingVerbs
from bot.storage.sqlite_journal import JournalVerbs
from bot.storage.sqlite_log_verbs import LogVerbs
from bot.storage.sqlite_rows import (
    clean,
    exact_time,
    finite,
    insert,
    maybe_clean,
    overwrite,
    public_time,
    to_guild_config,
    to_ms,
)
from bot.storage.sqlite_travel import TravelVerbs
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
)

T = TypeVar("T")

_CONFIG_COLUMNS = ("guild_id", "alert_channel_id", "created_at", "updated_at", "locale")
_UPSERT_CONFIG = insert(
    "monitoring_config",
    _CONFIG_COLUMNS,
    "guild_id",
    overwrite(_CONFIG_COLUMNS, "guild_id", "created_at"),
)


class SqliteStore(HousekeepingVerbs, TravelVerbs, JournalVerbs, LogVerbs):
    """Store in one SQLite file; see `store.Store` for what the methods promise.

    `bot_id` is whose rows it saves. `busy_timeout_s` is how long to wait while another process
    holds the file before StoreUnavailable("locked").
    """

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


def _now() -> str:
    return public_time(datetime.now(UTC))
