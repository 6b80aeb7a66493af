"""The sample queries of the specification on PostgreSQL, as they stand, on known data.

With them: what the views do with INSERT and DELETE, who sees what, and what becomes of tables
that were there before. Left out is what cannot run anywhere: `tablename` in the statistics of
indices (it is `relname`), partitions of a table that has none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from bot.core.readings import READINGS
from bot.storage.kinds import BY_NAME, SAMPLE_READINGS
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.world import make_roles, migrate, migrations

MINUTE = timedelta(minutes=1)
OURS = ("0001_snapshots.sql", "0002_metrics.sql")


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.set_type_codec(
            "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
        yield connection
    finally:
        await connection.close()


@pytest_asyncio.fixture
async def db(any_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Every major; a fresh database."""
    async with connected(any_database) as connection:
        yield connection


@pytest_asyncio.fixture
async def one(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """One major, for what is the same in all of them."""
    async with connected(database) as connection:
        yield connection


@pytest.fixture
def now() -> datetime:
    """The views count back from the server's clock, so the data must lie just before it."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest_asyncio.fixture
async def filled(db: asyncpg.Connection[Any], now: datetime) -> asyncpg.Connection[Any]:
    """Ten snapshots a minute apart, the last a minute ago; one old one; a metric; alerts."""
    for age in range(1, 11):
        await db.execute(
            "INSERT INTO system_stats (timestamp, cpu_usage, ram_usage, server_count) "
            "VALUES ($1, $2, $3, 3)",
            now - age * MINUTE,
            age * 10.0,
            50.0 + age,
        )
    await db.execute(
        "INSERT INTO system_stats (timestamp, cpu_usage) VALUES ($1, 1.25)",
        now - timedelta(days=31),
    )
    await db.execute(
        "INSERT INTO system_metrics (timestamp, metric_name, metric_value, labels) "
        "VALUES ($1, 'recipes_created_daily', 12, '{\"host\": \"localhost\"}')",
        now,
    )
    await db.execute(
        "INSERT INTO alert_history (timestamp, rule_name, severity, category, message, "
        "metrics_snapshot, resolved, resolved_at) VALUES "
        "($1, 'HighCPU', 'warning', 'system', 'CPU 91 %', '{\"cpu_usage\": 91}', FALSE, NULL), "
        "($2, 'HighDisk', 'critical', 'system', 'disk', '{}', TRUE, $3)",
        now - 2 * MINUTE,
        now - 5 * MINUTE,
        now,
    )
    await db.execute("SELECT refresh_metrics_views()")
    return db


async def rows(db: asyncpg.Connection[Any], query: str, *values: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.fetch(query, *values)]


# Metrics by name


async def test_cpu_of_the_last_hour(filled: asyncpg.Connection[Any], now: datetime) -> None:
    found = await rows(
        filled,
        "-- 直近1時間のCPU使用率\nSELECT timestamp, metric_value\nFROM system_metrics\n"
        "WHERE metric_name = 'cpu_usage'\n  AND timestamp >= NOW() - INTERVAL '1 hour'\n"
        "ORDER BY timestamp DESC;",
    )
    assert found == [(now - age * MINUTE, age * 10.0) for age in range(1, 11)]


async def test_mean_and_extremes_of_a_day(filled: asyncpg.Connection[Any]) -> None:
    found = await rows(
        filled,
        "SELECT\n    AVG(metric_value) as avg_cpu,\n    MIN(metric_value) as min_cpu,\n"
        "    MAX(metric_value) as max_cpu\nFROM system_metrics\n"
        "WHERE metric_name = 'cpu_usage'\n  AND timestamp >= NOW() - INTERVAL '24 hours';",
    )
    assert found == [(55.0, 10.0, 100.0)]
    average = (
        "SELECT AVG(cpu_usage) as avg_cpu\nFROM system_stats\n"
        "WHERE timestamp > NOW() - INTERVAL '24 hours';"
    )
    assert await rows(filled, average) == [(55.0,)]


async def test_counts(filled: asyncpg.Connection[Any]) -> None:
    assert await rows(filled, "SELECT COUNT(*) FROM system_metrics;") == [(10 * 3 + 1 + 1,)]
    assert await rows(filled, "SELECT COUNT(*) FROM metrics_raw;") == [(0,)]
    assert len(await rows(filled, "SELECT * FROM system_metrics LIMIT 10;")) == 10


async def test_latest_metrics_has_exactly_four_columns(
    filled: asyncpg.Connection[Any], now: datetime
) -> None:
    found = await rows(filled, "SELECT * FROM latest_metrics ORDER BY metric_name;")
    assert found == [
        ("cpu_usage", 10.0, {}, now - MINUTE),
        ("guild_count", 3.0, {}, now - MINUTE),
        ("memory_usage", 51.0, {}, now - MINUTE),
        ("recipes_created_daily", 12.0, {"host": "localhost"}, now),
    ]
    named = (
        "SELECT metric_name, metric_value, labels, timestamp\nFROM latest_metrics\n"
        "ORDER BY metric_name;"
    )
    assert await rows(filled, named) == found


async def test_percentiles_of_the_last_day(filled: asyncpg.Connection[Any]) -> None:
    query = (
        "SELECT metric_name, avg_value, p50, p95, p99\nFROM metrics_last_24h\nORDER BY metric_name;"
    )
    found = await rows(filled, query)
    assert [row[0] for row in found] == [
        "cpu_usage",
        "guild_count",
        "memory_usage",
        "recipes_created_daily",
    ]
    assert found[0][1:] == pytest.approx((55.0, 55.0, 95.5, 99.1))
    await filled.execute("INSERT INTO system_metrics (metric_name, metric_value) VALUES ('new', 1)")
    assert await rows(filled, query) == found
    await filled.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY metrics_last_24h;")
    assert ("new", 1.0, 1.0, 1.0, 1.0) in await rows(filled, query)


async def test_the_bot_refreshes_the_last_day_though_it_does_not_own_it(
    filled: asyncpg.Connection[Any],
) -> None:
    await filled.execute("INSERT INTO system_metrics (metric_name, metric_value) VALUES ('new', 1)")
    async with as_person(filled, "service"):
        await filled.execute("SELECT refresh_metrics_views()")
        assert await filled.fetchval("SELECT count(*) FROM metrics_last_24h") == 5


async def test_statistics_of_one_metric(filled: asyncpg.Connection[Any]) -> None:
    found = await filled.fetch("SELECT * FROM get_metric_stats('cpu_usage', 24);")
    assert [list(row.keys()) for row in found] == [
        ["avg_value", "min_value", "max_value", "p50", "p95", "p99", "count"]
    ]
    assert tuple(found[0]) == pytest.approx((55.0, 10.0, 100.0, 55.0, 95.5, 99.1, 10))
    named = "SELECT count FROM get_metric_stats(metric_name => 'cpu_usage', hours => 24 * 40)"
    assert await rows(filled, named) == [(11,)]
    none = await rows(filled, "SELECT * FROM get_metric_stats('unheard_of', 24)")
    assert none == [(None, None, None, None, None, None, 0)]


async def test_cleaning_up_tells_what_was_really_deleted(filled: asyncpg.Connection[Any]) -> None:
    clean = "SELECT * FROM cleanup_old_metrics(30);"
    assert await rows(filled, clean) == [
        ("system_stats", 1),
        ("system_metrics", 0),
        ("metrics_raw", 0),
    ]
    assert await rows(filled, "SELECT deleted_count FROM cleanup_old_metrics(7)") == [(0,)] * 3
    assert await rows(filled, "SELECT COUNT(*) FROM system_stats") == [(10,)]
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await rows(filled, "SELECT * FROM cleanup_old_metrics(retention_days => -1)")


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("DELETE FROM system_metrics WHERE timestamp < NOW() - INTERVAL '30 days'", 31),
        ("DELETE FROM metrics_raw WHERE timestamp < NOW() - INTERVAL '30 days'", 32),
        ("DELETE FROM system_stats WHERE timestamp < NOW() - INTERVAL '330 s'", 5 * 3 + 1),
        ("DELETE FROM performance_metrics WHERE recorded_at < NOW() - INTERVAL '7 days'", 31),
        ("DELETE FROM system_metrics WHERE metric_name = 'cpu_usage'", 21),
    ],
)
async def test_deleting(filled: asyncpg.Connection[Any], statement: str, left: int) -> None:
    await filled.execute(statement)
    assert await rows(filled, "SELECT count(*) FROM system_metrics") == [(left,)]


async def test_a_deleted_reading_leaves_its_snapshot_the_others(
    db: asyncpg.Connection[Any], now: datetime
) -> None:
    shards = [["shard_ping", {"shard": "0"}, 80.5], ["shard_ping", {"shard": "1"}, 81.5]]
    await db.execute(
        "INSERT INTO system_stats (timestamp, bot_id, cpu_usage, ram_usage, extra) VALUES "
        "($1, 'primary', 40, 50, $2), ($1, 'second', 41, 51, NULL)",
        now,
        shards,
    )
    await db.execute(
        "INSERT INTO system_metrics (timestamp, metric_name, metric_value) "
        "VALUES ($1, 'cpu_usage', 99)",
        now,
    )
    every = "SELECT bot_id, cpu_usage, ram_usage, extra FROM system_stats ORDER BY bot_id"
    # What was reported under the name of a reading is a row of its own.
    await db.execute("DELETE FROM system_metrics WHERE metric_value = 99")
    assert await rows(db, every) == [
        ("primary", 40.0, 50.0, shards),
        ("second", 41.0, 51.0, None),
    ]
    await db.execute(
        "DELETE FROM system_metrics WHERE labels ->> 'shard' = '1' OR metric_value = 41"
    )
    assert await rows(db, every) == [
        ("primary", 40.0, 50.0, shards[:1]),
        ("second", None, 51.0, None),
    ]
    await db.execute("DELETE FROM system_metrics WHERE metric_name <> 'memory_usage'")
    assert await rows(db, every) == [
        ("primary", None, 50.0, None),
        ("second", None, 51.0, None),
    ]
    assert await db.execute("DELETE FROM system_metrics WHERE bot_id = 'second'") == "DELETE 1"
    assert await rows(db, every) == [("primary", None, 50.0, None)]
    await db.execute("UPDATE system_stats SET cpu_usage = 1, extra = $1", shards)
    assert await db.execute("DELETE FROM system_metrics") == "DELETE 4"
    assert await rows(db, every) == []
    assert await rows(db, "SELECT count(*) FROM comet_deletions") == [(0,)]


async def test_metrics_are_inserted_by_name(db: asyncpg.Connection[Any]) -> None:
    at = datetime(2025, 11, 21, 12, 41, 25, tzinfo=UTC)
    ((made, when),) = await rows(
        db,
        "INSERT INTO system_metrics (metric_name, metric_value, labels) "
        "VALUES ('cpu_usage', 45.5, '{\"host\": \"localhost\"}') RETURNING id, timestamp",
    )
    assert isinstance(made, UUID) and abs(when - datetime.now(UTC)) < MINUTE
    await db.execute(
        "INSERT INTO system_metrics (timestamp, metric_name, metric_value) "
        "VALUES ('2025-11-21 12:41:25+00', 'wallbounce', 0.875)"
    )
    await db.execute(
        "INSERT INTO performance_metrics (metric_type, metric_value, recorded_at) "
        "VALUES ('loop', 1.5, '2025-11-21 12:41:25+00')"
    )
    latest = {row[0]: row[1:] for row in await rows(db, "SELECT * FROM latest_metrics")}
    assert latest["cpu_usage"][:2] == (45.5, {"host": "localhost"})
    assert latest["wallbounce"] == (0.875, {}, at)
    assert await rows(db, "SELECT * FROM performance_metrics WHERE metric_type = 'loop'") == [
        ("loop", 1.5, at)
    ]
    for bad in ("'NaN'", "'Infinity'", "'-Infinity'", "NULL"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await db.execute(
                f"INSERT INTO system_metrics (metric_name, metric_value) VALUES ('bad', {bad})"
            )


async def test_ids_by_name_are_distinct_and_stay(filled: asyncpg.Connection[Any]) -> None:
    first, second = [await rows(filled, "SELECT id FROM system_metrics") for _ in range(2)]
    assert len(set(first)) == 32 and sorted(first) == sorted(second)


# Snapshots


async def test_dashboard_reads_of_system_stats(
    filled: asyncpg.Connection[Any], now: datetime
) -> None:
    newest = await filled.fetch("SELECT * FROM system_stats ORDER BY timestamp DESC LIMIT 10")
    assert list(newest[0].keys())[:15] == [
        "id",
        "bot_id",
        "cpu_usage",
        "ram_usage",
        "memory_rss",
        "memory_heap",
        "ping_gateway",
        "ping_lavalink",
        "server_count",
        "guild_count",
        "uptime",
        "status",
        "timestamp",
        "updated_at",
        "created_at",
    ]
    assert [row["timestamp"] for row in newest] == [now - age * MINUTE for age in range(1, 11)]


async def test_a_snapshot_is_inserted_by_its_public_columns(db: asyncpg.Connection[Any]) -> None:
    await db.execute(
        "INSERT INTO system_stats (cpu_usage, ram_usage, memory_rss, memory_heap, "
        "ping_gateway, server_count, uptime) VALUES (45.5, 60.25, 128.5, 64.25, 89.5, 3, 3600)"
    )
    assert await rows(
        db,
        "SELECT bot_id, cpu_usage, ram_usage, memory_rss, memory_heap, ping_gateway, "
        "ping_lavalink, server_count, guild_count, uptime, status, "
        "timestamp >= NOW() - INTERVAL '1 minute' FROM system_stats",
    ) == [("primary", 45.5, 60.25, 128.5, 64.25, 89.5, None, 3, 3, 3600, "online", True)]
    await db.execute("UPDATE system_stats SET server_count = 4")
    assert await rows(db, "SELECT guild_count FROM system_stats") == [(4,)]
    await db.execute("UPDATE system_stats SET guild_count = 5")
    assert await rows(db, "SELECT server_count FROM system_stats") == [(5,)]


async def test_snapshots_of_one_moment_stand_a_millisecond_apart(
    db: asyncpg.Connection[Any],
) -> None:
    await db.execute(
        "INSERT INTO system_stats (timestamp, bot_id) "
        "SELECT '2026-01-10 12:00:00.0005+00', bot FROM generate_series(1, 3), "
        "(VALUES ('a'), ('b')) AS bots (bot)"
    )
    found = await rows(db, "SELECT timestamp, bot_id FROM system_stats ORDER BY 2, 1")
    start = datetime(2026, 1, 10, 12, tzinfo=UTC)
    assert found == [
        (start + step * timedelta(milliseconds=1), bot) for bot in "ab" for step in range(3)
    ]


async def test_every_reading_has_its_column_and_its_name(db: asyncpg.Connection[Any]) -> None:
    columns = await rows(
        db,
        "SELECT column_name, column_default IS NULL FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = 'system_stats'",
    )
    assert {name for name, _ in columns} >= set(BY_NAME["samples"].columns)
    assert all(is_bare for name, is_bare in columns if name in SAMPLE_READINGS)
    names = ", ".join(SAMPLE_READINGS)
    values = ", ".join(str(number) for number in range(1, len(SAMPLE_READINGS) + 1))
    await db.execute(f"INSERT INTO system_stats ({names}) VALUES ({values})")
    expected = {spec.name: spec.column for spec in READINGS if spec.column is not None}
    expected["ping_lavalink"] = "ping_lavalink"
    numbers = {name: SAMPLE_READINGS.index(column) + 1.0 for name, column in expected.items()}
    for view in ("system_metrics", "latest_metrics", "comet_readings"):
        found = await rows(db, f"SELECT metric_name, metric_value FROM {view}")
        assert dict(found) == numbers, view
    found = await rows(
        db, "SELECT n, comet_reading_column(n) FROM unnest($1::text[]) AS n", [*expected, "other"]
    )
    assert dict(found) == {**expected, "other": None}


async def test_the_newest_value_of_a_reading_is_found_behind_many_rows_without_it(
    db: asyncpg.Connection[Any], now: datetime
) -> None:
    await db.execute(
        "INSERT INTO system_stats (timestamp, cpu_usage, ping_lavalink, kuma_age) "
        "SELECT $1::timestamptz - n * interval '10 s', n, CASE WHEN n = 400 THEN 7.5 END, "
        "CASE WHEN n % 50 = 0 THEN n END FROM generate_series(1, 500) AS n",
        now,
    )
    found = {row[0]: row[1:] for row in await rows(db, "SELECT * FROM latest_metrics")}
    assert found == {
        "cpu_usage": (1.0, {}, now - timedelta(seconds=10)),
        "kuma_age": (50.0, {}, now - timedelta(seconds=500)),
        "ping_lavalink": (7.5, {}, now - timedelta(seconds=4000)),
    }


async def test_labelled_readings_count_as_latest_for_a_day(
    db: asyncpg.Connection[Any], now: datetime
) -> None:
    for days, extra in ((2, [["old", {}, 1]]), (0.5, [["gone", {}, 2], ["kept", {}, 3]])):
        await db.execute(
            "INSERT INTO system_stats (timestamp, extra) VALUES ($1, $2)",
            now - timedelta(days=days),
            extra,
        )
    await db.execute(
        "INSERT INTO system_stats (timestamp, extra) VALUES ($1, $2)",
        now,
        [["kept", {"a": "b"}, 4], ["odd", {}, None], "odd"],
    )
    found = {row[0]: row[1:3] for row in await rows(db, "SELECT * FROM latest_metrics")}
    assert found == {"gone": (2.0, {}), "kept": (4.0, {"a": "b"})}
    for name in ("old", "kept"):
        count = await db.fetchval("SELECT count FROM get_metric_stats($1, 100)", name)
        assert count == {"old": 1, "kept": 2}[name]


# Alerts and what other cogs report


async def test_alerts(filled: asyncpg.Connection[Any], now: datetime) -> None:
    found = await rows(
        filled,
        "-- 未解決アラート一覧\nSELECT rule_name, severity, message, timestamp\n"
        "FROM alert_history\nWHERE resolved = FALSE\nORDER BY timestamp DESC;",
    )
    assert found == [("HighCPU", "warning", "CPU 91 %", now - 2 * MINUTE)]
    found = await rows(
        filled,
        "-- 過去24時間のアラート統計\nSELECT\n    severity,\n    COUNT(*) as count\n"
        "FROM alert_history\nWHERE timestamp >= NOW() - INTERVAL '24 hours'\nGROUP BY severity;",
    )
    assert sorted(found) == [("critical", 1), ("warning", 1)]
    ((*told, age_s),) = await rows(
        filled,
        "SELECT rule_name, severity, message, age_seconds\nFROM active_alerts\n"
        "ORDER BY timestamp DESC;",
    )
    assert told == ["HighCPU", "warning", "CPU 91 %"] and 120 <= age_s < 180


async def test_conversations_and_songs(db: asyncpg.Connection[Any]) -> None:
    for number in range(3):
        await db.execute(
            "INSERT INTO conversation_logs (user_id, user_name, prompt, response) "
            "VALUES ('1', 'みこ', $1, 'a')",
            f"q{number}",
        )
        await db.execute(
            "INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id) "
            "VALUES ('1099999999999999999', $1, 'みこ', '1')",
            "Stellar Stellar" if number else "Ahoy",
        )
    assert await rows(
        db,
        "SELECT user_name, COUNT(*) as conversation_count\nFROM conversation_logs\n"
        "WHERE timestamp > NOW() - INTERVAL '7 days'\nGROUP BY user_name\n"
        "ORDER BY conversation_count DESC\nLIMIT 10;",
    ) == [("みこ", 3)]
    assert await rows(
        db,
        "SELECT guild_id, COUNT(*) as play_count\nFROM music_logs\n"
        "WHERE timestamp > NOW() - INTERVAL '30 days'\nGROUP BY guild_id\n"
        "ORDER BY play_count DESC;",
    ) == [("1099999999999999999", 3)]
    assert await rows(
        db, "SELECT song_title, count FROM popular_songs ORDER BY count DESC LIMIT 10"
    ) == [("Stellar Stellar", 2), ("Ahoy", 1)]


# Roll-ups and housekeeping


async def test_hours_and_days_are_unique(db: asyncpg.Connection[Any]) -> None:
    hour = (
        "INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count) "
        "VALUES ('2025-11-21 12:00:00+00', 'cpu_usage', 1.5, 1, 2, 360)"
    )
    day = "INSERT INTO daily_summaries (date, summary_data) VALUES ('2025-11-21', '{\"a\": 1}')"
    for insert in (hour, day):
        await db.execute(insert)
        with pytest.raises(asyncpg.UniqueViolationError):
            await db.execute(insert)
    await db.execute(f"{hour} ON CONFLICT (hour, metric_name, bot_id) DO UPDATE SET count = 361")
    await db.execute(f"{day} ON CONFLICT (date) DO UPDATE SET updated_at = NOW()")
    assert await rows(
        db, "SELECT count FROM metrics_hourly WHERE hour >= '2025-11-21' AND hour < '2025-11-22'"
    ) == [(361,)]
    await db.execute(
        "INSERT INTO metrics_raw (metric_type, data) VALUES ('system', '{\"cpu\": 1}')"
    )
    assert await rows(db, "SELECT data FROM metrics_raw") == [({"cpu": 1},)]


async def test_sizes_and_maintenance(filled: asyncpg.Connection[Any]) -> None:
    name = await filled.fetchval("SELECT current_database()")
    assert await rows(filled, f"SELECT\n    pg_size_pretty(pg_database_size('{name}')) as db_size;")
    found = await rows(
        filled,
        "SELECT\n    table_name,\n"
        "    pg_size_pretty(pg_total_relation_size(quote_ident(table_name)::regclass)) as size\n"
        "FROM information_schema.tables\nWHERE table_schema = 'public'\n"
        "ORDER BY pg_total_relation_size(quote_ident(table_name)::regclass) DESC;",
    )
    assert {"system_stats", "system_metrics", "metrics_hourly"} <= {row[0] for row in found}
    assert await filled.fetchval("SELECT comet_size('{}')") > 100_000
    await filled.execute("VACUUM ANALYZE;")


@pytest.mark.parametrize("person", ["service", "viewer"])
async def test_long_tables_answer_quickly(db: asyncpg.Connection[Any], person: str) -> None:
    """Two days of three bots, 52,000 rows; walks over all of them would take ten times longer.

    Row level security lets a plan look up in an index only what cannot leak.
    """
    await db.execute(
        "INSERT INTO system_stats (bot_id, timestamp, cpu_usage, ram_usage, disk_usage, "
        "load_average_1m, threads, ping_gateway) "
        "SELECT b, now() - n * interval '10 s', n % 100, CASE WHEN n % 2 = 0 THEN 1 END, "
        "CASE WHEN n % 3 = 0 THEN 1 END, CASE WHEN n % 5 = 0 THEN 1 END, "
        "CASE WHEN n % 7 = 0 THEN 1 END, CASE WHEN n > 17000 THEN 80 END "
        "FROM generate_series(1, 17280) AS n, (VALUES ('a'), ('b'), ('c')) AS bots (b)"
    )
    await db.execute("ANALYZE system_stats")
    for query, most_ms in (
        (
            "SELECT timestamp, metric_value FROM system_metrics WHERE metric_name = 'cpu_usage' "
            "AND timestamp >= NOW() - INTERVAL '1 hour' ORDER BY timestamp DESC",
            100,
        ),
        ("SELECT * FROM latest_metrics", 100),
        ("SELECT * FROM system_stats ORDER BY timestamp DESC LIMIT 10", 20),
        ("SELECT * FROM get_metric_stats('cpu_usage', 24)", 300),
    ):
        took = []
        async with as_person(db, person):
            for _ in range(3):
                plan = await db.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")
                took.append(json.loads(plan)[0]["Execution Time"])
        assert min(took) < most_ms, query


# Who sees what

PERSONS: dict[str, tuple[str, dict[str, object] | None]] = {
    "anon": ("anon", {"role": "anon"}),
    "anon that claims": ("anon", {"app_metadata": {"comet_role": "admin"}}),
    "user": ("authenticated", {"sub": "1", "app_metadata": {}}),
    "pretender": (
        "authenticated",
        {"comet_role": "admin", "user_metadata": {"comet_role": "admin"}},
    ),
    "no claims": ("authenticated", None),
    "odd claims": ("authenticated", {"app_metadata": "viewer"}),
    "viewer": ("authenticated", {"app_metadata": {"comet_role": "viewer"}}),
    "admin": ("authenticated", {"app_metadata": {"comet_role": "admin"}}),
    "service": ("service_role", None),
}
REFUSED = "refused"
READABLE = (
    "system_stats",
    "custom_metrics",
    "system_metrics",
    "performance_metrics",
    "latest_metrics",
    "metrics_raw",
    "metrics_hourly",
    "daily_summaries",
)
INTERNAL = ("comet_migrations", "comet_tables", "comet_deletions", "metrics_last_24h")


@asynccontextmanager
async def as_person(db: asyncpg.Connection[Any], name: str) -> AsyncIterator[None]:
    role, claims = PERSONS[name]
    transaction = db.transaction()
    await transaction.start()
    try:
        text = "" if claims is None else json.dumps(claims)
        await db.execute("select set_config('request.jwt.claims', $1, true)", text)
        await db.execute(f"set local role {role}")
        yield
    finally:
        await transaction.rollback()


async def seen(db: asyncpg.Connection[Any], name: str, query: str) -> object:
    """Whether the person sees any row, or REFUSED."""
    async with as_person(db, name):
        try:
            return bool(await db.fetch(query))
        except asyncpg.InsufficientPrivilegeError:
            return REFUSED


@pytest_asyncio.fixture
async def secrets(one: asyncpg.Connection[Any]) -> asyncpg.Connection[Any]:
    """A row in each table of ours."""
    for statement in (
        "INSERT INTO system_stats (cpu_usage) VALUES (1)",
        "INSERT INTO system_metrics (metric_name, metric_value) VALUES ('m', 1)",
        "INSERT INTO metrics_raw (metric_type, data) VALUES ('t', '{}')",
        "INSERT INTO daily_summaries (date, summary_data) VALUES ('2026-01-01', '{}')",
        "INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count) "
        "VALUES (now(), 'm', 1, 1, 1, 1)",
        "SELECT refresh_metrics_views()",
        "INSERT INTO comet_deletions (id, timestamp, bot_id, metric_name, labels) "
        "VALUES (gen_random_uuid(), now(), '', '', '{}')",
    ):
        await one.execute(statement)
    return one


async def test_nobody_sees_metrics_without_a_claim_and_viewers_see_them(
    secrets: asyncpg.Connection[Any],
) -> None:
    for person in PERSONS:
        may = person in ("viewer", "admin", "service")
        for table in READABLE:
            found = await seen(secrets, person, f"SELECT * FROM {table}")
            assert found is may, (person, table)
        for table in INTERNAL:
            found = await seen(secrets, person, f"SELECT * FROM {table}")
            assert found is (True if person == "service" else REFUSED), (person, table)


async def test_only_the_service_writes(secrets: asyncpg.Connection[Any]) -> None:
    statements = (
        "INSERT INTO system_stats (cpu_usage) VALUES (2)",
        "INSERT INTO system_metrics (metric_name, metric_value) VALUES ('n', 1)",
        "DELETE FROM system_metrics WHERE timestamp < now() + interval '1 day'",
        "UPDATE system_stats SET cpu_usage = 3",
        "DELETE FROM metrics_hourly",
        "SELECT * FROM cleanup_old_metrics(0)",
        "SELECT refresh_metrics_views()",
        "SELECT comet_import_samples('{\"rows\": []}')",
        "SELECT comet_latest_metrics('{}')",
    )
    for person in PERSONS:
        for statement in statements:
            found = await seen(secrets, person, statement)
            assert (found is REFUSED) is (person != "service"), (person, statement)


async def test_statistics_by_function_show_what_the_table_shows(
    secrets: asyncpg.Connection[Any],
) -> None:
    for person in PERSONS:
        async with as_person(secrets, person):
            count = await secrets.fetchval("SELECT count FROM get_metric_stats('m', 24)")
        assert count == (person in ("viewer", "admin", "service")), person


async def test_an_operator_opens_a_table_and_shuts_it_again(
    secrets: asyncpg.Connection[Any],
) -> None:
    await secrets.execute("SELECT comet_open('system_stats')")
    for _ in range(2):
        for person in PERSONS:
            assert await seen(secrets, person, "SELECT * FROM system_stats") is True, person
        assert await seen(secrets, "anon", "SELECT * FROM custom_metrics") is False
        assert await seen(secrets, "anon", "SELECT * FROM latest_metrics") is True
        assert await seen(secrets, "anon", "DELETE FROM system_stats") is REFUSED
        # Repeating the migrations does not shut it.
        for file in migrations():
            if file.name in OURS:
                await secrets.execute(file.read_text(encoding="utf-8"))
    await secrets.execute("SELECT comet_close('system_stats')")
    assert await seen(secrets, "anon", "SELECT * FROM system_stats") is False
    assert await seen(secrets, "viewer", "SELECT * FROM system_stats") is True
    for table in (*INTERNAL, "conversation_logs", "music_logs", "bot_logs", "outbox", "cards",
                  "monitoring_config", "latest_metrics", "no_table"):  # fmt: skip
        with pytest.raises(asyncpg.RaiseError):
            await secrets.execute("SELECT comet_open($1)", table)
        assert await seen(secrets, "anon", "SELECT * FROM system_stats") is False


async def test_policies_of_somebody_else_open_nothing(secrets: asyncpg.Connection[Any]) -> None:
    await secrets.execute("CREATE POLICY everybody ON system_stats USING (true)")
    await secrets.execute("GRANT ALL ON system_stats TO anon")
    assert await seen(secrets, "anon", "SELECT * FROM system_stats") is False
    assert await seen(secrets, "user", "SELECT * FROM system_stats") is False
    assert await seen(secrets, "viewer", "SELECT * FROM system_stats") is True
    await secrets.execute("SELECT comet_protect_all()")
    assert await seen(secrets, "anon", "UPDATE system_stats SET cpu_usage = 1") is REFUSED


async def test_every_table_has_row_level_security_and_every_view_asks_as_its_reader(
    one: asyncpg.Connection[Any],
) -> None:
    found = await rows(
        one,
        "SELECT relname, relkind::text, relrowsecurity, reloptions FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')",
    )
    assert len(found) > 10
    for name, kind, is_secured, options in found:
        if kind == "v":
            assert "security_invoker=true" in (options or ()), name
        else:
            assert is_secured, name
    kept = await rows(one, "SELECT table_name FROM comet_tables")
    assert {name for (name,) in kept} >= {name for name, *_ in found}


async def test_every_function_is_bound_to_its_own_names_and_to_the_service(
    one: asyncpg.Connection[Any],
) -> None:
    found = await rows(
        one,
        "SELECT oid::regprocedure::text, proconfig, prosqlbody IS NOT NULL, "
        "has_function_privilege('anon', oid, 'execute') "
        "OR has_function_privilege('authenticated', oid, 'execute'), "
        "has_function_privilege('service_role', oid, 'execute') "
        "FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    assert len(found) > 20
    for name, config, is_bound, is_public, is_served in found:
        assert is_bound or 'search_path=""' in (config or ()), name
        assert is_public is name.startswith("get_metric_stats("), name
        assert is_served, name


async def test_new_snapshots_are_told_in_realtime(one: asyncpg.Connection[Any]) -> None:
    found = await rows(
        one, "SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime'"
    )
    assert ("system_stats",) in found


# Roles, tables and views that are there later or were there before


@pytest.fixture
def bare(postgres: PostgresServer) -> Iterator[tuple[PostgresServer, str]]:
    """A database without anything."""
    name = postgres.create_database()
    yield postgres, name
    postgres.drop_database(name)


async def test_roles_that_come_later_get_what_is_theirs() -> None:
    """Plain PostgreSQL first: nobody but the owner there."""
    with PostgresServer(16) as server:
        name = server.create_database()
        for _ in range(2):
            migrate(server, name, ours())
        make_roles(server)
        async with connected(server.dsn(name)) as db:
            await db.execute("INSERT INTO system_stats (cpu_usage) VALUES (1)")
            every = "SELECT * FROM latest_metrics"
            for person in ("anon", "viewer", "service"):
                assert await seen(db, person, every) is REFUSED
            await db.execute("SELECT comet_protect_all()")
            assert await seen(db, "anon", every) is False
            assert await seen(db, "viewer", every) is True
            assert await seen(db, "service", every) is True


def ours() -> list[Path]:
    return [file for file in migrations() if file.name in OURS]


OLDER = """
CREATE TABLE system_stats (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    bot_id TEXT DEFAULT 'primary',
    cpu_usage REAL DEFAULT 0,
    ram_usage REAL DEFAULT 0,
    memory_rss REAL DEFAULT 0,
    memory_heap REAL DEFAULT 0,
    ping_gateway REAL DEFAULT 0,
    ping_lavalink REAL DEFAULT 0,
    server_count INTEGER DEFAULT 0,
    guild_count INTEGER DEFAULT 0,
    uptime INTEGER DEFAULT 0,
    status TEXT DEFAULT 'online',
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_system_stats_timestamp ON system_stats(timestamp DESC);
CREATE INDEX idx_system_stats_bot_id ON system_stats(bot_id, timestamp DESC);
INSERT INTO system_stats (cpu_usage, memory_rss, server_count, timestamp, bot_id) VALUES
    (12.34, 123.45, 3, '2025-11-21 12:00:00.123456+00', NULL),
    (12.35, 123.45, 3, '2025-11-21 12:00:00.123999+00', NULL);

CREATE TABLE system_metrics (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    metric_name VARCHAR(100) NOT NULL,
    metric_value NUMERIC NOT NULL,
    labels JSONB DEFAULT '{}',
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_system_metrics_labels ON system_metrics USING GIN (labels);
INSERT INTO system_metrics (timestamp, metric_name, metric_value, labels) VALUES
    ('2025-11-21 12:00:00+00', 'cpu_usage', 45.5, '{"host": "localhost"}'),
    ('2025-11-21 12:01:00+00', 'recipes', 12, NULL),
    ('2025-11-21 12:02:00+00', 'odd', 'NaN', NULL);
CREATE TABLE performance_metrics (
    id SERIAL PRIMARY KEY,
    metric_type TEXT NOT NULL,
    metric_value REAL NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO performance_metrics (metric_type, metric_value, recorded_at)
    VALUES ('loop', 1.1, '2025-11-21 12:00:00');
CREATE TABLE metrics_raw (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    metric_type VARCHAR(50) NOT NULL,
    data JSONB NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO metrics_raw (metric_type, data) VALUES ('system', '{"cpu": 1}'), ('app', '{}');
CREATE TABLE metrics_hourly (
    id BIGSERIAL PRIMARY KEY,
    hour TIMESTAMPTZ NOT NULL,
    metric_name VARCHAR(100) NOT NULL,
    avg_value NUMERIC,
    min_value NUMERIC,
    max_value NUMERIC,
    count INTEGER,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    UNIQUE (hour, metric_name)
);
INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count)
    VALUES ('2025-11-21 12:00:00+00', 'cpu_usage', 1.5, 1, 2, 360);
CREATE TABLE daily_summaries (
    id BIGSERIAL PRIMARY KEY,
    date DATE NOT NULL UNIQUE,
    summary_data JSONB NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO daily_summaries (date, summary_data) VALUES ('2025-11-21', '{"total": 1}');
CREATE VIEW latest_metrics AS SELECT DISTINCT ON (metric_name) metric_name, metric_value, labels,
    timestamp FROM system_metrics ORDER BY metric_name, timestamp DESC;
CREATE MATERIALIZED VIEW metrics_last_24h AS
    SELECT metric_name, AVG(metric_value) AS avg_value FROM system_metrics GROUP BY metric_name;
CREATE FUNCTION get_metric_stats(p_metric VARCHAR, p_hours INTEGER) RETURNS TABLE (mean NUMERIC)
    LANGUAGE sql AS $$ SELECT AVG(metric_value) FROM system_metrics $$;
CREATE FUNCTION cleanup_old_metrics(days INTEGER DEFAULT 30) RETURNS VOID
    LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION refresh_metrics_views() RETURNS VOID LANGUAGE sql AS $$ SELECT 1 $$;
"""


async def test_tables_that_were_there_before_are_adopted_whole(
    bare: tuple[PostgresServer, str],
) -> None:
    server, name = bare
    server.execute(OLDER, database=name)
    for _ in range(2):
        migrate(server, name, ours())
    noon = datetime(2025, 11, 21, 12, tzinfo=UTC)
    async with connected(server.dsn(name)) as db:
        assert await rows(
            db,
            "SELECT bot_id, cpu_usage, memory_rss, server_count, timestamp FROM system_stats "
            "ORDER BY timestamp",
        ) == [
            ("primary", 12.34, 123.45, 3, noon + timedelta(milliseconds=123)),
            ("primary", 12.35, 123.45, 3, noon + timedelta(milliseconds=124)),
        ]
        await db.execute("INSERT INTO system_stats (ram_usage) VALUES (1)")
        assert await rows(
            db, "SELECT cpu_usage, server_count, disk_usage FROM system_stats WHERE ram_usage = 1"
        ) == [(None, None, None)]
        assert await rows(
            db,
            "SELECT metric_name, metric_value, labels, timestamp FROM custom_metrics "
            "ORDER BY metric_name",
        ) == [
            ("cpu_usage", 45.5, {"host": "localhost"}, noon),
            ("loop", 1.1, {}, noon),
            ("recipes", 12.0, {}, noon + MINUTE),
        ]
        assert await rows(db, "SELECT count(*) FROM system_metrics_before_comet") == [(3,)]
        assert await rows(db, "SELECT count(*) FROM performance_metrics_before_comet") == [(1,)]
        assert await rows(db, "SELECT count(*) FROM latest_metrics_before_comet") == [(3,)]
        assert await rows(db, "SELECT count(*) FROM metrics_last_24h_before_comet") == [(3,)]
        found = await rows(
            db, "SELECT right(id::text, 12), metric_type, data FROM metrics_raw ORDER BY id"
        )
        assert found == [("000000000001", "system", {"cpu": 1}), ("000000000002", "app", {})]
        await db.execute("INSERT INTO metrics_raw (metric_type, data) VALUES ('x', '{}')")
        for bot in ("primary", "second"):
            await db.execute(
                "INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, "
                "count, bot_id) VALUES ('2025-11-21 12:00:00+00', 'cpu_usage', 1, 1, 1, 1, $1) "
                "ON CONFLICT (hour, metric_name, bot_id) DO NOTHING",
                bot,
            )
        assert await rows(db, "SELECT bot_id, avg_value FROM metrics_hourly ORDER BY 1") == [
            ("primary", 1.5),
            ("second", 1.0),
        ]
        assert await rows(db, "SELECT summary_data FROM daily_summaries") == [({"total": 1},)]
        assert len(await rows(db, "SELECT * FROM get_metric_stats('cpu_usage', 24)")) == 1
        assert len(await rows(db, "SELECT * FROM cleanup_old_metrics(30)")) == 3
        await rows(db, "SELECT refresh_metrics_views()")
        assert await rows(db, "SELECT number, name FROM comet_migrations ORDER BY 1") == [
            (1, "snapshots"),
            (2, "metrics"),
        ]


async def test_a_view_of_somebody_else_on_an_older_table_survives(
    bare: tuple[PostgresServer, str],
) -> None:
    server, name = bare
    server.execute(OLDER, database=name)
    server.execute("CREATE VIEW hot AS SELECT cpu_usage FROM system_stats", database=name)
    migrate(server, name, ours())
    assert sorted(server.fetch("SELECT cpu_usage::text FROM hot", database=name)) == [
        ("12.34",),
        ("12.35",),
    ]


async def test_repeating_the_migrations_changes_nothing(
    filled: asyncpg.Connection[Any],
) -> None:
    async def state() -> list[object]:
        return [
            await rows(filled, query)
            for query in (
                "SELECT relname, relkind::text, relfilenode, relacl::text FROM pg_class "
                "WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
                "SELECT oid::regprocedure::text, proacl::text FROM pg_proc "
                "WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
                "SELECT polname, polrelid::regclass::text FROM pg_policy ORDER BY 1, 2",
                "SELECT * FROM comet_migrations ORDER BY 1",
                "SELECT * FROM system_metrics ORDER BY id",
            )
        ]

    before = await state()
    for file in migrations():
        if file.name in OURS:
            await filled.execute(file.read_text(encoding="utf-8"))
    assert await state() == before
