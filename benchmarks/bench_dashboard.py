"""What dashboards ask, on thirty days of three bots, of each backend; and what thirty days weigh.

PostgREST is asked as a signed-in viewer, in the words of supabase-js; where its policies want more
than that, with what they want. The baseline is an answer of one row on the same way; a file has
no way to go.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import aiohttp
import asyncpg

from benchmarks.material import figure, snapshot
from benchmarks.project import Project
from bot.storage import sqlite_metrics
from bot.storage.kinds import SAMPLE_READINGS
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_rows import exact_time, to_ms
from bot.storage.store import Store
from tests.transfer_rows import Rows

Figures = list[dict[str, object]]

BOTS = ("primary", "second", "third")
DAYS = 30
PERIOD = timedelta(seconds=10)
SNAPSHOTS = DAYS * 8640
INCIDENTS = 3000
OPEN = 20
SONGS = 6000
NAMES = tuple(sqlite_metrics.COLUMN_OF)


class Question(NamedTuple):
    """`path` is below /rest/v1, and `who` asks there; None where it cannot be asked that way."""

    name: str
    sql: str
    path: str | None
    who: str = "viewer"
    is_for_sqlite: bool = True


SMALLEST = Question("one row", "select 1", "system_stats?select=status&limit=1")
QUESTIONS = (
    Question(
        "newest 10 snapshots",
        "select * from system_stats order by timestamp desc limit 10",
        "system_stats?select=*&order=timestamp.desc&limit=10",
    ),
    Question(
        "three columns of the last hour",
        "select timestamp, cpu_usage, ram_usage, server_count from system_stats "
        "where timestamp >= {hour_ago} and bot_id = 'primary' order by timestamp",
        "system_stats?select=timestamp,cpu_usage,ram_usage,server_count"
        "&timestamp=gte.{hour_ago}&bot_id=eq.primary&order=timestamp",
    ),
    Question(
        "latest_metrics",
        "select * from latest_metrics order by metric_name",
        "latest_metrics?select=*&order=metric_name",
    ),
    Question(
        "last hour of one metric by name",
        "select timestamp, metric_value from system_metrics where metric_name = 'cpu_usage' "
        "and timestamp >= {hour_ago} and bot_id = 'primary' order by timestamp desc",
        "system_metrics?select=timestamp,metric_value&metric_name=eq.cpu_usage"
        "&timestamp=gte.{hour_ago}&bot_id=eq.primary&order=timestamp.desc",
    ),
    Question(
        "24 h average",
        "select avg(cpu_usage) as avg_cpu from system_stats where timestamp > {day_ago}",
        None,  # Supabase leaves aggregates out of PostgREST
    ),
    Question(
        "get_metric_stats('cpu_usage', 24)",
        "select * from get_metric_stats('cpu_usage', 24)",
        "rpc/get_metric_stats?metric_name=cpu_usage&hours=24",
        is_for_sqlite=False,  # a method of the store, see below
    ),
    Question(
        "active_alerts",
        "select * from active_alerts order by timestamp desc",
        "active_alerts?select=*&order=timestamp.desc",
    ),
    Question(
        "metrics_hourly, 30 days of one metric",
        "select hour, avg_value, min_value, max_value from metrics_hourly "
        "where metric_name = 'cpu_usage' and bot_id = 'primary' order by hour",
        "metrics_hourly?select=hour,avg_value,min_value,max_value&metric_name=eq.cpu_usage"
        "&bot_id=eq.primary&order=hour",
    ),
    Question(
        "popular_songs",
        "select * from popular_songs limit 10",
        "popular_songs?select=*&limit=10",
        "admin",
    ),
    Question(
        "metrics_last_24h",
        "select * from metrics_last_24h order by metric_name",
        "metrics_last_24h?select=*&order=metric_name",
        "secret_key",
    ),
)


def run() -> Figures:
    end = datetime.now(UTC).replace(microsecond=0)
    with Project() as project:
        figures = asyncio.run(_remote(project, end))
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
        return figures + asyncio.run(_local(Path(home), end))


# What is asked


async def _remote(project: Project, end: datetime) -> Figures:
    connection = await asyncpg.connect(project.dsn)
    figures = await _fill_postgres(project, connection, end)

    async def by_sql(question: Question) -> int:
        ago = {"hour_ago": "now() - interval '1 hour'", "day_ago": "now() - interval '24 hours'"}
        return len(await connection.fetch(question.sql.format(**ago)))

    figures += await _asked("PostgreSQL", by_sql, QUESTIONS)
    took = await _median_ms(lambda: connection.fetch("select refresh_metrics_views()"))
    figures.append(figure("dashboard, PostgreSQL: refresh_metrics_views()", took, "ms"))
    hour_ago = (end - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with aiohttp.ClientSession() as session:

        async def by_http(question: Question) -> int:
            assert question.path is not None
            user = getattr(project, question.who)
            key = user if question.who == "secret_key" else project.publishable_key
            url = f"{project.url}/rest/v1/{question.path.format(hour_ago=hour_ago)}"
            headers = {"apikey": key, "Authorization": f"Bearer {user}"}
            async with session.get(url, headers=headers) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                return len(json.loads(text))

        figures += await _asked("PostgREST", by_http, [q for q in QUESTIONS if q.path])
    await connection.close()
    return figures


async def _local(home: Path, end: datetime) -> Figures:
    path = home / "monitoring.db"
    store = SqliteStore(path)
    await store.open()
    await _fill_sqlite(store, end)
    with closing(sqlite3.connect(path)) as db:

        async def by_sql(question: Question) -> int:
            ago = {
                "hour_ago": "datetime('now', '-1 hour')",
                "day_ago": "datetime('now', '-24 hours')",
            }
            return len(db.execute(question.sql.format(**ago)).fetchall())

        figures = await _asked("SQLite", by_sql, [q for q in QUESTIONS if q.is_for_sqlite])
    took = await _median_ms(lambda: store.metric_stats("cpu_usage", 24, end))
    figures.append(figure("dashboard, SQLite: metric_stats of the store, 24 h", took, "ms"))
    await store.close()
    return figures


async def _asked(
    backend: str, ask: Callable[[Question], Awaitable[int]], questions: Sequence[Question]
) -> Figures:
    baseline = None if backend == "SQLite" else await _median_ms(lambda: ask(SMALLEST))
    figures = []
    for question in questions:
        assert await ask(question), f"{backend}: {question.name}: nothing"
        took = await _median_ms(lambda question=question: ask(question))
        figures.append(figure(f"dashboard, {backend}: {question.name}", took, "ms", baseline))
    return figures


async def _median_ms(job: Callable[[], Awaitable[object]]) -> float:
    """Of fifteen times; of five, where it takes seconds."""
    took: list[float] = []
    while len(took) < 5 or (len(took) < 15 and sum(took) < 5000):
        began_s = time.perf_counter()
        await job()
        took.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(took)


# What is there to be asked about


async def _fill_postgres(
    project: Project, connection: asyncpg.Connection, end: datetime
) -> Figures:
    whole = {
        row["attname"]: row["typname"] != "float8"
        for row in await connection.fetch(
            "select a.attname, t.typname from pg_attribute a join pg_type t on t.oid = a.atttypid "
            "where a.attrelid = 'public.system_stats'::regclass and a.attnum > 0"
        )
    }
    values = ", ".join(
        "floor(random() * 20000)" if whole[column] else "floor(random() * 10000) / 100"
        for column in SAMPLE_READINGS
    )
    stores = [PostgresStore(project.dsn, bot_id=bot) for bot in BOTS]
    figures: Figures = []
    await connection.execute("alter table public.system_stats disable trigger user")
    for number, store in enumerate(stores):
        await store.open()
        tail = str(sqlite_metrics.sample_id(end, store.bot_id))[19:]
        start = end - SNAPSHOTS * PERIOD + timedelta(milliseconds=number)
        await connection.execute(
            f"""
            insert into public.system_stats (id, bot_id, timestamp, {", ".join(SAMPLE_READINGS)})
            select (left(h, 8) || '-' || right(h, 4) || '-8000-{tail}')::uuid, '{store.bot_id}',
                to_timestamp(ms / 1000.0), {values}
            from generate_series(1, {SNAPSHOTS}) as n
            cross join lateral (select {to_ms(start)} + n * 10000::bigint as ms) as t
            cross join lateral (select lpad(to_hex(ms), 12, '0') as h) as x
            """
        )
        await _fill_others(store, store.bot_id, end)
        if number == 0:
            figures = await _weigh(connection)
        await store.close()
    await connection.execute("alter table public.system_stats enable trigger user")
    await connection.execute("vacuum analyze")
    await connection.execute("select refresh_metrics_views()")
    return figures


async def _weigh(connection: asyncpg.Connection) -> Figures:
    """Against a table of long rows, one for each reading: a day of it, thirty times."""
    query = """
        select pg_total_relation_size('public.system_stats')
            + pg_total_relation_size('public.metrics_hourly')
    """
    ours = await connection.fetchval(query)
    await connection.execute(
        f"""
        create table public.long_rows (
            id bigserial primary key, timestamp timestamptz not null default now(),
            metric_name text not null, metric_value double precision not null,
            labels jsonb default '{{}}', created_at timestamptz default now());
        create index on public.long_rows (timestamp desc);
        create index on public.long_rows (metric_name, timestamp desc);
        insert into public.long_rows (timestamp, metric_name, metric_value)
        select now() + n * interval '10 s', name, random()
        from generate_series(1, 8640) as n cross join unnest(array{list(NAMES)}) as name
        """
    )
    long_rows = await connection.fetchval("select pg_total_relation_size('public.long_rows')")
    await connection.execute("drop table public.long_rows")
    title = "30 days of one bot on PostgreSQL, snapshots and roll-ups, indices included"
    return [figure(title, ours / 1e6, "MB", DAYS * long_rows / 1e6)]


async def _fill_sqlite(store: SqliteStore, end: datetime) -> None:
    rng = random.Random(1)
    pool = [sqlite_metrics.sample_row(snapshot(end, rng)) for _ in range(997)]

    def job(db: sqlite3.Connection) -> None:
        bots = [store._numbers.bot(db, bot) for bot in BOTS]
        start_ms = to_ms(end - SNAPSHOTS * PERIOD)
        for number in range(1, SNAPSHOTS + 1):
            at_ms = start_ms + number * 10_000
            for place, bot in enumerate(bots):
                row = pool[(number * 3 + place) % len(pool)]
                sqlite_metrics.insert_sample(db, bot, at_ms + place, row)

    await store._write(job)
    for bot in BOTS:
        await _fill_others(store, bot, end)


async def _fill_others(store: Store, bot: str, end: datetime) -> None:
    kinds = {"metrics_hourly": _hours(bot, end)}
    if bot == BOTS[0] or not isinstance(store, SqliteStore):
        # A file knows the alerts and songs of its own bot only.
        kinds |= {"incidents": _incidents(bot, end), "music": _songs(bot, end)}
    for kind, rows in kinds.items():
        while page := list(islice(rows, 2000)):
            await store.import_rows(kind, page)


def _hours(bot: str, end: datetime) -> Iterator[dict[str, object]]:
    """In the order of time, as they are made."""
    last = end.replace(minute=0, second=0)
    for number in range(DAYS * 24, 0, -1):
        hour = exact_time(last - timedelta(hours=number))
        for place, name in enumerate(NAMES):
            yield {
                "bot_id": bot,
                "metric_name": name,
                "hour": hour,
                "avg_value": 50.0 + place / 7,
                "min_value": 0.5,
                "max_value": 99.5,
                "count": 360,
            }


def _incidents(bot: str, end: datetime) -> Iterator[dict[str, object]]:
    for number, row in enumerate(Rows(bot).many("incidents", INCIDENTS)):
        at, is_open = end - timedelta(minutes=14 * number + 1), number < OPEN
        yield {
            **row,
            "timestamp": exact_time(at),
            "resolved": not is_open,
            "resolved_at": None if is_open else exact_time(at + timedelta(minutes=2)),
            "ending": None if is_open else "clear",
        }


def _songs(bot: str, end: datetime) -> Iterator[dict[str, object]]:
    for number, row in enumerate(Rows(bot).many("music", SONGS)):
        yield {**row, "timestamp": exact_time(end - timedelta(minutes=7 * number))}
