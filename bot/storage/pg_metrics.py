"""Snapshots, metrics and their roll-ups in PostgreSQL, by way of its functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from bot.core.observation import Sample
from bot.storage.log_rows import raw_row
from bot.storage.pg_call import Calls
from bot.storage.sqlite_metrics import SCALES, sample_id, sample_row
from bot.storage.sqlite_rows import clean, exact_time, finite, from_ms, labels_of, to_ms, to_time
from bot.storage.store import LatestMetric, MetricPoint, MetricStats, StoreError

_STATISTICS: Final = ("avg_value", "min_value", "max_value", "p50", "p95", "p99")


class MetricsVerbs(Calls):
    """The verbs of `store.Store` that have to do with snapshots and metrics."""

    async def save_sample(self, sample: Sample) -> None:
        await self.call("save_sample", row=sample_wire(sample))

    async def save_metric(
        self, metric_id: UUID, name: str, value: float, labels: Mapping[str, str], at: datetime
    ) -> None:
        """Raises StoreError("refused") for NaN and infinities: they are not values."""
        number = finite(value)
        if number is None:
            raise StoreError("refused", f"{name}: not a number", retriable=False)
        row = {
            "bot_id": clean(self.bot_id),
            "id": str(metric_id),
            "metric_name": clean(name),
            "timestamp": exact_time(from_ms(to_ms(at))),
            "metric_value": number,
            "labels": labels,
        }
        await self.call("import_metrics", rows=[row])

    async def latest_metrics(self) -> list[LatestMetric]:
        return [
            LatestMetric(
                row["metric_name"],
                float(row["metric_value"]),
                labels_of(json.dumps(row["labels"])),
                to_time(row["timestamp"]),
            )
            for row in await self.call("latest_metrics")
        ]

    async def metric_series(
        self, name: str, start_at: datetime, end_at: datetime, points: int
    ) -> list[MetricPoint]:
        start_ms, end_ms = to_ms(start_at), to_ms(end_at)
        found = await self.call(
            "metric_series",
            name=clean(name),
            start_at=exact_time(from_ms(start_ms)),
            end_at=exact_time(from_ms(end_ms)),
            points=points,
        )
        span = end_ms - start_ms
        return [
            MetricPoint(from_ms(start_ms + slot * span // points), float(value))
            for slot, value in found
        ]

    async def metric_stats(self, name: str, hours: float, now: datetime) -> MetricStats:
        found = await self.call(
            "metric_stats",
            name=clean(name),
            start_at=exact_time(now - timedelta(hours=hours)),
            end_at=exact_time(now),
        )
        avg, least, most, p50, p95, p99 = (finite(found[name]) for name in _STATISTICS)
        return MetricStats(avg, least, most, p50, p95, p99, int(found["count"]))

    async def save_daily_summary(self, day: date, summary: Mapping[str, object]) -> None:
        row = {"date": day.isoformat(), "summary_data": {clean(self.bot_id): summary}}
        await self.call("import_daily_summaries", rows=[row])

    async def save_raw(
        self, raw_id: UUID, metric_type: str, data: Mapping[str, object], at: datetime
    ) -> None:
        row = raw_row(raw_id, metric_type, data, at, clean(self.bot_id))
        await self.call("import_metrics_raw", rows=[row])

    async def size_bytes(self) -> int:
        """Our tables with their indices, not the whole database."""
        return int(await self.call("size"))


def sample_wire(sample: Sample) -> dict[str, object]:
    """A snapshot as it travels (see `kinds`): rounded to its quanta, with the id SQLite shows."""
    at, bot_id = from_ms(to_ms(sample.at)), clean(sample.bot_id)
    *quanta, _, extra = sample_row(sample)
    wire: dict[str, object] = {
        "bot_id": bot_id,
        "id": str(sample_id(at, bot_id)),
        "timestamp": exact_time(at),
        "status": clean(sample.status),
        "extra": None if extra is None else json.loads(str(extra)),
    }
    for (column, scale), value in zip(SCALES.items(), quanta, strict=True):
        wire[column] = value / scale if isinstance(value, int) and scale != 1 else value
    return wire
