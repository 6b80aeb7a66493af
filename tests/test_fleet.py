"""What is known of monitors: changes, absence, lost sources, slowness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from bot.core.kuma_webhook import Beat
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)
from bot.services.baseline import Baseline
from bot.services.fleet import Fleet
from bot.storage.store import KnownMonitor

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
UP, DOWN, UNKNOWN = MonitorStatus.UP, MonitorStatus.DOWN, MonitorStatus.UNKNOWN
MAINTENANCE = MonitorStatus.MAINTENANCE


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


# -- what Kuma itself tells, against what polls show ---------------------------------------------


def beat(
    number: int, status: MonitorStatus, told_s: float | None = None, message: str = "503"
) -> Beat:
    """`told_s`: Kuma's clock, here four hours ahead of ours."""
    told_at = None if told_s is None else at(told_s + 4 * 3600)
    return Beat(str(number), f"service {number}", status, message, told_at, speaks_of_ids=True)


def status(fleet: Fleet, number: int = 1) -> MonitorStatus:
    return fleet.monitors[f"kuma:{number}"].status


def test_a_word_counts_at_once_with_its_reason_in_the_history_and_on_the_card(
    fleet: Fleet,
) -> None:
    fleet.apply(report(reading(1), reading(2)), at(0))
    heard = fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    assert (heard.key, heard.is_news) == ("kuma:1", True)
    assert [(c.status, c.at, c.error_message) for c in heard.changes] == [(DOWN, at(10), "503")]
    look = fleet.observe_some(["kuma:1"], at(10))
    assert look.values == {"monitor_down": {"kuma:1": 1.0}}
    assert look.details["kuma:1"]["reason"] == "503"
    assert fleet.observe(at(11)).values["monitor_down"] == {"kuma:1": 1.0, "kuma:2": 0.0}
    up = fleet.hear("kuma", beat(1, UP, 30, "200 - OK"), at(30))
    assert [(c.status, c.error_message) for c in up.changes] == [(UP, None)]
    assert "reason" not in fleet.observe_some(["kuma:1"], at(30)).details["kuma:1"]


def test_a_contrary_poll_is_disbelieved_for_two_periods_then_it_wins(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    for seconds in (11, 60, 120, 129):
        assert fleet.apply(report(reading(1)), at(seconds)) == []
        assert fleet.observe(at(seconds)).values["monitor_down"] == {"kuma:1": 1.0}
    assert [c.status for c in fleet.apply(report(reading(1)), at(130))] == [UP]
    assert fleet.observe(at(130)).values["monitor_down"] == {"kuma:1": 0.0}


def test_once_a_poll_has_agreed_the_next_one_is_believed_at_once(fleet: Fleet) -> None:
    """So a recovery whose webhook was lost is told with the poll that shows it."""
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    assert fleet.apply(report(reading(1, DOWN)), at(20), at(19)) == []
    assert [c.status for c in fleet.apply(report(reading(1)), at(30), at(29))] == [UP]


def test_a_poll_that_began_before_the_word_neither_agrees_nor_disagrees(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    fleet.hear("kuma", beat(1, UP, 10.2), at(10.2))
    assert fleet.apply(report(reading(1)), at(10.5), at(9)) == []
    assert fleet.apply(report(reading(1, DOWN)), at(12), at(11)) == [], "the lagging one"
    assert fleet.apply(report(reading(1)), at(14), at(13)) == []


def test_a_repeated_or_older_word_changes_nothing(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    down, up = beat(1, DOWN, 10), beat(1, UP, 20)
    assert fleet.hear("kuma", down, at(10)).is_news
    assert not fleet.hear("kuma", down, at(10.1)).is_news
    assert fleet.hear("kuma", up, at(20)).is_news
    for late in (down, up, beat(1, DOWN, 19.9)):
        heard = fleet.hear("kuma", late, at(25))
        assert (heard.is_news, heard.changes) == (False, ())
    assert status(fleet) is UP


def test_a_resend_is_no_second_change(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    again = fleet.hear("kuma", beat(1, DOWN, 30, "504"), at(30))
    assert again.is_news
    assert not again.changes
    assert fleet.monitors["kuma:1"].since_at == at(10)
    assert fleet.observe_some(["kuma:1"], at(30)).details["kuma:1"]["reason"] == "504"


def test_a_word_that_was_long_under_way_does_not_beat_the_polls_since(fleet: Fleet) -> None:
    """Its lateness is measured against the other words, not against our own clock."""
    fleet.apply(report(reading(1), reading(2)), at(0))
    fleet.hear("kuma", beat(2, DOWN, 10), at(10))
    fleet.apply(report(reading(1), reading(2, DOWN)), at(300))
    heard = fleet.hear("kuma", beat(1, DOWN, 100), at(310))
    assert (heard.key, heard.is_news) == ("kuma:1", False)
    assert status(fleet) is UP


def test_a_kuma_whose_clock_was_set_back_is_heard_again(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 7200), at(10))
    for number in range(10):
        fleet.hear("kuma", beat(1, UP, 700 + number), at(700 + number))
    assert status(fleet) is UP


def test_words_without_a_time_are_believed_as_they_come(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    assert len(fleet.hear("kuma", beat(1, DOWN), at(10)).changes) == 1
    assert len(fleet.hear("kuma", beat(1, DOWN), at(11)).changes) == 0
    assert len(fleet.hear("kuma", beat(1, UP), at(12)).changes) == 1


def test_an_outage_of_a_monitor_no_poll_lists_is_told_and_then_unknown(fleet: Fleet) -> None:
    """From 2.1 on a monitor with a new tag is not in /metrics, even while it is down."""
    fleet.apply(report(reading(1)), at(0))
    heard = fleet.hear("kuma", beat(9, DOWN, 10), at(10))
    assert [(c.identity.key, c.identity.name) for c in heard.changes] == [("kuma:9", "service 9")]
    assert fleet.apply(report(reading(1)), at(60)) == []
    assert fleet.observe(at(60)).values["monitor_down"] == {"kuma:1": 0.0, "kuma:9": 1.0}
    assert [c.status for c in fleet.apply(report(reading(1)), at(131))] == [UNKNOWN]
    assert "kuma:9" not in fleet.observe(at(131)).values["monitor_down"]
    assert [c.status for c in fleet.hear("kuma", beat(9, UP, 200), at(200)).changes] == [UP]


def test_a_recovery_of_a_monitor_nobody_knows_waits_for_the_poll(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    assert fleet.hear("kuma", beat(9, UP, 10), at(10)).key is None
    assert list(fleet.monitors) == ["kuma:1"]


def test_a_word_counts_while_polls_fail_and_is_unknown_after_two_periods(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.fail("kuma", PollProblem.UNAUTHORIZED, "", at(60))
    fleet.hear("kuma", beat(1, DOWN, 70), at(70))
    assert fleet.observe(at(80)).values["monitor_down"] == {"kuma:1": 1.0}
    assert fleet.fail("kuma", PollProblem.UNAUTHORIZED, "", at(180)) == []
    assert status(fleet) is DOWN
    assert [c.status for c in fleet.fail("kuma", PollProblem.UNAUTHORIZED, "", at(191))] == [
        UNKNOWN
    ]


def test_a_word_before_the_first_poll_counts(fleet: Fleet) -> None:
    known = KnownMonitor(MonitorIdentity("kuma:1", "service 1"), UP, at(-500), at(-60))
    fleet.restore([known])
    fleet.hear("kuma", beat(1, DOWN, 1), at(1))
    assert fleet.status_of(fleet.monitors["kuma:1"]) is DOWN
    assert fleet.observe(at(2)).values["monitor_down"] == {"kuma:1": 1.0}


def test_down_maintenance_up_ends_by_polls_alone(fleet: Fleet) -> None:
    """Kuma sends nothing for either step."""
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    seen = []
    for seconds, polled in ((60, DOWN), (120, MAINTENANCE), (180, UP)):
        fleet.apply(report(reading(1, polled)), at(seconds))
        seen.append(fleet.observe(at(seconds)).values["monitor_down"]["kuma:1"])
    assert seen == [1.0, 0.5, 0.0]


def test_a_second_outage_after_maintenance_is_heard(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    fleet.apply(report(reading(1, DOWN)), at(60))
    fleet.apply(report(reading(1, MAINTENANCE)), at(120))
    assert [c.status for c in fleet.hear("kuma", beat(1, DOWN, 130), at(130)).changes] == [DOWN]


@pytest.mark.parametrize("has_ids", [False, True])
def test_a_word_means_the_monitor_that_polls_mean(fleet: Fleet, has_ids: bool) -> None:
    told = beat(1, DOWN, 10)
    identity = told.by_number("kuma") if has_ids else told.by_labels("kuma")
    assert identity is not None
    fleet.apply(report(MonitorReading(identity, UP, 5)), at(0))
    assert fleet.hear("kuma", told, at(10)).key == identity.key
    unknown = fleet.hear("kuma", beat(2, DOWN, 11), at(11)).key
    assert (unknown == "kuma:2") is has_ids


def test_a_clock_that_is_set_does_not_lengthen_disbelief(fleet: Fleet) -> None:
    fleet.apply(report(reading(1)), at(0))
    fleet.hear("kuma", beat(1, DOWN, 10), at(10))
    fleet.shift(timedelta(hours=-1))
    assert fleet.apply(report(reading(1)), at(129 - 3600)) == []
    assert [c.status for c in fleet.apply(report(reading(1)), at(130 - 3600))] == [UP]


def test_a_word_that_was_long_under_way_counts_while_polls_fail(fleet: Fleet) -> None:
    fleet.apply(report(reading(1), reading(2)), at(0))
    fleet.hear("kuma", beat(2, DOWN, 10), at(10))
    fleet.fail("kuma", PollProblem.UNREACHABLE, "", at(60))
    assert [c.status for c in fleet.hear("kuma", beat(1, DOWN, 100), at(310)).changes] == [DOWN]
    assert fleet.observe(at(311)).values["monitor_down"] == {"kuma:1": 1.0}


def test_a_monitor_that_only_words_tell_of_is_not_forgotten(fleet: Fleet) -> None:
    fleet.apply(report(reading(1), reading(2)), at(0))
    fleet.apply(report(reading(1)), at(60))
    fleet.hear("kuma", beat(2, DOWN, 80_000), at(80_000))
    fleet.apply(report(reading(1)), at(86_470))
    assert fleet.long_gone(at(86_470)) == []
    assert fleet.long_gone(at(166_400)) == ["kuma:2"]
