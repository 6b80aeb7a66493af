"""Keeping house on a real file: late rows, days, retention, the room that is left."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
import pytz

from bot.core.alert import Ending
from bot.core.observation import MonitorIdentity, MonitorStatus, Sample
from bot.core.rule import Severity
from bot.core.rule_text import load_rules
from bot.services import janitor as janitor_module
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.janitor import FLOOR_BYTES, Janitor, retention
from bot.services.recorder import Fact, FactKind, Recorder
from bot.services.rules_file import BUILT_IN_FILE
from bot.storage.sqlite import SqliteStore
from bot.storage.store import CheckRow, Decision, Poll, StatusChange, Store, StoreUnavailable
from tests.test_alerting import describe
from tests.test_delivery import Plain
from tests.test_store_contract import incident

T0 = datetime(2026, 1, 9, 15, 10, tzinfo=UTC)
"""Ten past midnight in Tokyo."""
SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
TOKYO = pytz.timezone("Asia/Tokyo")
KEEP = retention(metrics_days=30, hourly_days=400, conversation_days=90, music_days=90, log_days=30)


class House:
    """One life of the program on one file, as far as its janitor needs it."""

    def __init__(self, path: Path, zone: tzinfo = TOKYO) -> None:
        self.now = T0
        self.free: int | None = 10**12
        self.store = SqliteStore(path)
        self.recorder = Recorder(self.store)
        audience = Audience((), has_only_webhook=False)
        delivery = Delivery(self.recorder, audience, Plain(), lambda: self.now, uuid4)
        self.janitor = Janitor(
            self.store,
            self.recorder,
            Fleet(uuid4),
            Alerting(self.recorder, audience, delivery, describe, lambda: self.now, uuid4),
            KEEP,
            lambda: self.now,
            new_id=uuid4,
            zone=zone,
            sample_interval_s=600,
            free_bytes=lambda: self.free,
        )

    async def ticks(self, count: int = 12) -> None:
        for _ in range(count):
            await self.janitor.tick()

    async def samples(self, start: datetime, end: datetime, **values: float) -> None:
        at = start
        while at < end:
            await self.store.save_sample(Sample(at, "primary", values))
            at += 10 * MINUTE

    async def hour_of(self, name: str, hour: datetime) -> float | None:
        """What the roll-up says: asked of the hour's own table, not of the rows."""
        text = hour.strftime("%Y-%m-%d %H:%M:%S.000")
        with closing(sqlite3.connect(self.store.path)) as db:
            row = db.execute(
                "SELECT avg_value FROM metrics_hourly WHERE metric_name = ? AND hour = ?",
                (name, text),
            ).fetchone()
        return None if row is None else float(row[0])


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "monitoring.db")
    await made.store.open()
    yield made
    await made.store.close()


# Roll-ups


async def test_an_hour_is_rolled_up_two_minutes_after_its_end(house: House) -> None:
    hour = datetime(2026, 1, 9, 14, tzinfo=UTC)
    await house.samples(hour, hour + HOUR, cpu_usage=20.0)
    house.now = hour + HOUR + MINUTE
    await house.ticks()
    assert await house.hour_of("cpu_usage", hour) is None
    house.now += MINUTE
    await house.ticks()
    assert await house.hour_of("cpu_usage", hour) == 20.0


async def test_rows_that_come_in_late_get_into_their_hour(house: House) -> None:
    hour = T0.replace(minute=0) - 5 * HOUR
    await house.samples(hour, hour + HOUR, cpu_usage=20.0)
    await house.ticks()
    await house.store.save_sample(Sample(hour + 5 * MINUTE, "primary", {"cpu_usage": 90.0}))
    await house.ticks(1)
    assert await house.hour_of("cpu_usage", hour) == pytest.approx(30.0)
    await house.store.save_metric(uuid4(), "songs", 4.0, {}, hour + MINUTE)
    await house.ticks(1)
    assert await house.hour_of("songs", hour) == 4.0


async def test_rows_written_by_hand_get_into_their_hour_too(house: House) -> None:
    await house.ticks()
    with closing(sqlite3.connect(house.store.path)) as db:
        db.execute(
            "INSERT INTO system_stats (timestamp, cpu_usage) VALUES ('2026-01-01 10:30:00', 44.0)"
        )
        db.execute(
            "INSERT INTO system_metrics (timestamp, metric_name, metric_value) "
            "VALUES ('2026-01-01 11:30:00', 'recipes', 3.0)"
        )
        db.commit()
    await house.ticks(1)
    assert await house.hour_of("cpu_usage", datetime(2026, 1, 1, 10, tzinfo=UTC)) == 44.0
    assert await house.hour_of("recipes", datetime(2026, 1, 1, 11, tzinfo=UTC)) == 3.0


async def test_a_row_that_comes_in_during_a_roll_up_is_not_missed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = T0.replace(minute=0) - 5 * HOUR
    await house.samples(hour, hour + HOUR, cpu_usage=20.0)
    read, late = house.store._read, [90.0]

    async def read_slowly(job: Callable[[sqlite3.Connection], object]) -> object:
        found = await read(job)
        if isinstance(found, list) and found and isinstance(found[0], tuple) and late:
            at = hour + 5 * MINUTE
            await house.store.save_sample(Sample(at, "primary", {"cpu_usage": late.pop()}))
        return found

    monkeypatch.setattr(house.store, "_read", read_slowly)
    await house.store.save_hourly(hour)
    monkeypatch.undo()
    assert not late
    assert await house.hour_of("cpu_usage", hour) == 20.0
    await house.ticks(1)
    assert await house.hour_of("cpu_usage", hour) == pytest.approx(30.0)


async def test_the_last_hours_before_a_long_stop_are_rolled_up_after_it(tmp_path: Path) -> None:
    path = tmp_path / "monitoring.db"
    before = House(path)
    await before.store.open()
    hour = T0.replace(minute=0) - 20 * DAY
    await before.samples(hour, hour + 3 * HOUR, cpu_usage=20.0)
    await before.store.close()
    after = House(path)
    await after.store.open()
    await after.ticks(1)
    for n in range(3):
        assert await after.hour_of("cpu_usage", hour + n * HOUR) == 20.0
    assert await after.store.due_hours(T0, 10) == []
    await after.store.close()


async def test_what_was_rolled_up_outlives_rows_of_which_some_have_expired(house: House) -> None:
    hour = T0.replace(minute=0) - 5 * HOUR
    await house.samples(hour, hour + HOUR, cpu_usage=20.0)
    for n in range(6):
        await house.store.save_poll(poll(hour + n * 10 * MINUTE, main_1=MonitorStatus.UP))
    await house.ticks()
    was = await house.store.service_stats(hour, hour + HOUR)
    await house.store.delete_expired(
        {"samples": hour + 30 * MINUTE, "polls": hour + 30 * MINUTE}, 1000
    )
    await house.store.save_sample(Sample(hour + 35 * MINUTE, "primary", {"cpu_usage": 90.0}))
    await house.store.save_poll(poll(hour + 35 * MINUTE, main_1=MonitorStatus.DOWN))
    await house.ticks()
    assert await house.hour_of("cpu_usage", hour) == 20.0
    assert await house.store.service_stats(hour, hour + HOUR) == was


async def test_old_rows_are_rolled_up_before_they_are_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor_module, "HOURS_PER_TICK", 10)
    start = T0.replace(minute=0) - 40 * DAY
    for n in range(25):
        at = start + n * HOUR
        await house.store.save_sample(Sample(at, "primary", {"cpu_usage": float(n)}))
    await house.ticks(5)
    assert [await house.hour_of("cpu_usage", start + n * HOUR) for n in range(25)] == [
        float(n) for n in range(25)
    ]
    with closing(sqlite3.connect(house.store.path)) as db:
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (0,)


async def test_a_late_poll_is_counted_in_the_hours_it_speaks_for(house: House) -> None:
    hour = T0.replace(minute=0) - 5 * HOUR
    await house.store.save_poll(poll(hour + 10 * MINUTE, main_1=MonitorStatus.UP))
    await house.ticks()
    await house.store.save_poll(poll(hour - MINUTE, valid_s=240, main_1=MonitorStatus.DOWN))
    due = await house.store.due_hours(T0, 10)
    assert due == [hour - HOUR, hour]
    await house.ticks(1)
    await house.store.delete_expired({"polls": T0}, 100)
    told = await house.store.service_stats(hour - HOUR, hour + 10 * MINUTE, "main_1")
    assert told.down_s == pytest.approx(60 + 180 / 6, abs=1)


# Days


def poll(at: datetime, *, valid_s: float = 1200, **statuses: MonitorStatus) -> Poll:
    checks = [CheckRow(key, status, 12.0) for key, status in statuses.items()]
    changes = [
        StatusChange(uuid4(), MonitorIdentity(key, f"name of {key}"), status, at)
        for key, status in statuses.items()
    ]
    return Poll(at, "main", valid_s, checks, changes)


def stored(house: House, day: date) -> object:
    with closing(sqlite3.connect(house.store.path)) as db:
        row = db.execute(
            "SELECT summary_data FROM daily_summaries WHERE date = ?", (day.isoformat(),)
        ).fetchone()
    return None if row is None else json.loads(row[0])


async def test_yesterday_is_summed_up_after_local_midnight(house: House) -> None:
    start, end = T0.replace(minute=0) - DAY, T0.replace(minute=0)
    rng = random.Random(3)
    values = [round(rng.uniform(0, 100), 2) for _ in range(144)]
    commands = 0
    for n, value in enumerate(values):
        # Half-way the process was restarted; four commands later it is seen again.
        commands = 4 if n == 72 else commands + 2
        await house.store.save_sample(
            Sample(
                start + n * 10 * MINUTE,
                "primary",
                {"cpu_usage": value, "command_count": commands, "command_errors": commands / 2},
            )
        )
        up = MonitorStatus.UP
        await house.store.save_poll(
            poll(
                start + n * 10 * MINUTE,
                api=MonitorStatus.DOWN if n < 6 else up,
                web=up,
                shop=MonitorStatus.DOWN if n < 12 else up,
            )
        )
    gone = incident(
        start - 2 * HOUR,
        resolved_at=start + HOUR,
        ending=Ending.CLEARED,
        severity=Severity.CRITICAL,
    )
    still_open = incident(end - HOUR, severity=Severity.WARNING)
    other_day = incident(start - 9 * HOUR, resolved_at=start - 8 * HOUR, ending=Ending.CLEARED)
    await house.store.record_decision(Decision(incidents=[gone, still_open, other_day]))
    house.now = end + MINUTE
    await house.ticks()
    assert stored(house, date(2026, 1, 9)) is None
    house.now = end + 2 * MINUTE
    await house.ticks()
    told = stored(house, date(2026, 1, 9))
    assert isinstance(told, dict) and list(told) == ["primary"]
    summary = told["primary"]
    assert summary["samples"] == {"taken": 144, "expected": 144, "coverage": 1.0}
    cpu = summary["readings"]["cpu_usage"]
    assert cpu["avg"] == pytest.approx(sum(values) / 144, abs=0.01)
    assert (cpu["min"], cpu["max"]) == (min(values), max(values))
    place = 0.95 * 143
    ordered = sorted(values)
    between = ordered[int(place)] + (ordered[int(place) + 1] - ordered[int(place)]) * (place % 1)
    assert cpu["p95"] == pytest.approx(between, abs=0.01)
    assert summary["readings"]["ping_gateway"]["avg"] is None
    assert summary["incidents"] == {
        "critical": {"count": 1, "longest_s": 3600.0},
        "warning": {"count": 1, "longest_s": 3600.0},
        "info": {"count": 0, "longest_s": None},
    }
    day_s = 86_400
    assert summary["services"]["uptime_ratio"] == pytest.approx(
        1 - 3 * 3600 / (3 * day_s), abs=1e-6
    )
    assert [(one["name"], one["down_s"]) for one in summary["services"]["worst"]] == [
        ("name of shop", 7200.0),
        ("name of api", 3600.0),
    ]
    assert summary["commands"] == {"count": 2 * 71 + 4 + 2 * 71, "errors": 144}


async def test_after_a_start_the_missing_days_are_summed_up(house: House) -> None:
    today = T0.replace(minute=0)
    for days in (1, 3, 7, 9):
        start = today - days * DAY
        await house.samples(start, start + HOUR, cpu_usage=float(days))
    await house.ticks(20)
    days = {n: stored(house, date(2026, 1, 10) - timedelta(days=n)) for n in range(11)}
    # The ninth is not of the last seven, but its hours were still to be rolled up.
    assert [n for n, told in days.items() if told is not None] == [1, 3, 7, 9]
    assert days[3]["primary"]["readings"]["cpu_usage"]["avg"] == 3.0  # type: ignore[index]
    assert days[3]["primary"]["samples"]["coverage"] == 0.0417  # type: ignore[index]


async def test_a_day_is_summed_up_again_when_rows_come_in_late(house: House) -> None:
    start = T0.replace(minute=0) - DAY
    await house.samples(start, start + HOUR, cpu_usage=20.0)
    await house.ticks()
    await house.samples(start + 5 * HOUR, start + 6 * HOUR, cpu_usage=80.0)
    await house.ticks(1)
    told = stored(house, date(2026, 1, 9))
    assert told["primary"]["readings"]["cpu_usage"]["avg"] == 50.0  # type: ignore[index]
    assert told["primary"]["samples"]["taken"] == 12  # type: ignore[index]


async def test_a_day_of_which_rows_expired_keeps_its_summary(house: House) -> None:
    start = T0.replace(minute=0) - DAY
    await house.samples(start, start + 10 * HOUR, cpu_usage=20.0)
    await house.ticks()
    before = stored(house, date(2026, 1, 9))
    await house.store.delete_expired({"samples": start + 5 * HOUR}, 1000)
    await house.samples(start + 9 * HOUR + MINUTE, start + 9 * HOUR + 5 * MINUTE, cpu_usage=99.0)
    await house.ticks()
    assert stored(house, date(2026, 1, 9)) == before


async def test_bots_and_people_keep_what_they_put_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "monitoring.db"
    first, second = SqliteStore(path), SqliteStore(path, bot_id='a "quoted" one')
    await first.open()
    await second.open()
    day = date(2026, 1, 9)
    with closing(sqlite3.connect(path)) as db:
        insert = (
            "INSERT INTO daily_summaries (date, summary_data) VALUES ('2026-01-09', '{\"a\": 1}')"
        )
        db.execute(insert)
        db.commit()
    await first.save_daily_summary(day, {"n": 1, "odd": float("nan")})
    await second.save_daily_summary(day, {"n": 2})
    await first.save_daily_summary(day, {"n": 3})
    assert await first.daily_summary(day) == {"n": 3}
    assert await second.daily_summary(day) == {"n": 2}
    assert await first.daily_summary(date(2026, 1, 8)) is None
    await first.close()
    await second.close()
    with closing(sqlite3.connect(path)) as db:
        (text,) = db.execute("SELECT summary_data FROM daily_summaries").fetchone()
    assert json.loads(text) == {"a": 1, "primary": {"n": 3}, 'a "quoted" one': {"n": 2}}


async def test_a_day_of_25_hours_expects_more_samples(tmp_path: Path) -> None:
    house = House(tmp_path / "monitoring.db", pytz.timezone("Europe/Berlin"))
    await house.store.open()
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)
    await house.samples(start - HOUR, start + 26 * HOUR, cpu_usage=20.0)
    house.now = start + 25 * HOUR + 3 * MINUTE
    await house.ticks()
    told = stored(house, date(2026, 10, 25))
    await house.store.close()
    assert told["primary"]["samples"] == {  # type: ignore[index]
        "taken": 150,
        "expected": 150,
        "coverage": 1.0,
    }


async def test_a_day_that_ends_within_an_hour_waits_for_that_hour(tmp_path: Path) -> None:
    house = House(tmp_path / "monitoring.db", pytz.timezone("Asia/Kolkata"))
    await house.store.open()
    midnight = datetime(2026, 1, 9, 18, 30, tzinfo=UTC)
    await house.samples(midnight - HOUR, midnight + HOUR, cpu_usage=20.0)
    house.now = midnight + 10 * MINUTE
    await house.ticks()
    assert stored(house, date(2026, 1, 9)) is None
    house.now = midnight + 32 * MINUTE
    await house.ticks()
    told = stored(house, date(2026, 1, 9))
    await house.store.close()
    assert told["primary"]["samples"]["taken"] == 6  # type: ignore[index]


# Room


async def test_growth_is_told_after_a_day_of_hourly_sizes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter(range(10**9, 2 * 10**9, 10**6))

    async def size_bytes() -> int:
        return next(sizes)

    monkeypatch.setattr(house.store, "size_bytes", size_bytes)
    house.free = 240 * 10**6
    for hour in range(30):
        house.now = T0 + hour * HOUR
        await house.janitor.tick()
        told = house.janitor.growth()
        assert told.size_bytes == 10**9 + hour * 10**6
        assert told.free_bytes == house.free
        assert (told.per_day_bytes is None) == (hour < 23)
    assert told.per_day_bytes == pytest.approx(24 * 10**6, rel=0.01)
    assert told.full_in_days == pytest.approx(10, rel=0.01)
    found = {metric.metric_name for metric in await house.store.latest_metrics()}
    assert {"store_bytes", "disk_free_bytes"} <= found


async def test_sizes_are_stored_once_an_hour_and_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "monitoring.db"
    for life in range(2):
        house = House(path)
        house.now = T0 + life * 26 * HOUR
        await house.store.open()
        for minute in range(0, 25 * 60, 20):
            await house.janitor.tick()
            house.now += timedelta(minutes=20)
            assert minute < 24 * 60 or house.janitor.growth().per_day_bytes is not None
        await house.store.close()
    with closing(sqlite3.connect(path)) as db:
        count = db.execute("SELECT count(*) FROM custom_metrics").fetchone()
    assert count[0] in (2 * 50, 2 * 52)


def expire_everything(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO metrics_raw (timestamp, metric_type, data) VALUES (?, 'x', ?)",
            [("2025-01-01 00:00:00.000", f'"{"x" * 4000}"')] * rows,
        )
        db.commit()


async def test_a_nearly_full_disk_gets_back_all_that_is_not_needed(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.samples(T0 - DAY, T0, cpu_usage=20.0)
    small = await house.store.size_bytes()
    await asyncio.to_thread(expire_everything, house.store.path, 3000)
    assert await house.store.size_bytes() > 12_000_000
    house.free = FLOOR_BYTES - 1
    await house.ticks(2)
    assert await house.store.size_bytes() < small + 500_000
    stats = await house.store.metric_stats("cpu_usage", 48, T0)
    assert stats.count == 144
    said = [r.getMessage() for r in caplog.records if r.name == "bot.services.janitor"]
    assert [text.startswith("only 63 MB are left") for text in said].count(True) == 1
    house.free = FLOOR_BYTES
    await house.ticks(1)
    assert "there is room on the disk again: 64 MB" in caplog.text


async def test_room_is_made_even_while_the_store_refuses(house: House) -> None:
    async def refuse(store: Store) -> None:
        raise StoreUnavailable("full")

    await asyncio.to_thread(expire_everything, house.store.path, 3000)
    await house.recorder.put(Fact(FactKind.KEEP, "a fact", refuse))
    assert house.recorder.waiting
    await house.ticks(1)
    assert await house.store.size_bytes() > 12_000_000
    house.free = 1000
    await house.ticks(1)
    assert await house.store.size_bytes() < 2_000_000


async def test_a_disk_that_cannot_be_asked_is_no_emergency(house: House) -> None:
    house.free = None
    await house.ticks(2)
    assert house.janitor.growth().free_bytes is None


def test_the_rule_and_the_janitor_agree_on_what_is_little() -> None:
    rules = load_rules(BUILT_IN_FILE.read_text(encoding="utf-8"))
    rule = rules.get("DiskNearlyFull")
    assert rule is not None
    assert (rule.metric, rule.level) == ("disk_free", float(FLOOR_BYTES))


def test_room_is_read_where_the_database_lies(tmp_path: Path) -> None:
    free = janitor_module.free_bytes(tmp_path)
    assert free is not None and free > 0
    assert janitor_module.free_bytes(tmp_path / "nowhere") is None


# Retention


async def test_a_beat_deletes_what_is_too_old_and_nothing_of_the_copier(house: House) -> None:
    old = T0 - 100 * DAY
    await house.samples(old, old + HOUR, cpu_usage=20.0)
    with closing(sqlite3.connect(house.store.path)) as db:
        db.execute("INSERT INTO journal (position, kind, ref) VALUES (1, 'samples', 1)")
        db.execute("INSERT INTO copy_state (name, value) VALUES ('x', 1)")
        db.execute(
            "INSERT INTO copy_refused (kind, body, reason, at) VALUES ('samples', '[]', '', '2020')"
        )
        db.commit()
    await house.ticks()
    with closing(sqlite3.connect(house.store.path)) as db:
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (0,)
        for table in ("journal", "copy_state", "copy_refused"):
            left = db.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert left[0] >= 1, table
    assert house.janitor.deleted == 6


async def test_deleting_a_day_of_everything_holds_no_writer_for_long(house: House) -> None:
    """A day of snapshots and of 500 monitors: other writes wait some milliseconds at most."""
    day = T0 - 50 * DAY

    def fill() -> None:
        with closing(sqlite3.connect(house.store.path)) as db:
            db.execute("INSERT INTO bots (bot, bot_id) VALUES (1, 'primary')")
            first = int(day.timestamp() * 1000)
            db.executemany(
                "INSERT INTO samples (sample_key, cpu_usage, ram_usage) VALUES (?, 1234, 5678)",
                [((first + n * 10_000) << 8 | 1,) for n in range(8640)],
            )
            db.execute("INSERT INTO rosters VALUES (1, 'main', x'01000000')")
            packed = b"\1" * 500, b"\1\0\0\0" * 500
            db.executemany(
                "INSERT INTO polls VALUES ('main', ?, 120000, 1, 1, 0, 0, 0, 1, 1, ?, ?)",
                [(first + n * 60_000, *packed) for n in range(1440)],
            )
            db.execute("DELETE FROM due_hours")
            db.commit()

    await asyncio.to_thread(fill)
    deleting = asyncio.create_task(house.ticks(3))
    waits, n = [], 0
    while not deleting.done():
        n += 1
        started = time.perf_counter()
        await house.store.save_sample(Sample(T0 + n * SECOND, "primary", {"cpu_usage": 1.0}))
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(0.001)
    await deleting
    assert house.janitor.deleted == 8640 + 1439
    assert len(waits) > 20
    # The budget is 20 ms; the machine of a test may be busy with others.
    assert sorted(waits)[len(waits) // 2] < 0.02
