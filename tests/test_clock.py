"""A clock that was set is noticed; ages keep counting what really passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from bot.core.observation import PollProblem
from bot.services.clock import Clock
from bot.services.fleet import Fleet

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Hands:
    """A wall clock and a monotonic one, moved by hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic_s = T0, 100.0

    def pass_time(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic_s += seconds


def made(hands: Hands) -> Clock:
    return Clock(lambda: hands.wall, lambda: hands.monotonic_s)


def test_time_passing_is_no_step() -> None:
    hands = Hands()
    clock = made(hands)
    steps: list[timedelta] = []
    clock.on_step.append(steps.append)
    hands.pass_time(3600)
    assert clock.now() == T0 + timedelta(hours=1)
    assert not steps


def test_a_clock_set_back_keeps_ages_true() -> None:
    hands = Hands()
    clock = made(hands)
    fleet = Fleet(uuid4)
    clock.on_step.append(fleet.shift)
    source = fleet.add_source("kuma", 10, clock.now())
    fleet.fail("kuma", PollProblem.TIMEOUT, "", clock.now())
    hands.pass_time(20)
    hands.wall -= timedelta(hours=1)
    now = clock.now()
    assert now == T0 + timedelta(seconds=20) - timedelta(hours=1)
    staleness = source.staleness(now)
    assert staleness is not None
    assert abs(staleness - 20 / 30) < 0.01
