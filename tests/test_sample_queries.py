"""The sample queries of the specification, as they stand, on known data.

Left out is what only PostgreSQL can say: NOW(), INTERVAL, functions that return rows, and its
own catalogues.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.core.incident import Incident
from bot.core.observation import Sample
from bot.core.rule import Severity
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Decision

MINUTE = timedelta(minutes=1)


@pytest.fixture
def now() -> datetime:
    """The views count back from the real clock, so the data must lie just before it."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest_asyncio.fixture
async def path(tmp_path: Path, now: datetime) -> Path:
    """Ten snapshots a minute apart, the last a minute ago; one old one; alerts, songs, talk."""
    path = tmp_path / "monitoring.db"
    store = SqliteStore(path)
    await store.open()
    for age in range(1, 11):
        values = {"cpu_usage": age * 10.0, "memory_usage": 50.0 + age, "guild_count": 3}
        await store.save_sample(Sample(now - age * MINUTE, "primary", values))
    await store.save_sample(Sample(now - timedelta(days=31), "primary", {"cpu_usage": 1.25}))
    await store.save_metric(uuid4(), "recipes_created_daily", 12.0, {"host": "localhost"}, now)
    open_one = Incident(
        uuid4(), "HighCPU", "", Severity.WARNING, "system", "operator", "cpu_usage", 80.0,
        now - 2 * MINUTE, 91.0, message="CPU 91 %",
    )  # fmt: skip
    over = Incident(
        uuid4(), "HighDisk", "", Severity.CRITICAL, "system", "operator", "disk_usage", 95.0,
        now - 5 * MINUTE, 97.0, message="disk", resolved_at=now,
    )  # fmt: skip
    await store.record_decision(
        Decision(incidents=[open_one, over], metrics_snapshot={"cpu_usage": 91.0})
    )
    await store.save_hourly(now - timedelta(days=31))
    await store.close()
    return path


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as db:
        yield db


def text(at: datetime) -> str:
    return at.isoformat(" ", "milliseconds")[:23]


def test_tables_and_views_are_where_the_shell_looks_for_them(db: sqlite3.Connection) -> None:
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert names >= {
        "system_metrics",
        "metrics_raw",
        "metrics_hourly",
        "daily_summaries",
        "alert_history",
        "latest_metrics",
        "active_alerts",
        "metrics_last_24h",
        "system_stats",
        "conversation_logs",
        "music_logs",
        "bot_logs",
        "monitoring_config",
        "service_status_history",
        "performance_metrics",
        "popular_songs",
    }
    db.execute("SELECT name, sql FROM sqlite_master WHERE type='index';")


def test_counts(db: sqlite3.Connection) -> None:
    assert db.execute("SELECT COUNT(*) FROM system_metrics;").fetchone() == (10 * 3 + 1 + 1,)
    assert db.execute("SELECT COUNT(*) FROM metrics_raw;").fetchone() == (0,)


def test_latest_metrics_has_exactly_four_columns(db: sqlite3.Connection, now: datetime) -> None:
    rows = db.execute("SELECT * FROM latest_metrics;").fetchall()
    assert sorted(rows) == [
        ("cpu_usage", 10.0, "{}", text(now - MINUTE)),
        ("guild_count", 3, "{}", text(now - MINUTE)),
        ("memory_usage", 51.0, "{}", text(now - MINUTE)),
        ("recipes_created_daily", 12.0, '{"host":"localhost"}', text(now)),
    ]
    assert rows == db.execute("SELECT * FROM latest_metrics ORDER BY metric_name;").fetchall()
    named = db.execute(
        "SELECT metric_name, metric_value, labels, timestamp\nFROM latest_metrics\n"
        "ORDER BY metric_name;"
    )
    assert named.fetchall() == rows


def test_active_alerts(db: sqlite3.Connection, now: datetime) -> None:
    rows = db.execute(
        "SELECT rule_name, severity, message, age_seconds\nFROM active_alerts\n"
        "ORDER BY timestamp DESC;"
    ).fetchall()
    ((rule_name, severity, message, age_s),) = rows
    assert (rule_name, severity, message) == ("HighCPU", "warning", "CPU 91 %")
    assert 120 <= age_s < 180
    assert len(db.execute("SELECT * FROM active_alerts ORDER BY timestamp DESC;").fetchall()) == 1


def test_unresolved_alerts(db: sqlite3.Connection, now: datetime) -> None:
    rows = db.execute(
        "SELECT rule_name, severity, message, timestamp\nFROM alert_history\n"
        "WHERE resolved = FALSE\nORDER BY timestamp DESC;"
    ).fetchall()
    assert rows == [("HighCPU", "warning", "CPU 91 %", text(now - 2 * MINUTE))]
    assert db.execute(
        "SELECT triggered_at, metrics_data FROM alert_history WHERE resolved = TRUE"
    ).fetchall() == [(text(now - 5 * MINUTE), '{"cpu_usage":91.0}')]


def test_percentiles_of_the_last_day(db: sqlite3.Connection) -> None:
    rows = db.execute(
        "SELECT metric_name, avg_value, p50, p95, p99\nFROM metrics_last_24h\nORDER BY metric_name;"
    ).fetchall()
    assert [row[0] for row in rows] == [
        "cpu_usage",
        "guild_count",
        "memory_usage",
        "recipes_created_daily",
    ]
    assert rows[0][1:] == pytest.approx((55.0, 55.0, 95.5, 99.1))
    assert rows[3][1:] == (12.0, 12.0, 12.0, 12.0)
    extremes = "SELECT min_value, max_value, count FROM metrics_last_24h WHERE metric_name = ?"
    assert db.execute(extremes, ("cpu_usage",)).fetchone() == (10.0, 100.0, 10)


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("DELETE FROM system_metrics WHERE timestamp < datetime('now', '-30 days');", 31),
        ("DELETE FROM system_metrics WHERE timestamp < datetime('now', '-7 days');", 31),
        ("DELETE FROM metrics_raw WHERE timestamp < datetime('now', '-30 days');", 32),
        ("DELETE FROM system_stats WHERE timestamp < datetime('now', '-330 seconds');", 5 * 3 + 1),
        ("DELETE FROM metrics_hourly WHERE hour < datetime('now', '-7 days');", 32),
        ("DELETE FROM performance_metrics WHERE recorded_at < datetime('now', '-7 days');", 31),
    ],
)
def test_deleting_by_time(db: sqlite3.Connection, statement: str, left: int) -> None:
    db.execute(statement)
    db.commit()
    (count,) = db.execute("SELECT count(*) FROM system_metrics").fetchone()
    assert count == left
    if "hourly" in statement:
        assert db.execute("SELECT count(*) FROM metrics_hourly").fetchone() == (0,)


def test_maintenance_statements(db: sqlite3.Connection) -> None:
    for statement in ("VACUUM;", "ANALYZE;", "REINDEX;"):
        db.execute(statement)


def test_dashboard_reads_of_system_stats(db: sqlite3.Connection, now: datetime) -> None:
    newest = db.execute("SELECT * FROM system_stats ORDER BY timestamp DESC LIMIT 10")
    assert [column[0] for column in newest.description][:15] == [
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
    assert len({row[0] for row in newest.fetchall()}) == 10
    rows = db.execute(
        "SELECT timestamp, cpu_usage, ram_usage, server_count FROM system_stats "
        "WHERE timestamp >= datetime('now', '-5 minutes') ORDER BY timestamp ASC"
    ).fetchall()
    assert rows[-1] == (text(now - MINUTE), 10.0, 51.0, 3)
    assert len(rows) in (4, 5)
    average = "SELECT AVG(cpu_usage) as avg_cpu FROM system_stats WHERE timestamp > ?"
    assert db.execute(average, (text(now - timedelta(days=1)),)).fetchone() == (55.0,)


def test_a_snapshot_is_inserted_by_its_public_columns(db: sqlite3.Connection) -> None:
    db.execute(
        "INSERT INTO system_stats (cpu_usage, ram_usage, memory_rss, memory_heap, "
        "ping_gateway, server_count, uptime) VALUES (45.5, 60.25, 128.5, 64.25, 89.5, 3, 3600)"
    )
    row = db.execute(
        "SELECT bot_id, cpu_usage, ram_usage, memory_rss, memory_heap, ping_gateway, "
        "ping_lavalink, server_count, guild_count, uptime, status, id IS NOT NULL, "
        "timestamp >= datetime('now', '-1 minute') FROM system_stats ORDER BY timestamp DESC"
    ).fetchone()
    assert row == (
        "primary", 45.5, 60.25, 128.5, 64.25, 89.5, None, 3, 3, 3600, "online", 1, 1,
    )  # fmt: skip


def test_metrics_are_inserted_by_name(db: sqlite3.Connection) -> None:
    db.execute(
        "INSERT INTO system_metrics (metric_name, metric_value, labels) VALUES (?, ?, ?)",
        ("cpu_usage", 45.5, '{"host":"localhost"}'),
    )
    db.execute(
        "INSERT INTO system_metrics (timestamp, metric_name, metric_value) "
        "VALUES ('2025-11-21 12:41:25', 'wallbounce', 0.875)"
    )
    db.execute(
        "INSERT INTO performance_metrics (metric_type, metric_value, recorded_at) "
        "VALUES ('loop', 1.5, '2025-11-21 12:41:25.5')"
    )
    latest = {row[0]: row[1:] for row in db.execute("SELECT * FROM latest_metrics")}
    assert latest["cpu_usage"][:2] == (45.5, '{"host":"localhost"}')
    assert latest["wallbounce"] == (0.875, "{}", "2025-11-21 12:41:25.000")
    assert db.execute(
        "SELECT * FROM performance_metrics WHERE metric_type = 'loop'"
    ).fetchall() == [("loop", 1.5, "2025-11-21 12:41:25.500")]


def test_hours_and_days_are_unique(db: sqlite3.Connection) -> None:
    insert = (
        "INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count) "
        "VALUES ('2025-11-21 12:00:00', 'cpu_usage', 1.5, 1, 2, 360)"
    )
    db.execute(insert)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(insert)
    assert db.execute(
        "SELECT * FROM metrics_hourly WHERE hour >= '2025-11-21' AND hour < '2025-11-22'"
    ).fetchone()[:6] == ("2025-11-21 12:00:00.000", "cpu_usage", 1.5, 1.0, 2.0, 360)
    insert = "INSERT INTO daily_summaries (date, summary_data) VALUES ('2025-11-21', '{\"a\": 1}')"
    db.execute(insert)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(insert)
    db.execute(insert.replace("INSERT", "INSERT OR REPLACE"))


def test_alerts_raw_metrics_and_history_are_inserted_without_an_id(db: sqlite3.Connection) -> None:
    db.execute(
        "INSERT INTO alert_history (rule_name, severity, category, message, metrics_snapshot) "
        "VALUES ('SlowResponse', 'warning', 'app', 'slow', '{}')"
    )
    db.execute("INSERT INTO metrics_raw (metric_type, data) VALUES ('system', '{\"cpu\": 1}')")
    db.execute(
        "INSERT INTO service_status_history (service_id, service_name, status, response_time) "
        "VALUES ('1', 'API', 'up', 12.5)"
    )
    db.execute(
        "UPDATE alert_history SET resolved = TRUE, resolved_at = datetime('now') "
        "WHERE rule_name = 'SlowResponse'"
    )
    for table in ("alert_history", "metrics_raw", "service_status_history"):
        (row_id, age_s) = db.execute(
            f"SELECT id, julianday('now') - julianday(created_at) FROM {table} ORDER BY rowid DESC"
        ).fetchone()
        assert len(row_id) == 36 and row_id[14] == "4" and row_id[19] in "89ab"
        assert age_s < 60


def test_conversations_and_songs(db: sqlite3.Connection) -> None:
    for number in range(3):
        db.execute(
            "INSERT INTO conversation_logs (user_id, user_name, prompt, response) "
            "VALUES ('1', 'みこ', ?, 'a')",
            (f"q{number}",),
        )
        db.execute(
            "INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id) "
            "VALUES (1099999999999999999, ?, 'みこ', 1)",
            ("Stellar Stellar" if number else "Ahoy",),
        )
    db.execute("INSERT INTO bot_logs (level, message) VALUES ('INFO', 'started')")
    assert db.execute(
        "SELECT song_title, count FROM popular_songs ORDER BY count DESC LIMIT 10"
    ).fetchall() == [("Stellar Stellar", 2), ("Ahoy", 1)]
    assert db.execute(
        "SELECT user_name, COUNT(*) as conversation_count FROM conversation_logs "
        "GROUP BY user_name ORDER BY conversation_count DESC LIMIT 10;"
    ).fetchall() == [("みこ", 3)]
    assert db.execute(
        "SELECT guild_id, COUNT(*) as play_count FROM music_logs GROUP BY guild_id "
        "ORDER BY play_count DESC;"
    ).fetchall() == [("1099999999999999999", 3)]
    newest = db.execute("SELECT * FROM conversation_logs ORDER BY timestamp DESC LIMIT 50")
    assert len(newest.fetchall()) == 3


def test_guild_settings_of_the_sample_cog(db: sqlite3.Connection) -> None:
    query = """
            INSERT OR REPLACE INTO monitoring_config (
                guild_id, alert_channel_id, check_interval, 
                created_at, updated_at
            ) VALUES (?, ?, ?, ?, ?)
            """
    for channel in (5, 6):
        at = datetime.now().isoformat()
        db.execute(query, (1099999999999999999, channel, 60, at, at))
    found = db.execute("SELECT guild_id, alert_channel_id FROM monitoring_config").fetchall()
    assert found == [("1099999999999999999", "6")]
