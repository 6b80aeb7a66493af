"""A local day in one small object: nothing invented, nothing counted twice, whatever the zone."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
import pytz

from bot.core.summary import (
    DayCounts,
    ServiceDay,
    Spread,
    Trouble,
    day_bounds,
    local_day,
    replaces,
    summarise,
)

TOKYO = pytz.timezone("Asia/Tokyo")
DAY = date(2026, 1, 9)


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Asia/Tokyo", date(2026, 1, 9), "2026-01-08T15:00", 24),
        ("UTC", date(2026, 1, 9), "2026-01-09T00:00", 24),
        ("Asia/Kolkata", date(2026, 1, 9), "2026-01-08T18:30", 24),
        ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00", 23),
        ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00", 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00", 24.5),
        # Midnight does not exist: the clock goes from 23:59 to 1:00.
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-23T22:00", 23),
        # Midnight comes twice: at one o'clock the clock goes back to it.
        ("America/Havana", date(2025, 11, 2), "2025-11-02T04:00", 25),
        # A day that was left out, and the one before it.
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00", 0),
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-29T10:00", 24),
        ("Pacific/Kiritimati", date(2026, 1, 1), "2025-12-31T10:00", 24),
    ],
)
@pytest.mark.parametrize("make", [pytz.timezone, ZoneInfo])
def test_a_day_begins_and_ends_where_its_zone_says(
    make: type[tzinfo], zone: str, day: date, start: str, hours: float
) -> None:
    begins, ends = day_bounds(day, make(zone))  # type: ignore[call-arg]
    assert begins == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert ends - begins == timedelta(hours=hours)


def test_days_of_a_whole_year_follow_each_other_without_gap() -> None:
    zone = pytz.timezone("America/St_Johns")
    end = day_bounds(date(2025, 12, 31), zone)[1]
    for number in range(365):
        day = date(2026, 1, 1) + timedelta(days=number)
        start, following = day_bounds(day, zone)
        assert start == end
        assert local_day(start, zone) == local_day(following - timedelta(seconds=1), zone) == day
        end = following


def test_a_day_is_told_whole() -> None:
    counts = DayCounts(
        samples=8000,
        incidents={"critical": Trouble(2, 300.04), "odd": Trouble(1, None)},
        up_s=86_000.0,
        down_s=400.0,
        services=(ServiceDay("main:1", "API", 86_000.0, 400.0),),
        commands=12,
        command_errors=1,
        conversations=3,
        songs=4,
    )
    readings = {"cpu_usage": Spread(12.3456, 1.0, 99.999, 80.0)}
    told = summarise(DAY, TOKYO, 10, readings, counts)
    assert json.loads(json.dumps(told)) == told
    assert told == {
        "day": "2026-01-09",
        "timezone": "Asia/Tokyo",
        "start": "2026-01-08T15:00:00+00:00",
        "end": "2026-01-09T15:00:00+00:00",
        "samples": {"taken": 8000, "expected": 8640, "coverage": 0.9259},
        "readings": {
            "cpu_usage": {"avg": 12.35, "min": 1.0, "max": 100.0, "p95": 80.0},
            **{
                name: {"avg": None, "min": None, "max": None, "p95": None}
                for name in ("memory_usage", "disk_usage", "ping_gateway")
            },
        },
        "incidents": {
            "critical": {"count": 2, "longest_s": 300.0},
            "warning": {"count": 0, "longest_s": None},
            "info": {"count": 0, "longest_s": None},
            "odd": {"count": 1, "longest_s": None},
        },
        "services": {
            "uptime_ratio": 0.99537,
            "worst": [
                {"service_id": "main:1", "name": "API", "uptime_ratio": 0.99537, "down_s": 400.0}
            ],
        },
        "commands": {"count": 12, "errors": 1},
        "conversations": 3,
        "songs": 4,
    }


def test_nothing_seen_is_unknown_and_not_perfect() -> None:
    told = summarise(DAY, TOKYO, 10, {}, DayCounts())
    assert told["samples"] == {"taken": 0, "expected": 8640, "coverage": 0.0}
    assert told["services"] == {"uptime_ratio": None, "worst": []}
    skipped = summarise(date(2011, 12, 30), pytz.timezone("Pacific/Apia"), 10, {}, DayCounts())
    assert skipped["samples"] == {"taken": 0, "expected": 0, "coverage": None}


def test_the_worst_five_are_those_with_the_least_uptime_and_nobody_who_was_never_down() -> None:
    services = (
        *(ServiceDay(f"main:{n}", f"n{n}", 1000.0 - n, float(n)) for n in range(8)),
        ServiceDay("main:x", "always down", 0.0, 50.0),
    )
    told = summarise(DAY, TOKYO, 10, {}, DayCounts(services=services))
    worst = told["services"]["worst"]  # type: ignore[index, call-overload]
    assert [one["service_id"] for one in worst] == ["main:x"] + [f"main:{n}" for n in (7, 6, 5, 4)]
    calm = summarise(DAY, TOKYO, 10, {}, DayCounts(services=services[:1]))
    assert calm["services"]["worst"] == []  # type: ignore[index, call-overload]


def test_more_samples_than_expected_are_full_coverage() -> None:
    told = summarise(DAY, TOKYO, 10, {}, DayCounts(samples=8700))
    assert told["samples"]["coverage"] == 1.0  # type: ignore[index, call-overload]


def test_late_rows_replace_a_summary_and_expired_ones_do_not() -> None:
    def of(samples: int, songs: int = 0) -> dict[str, object]:
        return summarise(DAY, TOKYO, 10, {}, DayCounts(samples=samples, songs=songs))

    assert not replaces(of(0), None)
    assert replaces(of(1), None)
    assert replaces(of(10), of(9))
    assert not replaces(of(9), of(10))
    assert not replaces(of(9), of(9))
    assert replaces(of(9, songs=1), of(9))
    assert replaces(of(1), {"hand": "made"})
