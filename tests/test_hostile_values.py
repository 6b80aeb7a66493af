"""Values that no sane program sends: each is stored, or refused for good; nothing else suffers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.storage.copier import Copier
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.store import StoreError
from tests.test_copier import Clock, copier_of, opened, settle
from tests.test_store_contract import NOW
from tests.test_travel import everything, live_a_little

HOUR = timedelta(hours=1)
BEYOND = ("0001-01-01 00:00:00+09:00", "9999-12-31 23:59:59.999-09:00")
"""Times whose zone leads out of the years there are."""


@pytest_asyncio.fixture
async def remote(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database, timeout_s=5)
    await store.open()
    yield store
    await store.close()


async def written_by_hand(path: Path, *statements: str) -> Path:
    """A file in which somebody else wrote, too."""
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path


async def copied(path: Path, remote: PostgresStore) -> Copier:
    """All that is in a file has been carried over, or set aside."""
    async with opened(path, Clock()) as local:
        copier = copier_of(local, remote, Clock())
        await settle(copier, 60)
        return copier


# Out of the file, to the remote store


@pytest.mark.parametrize("at", BEYOND)
async def test_a_time_beyond_all_years_is_carried_as_it_is_and_in_nobodys_way(
    tmp_path: Path, remote: PostgresStore, at: str
) -> None:
    path = await written_by_hand(
        tmp_path / "a.db",
        "INSERT INTO conversation_logs (user_id, user_name, prompt, response, timestamp) "
        f"VALUES ('1', 'a', 'p', 'r', '{at}')",
        f"INSERT INTO alert_history (rule_name, message, timestamp) VALUES ('x', 'm', '{at}')",
        "INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id) "
        "VALUES ('1', 's', 'b', '2')",
    )
    copier = await copied(path, remote)
    assert copier.status.refused == 0, "PostgreSQL knows years that Python does not"
    for kind in ("conversations", "incidents", "music"):
        assert await remote.count_rows(kind) == 1, kind
    store = SqliteStore(path)
    await store.open()
    assert await store.incidents(NOW - 999 * HOUR, 10) == [], "neither shown nor in the way"
    await store.close()


async def test_ids_that_are_no_text_are_set_aside(tmp_path: Path, remote: PostgresStore) -> None:
    """Drivers write a UUID's bytes where nobody asks them for text."""
    insert = "INSERT INTO alert_history (id, rule_name) VALUES (x'{}', 'x')"
    path = await written_by_hand(
        tmp_path / "a.db",
        *(insert.format(uuid4().hex) for _ in range(3)),
        "INSERT INTO alert_history (rule_name) VALUES ('after')",
    )
    copier = await copied(path, remote)
    assert copier.status.refused == 3
    assert [row["rule_name"] for row in await everything(remote, "incidents")] == ["after"]


async def test_rows_from_before_1970_and_of_the_year_0_are_carried_too(
    tmp_path: Path, remote: PostgresStore
) -> None:
    """A clock that was never set, or somebody's history."""
    path = await written_by_hand(
        tmp_path / "a.db",
        *(
            f"INSERT INTO system_stats (timestamp, cpu_usage) VALUES ('{year}-06-01', {year})"
            for year in ("0000", "0001", "1969", "9999")
        ),
        "INSERT INTO system_metrics (timestamp, metric_name, metric_value) "
        "VALUES ('0000-06-01', 'a', 1)",
        "INSERT INTO metrics_hourly (hour, metric_name, avg_value, min_value, max_value, count) "
        "VALUES ('0000-06-01', 'a', 1, 1, 1, 1)",
    )
    await copied(path, remote)
    rows = await everything(remote, "samples", 2)
    assert [row["cpu_usage"] for row in rows] == [0, 1, 1969, 9999]
    assert await remote.count_rows("metrics") == await remote.count_rows("metrics_hourly") == 1
    store = SqliteStore(path)
    await store.open()
    assert {metric.metric_name for metric in await store.latest_metrics()} == {"a", "cpu_usage"}
    assert len(await everything(store, "samples", 1)) == 4
    await store.close()


# Into the file


async def test_a_snapshots_odd_readings_do_not_come_into_the_file(tmp_path: Path) -> None:
    """They would be in the way of every look at that time."""
    path = tmp_path / "a.db"
    async with opened(path, Clock()) as local:
        row = {"id": str(uuid4()), "timestamp": "2026-01-10 12:00:00", "cpu_usage": 5}
        odd = ["odd", 1, [], ["a"], [1, {}, 2], ["b", {}, None], ["c", "x", 3], ["kept", {}, 4.5]]
        await local.import_rows("samples", [{**row, "extra": odd}])
        await local.import_rows("samples", [{**row, "id": str(uuid4()), "extra": {"a": 1}}])
        latest = {
            metric.metric_name: metric.metric_value for metric in await local.latest_metrics()
        }
        assert latest == {"cpu_usage": 5.0, "c": 3.0, "kept": 4.5}
        assert (await local.metric_stats("kept", 1, NOW)).count == 1
        await local.save_hourly(NOW)


# What is too large


async def test_a_number_near_the_end_of_all_numbers_stops_no_sum(remote: PostgresStore) -> None:
    """PostgreSQL's own average fails where the squares of its values are too large."""
    for name, values in (("huge", (1e300, 0.0, -1e300)), ("most", (1.7976931348623157e308,) * 3)):
        for number, value in enumerate(values):
            await remote.save_metric(uuid4(), name, value, {}, NOW + timedelta(seconds=number))
    await remote.save_metric(uuid4(), "usual", 0.1, {}, NOW)
    await remote.save_metric(uuid4(), "usual", 0.2, {}, NOW)
    await remote.save_hourly(NOW)
    hours = {row["metric_name"]: row for row in await everything(remote, "metrics_hourly")}
    assert hours["usual"]["avg_value"] == pytest.approx(0.15)
    assert hours["huge"]["avg_value"] == 0 and hours["huge"]["count"] == 3
    assert float(str(hours["most"]["max_value"])) == 1.7976931348623157e308
    for name in ("huge", "most", "usual"):
        assert (await remote.metric_stats(name, 1, NOW + HOUR)).count >= 2
        for points in (1, 2, 300):
            await remote.metric_series(name, NOW - 600 * HOUR, NOW + HOUR, points)


async def test_a_poll_that_claims_to_be_valid_for_ever_stops_no_statistics(
    remote: PostgresStore,
) -> None:
    await live_a_little(remote)
    (roster, *_) = await everything(remote, "rosters")
    row = {"instance": "main", "roster_id": roster["roster_id"], "at": "2026-01-10 13:01:00"}
    width = len(roster["keys"])  # type: ignore[arg-type]
    ones = [1] * width
    await remote.import_rows("polls", [{**row, "valid_s": 1e300, "statuses": ones, "times": ones}])
    assert (await remote.service_stats(NOW, NOW + 2 * HOUR)).checks > 0
    assert (await remote.service_stats(NOW, NOW + 2 * HOUR, "main:z")).checks > 0
    await remote.save_hourly(NOW + HOUR)
    with pytest.raises(StoreError) as refusal:
        longer = {**row, "at": "2026-01-10 13:02:00", "valid_s": 60, "times": [1] * 5000}
        await remote.import_rows("polls", [{**longer, "statuses": ones}])
    assert not refusal.value.retriable
    both = {
        **row,
        "at": "2026-01-10 13:03:00",
        "valid_s": 60,
        "times": [1] * 9,
        "statuses": [1] * 9,
    }
    await remote.import_rows("polls", [both])
    assert "main:z" in await remote.response_times(NOW, NOW + 2 * HOUR, 1)


async def test_times_that_are_no_times_are_refused_at_once(remote: PostgresStore) -> None:
    for at in ("infinity", "-infinity"):
        for kind, row in (
            ("samples", {"id": str(uuid4()), "timestamp": at, "status": "online"}),
            ("metrics", {"id": str(uuid4()), "timestamp": at, "metric_name": "a",
                         "metric_value": 1}),
        ):  # fmt: skip
            with pytest.raises(StoreError) as refusal:
                async with asyncio.timeout(3):
                    await remote.import_rows(kind, [row])
            assert not refusal.value.retriable, (kind, at)
    assert await remote.latest_metrics() == []


async def test_times_of_other_ages_lead_through_all_pages(
    remote: PostgresStore, database: str
) -> None:
    """Rows that somebody wrote by hand; ours are never that old."""
    import asyncpg

    db = await asyncpg.connect(database)
    times = ("0044-03-15 00:00:00+00 BC", "0001-01-01", "2026-01-01", "9999-12-31", "12026-01-01",
             "infinity", "-infinity")  # fmt: skip
    for at in times:
        await db.execute(
            "INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id, "
            "timestamp) VALUES ('1', $1::text, 'b', '2', $1::text::timestamptz)",
            at,
        )
    await db.close()
    found = [row["song_title"] for row in await everything(remote, "music", 1)]
    assert found == [times[6], *times[:6]]
    assert datetime.fromisoformat(str((await everything(remote, "music"))[3]["timestamp"])) == (
        datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    )
