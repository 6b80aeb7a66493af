"""What is known of monitors: changes, absence, lost sources, slowness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)
from bot.services.fleet import Baseline, Fleet
from bot.storage.store import KnownMonitor

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
UP, DOWN, UNKNOWN = MonitorStatus.UP, MonitorStatus.DOWN, MonitorStatus.UNKNOWN


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def reading(number: int, status: MonitorStatus = UP, ms: float | None = 20) -> MonitorReading:
    return MonitorReading(MonitorIdentity(f"kuma:{number}", f"service {number}"), status, ms)


def report(*readings: MonitorReading) -> KumaReport:
    return KumaReport("kuma", readings, "2.5.3")


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet(uuid4)
    made.add_source("kuma", 60, T0)
    return made


def test_first_sight_and_every_change_make_a_row_and_nothing_else_does(fleet: Fleet) -> None:
    first = fleet.apply(report(reading(1), reading(2, DOWN)), at(0))
    assert [(c.identity.key, c.status) for c in first] == [("kuma:1", UP), ("kuma:2", DOWN)]
    assert fleet.apply(report(reading(1), reading(2, DOWN)), at(60)) == []
    again = fleet.apply(report(reading(1), reading(2)), at(120))
    assert [(c.identity.key, c.status) for c in again] == [("kuma:2", UP)]


def test_a_down_monitor_survives_every_refresh(fleet: Fleet) -> None:
    """DOWN is Kuma's 0: it must never be mistaken for nothing."""
    for tick in range(3):
        fleet.apply(report(reading(1, DOWN, None)), at(60 * tick))
    assert fleet.monitors["kuma:1"].status is DOWN
    assert fleet.observe(at(200)).values["monitor_down"] == {"kuma:1": 1.0}


def test_a_monitor_that_vanished_is_unknown_not_down_and_not_gone(fleet: Fleet) -> None:
    fleet.apply(report(reading(1), reading(2)), at(0))
    changes = fleet.apply(report(reading(1)), at(60))
    assert [(c.identity.key, c.status) for c in changes] == [("kuma:2", UNKNOWN)]
    observation = fleet.observe(at(60))
    assert "kuma:2" not in observation.values["monitor_down"]
    assert observation.values["monitor_missing"] == {"kuma:1": 0.0, "kuma:2": 1.0}
    assert fleet.long_gone(at(60 + 86_399)) == []
    assert fleet.long_gone(at(60 + 86_400)) == ["kuma:2"]


def test_one_failed_poll_says_nothing_three_lose_the_source_once(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    assert fleet.fail("kuma", PollProblem.TIMEOUT, "", at(60)) == []
    assert fleet.monitors["kuma:1"].status is UP
    assert fleet.observe(at(60)).values["monitor_down"] == {}, "stale values are no data"
    assert fleet.fail("kuma", PollProblem.TIMEOUT, "", at(110)) == []
    lost = fleet.fail("kuma", PollProblem.TIMEOUT, "", at(120))
    assert [c.status for c in lost] == [UNKNOWN]
    assert fleet.fail("kuma", PollProblem.TIMEOUT, "", at(130)) == []
    back = fleet.apply(report(reading(1)), at(140))
    assert [c.status for c in back] == [UP]


def test_loss_and_return_of_a_source_are_in_the_very_observation_that_shows_them(
    fleet: Fleet,
) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.fail("kuma", PollProblem.TIMEOUT, "", at(60))
    fleet.fail("kuma", PollProblem.UNAUTHORIZED, "", at(120))
    lost = fleet.observe(at(120))
    assert lost.values["kuma_staleness"] == {"kuma": 1.0}
    assert lost.details["kuma"]["problem"] == "unauthorized"
    fleet.apply(report(reading(1)), at(130))
    assert fleet.observe(at(130)).values["kuma_staleness"] == {"kuma": 0.0}


@pytest.mark.parametrize(
    ("period_s", "failures_at", "lost_at"), [(60, 60, 120), (1, 1, 30), (3600, 3600, 3660)]
)
def test_lost_means_three_polls_at_least_30_s_and_at_most_two_minutes(
    period_s: float, failures_at: float, lost_at: float
) -> None:
    fleet = Fleet(uuid4)
    source = fleet.add_source("kuma", period_s, T0)
    fleet.apply(report(reading(1)), at(0))
    fleet.fail("kuma", PollProblem.UNREACHABLE, "", at(failures_at))
    before, after = source.staleness(at(lost_at - 1)), source.staleness(at(lost_at + 60))
    assert before is not None
    assert before < 1
    assert after is not None
    assert after >= 1


def test_a_kuma_that_never_answered_is_lost_too() -> None:
    fleet = Fleet(uuid4)
    source = fleet.add_source("kuma", 10, T0)
    assert source.staleness(at(5)) is None
    fleet.fail("kuma", PollProblem.UNAUTHORIZED, "", at(5))
    assert source.staleness(at(36)) == pytest.approx(31 / 30)


def test_after_a_restart_nothing_is_said_of_a_monitor_before_the_first_poll(fleet: Fleet) -> None:
    known = KnownMonitor(MonitorIdentity("kuma:1", "service 1"), UP, at(-500), at(-60))
    fleet.restore([known])
    assert fleet.status_of(fleet.monitors["kuma:1"]) is UNKNOWN
    assert fleet.counts()[UP] == 0
    assert fleet.observe(at(0)).values["monitor_down"] == {}
    assert fleet.apply(report(reading(1)), at(1)) == [], "the stored status still held"
    assert fleet.status_of(fleet.monitors["kuma:1"]) is UP


def test_slow_is_judged_against_the_days_median_and_a_floor() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("kuma", 60, T0)
    for tick in range(10):
        fleet.apply(report(reading(1, UP, 500), reading(2, UP, 100)), at(60 * tick))
    fleet.apply(report(reading(1, UP, 1400), reading(2, UP, 900)), at(600))
    slowness = fleet.observe(at(600)).values["monitor_slowness"]
    assert slowness["kuma:1"] == pytest.approx(1400 / 1500), "under three times the median"
    assert slowness["kuma:2"] == pytest.approx(0.9), "under the floor of 1,000 ms"
    fleet.apply(report(reading(1, UP, 1600)), at(660))
    assert fleet.observe(at(660)).values["monitor_slowness"]["kuma:1"] == pytest.approx(1600 / 1500)


def test_without_a_usual_value_slowness_is_unknown() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("kuma", 60, T0)
    fleet.apply(report(reading(1, UP, 5000)), at(0))
    assert fleet.observe(at(0)).values["monitor_slowness"]["kuma:1"] is None


def test_a_baseline_stays_small_and_forgets_yesterday() -> None:
    baseline = Baseline()
    for tick in range(3 * 86_400):
        baseline.add(tick, 10.0 if tick < 86_400 else 30.0)
    assert baseline.median_ms() == 30.0
    assert len(baseline._values) <= 145


def test_search_finds_names_that_contain_the_text(fleet: Fleet) -> None:
    names = ["Shop", "shop API", "ブログ"]
    readings = [
        MonitorReading(MonitorIdentity(f"kuma:{n}", name), UP) for n, name in enumerate(names)
    ]
    fleet.apply(report(*readings), at(0))
    assert [m.identity.name for m in fleet.search("SHOP")] == ["Shop", "shop API"]
    assert [m.identity.name for m in fleet.search("ログ")] == ["ブログ"]
    assert [m.key for m in fleet.find("shop")] == ["kuma:0"]
