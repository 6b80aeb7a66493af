"""When the disk is full, told only where there is something to tell it from."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.forecast import Growth, forecast, per_day

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MB = 1024 * 1024


def hourly(count: int, per_hour: float, start: float = 10 * MB) -> list[tuple[datetime, float]]:
    return [(NOW - HOUR * (count - 1 - n), start + n * per_hour) for n in range(count)]


def test_steady_growth_is_told_per_day_with_the_days_that_are_left() -> None:
    told = forecast(hourly(48, MB), 58 * MB, 240 * MB)
    assert told.per_day_bytes == pytest.approx(24 * MB)
    assert told.full_in_days == pytest.approx(10)
    assert (told.size_bytes, told.free_bytes) == (58 * MB, 240 * MB)


@pytest.mark.parametrize("count", [0, 1, 2, 23])
def test_less_than_a_day_of_points_tells_nothing(count: int) -> None:
    told = forecast(hourly(count, MB), 1.0, 240 * MB)
    assert told == Growth(1.0, None, 240 * MB, None)


def test_many_points_of_a_few_hours_tell_nothing_either() -> None:
    points = [(NOW + timedelta(minutes=n), float(n)) for n in range(600)]
    assert per_day(points) is None


def test_a_shrinking_file_is_not_a_forecast() -> None:
    told = forecast(hourly(48, -MB, 100 * MB), 52 * MB, 240 * MB)
    assert told.per_day_bytes == pytest.approx(-24 * MB)
    assert told.full_in_days is None


def test_a_file_that_stays_as_it_is_never_fills_the_disk() -> None:
    assert forecast(hourly(48, 0), 10 * MB, 240 * MB).full_in_days is None
    assert forecast(hourly(48, 1), 10 * MB, 240_000 * MB).full_in_days is None


def test_a_full_disk_is_full_now_and_an_unknown_one_unknown() -> None:
    assert forecast(hourly(48, MB), 58 * MB, 0).full_in_days == 0
    assert forecast(hourly(48, MB), 58 * MB, None).full_in_days is None


def test_one_burst_a_vacuum_and_a_hole_do_not_bend_the_trend() -> None:
    points = hourly(168, MB)
    points[60] = (points[60][0], 900.0 * MB)
    points[100] = (points[100][0], 1.0 * MB)
    del points[20:50]
    random.Random(1).shuffle(points)
    assert per_day(points) == pytest.approx(24 * MB, rel=0.02)


def test_points_of_the_same_moment_do_no_harm() -> None:
    assert per_day([(NOW, 1.0)] * 50) is None
    twice = sorted(hourly(48, MB) * 2)
    assert per_day(twice) == pytest.approx(24 * MB)
