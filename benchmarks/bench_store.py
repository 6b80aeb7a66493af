"""What the SQLite store costs, each figure beside its baseline in the same run.

`python -m benchmarks.bench_store` prints one line per figure.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.core.observation import MonitorStatus, Sample
from bot.core.readings import READINGS
from bot.storage import sqlite_metrics
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_rows import to_ms
from bot.storage.store import CheckRow, Poll

Figure = dict[str, object]

START = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = timedelta(seconds=10)
THIRTY_DAYS = 30 * 8640
STEADY = frozenset(
    (
        "threads",
        "missed_ticks",
        "discord_away",
        "gateway_reconnects",
        "guild_count",
        "channel_count",
        "monitors_unknown",
        "store_failing",
        "store_queue",
        "remote_away",
        "outbox_queued",
        "outbox_age",
        "web_auth_failures",
    )
)
"""Readings that hardly ever move; all others are random, which is the worst for their size."""


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as directory:
        return asyncio.run(_run(Path(directory)))


async def _run(directory: Path) -> list[Figure]:
    figures = await _saving(directory)
    store = SqliteStore(directory / "month.db")
    await store.open()
    await _fill_month(store)
    figures += [
        await _size(store),
        await _last_hour(store),
        await _month_in_300_points(store),
        *await _deleting_a_day(store),
        *await _services(store),
    ]
    await store.close()
    return figures


def _figure(
    name: str, value: float, unit: str, baseline: float | None = None, budget: str | None = None
) -> Figure:
    """A budget with an x is about value / baseline, any other about the value in its unit."""
    return {
        "name": f"store: {name}",
        "value": round(value, 4),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 4),
        "ratio": None if baseline is None else round(value / baseline, 4),
        "budget": budget,
    }


def _sample(number: int, rng: random.Random) -> Sample:
    values: dict[str, float | None] = {}
    for spec in READINGS:
        if spec.name in STEADY:
            values[spec.name] = 12.0
        elif spec.quantum == 1:
            values[spec.name] = float(rng.randrange(20_000))
        else:
            values[spec.name] = rng.uniform(0, 100)
    return Sample(START + number * PERIOD, "primary", values)


async def _saving(directory: Path) -> list[Figure]:
    """Three ways to save the same snapshots, in turns, 25 ms apart as a paced writer sees them."""
    store = SqliteStore(directory / "paced.db")
    await store.open()
    marks = ", ".join("?" * (len(sqlite_metrics.SAMPLE_COLUMNS) + 1))
    columns = ", ".join(("sample_key", *sqlite_metrics.SAMPLE_COLUMNS))
    create = (
        f"CREATE TABLE samples ({columns.replace('sample_key', 'sample_key INTEGER PRIMARY KEY')})"
    )
    insert = f"INSERT INTO samples ({columns}) VALUES ({marks})"

    def connect(name: str, *pragmas: str) -> sqlite3.Connection:
        db = sqlite3.connect(directory / name, check_same_thread=False, isolation_level=None)
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")
        db.execute(create)
        return db

    same_mode = connect("plain.db", "journal_mode = WAL", "synchronous = FULL")
    default_mode = connect("default.db")
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1)
    rng = random.Random(1)

    async def ours(sample: Sample) -> None:
        await store.save_sample(sample)

    async def plain(sample: Sample) -> None:
        row = (to_ms(sample.at) << 8 | 1, *sqlite_metrics.sample_row(sample))
        await loop.run_in_executor(thread, same_mode.execute, insert, row)

    async def inline(sample: Sample) -> None:
        row = (to_ms(sample.at) << 8 | 1, *sqlite_metrics.sample_row(sample))
        default_mode.execute(insert, row)

    took: dict[Callable[[Sample], Awaitable[None]], list[float]] = {
        ours: [],
        plain: [],
        inline: [],
    }
    for number in range(220):
        sample = _sample(number, rng)
        ways = list(took)
        rng.shuffle(ways)
        for way in ways:
            await asyncio.sleep(0.008)
            started = time.perf_counter()
            await way(sample)
            if number >= 20:
                took[way].append((time.perf_counter() - started) * 1000)
    thread.shutdown()
    same_mode.close()
    default_mode.close()
    await store.close()

    def quantile(way: Callable[[Sample], Awaitable[None]], share: float) -> float:
        return sorted(took[way])[round(share * (len(took[way]) - 1))]

    return [
        _figure("save p50 / same mode", quantile(ours, 0.5), "ms", quantile(plain, 0.5)),
        _figure(
            "save p99 / same mode", quantile(ours, 0.99), "ms", quantile(plain, 0.99), "<= 1.2 x"
        ),
        _figure(
            "save p50 / default inline",
            quantile(ours, 0.5),
            "ms",
            quantile(inline, 0.5),
            "<= 0.6 x",
        ),
    ]


async def _fill_month(store: SqliteStore) -> None:
    rng = random.Random(2)
    for day in range(30):

        def bulk(db: sqlite3.Connection, day: int = day) -> None:
            bot = store._numbers.bot(db, "primary")
            for number in range(day * 8640, (day + 1) * 8640):
                made = _sample(number, rng)
                row = sqlite_metrics.sample_row(made)
                sqlite_metrics.insert_sample(db, bot, to_ms(made.at), row)

        await store._write(bulk)
    for hour in range(720):
        await store.save_hourly(START + timedelta(hours=hour))


async def _size(store: SqliteStore) -> Figure:
    await store._write_alone(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    size = await store.size_bytes()
    return _figure("30 days, all in the file", size / 1e6, "MB", None, "< 40 MB")


async def _median_ms(job: Callable[[], Awaitable[object]], times: int) -> float:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        await job()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


async def _last_hour(store: SqliteStore) -> Figure:
    end = START + THIRTY_DAYS * PERIOD
    start = end - timedelta(hours=1)
    keys = (to_ms(start) << 8, to_ms(end) << 8)
    raw = (
        "SELECT sample_key >> 8, cpu_usage / 100.0 FROM samples "
        "WHERE sample_key >= ? AND sample_key < ?"
    )

    async def ours() -> object:
        return await store.metric_series("cpu_usage", start, end, 360)

    async def query() -> object:
        return await store._reader.run(lambda db: db.execute(raw, keys).fetchall())  # type: ignore[union-attr]

    found = [(await _median_ms(ours, 50), await _median_ms(query, 50)) for _ in range(5)]
    value, baseline = (statistics.median(column) for column in zip(*found, strict=True))
    return _figure("last hour of one metric", value, "ms", baseline, "<= 2 x")


async def _month_in_300_points(store: SqliteStore) -> Figure:
    """The baseline averages the same 300 slots from every snapshot of the month."""
    end = START + THIRTY_DAYS * PERIOD
    start_ms, span = to_ms(START), to_ms(end) - to_ms(START)
    raw = (
        "SELECT ((sample_key >> 8) - ?) * 300 / ? AS slot, avg(cpu_usage) / 100.0 FROM samples "
        "GROUP BY slot"
    )

    async def ours() -> object:
        return await store.metric_series("cpu_usage", START, end, 300)

    async def scan() -> object:
        return await store._reader.run(  # type: ignore[union-attr]
            lambda db: db.execute(raw, (start_ms, span)).fetchall()
        )

    figure = _figure(
        "30 days at 300 points", await _median_ms(ours, 25), "ms", await _median_ms(scan, 5)
    )
    times_faster = 1 / figure["ratio"]  # type: ignore[operator]
    return {**figure, "ratio": round(times_faster, 1), "budget": ">= 100 x faster"}


async def _deleting_a_day(store: SqliteStore) -> list[Figure]:
    rng = random.Random(3)
    after = THIRTY_DAYS

    async def waits(until: Callable[[int], bool]) -> list[float]:
        nonlocal after
        took: list[float] = []
        while not until(len(took)):
            started = time.perf_counter()
            await store.save_sample(_sample(after, rng))
            took.append((time.perf_counter() - started) * 1000)
            after += 1
            await asyncio.sleep(0.002)
        return took

    alone = await waits(lambda count: count >= 200)
    worst, durations = [], []
    for day in range(1, 6):
        cutoffs = {"samples": START + timedelta(days=day)}
        started = time.perf_counter()
        deleting = asyncio.create_task(store.delete_expired(cutoffs, 10_000))
        took = await waits(lambda _, task=deleting: task.done())  # type: ignore[misc]
        durations.append((time.perf_counter() - started) * 1000)
        worst.append(max(took))
        assert (await deleting)["samples"] == 8640
    added = statistics.median(worst) - statistics.median(alone)
    return [
        _figure("added wait while a day is deleted", added, "ms", None, "<= 20 ms"),
        _figure("deleting a day, start to end", statistics.median(durations), "ms"),
    ]


async def _services(store: SqliteStore) -> list[Figure]:
    """A day of 1,000 monitors, polled every minute."""
    rng = random.Random(4)
    keys = [f"main:{number}" for number in range(1000)]
    took = []
    for minute in range(1440):
        checks = [CheckRow(key, MonitorStatus.UP, rng.uniform(5, 900)) for key in keys]
        poll = Poll(START + timedelta(minutes=minute), "main", 120, checks)
        started = time.perf_counter()
        await store.save_poll(poll)
        took.append((time.perf_counter() - started) * 1000)
    end = START + timedelta(days=1)
    jobs: dict[str, Callable[[], Awaitable[object]]] = {
        "uptime of all 1,000, 24 h": lambda: store.service_stats(START, end),
        "uptime of one of 1,000, 24 h": lambda: store.service_stats(START, end, "main:500"),
        "response times, each 10th poll": lambda: store.response_times(START, end, 10),
        "roll-up of one hour": lambda: store.save_hourly(START),
    }
    figures = [
        _figure("save one poll of 1,000", statistics.median(took), "ms"),
        _figure("longest stall: nothing going on", await _stall_ms(_nothing), "ms"),
    ]
    for name, job in jobs.items():
        figures.append(_figure(name, await _median_ms(job, 5), "ms"))
        figures.append(
            _figure(f"longest stall: {name}", await _stall_ms(job), "ms", None, "<= 10 ms")
        )
    return figures


async def _nothing() -> None:
    await asyncio.sleep(0.2)


async def _stall_ms(job: Callable[[], Awaitable[object]]) -> float:
    """The longest the event loop was late for a tick of a millisecond; median of five runs."""
    found = []
    for _ in range(5):
        task = asyncio.ensure_future(job())
        late = 0.0
        while not task.done():
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - started - 0.001)
        await task
        found.append(late * 1000)
    return statistics.median(found)


def main() -> None:
    for figure in run():
        beside = (
            "" if figure["baseline"] is None else f" / {figure['baseline']} = {figure['ratio']}"
        )
        print(f"{figure['name']}: {figure['value']} {figure['unit']}{beside}  ({figure['budget']})")


if __name__ == "__main__":
    with closing(sqlite3.connect(":memory:")) as probe:
        print("SQLite", probe.execute("SELECT sqlite_version()").fetchone()[0])
    main()
