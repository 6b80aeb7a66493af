"""Monitors, polls and uptime in PostgreSQL, held against SQLite and against plain arithmetic."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from bot.core.observation import MonitorStatus
from bot.storage.pg_services import roster_id
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Poll, Store
from tests.test_store_contract import (
    DAY,
    DOWN,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    UNKNOWN,
    UP,
    change,
    minutes_seen,
    poll,
)


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def local(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "monitoring.db")
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


def random_polls(rng: random.Random) -> list[Poll]:
    """Two instances whose monitors come and go, with gaps, twins in time and odd values."""
    polls = []
    for instance, period_s in (("a", 60), ("b", 97)):
        at = NOW - 6 * HOUR
        keys = [f"{instance}:{number}" for number in range(8)]
        while at < NOW:
            there = [key for key in keys if rng.random() < (0.4 if rng.random() < 0.05 else 0.99)]
            statuses = {
                key: rng.choices(list(MonitorStatus), weights=(60, 10, 3, 3, 6))[0] for key in there
            }
            times = {key: rng.choice([None, rng.uniform(0, 9000)]) for key in there}
            valid_s = rng.choice([20, 2 * period_s])
            polls.append(poll(at, statuses, times=times, instance=instance, valid_s=valid_s))
            at += timedelta(seconds=rng.choice([0, period_s, period_s, period_s, 4000 * 0.3]))
            at += timedelta(milliseconds=rng.randrange(1000))
    polls.sort(key=lambda one: one.at)
    return polls


async def assert_same_answers(one: Store, other: Store, *, mean_ms: float = 1e-9) -> None:
    """Whatever one can ask, over windows that begin and end anywhere."""
    rng = random.Random(9)
    known = 0
    for _ in range(12):
        start = NOW - timedelta(milliseconds=rng.randrange(7 * 3_600_000))
        end = start + timedelta(milliseconds=rng.randrange(7 * 3_600_000))
        for key in (None, "a:0", "b:3", "nobody"):
            found = [await side.service_stats(start, end, key) for side in (one, other)]
            ours, theirs = (
                (stats.checks, stats.up_s, stats.down_s, stats.other_s, stats.unknown_s)
                for stats in found
            )
            assert ours == pytest.approx(theirs, rel=0, abs=1e-5), key
            means = [stats.mean_response_time_ms for stats in found]
            assert means[0] == (means[1] and pytest.approx(means[1], rel=1e-9, abs=mean_ms))
            known += min(theirs) > 0
        every = rng.randrange(1, 9)
        times = await one.response_times(start, end, every)
        assert times == await other.response_times(start, end, every)
    assert await one.load_monitors() == await other.load_monitors()
    assert known > 10


@pytest.mark.parametrize("seed", [1, 2])
async def test_uptime_is_sqlites_to_the_millisecond(
    store: PostgresStore, local: SqliteStore, seed: int
) -> None:
    polls = random_polls(random.Random(seed))
    for one in polls:
        await local.save_poll(one)
        await store.save_poll(one)
    await assert_same_answers(store, local)
    for side in (store, local):
        for hours in (6, 5, 4):
            await side.save_hourly(NOW - hours * HOUR)
        await side.delete_expired({"polls": NOW - 3.5 * HOUR}, 10_000)
    # Of an hour the mean of each monitor is kept, rounded; SQLite has the sum of all besides.
    await assert_same_answers(store, local, mean_ms=0.05)


async def test_what_sqlite_sends_says_the_same_here(
    store: PostgresStore, local: SqliteStore
) -> None:
    for number, one in enumerate(random_polls(random.Random(3))):
        changes = (change("a:0", UP, one.at),) if number % 40 == 0 else ()
        await local.save_poll(
            poll(
                one.at,
                {check.service_id: check.status for check in one.checks},
                valid_s=one.valid_s,
                times={check.service_id: check.response_time_ms for check in one.checks},
                instance=one.instance,
                changes=changes,
            )
        )
    await local.save_hourly(NOW - 5 * HOUR)
    await local.forget_monitor("b:3")
    for kind in ("changes", "monitors", "rosters", "service_hours", "polls"):
        after = None
        while True:
            page = await local.export_rows(kind, after, 100)
            assert await store.import_rows(kind, page.rows) == len(page.rows)
            if kind != "monitors":
                assert await store.import_rows(kind, page.rows) == 0
            if (after := page.next) is None:
                break
    # Of an hour the mean of each monitor is kept, rounded; SQLite has the sum of all besides.
    await assert_same_answers(store, local, mean_ms=0.05)
    assert "b:3" not in await minutes_seen(store)


async def test_bots_that_share_a_database_do_not_see_each_others_monitors(
    database: str, store: PostgresStore
) -> None:
    other = PostgresStore(database, bot_id="other")
    await other.open()
    await store.save_poll(poll(NOW, {"a:1": UP}, changes=(change("a:1", UP, NOW),)))
    await other.save_poll(poll(NOW, {"a:1": DOWN, "a:2": UP}))
    await other.save_poll(poll(NOW + MINUTE, {"a:1": DOWN}))
    await store.forget_monitor("a:2")
    assert await minutes_seen(store) == {"a:1": 0}
    assert await minutes_seen(other) == {"a:1": 1, "a:2": 0}
    window = (NOW, NOW + 2 * MINUTE)
    assert (await store.service_stats(*window, "a:1")).up_s == 120
    assert (await other.service_stats(*window, "a:1")).down_s == 120
    assert (await store.service_stats(*window)).checks == 1
    assert (await other.service_stats(*window)).checks == 3
    assert len(await store.service_history("a:1", NOW, 10)) == 1
    assert await other.service_history("a:1", NOW, 10) == []
    await store.call("roll_up_services", hour=NOW.isoformat(), only_bot="other")
    assert await store.count_rows("service_hours", bot_id="primary") == 0
    assert await store.count_rows("service_hours", bot_id="other") == 1
    await other.close()


def change_row(key: str, status: str, at_s: int, **more: object) -> dict[str, object]:
    return {
        "id": str(uuid4()),
        "service_id": key,
        "service_name": "API",
        "status": status,
        "response_time": 1.5,
        "error_message": None,
        "checked_at": (NOW + timedelta(seconds=at_s)).isoformat(),
        **more,
    }


def monitor_row(key: str, **more: object) -> dict[str, object]:
    return {
        "bot_id": "primary",
        "key": key,
        "name": "API",
        "type": "http",
        "url": None,
        "hostname": None,
        "port": None,
        "tags": {},
        "status": "up",
        "changed_at": "2026-01-10 12:00:00.000000",
        "last_seen_at": "2026-01-10 12:00:00.000000",
        "forgotten": 0,
        **more,
    }


async def test_a_copied_change_is_history_only(store: PostgresStore) -> None:
    await store.import_rows("monitors", [monitor_row("a:1", forgotten=True, revision=5)])
    await store.import_rows("changes", [change_row("a:1", "down", 60)])
    assert await store.load_monitors() == []
    assert len(await store.service_history("a:1", NOW, 10)) == 1


async def test_of_many_changes_at_once_the_newest_says_how_the_monitor_stands(
    store: PostgresStore,
) -> None:
    who = {"type": "http", "url": None, "hostname": None, "port": None, "tags": {"a": "b"}}
    rows = [
        change_row("a:1", "up", 10, monitor=who),
        change_row("a:1", "down", 30, monitor=who),
        change_row("a:1", "pending", 20, monitor=who),
        change_row("a:1", "unknown", 40, monitor=who),
        change_row("a:2", "unknown", 50, monitor=who),
    ]
    assert await store.import_rows("changes", rows) == 5
    first, second = await store.load_monitors()
    assert (first.status, first.changed_at) == (UNKNOWN, NOW + 40 * SECOND)
    assert first.last_seen_at == NOW + 30 * SECOND
    assert first.identity.tags == {"a": "b"}
    assert second.last_seen_at == NOW + 50 * SECOND


async def test_a_monitor_follows_the_newest_change_and_the_highest_revision(
    store: PostgresStore,
) -> None:
    async def standing() -> tuple[str, float]:
        (known,) = await store.load_monitors()
        return known.identity.name, (known.last_seen_at - NOW) / SECOND

    later, seen = "2026-01-10 12:01:00.000000", "2026-01-10 12:00:30"
    await store.import_rows("monitors", [monitor_row("a:1", changed_at=later, revision=7)])
    older = monitor_row("a:1", name="old", last_seen_at=seen, revision=9)
    assert await store.import_rows("monitors", [older]) == 1
    assert await standing() == ("API", 30)
    latest = "2026-01-10 12:02:00"
    stale = monitor_row("a:1", name="stale", changed_at=latest, forgotten=1, revision=8)
    assert await store.import_rows("monitors", [stale]) == 0
    assert await standing() == ("API", 30)
    both = [
        monitor_row("a:1", name="gone", changed_at=later, forgotten=True, revision=10),
        monitor_row("a:1", name="back", changed_at=later, forgotten=False, revision=11),
    ]
    assert await store.import_rows("monitors", both) == 1
    assert await standing() == ("back", 30)


async def test_a_roster_has_the_same_id_wherever_it_is_made(
    store: PostgresStore, db: asyncpg.Connection[Any]
) -> None:
    for size in (0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 5000):
        data = random.Random(size).randbytes(size)
        assert await db.fetchval("select comet_sha1($1)", data) == hashlib.sha1(data).digest()
    for keys in ([], ["a:1"], ["a:1", "a:名", "b:😀"]):
        found = await db.fetchval("select comet_roster_id('主', $1)", keys)
        assert str(found) == roster_id("主", keys)
    # An hour in which monitors came and went speaks of all of them: a roster of its own.
    await store.save_poll(poll(NOW, {"a:10": UP, "a:2": UP}))
    await store.save_poll(poll(NOW + MINUTE, {"a:1": UP, "a:2": UP}))
    await store.save_hourly(NOW)
    (row,) = (await store.export_rows("service_hours", None, 10)).rows
    assert row["roster_id"] == roster_id("main", ["a:1", "a:10", "a:2"])
    assert row["checks"] == [1, 1, 2]
    assert row["up_ms"] == [120_000, 60_000, 180_000]
    assert row["hour"] == "2026-01-10 12:00:00.000000"
    assert len((await store.export_rows("rosters", None, 10)).rows) == 3


async def test_the_hour_that_knows_of_more_checks_stands(store: PostgresStore) -> None:
    def hour(checks: int, up_ms: int) -> dict[str, object]:
        return {
            "bot_id": "primary",
            "instance": "main",
            "hour": "2026-01-10 12:00:00",
            "roster_id": roster_id("main", ["a:1"]),
            "checks": [checks],
            "up_ms": [up_ms],
            "down_ms": [0],
            "other_ms": [0],
            "answered": [checks],
            "mean_tenths": [15],
        }

    for given, taken, up_ms in (
        ([hour(2, 10)], 1, 10),
        ([hour(1, 99)], 0, 10),
        ([hour(2, 10)], 0, 10),
        ([hour(2, 20)], 1, 20),
        ([hour(5, 50), hour(3, 30)], 1, 50),
    ):
        assert await store.import_rows("service_hours", given) == taken
        (row,) = (await store.export_rows("service_hours", None, 10)).rows
        assert row["up_ms"] == [up_ms]


async def test_only_a_look_taken_now_moves_aside_for_another_of_its_moment(
    store: PostgresStore,
) -> None:
    await store.save_poll(poll(NOW, {"a:1": UP}))
    await store.save_poll(poll(NOW, {"a:1": DOWN}))
    (first, second) = (await store.export_rows("polls", None, 10)).rows
    assert second["at"] == "2026-01-10 12:00:00.001000"
    for statuses in ([0], [2]):
        copied = {**second, "at": first["at"], "statuses": statuses}
        assert await store.import_rows("polls", [copied]) == 0
    assert await store.count_rows("polls") == 2


async def test_old_polls_that_come_late_bring_no_forgotten_monitor_back(
    store: PostgresStore,
) -> None:
    await store.save_poll(poll(NOW, {"a:1": UP, "a:2": UP}))
    (row,) = (await store.export_rows("polls", None, 10)).rows
    await store.forget_monitor("a:1")
    late = [{**row, "at": str(NOW - n * MINUTE)} for n in (3, 1, 2)]
    assert await store.import_rows("polls", late) == 3
    assert await minutes_seen(store) == {"a:2": 0}


async def test_polls_in_one_batch_say_when_a_monitor_was_last_seen(store: PostgresStore) -> None:
    await store.save_poll(poll(NOW, {"a:1": UP, "a:2": UP, "a:3": UP}))
    await store.save_poll(poll(NOW - MINUTE, {"a:1": UP, "a:3": UP}))
    few, all_three = (await store.export_rows("polls", None, 10)).rows
    batch = [
        {**all_three, "at": str(NOW + MINUTE)},
        {**few, "at": str(NOW + 2 * MINUTE), "statuses": [1, 4]},
        {**all_three, "at": str(NOW + 3 * MINUTE), "statuses": [4, 4, 1]},
    ]
    assert await store.import_rows("polls", batch) == 3
    assert await minutes_seen(store) == {"a:1": 2, "a:2": 1, "a:3": 3}
    found = [
        row["last_seen_at"]
        for after in (None, ["primary", "a:1"], ["primary", "a:2"])
        for row in (await store.export_rows("monitors", after, 1)).rows
    ]
    assert found == [f"2026-01-10 12:0{minute}:00.000000" for minute in (2, 1, 3)]


async def test_a_thousand_monitors_are_taken_in_quickly(store: PostgresStore) -> None:
    """Comparing each of their keys with each takes minutes."""
    keys = sorted(f"main:{number}" for number in range(1000))
    roster = roster_id("main", keys)
    rosters = [{"roster_id": roster, "instance": "main", "keys": keys}]
    rows = [
        {
            "instance": "main",
            "at": str(NOW + number * MINUTE),
            "valid_s": 120,
            "roster_id": roster,
            "statuses": [4 if number == 50 else 1] * 1000,
            "times": list(range(number, number + 1000)),
        }
        for number in range(60)
    ]
    started = time.monotonic()
    await store.import_rows("rosters", rosters)
    assert await store.import_rows("polls", rows) == 60
    stats = await store.service_stats(NOW, NOW + HOUR, "main:500")
    assert (stats.checks, stats.up_s) == (60, 59 * 60)
    assert len(await store.response_times(NOW, NOW + HOUR, 1)) == 1000
    await store.save_hourly(NOW)
    assert time.monotonic() - started < 8


async def test_the_history_of_a_monitor_that_others_wrote_about_is_read_as_far_as_it_can_be(
    store: PostgresStore, db: asyncpg.Connection[Any]
) -> None:
    await db.execute(
        "INSERT INTO service_status_history (service_id, service_name, status, response_time) "
        "VALUES ('9', 'API', 'up', 12), ('9', 'API', 'exploded', NULL)"
    )
    (known,) = await store.service_history("9", NOW - DAY, 10)
    assert (known.identity.name, known.status, known.response_time_ms) == ("API", UP, 12)
