"""What waits after an outage: how fast it is copied, whether all of it arrives once and in order,
and how long the event loop stalls meanwhile.

Both rates stand beside a bare client of the same kind that inserts the same rows, 500 at a time.
The stall is that of a ticker, beside the same ticker in an idle process at the same time, because
two processors that a database, PostgREST and their gateway share let anybody wait; and, without a
budget, beside the same loop at rest.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from benchmarks.bare_clients import Insert, by_asyncpg, by_supabase
from benchmarks.material import figure, quantile, snapshot
from benchmarks.project import Project
from benchmarks.ticker import beside, late_ms
from bot.app import SWITCH_INTERVAL_S
from bot.storage import sqlite_metrics
from bot.storage.copier import Copier
from bot.storage.copier_walk import DONE
from bot.storage.pg_metrics import sample_wire
from bot.storage.pg_store import PgStore
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_rows import to_ms
from bot.storage.supabase import SupabaseStore

Figures = list[dict[str, object]]

WAITING = 20_000
BARE_ROWS = 4000
BARE_BATCH = 500
ROUNDS = 5
FAULTY = 0.15
"""The share of requests that go wrong while the stall is measured."""
BREATH_S = 0.005
REST_S = 3.0
STALL_ROWS = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = timedelta(seconds=10)


def run() -> Figures:
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
        with Project() as project:
            figures = asyncio.run(_rates(Path(home), project))
        with Project(is_far=True) as project:
            return figures + asyncio.run(_stalls(Path(home), project))


async def _rates(home: Path, project: Project) -> Figures:
    figures = []
    for backend, bare in (("PostgREST", by_supabase), ("PostgreSQL", by_asyncpg)):
        ours, theirs = [], []
        for number in range(ROUNDS):
            bot_id = f"{backend} {number}"
            async with bare(project) as insert:
                theirs.append(await _bare_rate(f"bare {bot_id}", insert))
            ours.append(await _own_rate(home, project, backend, bot_id))
        figures.append(
            figure(
                f"copying {WAITING:,} waiting snapshots to {backend}",
                statistics.median(ours),
                "rows/s",
                statistics.median(theirs),
                "> 2000 rows/s",
            )
        )
    return figures


async def _bare_rate(bot_id: str, insert: Insert) -> float:
    rng = random.Random(1)
    wires = [sample_wire(snapshot(START + n * PERIOD, rng, bot_id)) for n in range(BARE_ROWS)]
    began_s = time.perf_counter()
    for first in range(0, BARE_ROWS, BARE_BATCH):
        await insert(wires[first : first + BARE_BATCH])
    return BARE_ROWS / (time.perf_counter() - began_s)


async def _own_rate(home: Path, project: Project, backend: str, bot_id: str) -> float:
    async with _copying(home, project, backend, bot_id) as (local, copier):
        await _take_down(local, bot_id, WAITING)
        began_s = time.perf_counter()
        await _copy(local, copier)
        took_s = time.perf_counter() - began_s
    await _check(project, bot_id, WAITING)
    return WAITING / took_s


@asynccontextmanager
async def _copying(
    home: Path, project: Project, backend: str, bot_id: str
) -> AsyncIterator[tuple[SqliteStore, Copier]]:
    """A file and its copier, which has been at work long enough to have nothing left to do."""
    remote: PgStore = (
        PostgresStore(project.dsn, bot_id=bot_id)
        if backend == "PostgreSQL"
        else SupabaseStore(project.url, project.secret_key, bot_id=bot_id)
    )
    local = SqliteStore(home / f"{bot_id}.db", bot_id=bot_id)
    await local.open()
    await local.start_journal()
    copier = Copier(local, remote, bot_id, lambda: datetime.now(UTC))
    try:
        assert await copier.fill()
        await local.save_sample(snapshot(START - PERIOD, random.Random(0), bot_id))
        while (await local.copy_state())["fill"] != DONE:
            await copier.tick()
        yield local, copier
    finally:
        await remote.close()
        await local.close()


async def _take_down(local: SqliteStore, bot_id: str, count: int, first: int = 0) -> None:
    """So many snapshots more in the file and its journal, as an outage leaves them behind."""
    rng = random.Random(first)
    rows = [sqlite_metrics.sample_row(snapshot(START, rng)) for _ in range(500)]

    def job(db: sqlite3.Connection) -> None:
        bot = local._numbers.bot(db, bot_id)
        for number in range(first, first + count):
            at_ms = to_ms(START + number * PERIOD)
            sqlite_metrics.insert_sample(db, bot, at_ms, rows[number % len(rows)])

    await local._write(job)


async def _check(project: Project, bot_id: str, count: int) -> None:
    """All are there once, and no transaction brought anything older than the one before it did."""
    query = """
        select count(*) as rows, count(distinct timestamp) as times, min(timestamp) as first,
            max(timestamp) as last, count(*) filter (where is_late) as late
        from (
            select timestamp, timestamp < lag(timestamp) over (order by created_at, ctid) as is_late
            from public.system_stats where bot_id = $1
        ) as arrived
    """
    connection = await asyncpg.connect(project.dsn)
    found = dict(await connection.fetchrow(query, bot_id))
    await connection.close()
    assert found == {
        "rows": count + 1,
        "times": count + 1,
        "first": START - PERIOD,
        "last": START + (count - 1) * PERIOD,
        "late": 0,
    }, found


async def _stalls(home: Path, project: Project) -> Figures:
    # As the bot does after its start.
    gc.collect()
    gc.freeze()
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    figures: Figures = []
    for name, backend, rate in (
        ("to PostgREST, which fails at random", "PostgREST", FAULTY),
        ("to PostgREST", "PostgREST", 0.0),
        ("to PostgreSQL", "PostgreSQL", 0.0),
    ):
        bot_id = f"stall {name}"
        rounds = []
        async with _copying(home, project, backend, bot_id) as (local, copier):
            for number in range(ROUNDS):
                rest = await late_ms(asyncio.sleep(REST_S))
                await _take_down(local, bot_id, STALL_ROWS, number * STALL_ROWS)
                project.fail(rate, seed=number)
                rounds.append((*await beside(_copy(local, copier)), rest))
                project.fail(0)
        await _check(project, bot_id, ROUNDS * STALL_ROWS)
        for label, share, budget in (("p99", 0.99, "<= 3 ms"), ("max", 1.0, "<= 10 ms")):
            busy, idle, rest = (
                statistics.median(quantile(one[place], share) for one in rounds)
                for place in range(3)
            )
            title = f"loop stall {label}, copying {name}"
            figures.append(figure(f"{title}: above idle", busy - idle, "ms", idle, budget))
            figures.append(figure(f"{title}: above rest", busy - rest, "ms", rest))
        if rate:
            figures.append(figure("requests that failed meanwhile", project.faults_seen(), ""))
    sys.setswitchinterval(before_s)
    gc.unfreeze()
    return figures


async def _copy(local: SqliteStore, copier: Copier) -> None:
    while (await local.journal_size()).depth:
        await copier.tick()
        await asyncio.sleep(BREATH_S)
