"""Snapshots, metrics and roll-ups through the functions of PostgreSQL, without a transport."""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from bot.core.observation import Sample
from bot.core.readings import READINGS
from bot.storage.kinds import BY_NAME, Cursor
from bot.storage.pg_metrics import MetricsVerbs, sample_wire
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_metrics import sample_id
from bot.storage.sqlite_rows import json_text
from bot.storage.store import StoreError

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
MS = timedelta(milliseconds=1)


class Direct(MetricsVerbs):
    """The verbs over one connection."""

    def __init__(self, db: asyncpg.Connection[Any], bot_id: str = "primary") -> None:
        self.db = db
        self.bot_id = bot_id

    async def call(self, verb: str, /, **arguments: object) -> Any:
        text = json_text({"bot": self.bot_id, **arguments})
        answer = await self.db.fetchval(f"select public.comet_{verb}($1::jsonb)", text)
        return None if answer is None else json.loads(answer)

    async def save_hourly(self, hour_at: datetime) -> None:
        await self.call("roll_up", hour=hour_at.isoformat())

    async def take(self, kind: str, *rows: dict[str, object]) -> int:
        return int((await self.call(f"import_{kind}", rows=rows))["taken"])

    async def page(self, kind: str, **arguments: object) -> tuple[list[Any], Cursor | None]:
        found = await self.call(f"export_{kind}", **{"limit": 1000, **arguments})
        return found["rows"], found["next"]

    async def count(self, table: str) -> int:
        return int(await self.db.fetchval(f"select count(*) from {table}"))


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[Direct]:
    """As service_role, which is what PostgREST makes of the bot's key."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("set role service_role")
        yield Direct(connection)
    finally:
        await connection.close()


@pytest_asyncio.fixture
async def twin(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """The store whose answers are the measure."""
    store = SqliteStore(tmp_path / "monitoring.db")
    await store.open()
    yield store
    await store.close()


def sample(at: datetime, bot_id: str = "primary", **values: float | None) -> Sample:
    return Sample(at, bot_id, values)


# Snapshots


async def test_a_snapshot_is_the_same_row_wherever_it_is_kept(
    store: Direct, twin: SqliteStore
) -> None:
    values: dict[str, float | None] = {}
    for number, spec in enumerate(READINGS):
        values[spec.name] = 7 + number * spec.quantum * 1.3
    odd = Sample(
        NOW + MINUTE + timedelta(microseconds=1999),
        "prim\0ary\ud800",
        {
            "cpu_usage": math.nan,
            "memory_usage": math.inf,
            "disk_usage": 10**400,
            "uptime": 1e300,
            "network_rx": 2**62,
            "load_average_1m": None,
            "unheard_of": 5.0,
        },
        "on\0line\udfff",
        (("shard_ping", {"sh\0ard": "\ud800"}, 3.5), ("shard_ping", {}, math.nan)),
    )
    for each in (Sample(NOW, "primary", values, "degraded"), odd):
        await store.save_sample(each)
        await twin.save_sample(each)
    found, after = await store.page("samples")
    expected = await twin.export_rows("samples", None, 1000)
    assert after is None and found == expected.rows
    assert found[0]["cpu_usage"] == 7.0 and found[1]["network_rx"] == 2**62
    assert set(found[0]) == set(BY_NAME["samples"].columns)
    assert found == [
        sample_wire(each) for each in (Sample(NOW, "primary", values, "degraded"), odd)
    ]
    assert await store.latest_metrics() == await twin.latest_metrics()


async def test_one_millisecond_holds_one_snapshot_of_a_bot(store: Direct) -> None:
    for value in (10.0, 20.0, 30.0):
        for _ in range(2):
            await store.save_sample(sample(NOW, cpu_usage=value))
        await store.save_sample(sample(NOW, "second", cpu_usage=1.0))
    found, _ = await store.page("samples", only_bot="primary")
    assert [(row["timestamp"], row["id"], row["cpu_usage"]) for row in found] == [
        (f"2026-01-10 12:00:00.00{step}000", str(sample_id(NOW + step * MS, "primary")), value)
        for step, value in enumerate((10.0, 20.0, 30.0))
    ]
    assert await store.count("system_stats") == 4
    await store.save_sample(sample(NOW + MS, cpu_usage=20.0))
    assert await store.count("system_stats") == 4


async def test_a_snapshot_by_hand_does_not_stand_in_the_way(store: Direct) -> None:
    await store.db.execute("insert into system_stats (timestamp, cpu_usage) values ($1, 1)", NOW)
    for _ in range(2):
        await store.save_sample(sample(NOW, cpu_usage=2.0))
    found, _ = await store.page("samples")
    assert [(row["timestamp"][-9:], row["cpu_usage"]) for row in found] == [
        ("00.000000", 1.0),
        ("00.001000", 2.0),
    ]


async def test_snapshots_come_in_once_and_numbers_too_large_are_missing(store: Direct) -> None:
    rows = [sample_wire(sample(NOW + n * SECOND, cpu_usage=n)) for n in range(5)]
    rows[0] |= {
        "threads": 3.0,
        "uptime": 2**40,
        "network_rx": 1e30,
        "timestamp": "2026-01-10 12:00",
    }
    del rows[1]["bot_id"], rows[1]["extra"]
    assert await store.take("samples", *rows, rows[0]) == 5
    assert await store.take("samples", *rows) == 0
    found, _ = await store.page("samples")
    assert [row["cpu_usage"] for row in found] == [0, 1, 2, 3, 4]
    assert {row["bot_id"] for row in found} == {"primary"}
    assert [found[0][name] for name in ("threads", "uptime", "network_rx")] == [3, None, None]
    assert found[0]["timestamp"] == "2026-01-10 12:00:00.000000"


async def test_bad_rows_are_refused_whole_batches(store: Direct) -> None:
    good = sample_wire(sample(NOW, cpu_usage=1.0))
    for bad in ({"id": "no uuid"}, {"timestamp": "yesterday-ish"}, {"extra": {"not": "a list"}}):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await store.take("samples", good, {**good, "id": str(uuid4()), **bad})
        assert caught.value.sqlstate is not None and caught.value.sqlstate[:2] in ("22", "23")
    assert await store.count("system_stats") == 0


# Metrics


async def test_a_reported_metric_is_kept_exactly_and_once(store: Direct) -> None:
    metric_id = uuid4()
    for _ in range(2):
        await store.save_metric(metric_id, "曲/play's", 0.1 + 0.2, {"a": 'x"y\0'}, NOW)
    stats = await store.metric_stats("曲/play's", 1, NOW)
    assert (stats.count, stats.avg_value) == (1, 0.1 + 0.2)
    (metric,) = await store.latest_metrics()
    assert (metric.labels, metric.at) == ({"a": 'x"y\ufffd'}, NOW)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(StoreError) as caught:
            await store.save_metric(uuid4(), "bad", bad, {}, NOW)
        assert not caught.value.retriable
    assert await store.count("custom_metrics") == 1


async def test_the_latest_value_is_the_newest_by_time_wherever_it_came_from(
    store: Direct,
) -> None:
    await store.save_sample(sample(NOW, cpu_usage=10.0, memory_usage=50.0))
    await store.save_sample(sample(NOW + SECOND, "second", memory_usage=51.0))
    await store.save_metric(uuid4(), "songs", 1.0, {"guild": "1"}, NOW + MINUTE)
    await store.save_metric(uuid4(), "songs", 2.0, {"guild": "2"}, NOW)
    await store.save_metric(uuid4(), "memory_usage", 99.0, {"by": "cog"}, NOW - MINUTE)
    await store.save_metric(uuid4(), "cpu_usage", 11.0, {"by": "cog"}, NOW + MINUTE)
    found = {m.metric_name: (m.metric_value, m.labels, m.at) for m in await store.latest_metrics()}
    assert found == {
        "cpu_usage": (11.0, {"by": "cog"}, NOW + MINUTE),
        "memory_usage": (51.0, {}, NOW + SECOND),
        "songs": (1.0, {"guild": "1"}, NOW + MINUTE),
    }


async def test_charts_and_statistics_are_those_of_sqlite(store: Direct, twin: SqliteStore) -> None:
    rng = random.Random(5)
    for number in range(400):
        at = NOW - timedelta(seconds=rng.uniform(0, 3 * 86400))
        name = rng.choice(["cpu_usage", "songs", "shard_ping"])
        if name == "songs":
            metric_id, value = uuid4(), rng.uniform(-5, 5)
            for each in (store, twin):
                await each.save_metric(metric_id, name, value, {}, at)
            continue
        labelled = ((name, {"shard": "1"}, rng.random()),) if name == "shard_ping" else ()
        bot_id = rng.choice(["primary", "second"])
        taken = Sample(at, bot_id, {"cpu_usage": rng.uniform(0, 100)}, labelled=labelled)
        for each in (store, twin):
            await each.save_sample(taken)
        if number % 20 == 0:
            for each in (store, twin):
                await each.save_metric(UUID(int=number), "cpu_usage", 50.0, {}, at)
    for hour in range(0, 60, 2):
        for each in (store, twin):
            await each.save_hourly(NOW - hour * HOUR)
    for name in ("cpu_usage", "songs", "shard_ping", "unheard_of"):
        for hours in (0.5, 24, 24 * 3.5):
            ours = await store.metric_stats(name, hours, NOW)
            theirs = await twin.metric_stats(name, hours, NOW)
            assert ours.count == theirs.count
            for field in ("avg_value", "min_value", "max_value", "p50", "p95", "p99"):
                assert getattr(ours, field) == pytest.approx(getattr(theirs, field)), field
        for start, end, points in (
            (NOW - HOUR, NOW, 60),
            (NOW - DAY + 7 * SECOND, NOW - HOUR, 7),
            (NOW - 3 * DAY, NOW, 300),
            (NOW - 3 * DAY + 11 * MINUTE, NOW - 13 * MINUTE, 50),
            (NOW - 4 * DAY, NOW, 3),
            (NOW, NOW, 10),
            (NOW - DAY, NOW, 0),
        ):
            chart = await store.metric_series(name, start, end, points)
            expected = await twin.metric_series(name, start, end, points)
            assert [point.at for point in chart] == [point.at for point in expected]
            assert [point.value for point in chart] == pytest.approx(
                [point.value for point in expected]
            )


async def test_long_charts_read_the_roll_up(store: Direct) -> None:
    for number in range(48):
        await store.save_sample(sample(NOW - number * HOUR, cpu_usage=10.0))
        await store.save_hourly(NOW - number * HOUR)
    await store.db.execute("delete from system_stats where timestamp < $1", NOW - 24 * HOUR)
    chart = await store.metric_series("cpu_usage", NOW - 47 * HOUR, NOW + HOUR, 48)
    assert [point.value for point in chart] == [10.0] * 48
    short = await store.metric_series("cpu_usage", NOW - 47 * HOUR, NOW + HOUR, 480)
    assert len(short) == 25


async def test_an_hour_is_rolled_up_again_with_what_came_late_and_never_for_less(
    store: Direct,
) -> None:
    async def hourly() -> list[tuple[Any, ...]]:
        rows = await store.db.fetch(
            "select metric_name, bot_id, hour, avg_value, min_value, max_value, count "
            "from metrics_hourly order by 1, 2, 3"
        )
        return [tuple(row) for row in rows]

    for minute, value in ((0, 10.0), (59, 30.0), (60, 99.0)):
        await store.save_sample(sample(NOW + minute * MINUTE, cpu_usage=value))
    await store.save_sample(sample(NOW, "second", cpu_usage=1.0))
    await store.save_metric(uuid4(), "cpu_usage", 20.0, {}, NOW)
    for _ in range(2):
        await store.save_hourly(NOW + 30 * MINUTE)
    expected = [
        ("cpu_usage", "primary", NOW, 20.0, 10.0, 30.0, 3),
        ("cpu_usage", "second", NOW, 1.0, 1.0, 1.0, 1),
    ]
    assert await hourly() == expected
    await store.save_sample(sample(NOW + MINUTE, cpu_usage=40.0))
    await store.call("roll_up_metrics", hour=NOW.isoformat(), only_bot="second")
    assert await hourly() == expected
    await store.save_hourly(NOW)
    expected[0] = ("cpu_usage", "primary", NOW, 25.0, 10.0, 40.0, 4)
    assert await hourly() == expected
    await store.db.execute("delete from system_stats where cpu_usage < 20")
    await store.save_hourly(NOW)
    assert await hourly() == expected


# Travelling


async def pages(store: Direct, kind: str, limit: int, **arguments: object) -> list[Any]:
    found: list[Any] = []
    after: Cursor | None = None
    while True:
        rows, after = await store.page(kind, limit=limit, after=after, **arguments)
        assert len(rows) <= limit
        found += rows
        if after is None:
            return found


def key_of(kind: str, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in BY_NAME[kind].order)


async def test_rows_come_back_as_they_came_page_by_page_in_order(store: Direct) -> None:
    rng = random.Random(7)
    bots = ["a", "B", "ä"]
    names = ["cpu_usage", "Z", "z", "ä", "", "曲"]
    times = [(NOW + n * 7 * MINUTE).isoformat(" ", "microseconds")[:26] for n in range(10)]
    given: dict[str, list[dict[str, object]]] = {
        "samples": [
            sample_wire(sample(NOW + n * 7 * MINUTE, bot, cpu_usage=n * 1.37))
            for n in range(10)
            for bot in bots
        ],
        "metrics": [
            {
                "bot_id": rng.choice(bots),
                "id": str(uuid4()),
                "metric_name": rng.choice(names),
                "timestamp": rng.choice(times),
                "metric_value": rng.uniform(-1e9, 1e9),
                "labels": {"ラベル": 'x"y'},
            }
            for _ in range(40)
        ],
        "metrics_raw": [
            {
                "bot_id": rng.choice(bots),
                "id": str(uuid4()),
                "timestamp": rng.choice(times)[:-1] + "7",
                "metric_type": "system",
                "data": {"n": [1, None, "x", 0.1]},
            }
            for _ in range(40)
        ],
        "metrics_hourly": [
            {
                "bot_id": bot,
                "metric_name": name,
                "hour": f"2026-01-10 {hour:02}:00:00.000000",
                "avg_value": rng.random(),
                "min_value": 0.1,
                "max_value": 1.0,
                "count": hour + 1,
            }
            for bot in bots
            for name in names
            for hour in (0, 9, 23)
        ],
        "daily_summaries": [
            {"bot_id": "a", "date": f"2026-01-{day:02}", "summary_data": {"a": {"n": day}}}
            for day in range(1, 20)
        ],
    }
    for kind, rows in given.items():
        rng.shuffle(rows)
        assert await store.take(kind, *rows) == len(rows), kind
        assert await store.take(kind, *rows) == 0, kind
        ordered = sorted(rows, key=lambda row: key_of(kind, row))
        for limit in (1, 7, 1000):
            assert await pages(store, kind, limit) == ordered, kind
        at = BY_NAME[kind].at
        if at is not None:
            since = str(ordered[len(ordered) // 2][at])
            assert await pages(store, kind, 7, since=since) == [
                row for row in ordered if str(row[at]) >= since
            ], kind
        only = [row for row in ordered if row["bot_id"] == "a"]
        assert await pages(store, kind, 3, only_bot="a") == only, kind
        assert set(ordered[0]) == set(BY_NAME[kind].columns)


async def test_of_two_roll_ups_the_fuller_stands_and_of_equals_the_later(store: Direct) -> None:
    def hour(count: int, mean: float) -> dict[str, object]:
        return {
            "metric_name": "m",
            "hour": "2026-01-10 12:00:00",
            "avg_value": mean,
            "min_value": 0,
            "max_value": 9,
            "count": count,
        }

    async def kept() -> tuple[int, float]:
        ((row,), _) = await store.page("metrics_hourly")
        return row["count"], row["avg_value"]

    assert await store.take("metrics_hourly", hour(5, 1.0), hour(5, 2.0), hour(4, 3.0)) == 1
    assert await kept() == (5, 2.0)
    assert await store.take("metrics_hourly", hour(4, 9.0)) == 0
    assert await kept() == (5, 2.0)
    assert await store.take("metrics_hourly", hour(5, 3.0)) == 1
    assert await store.take("metrics_hourly", hour(6, 1.5), hour(5, 9.0)) == 1
    assert await kept() == (6, 1.5)


async def test_each_bot_adds_its_part_to_the_summary_of_a_day(store: Direct) -> None:
    day = date(2026, 1, 10)
    second = Direct(store.db, "second")
    for _ in range(2):
        await store.save_daily_summary(day, {"cpu": 1.0})
        await second.save_daily_summary(day, {"cpu": 2.0, "nan": math.nan})
    await store.save_daily_summary(day, {"cpu": 3.0})
    ((row,), _) = await store.page("daily_summaries")
    assert row == {
        "bot_id": "primary",
        "date": "2026-01-10",
        "summary_data": {"primary": {"cpu": 3.0}, "second": {"cpu": 2.0, "nan": None}},
    }
    ((row,), _) = await store.page("daily_summaries", only_bot="second")
    assert row == {
        "bot_id": "second",
        "date": "2026-01-10",
        "summary_data": {"second": {"cpu": 2.0, "nan": None}},
    }
    assert await store.page("daily_summaries", only_bot="third") == ([], None)


async def test_a_raw_document_is_kept_once(store: Direct) -> None:
    raw_id = uuid4()
    for _ in range(2):
        await store.save_raw(raw_id, "app", {"n": [1, None, {"x": "曲\0"}]}, NOW)
    ((row,), _) = await store.page("metrics_raw")
    assert (row["id"], row["metric_type"]) == (str(raw_id), "app")
    assert row["data"] == {"n": [1, None, {"x": "曲\ufffd"}]}


async def test_the_size_is_that_of_our_tables(store: Direct) -> None:
    before = await store.size_bytes()
    assert before > 100_000
    rows = [sample_wire(sample(NOW + n * SECOND, cpu_usage=n)) for n in range(500)]
    await store.take("samples", *rows)
    assert before + 100_000 < await store.size_bytes() < before + 10_000_000
