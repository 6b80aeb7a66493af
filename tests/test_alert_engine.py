"""Each numbered promise at the head of `bot/core/alert.py`, one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bot.core.alert import (
    AlertKey,
    AlertState,
    Detail,
    Ending,
    Flip,
    FlipKind,
    Observation,
    Phase,
    Step,
)
from bot.core.bound import bind
from bot.core.engine import (
    evaluate,
    evaluate_slices,
    reconcile,
    retire,
)
from bot.core.rule import Comparison, Rule, Scope, Severity

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def counted_ids() -> Callable[[], UUID]:
    numbers = itertools.count(1)
    return lambda: UUID(int=next(numbers))


def a_rule(**fields: Any) -> Rule:
    """cpu > 80, clear 75, without hold and cooldown; `fields` change it."""
    plain: dict[str, Any] = {
        "name": "HighCPU",
        "metric": "cpu",
        "comparison": Comparison.GT,
        "level": 80.0,
        "clear_level": 75.0,
        "severity": Severity.WARNING,
        "cooldown_s": 0.0,
        "no_data_s": 120.0,
    }
    return Rule(**{**plain, **fields})


class Story:
    """Rules, their states and a clock in seconds from START."""

    def __init__(self, *rules: Rule, max_gap_s: float = 60.0) -> None:
        self.rules = rules
        self.max_gap_s = max_gap_s
        self.states: dict[AlertKey, AlertState] = {}
        self.new_id = counted_ids()
        self.last = Step()

    def see(self, second: float, value: float | None, **detail: Any) -> list[str]:
        """One look at the host's cpu; the flips as words."""
        details: dict[str, Detail] = {"": detail} if detail else {}
        return self.look(second, {"cpu": {"": value}}, details)

    def look(
        self,
        second: float,
        values: Mapping[str, Mapping[str, float | None]],
        details: Mapping[str, Detail] | None = None,
        **options: Any,
    ) -> list[str]:
        now = START + timedelta(seconds=second)
        seen = Observation(now, values, details or {})
        options.setdefault("max_gap_s", self.max_gap_s)
        return self.take(evaluate(bind(self.rules), self.states, seen, now, self.new_id, **options))

    def reload(self, second: float, *rules: Rule) -> list[str]:
        self.rules = rules
        now = START + timedelta(seconds=second)
        return self.take(reconcile(bind(rules), self.states, now, self.new_id))

    def take(self, step: Step) -> list[str]:
        self.last = step
        step.apply(self.states)
        return [flip.kind.value for flip in step.flips]

    @property
    def flip(self) -> Flip:
        assert len(self.last.flips) == 1
        return self.last.flips[0]

    @property
    def phase(self) -> Phase | None:
        state = self.states.get(("HighCPU", ""))
        return state.phase if state else None

    @property
    def state(self) -> AlertState:
        return self.states["HighCPU", ""]


# 1. hold


def test_it_fires_at_once_without_a_hold() -> None:
    story = Story(a_rule())
    assert story.see(0, 81) == ["fired"]
    flip = story.flip
    assert (flip.at, flip.fired_at, flip.value, flip.level) == (START, START, 81, 80)
    assert (flip.metric, flip.category, flip.scope) == ("cpu", "system", "operator")
    assert flip.severity is Severity.WARNING
    assert flip.duration_s is None and flip.ending is None
    assert story.state.incident_id == flip.incident_id


def test_it_does_not_fire_at_the_level_itself() -> None:
    assert Story(a_rule()).see(0, 80) == []


@pytest.mark.parametrize(
    ("comparison", "below", "at", "above"),
    [
        (Comparison.GT, [], [], ["fired"]),
        (Comparison.GE, [], ["fired"], ["fired"]),
        (Comparison.LT, ["fired"], [], []),
        (Comparison.LE, ["fired"], ["fired"], []),
    ],
)
def test_every_comparison_knows_its_own_side(
    comparison: Comparison, below: list[str], at: list[str], above: list[str]
) -> None:
    rule = a_rule(comparison=comparison, clear_level=80.0)
    assert [Story(rule).see(0, value) for value in (79.9, 80, 80.1)] == [below, at, above]


def test_it_waits_for_the_hold_and_fires_when_it_is_over() -> None:
    story = Story(a_rule(hold_s=30))
    assert story.see(0, 90) == []
    assert story.phase is Phase.PENDING
    assert story.see(29.9, 90) == []
    assert story.see(30, 90) == ["fired"]
    assert story.flip.fired_at == START + timedelta(seconds=30)


def test_it_fires_although_the_look_at_the_end_of_the_hold_was_skipped() -> None:
    story = Story(a_rule(hold_s=30))
    story.see(0, 90)
    story.see(25, 90)
    assert story.see(47, 90) == ["fired"]


def test_it_does_not_fire_twice() -> None:
    story = Story(a_rule())
    assert [story.see(second, 90) for second in (0, 10, 20)] == [["fired"], [], []]


# 2. pending ends


def test_a_false_value_ends_the_wait() -> None:
    story = Story(a_rule(hold_s=30))
    story.see(0, 90)
    story.see(20, 80)
    assert story.phase is None
    assert story.see(30, 90) == []
    assert story.see(59, 90) == []
    assert story.see(60, 90) == ["fired"]


def test_a_value_between_clear_and_fire_levels_does_not_count_as_true_while_waiting() -> None:
    story = Story(a_rule(hold_s=30))
    story.see(0, 90)
    story.see(20, 78)
    assert story.phase is None


def test_missing_values_are_bridged_within_the_hold() -> None:
    story = Story(a_rule(hold_s=60, no_data_s=30))
    story.see(0, 90)
    story.see(20, None)
    story.see(30, None)
    story.see(50, 90)
    assert story.see(60, 90) == ["fired"]


def test_silence_longer_than_no_data_ends_the_wait() -> None:
    story = Story(a_rule(hold_s=60, no_data_s=30))
    story.see(0, 90)
    story.see(30, None)
    assert story.phase is Phase.PENDING
    story.see(31, None)
    assert story.phase is None
    assert story.see(60, 90) == []


def test_it_never_fires_on_a_look_without_a_value() -> None:
    story = Story(a_rule(hold_s=30, no_data_s=300))
    story.see(0, 90)
    assert story.see(40, None) == []
    assert story.see(50, 90) == ["fired"]


def test_a_source_slower_than_no_data_is_not_silent() -> None:
    story = Story(a_rule(hold_s=600, no_data_s=120), max_gap_s=900)
    assert story.see(0, 90) == []
    assert story.see(300, 90) == []
    assert story.see(600, 90) == ["fired"]


# 3. hysteresis


def test_it_keeps_firing_between_clear_and_fire_levels() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    assert story.see(10, 76) == []
    assert story.see(20, 75) == ["resolved"]
    assert story.flip.ending is Ending.CLEARED
    assert story.flip.duration_s == 20
    assert (story.flip.level, story.flip.value) == (80, 75)
    assert story.phase is None


def test_it_resolves_only_after_the_clear_hold() -> None:
    story = Story(a_rule(clear_hold_s=30))
    story.see(0, 90)
    assert story.see(10, 70) == []
    assert story.see(39, 70) == []
    assert story.see(41, 70) == ["resolved"]
    assert story.flip.duration_s == 41


def test_a_return_of_the_condition_starts_the_clear_hold_again() -> None:
    story = Story(a_rule(clear_hold_s=30))
    story.see(0, 90)
    story.see(10, 70)
    story.see(30, 76)
    story.see(40, 70)
    assert story.see(50, 70) == []
    assert story.see(70, 70) == ["resolved"]


def test_short_silence_is_bridged_within_the_clear_hold_but_never_resolves() -> None:
    story = Story(a_rule(clear_hold_s=30, no_data_s=40))
    story.see(0, 90)
    story.see(10, 70)
    assert story.see(45, None) == []
    assert story.see(50, 70) == ["resolved"]


def test_long_silence_starts_the_clear_hold_again() -> None:
    story = Story(a_rule(clear_hold_s=60, no_data_s=20))
    story.see(0, 90)
    story.see(10, 70)
    assert story.see(31, None) == ["changed"]
    assert story.see(71, 70) == ["changed"]
    assert story.see(130, 70) == []
    assert story.see(131, 70) == ["resolved"]


# 4. cooldown


def test_it_does_not_fire_again_while_cooling() -> None:
    story = Story(a_rule(cooldown_s=60))
    story.see(0, 90)
    assert story.see(10, 70) == ["resolved"]
    assert story.phase is Phase.COOLING
    assert story.see(20, 90) == []
    assert story.see(69, 90) == []
    assert story.see(70, 90) == ["fired"]


def test_a_cooldown_that_ends_in_calm_leaves_nothing() -> None:
    story = Story(a_rule(cooldown_s=60))
    story.see(0, 90)
    story.see(10, 70)
    story.see(20, 90)
    story.see(50, 70)
    assert story.see(70, 70) == []
    assert story.states == {}


def test_the_hold_may_run_during_the_cooldown() -> None:
    story = Story(a_rule(cooldown_s=60, hold_s=30))
    story.see(0, 90)
    story.see(30, 90)
    assert story.see(40, 70) == ["resolved"]
    story.see(65, 90)
    assert story.see(96, 90) == []
    assert story.see(100, 90) == ["fired"]


def test_a_hold_unfinished_at_the_end_of_the_cooldown_goes_on() -> None:
    story = Story(a_rule(cooldown_s=60, hold_s=30))
    story.see(0, 90)
    story.see(30, 90)
    story.see(40, 70)
    story.see(90, 90)
    assert story.see(110, 90) == []
    assert story.phase is Phase.PENDING
    assert story.see(119, 90) == []
    assert story.see(120, 90) == ["fired"]


def test_a_cooling_hold_starts_again_after_a_false_value() -> None:
    story = Story(a_rule(cooldown_s=20, hold_s=30))
    story.see(0, 90)
    story.see(30, 90)
    story.see(40, 70)
    story.see(42, 90)
    story.see(50, 70)
    story.see(55, 90)
    assert story.see(75, 90) == []
    assert story.see(85, 90) == ["fired"]


def test_silence_while_cooling_neither_fires_nor_keeps_the_hold_for_ever() -> None:
    story = Story(a_rule(cooldown_s=60, no_data_s=20))
    story.see(0, 90)
    story.see(10, 70)
    story.see(20, 90)
    assert story.see(41, None) == []
    assert story.see(70, None) == []
    assert story.states == {}


def test_a_cooldown_that_ends_in_short_silence_waits_for_a_value() -> None:
    story = Story(a_rule(cooldown_s=60, no_data_s=60))
    story.see(0, 90)
    story.see(10, 70)
    story.see(50, 90)
    assert story.see(75, None) == []
    assert story.phase is Phase.PENDING
    assert story.see(80, 90) == ["fired"]


def test_a_cooldown_of_zero_is_none() -> None:
    story = Story(a_rule(cooldown_s=0))
    flips = [story.see(second, value) for second, value in ((0, 90), (10, 70), (20, 90))]
    assert flips == [["fired"], ["resolved"], ["fired"]]


# 5. no data


def test_a_firing_alert_without_data_becomes_unknown_once_and_comes_back() -> None:
    story = Story(a_rule(no_data_s=30))
    story.see(0, 90)
    assert story.see(30, None) == []
    assert story.see(31, None) == ["changed"]
    assert (story.flip.status, story.flip.value) == ("unknown", None)
    assert story.state.phase is Phase.FIRING
    assert story.state.value == 90
    assert story.see(50, None) == []
    assert story.see(60, 91) == ["changed"]
    assert (story.flip.status, story.flip.value) == ("", 91)
    assert story.state.unknown_s == 50


def test_data_that_returns_clear_resolves_directly() -> None:
    story = Story(a_rule(no_data_s=30))
    story.see(0, 90)
    story.see(20, None)
    story.see(50, None)
    assert story.see(60, 10) == ["resolved"]
    flip = story.flip
    assert (flip.duration_s, flip.unknown_s, flip.status) == (60, 50, "")


def test_a_blip_without_data_changes_nothing_but_is_counted() -> None:
    story = Story(a_rule(no_data_s=30))
    story.see(0, 90)
    assert story.see(10, None) == []
    assert story.see(20, 90) == []
    assert story.see(30, 10) == ["resolved"]
    assert story.flip.unknown_s == 10


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_no_data(missing: float | None) -> None:
    story = Story(a_rule(no_data_s=5))
    assert story.see(0, missing) == []
    assert story.states == {}
    story.see(10, 90)
    assert story.see(20, missing) == ["changed"]
    assert story.flip.status == "unknown"


def test_an_absent_subject_is_no_data() -> None:
    story = Story(a_rule(no_data_s=5))
    story.look(0, {"cpu": {"a": 90.0, "b": 90.0}})
    assert story.look(10, {"cpu": {"b": 90.0}}) == ["changed"]
    assert story.flip.subject == "a"


# 6. headline


def test_the_headline_follows_the_status_with_one_flip_each() -> None:
    story = Story(a_rule())
    assert story.see(0, 90, status="down", name="Web") == ["fired"]
    assert story.flip.status == "down"
    assert story.see(10, 90, status="down", name="Web") == []
    assert story.see(20, 78, status="maintenance", name="Web 2") == ["changed"]
    assert story.flip.status == "maintenance"
    assert story.flip.detail["name"] == "Web 2"
    assert story.see(30, 78, status="maintenance", name="Web 2") == []
    assert story.see(40, 10, status="up", name="Web 2") == ["resolved"]
    assert story.flip.status == "up"


def test_the_newest_detail_is_kept_without_a_flip() -> None:
    story = Story(a_rule())
    story.see(0, 90, status="down", reason="timeout")
    assert story.see(10, 90, status="down", reason="refused") == []
    assert story.state.detail["reason"] == "refused"


def test_a_look_without_details_keeps_the_last_ones() -> None:
    story = Story(a_rule())
    story.see(0, 90, status="down")
    assert story.see(10, 90) == []
    assert story.see(20, 10) == ["resolved"]
    assert story.flip.detail == {"status": "down"}


def test_a_status_told_without_a_value_does_not_outrun_no_data() -> None:
    story = Story(a_rule(no_data_s=30))
    story.see(0, 90, status="down")
    assert story.see(10, None, status="unknown") == []
    assert story.see(20, 90, status="down") == []


def test_a_rule_that_does_not_follow_the_status_has_no_headline_but_unknown() -> None:
    story = Story(a_rule(follow_status=False, no_data_s=5))
    assert story.see(0, 90, status="up") == ["fired"]
    assert story.flip.status == ""
    assert story.see(10, 90, status="down") == []
    assert story.state.detail == {"status": "down"}
    assert story.see(20, None, status="down") == ["changed"]
    assert story.flip.status == "unknown"
    assert story.see(30, 90, status="down") == ["changed"]
    assert story.flip.status == ""


# 7. escalation


ESCALATING = {"escalate_level": 95.0, "escalate_severity": Severity.CRITICAL}


def test_it_escalates_once_and_never_back() -> None:
    story = Story(a_rule(**ESCALATING))
    assert story.see(0, 90) == ["fired"]
    assert story.flip.severity is Severity.WARNING
    assert story.see(10, 95) == []
    assert story.see(20, 96) == ["escalated"]
    assert (story.flip.severity, story.flip.level) == (Severity.CRITICAL, 95)
    assert story.see(30, 90) == []
    assert story.see(40, 99) == []
    assert story.see(50, 10) == ["resolved"]
    assert (story.flip.severity, story.flip.level) == (Severity.CRITICAL, 95)


def test_beyond_the_escalation_level_it_fires_with_the_higher_severity() -> None:
    story = Story(a_rule(**ESCALATING))
    assert story.see(0, 99) == ["fired"]
    assert (story.flip.severity, story.flip.level) == (Severity.CRITICAL, 95)
    assert story.see(10, 99) == []


def test_escalation_downwards_uses_the_same_comparison() -> None:
    rule = a_rule(
        comparison=Comparison.LT,
        level=14.0,
        clear_level=15.0,
        escalate_level=3.0,
        escalate_severity=Severity.CRITICAL,
    )
    story = Story(rule)
    told = [story.see(10 * n, value) for n, value in enumerate((20, 13, 3, 2.9, 14.5, 15))]
    assert told == [[], ["fired"], [], ["escalated"], [], ["resolved"]]


def test_one_flip_tells_escalation_and_status() -> None:
    story = Story(a_rule(**ESCALATING))
    story.see(0, 90, status="down")
    assert story.see(10, 99, status="pending") == ["escalated"]
    assert story.flip.status == "pending"


# 8. gaps


def test_time_nobody_watched_does_not_count_as_hold() -> None:
    story = Story(a_rule(hold_s=60))
    story.see(0, 90)
    story.see(50, 90)
    assert story.see(4000, 90) == []
    assert story.phase is Phase.PENDING
    assert story.see(4009, 90) == []
    assert story.see(4010, 90) == ["fired"]
    assert story.flip.fired_at == START + timedelta(seconds=4010)


def test_a_gap_is_measured_by_what_the_source_allows() -> None:
    story = Story(a_rule(hold_s=3600), max_gap_s=7300)
    story.see(0, 90)
    assert story.see(3600, 90) == ["fired"]


def test_exactly_the_longest_gap_allowed_still_counts_as_watched() -> None:
    story = Story(a_rule(hold_s=60), max_gap_s=60)
    story.see(0, 90)
    assert story.see(60, 90) == ["fired"]


def test_a_gap_does_not_count_as_hold_while_cooling() -> None:
    story = Story(a_rule(cooldown_s=30, hold_s=60))
    story.see(0, 90)
    story.see(60, 90)
    story.see(70, 70)
    story.see(80, 90)
    assert story.see(4000, 90) == []
    assert story.see(4050, 90) == []
    assert story.see(4060, 90) == ["fired"]


def test_a_gap_does_not_end_the_wait_as_silence() -> None:
    story = Story(a_rule(hold_s=60, no_data_s=30))
    story.see(0, 90)
    story.see(4000, None)
    assert story.phase is Phase.PENDING
    story.see(4031, None)
    assert story.phase is None


def test_a_gap_does_not_count_as_clear_hold() -> None:
    story = Story(a_rule(clear_hold_s=60))
    story.see(0, 90)
    story.see(10, 70)
    assert story.see(4000, 70) == []
    assert story.see(4059, 70) == []
    assert story.see(4060, 70) == ["resolved"]
    assert (story.flip.duration_s, story.flip.unknown_s) == (4060, 3990)


def test_a_gap_does_not_shorten_the_cooldown() -> None:
    story = Story(a_rule(cooldown_s=60))
    story.see(0, 90)
    story.see(10, 70)
    story.see(20, 90)
    assert story.see(4000, 90) == []
    assert story.see(4049, 90) == []
    assert story.see(4050, 90) == ["fired"]


def test_a_firing_alert_counts_a_gap_as_unseen_and_says_so_at_its_end() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    assert story.see(1000, 90) == []
    assert story.state.unknown_s == 1000
    assert story.see(1010, 10) == ["resolved"]
    assert (story.flip.duration_s, story.flip.unknown_s) == (1010, 1000)


def test_the_first_look_after_a_gap_is_not_told_as_unknown() -> None:
    story = Story(a_rule(no_data_s=30))
    story.see(0, 90)
    assert story.see(1000, None) == []
    assert story.see(1031, None) == ["changed"]
    assert story.state.unknown_s == 1031


def test_a_clock_set_back_moves_the_clocks_with_it() -> None:
    story = Story(a_rule(hold_s=60))
    story.see(0, 90)
    story.see(50, 90)
    assert story.see(-3600, 90) == []
    assert story.see(-3591, 90) == []
    assert story.see(-3590, 90) == ["fired"]


def test_a_clock_set_back_never_makes_a_duration_negative() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    story.see(10, None)
    assert story.see(-3600, 90) == []
    assert story.see(-3590, 10) == ["resolved"]
    flip = story.flip
    assert (flip.at, flip.fired_at, flip.duration_s, flip.unknown_s) == (START, START, 0, 0)


def test_no_flip_is_told_from_before_its_incident() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    assert story.see(-3600, 90, status="down") == ["changed"]
    assert story.flip.at == story.flip.fired_at == START


def test_a_cooldown_survives_a_clock_set_back() -> None:
    story = Story(a_rule(cooldown_s=60))
    story.see(0, 90)
    story.see(10, 70)
    story.see(-3600, 90)
    assert story.see(-3541, 90) == []
    assert story.see(-3540, 90) == ["fired"]


# 9. changed rules


def test_a_changed_rule_ends_the_incident_without_calling_it_a_recovery() -> None:
    old = a_rule(category="machine", scope=Scope.SERVICE, silent=True)
    story = Story(old)
    story.see(0, 90)
    incident_id = story.flip.incident_id
    assert story.reload(30, replace(old, level=85.0, scope=Scope.OPERATOR)) == ["resolved"]
    flip = story.flip
    assert (flip.ending, flip.incident_id) == (Ending.RULE_CHANGED, incident_id)
    assert (flip.scope, flip.category, flip.level, flip.silent) == ("service", "machine", 80, True)
    assert flip.duration_s == 30
    assert story.states == {}


@pytest.mark.parametrize("rules", [(), (a_rule(enabled=False),)])
def test_a_removed_or_disabled_rule_ends_its_incident(rules: tuple[Rule, ...]) -> None:
    story = Story(a_rule(category="machine"))
    story.see(0, 90)
    assert story.reload(30, *rules) == ["resolved"]
    flip = story.flip
    assert (flip.ending, flip.metric, flip.category) == (Ending.RULE_CHANGED, "cpu", "machine")


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.COOLING])
def test_what_waits_or_cools_under_a_changed_rule_is_forgotten_in_silence(phase: Phase) -> None:
    story = Story(a_rule(hold_s=20, cooldown_s=600))
    story.see(0, 90)
    if phase is Phase.COOLING:
        story.see(20, 90)
        story.see(30, 10)
    assert story.phase is phase
    assert story.reload(40, a_rule(hold_s=30, cooldown_s=600)) == []
    assert story.states == {}


def test_an_unchanged_rule_goes_on_through_a_reload() -> None:
    story = Story(a_rule(hold_s=20))
    story.see(0, 90)
    assert story.reload(10, a_rule(hold_s=20, category="other", origin="x", silent=True)) == []
    assert story.see(20, 90) == ["fired"]


def test_evaluate_copes_with_a_stale_state_by_starting_afresh() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    first = story.flip.incident_id
    story.rules = (a_rule(level=85.0),)
    assert story.see(10, 90) == ["resolved", "fired"]
    ended, fired = story.last.flips
    assert (ended.ending, ended.incident_id) == (Ending.RULE_CHANGED, first)
    assert fired.incident_id == story.state.incident_id != first


def test_evaluate_drops_a_stale_state_that_is_not_true_any_more() -> None:
    story = Story(a_rule())
    story.see(0, 81)
    story.rules = (a_rule(level=85.0),)
    assert story.see(10, 81) == ["resolved"]
    assert story.states == {}


def test_evaluate_leaves_states_of_rules_it_was_not_given_alone() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    before = dict(story.states)
    story.rules = (a_rule(name="Other", level=95.0),)
    assert story.see(10, 10) == []
    assert story.states == before


def test_a_subject_that_no_longer_exists_ends_all_its_alerts() -> None:
    rules = (a_rule(), a_rule(name="Earlier", level=85.0), a_rule(name="Slow", hold_s=60.0))
    story = Story(*rules)
    story.look(0, {"cpu": {"a": 90.0, "b": 90.0}})
    now = START + timedelta(seconds=30)
    told = story.take(retire(bind(rules), story.states, "a", now, story.new_id))
    assert told == ["resolved", "resolved"]
    assert [flip.rule_name for flip in story.last.flips] == ["HighCPU", "Earlier"]
    assert {flip.ending for flip in story.last.flips} == {Ending.RETIRED}
    assert {state.subject for state in story.states.values()} == {"b"}


def test_retiring_ends_alerts_of_unbound_rules_too() -> None:
    story = Story(a_rule())
    story.look(0, {"cpu": {"a": 90.0}})
    assert story.take(retire(bind([]), story.states, "a", START, story.new_id)) == ["resolved"]
    assert story.flip.metric == "cpu"


# 10. rest and zero


def test_a_metric_that_was_not_looked_at_rests_with_its_alerts() -> None:
    story = Story(a_rule(), a_rule(name="Disk", metric="disk", no_data_s=10))
    story.look(0, {"cpu": {"": 90.0}, "disk": {"": 90.0}})
    before = story.states["Disk", ""]
    assert story.look(50, {"cpu": {"": 10.0}}) == ["resolved"]
    assert story.states["Disk", ""] is before


def test_zero_is_a_value() -> None:
    rule = a_rule(comparison=Comparison.LT, level=1.0, clear_level=1.0)
    story = Story(rule)
    assert story.see(0, 0.0) == ["fired"]
    assert story.flip.value == 0.0
    down = Story(a_rule(comparison=Comparison.GE, level=1.0, clear_level=0.25))
    down.see(0, 1.0)
    assert down.see(10, 0.0) == ["resolved"]
    assert down.flip.value == 0.0


def test_a_narrowed_look_lets_all_other_subjects_rest() -> None:
    story = Story(a_rule(no_data_s=5))
    story.look(0, {"cpu": {"a": 90.0, "b": 90.0}})
    before = story.states["HighCPU", "b"]
    seen = {"cpu": {"a": 10.0, "c": 95.0}}
    assert story.look(30, seen, subjects=["a"]) == ["resolved"]
    assert story.states == {("HighCPU", "b"): before}


# 11. order, pieces, storage


def test_flips_come_by_metric_then_rule_then_subject() -> None:
    rules = (
        a_rule(name="z", level=85.0),
        a_rule(name="disk", metric="disk"),
        a_rule(name="a", level=80.0),
    )
    story = Story(*rules)
    story.look(0, {"disk": {"": 99.0}, "cpu": {"m2": 99.0, "m10": 90.0, "m1": 91.0}})
    assert [(flip.rule_name, flip.subject) for flip in story.last.flips] == [
        ("z", "m1"),
        ("z", "m10"),
        ("z", "m2"),
        ("a", "m1"),
        ("a", "m10"),
        ("a", "m2"),
        ("disk", ""),
    ]


def test_pieces_together_decide_what_one_look_decides() -> None:
    rules = bind(a_rule(name=f"r{n}", level=float(n)) for n in range(60))
    seen = Observation(START, {"cpu": {f"s{n}": float(n) for n in range(60)}})
    pieces = evaluate_slices(rules, {}, seen, START, counted_ids())
    yields = 0
    while True:
        try:
            next(pieces)
            yields += 1
        except StopIteration as done:
            step = done.value
            break
    assert yields >= 5
    assert step == evaluate(rules, {}, seen, START, counted_ids())
    assert len(step.flips) == 60 * 59 // 2


def test_only_what_matters_must_be_stored_at_once() -> None:
    story = Story(a_rule(hold_s=20, clear_hold_s=10, cooldown_s=60))
    must_store = []
    for second, value in ((0, 90), (10, 91), (20, 90), (30, 92), (40, 70), (50, 70), (60, 70)):
        story.see(second, value)
        assert len(story.last.states) == 1
        must_store.append(len(story.last.durable))
    assert must_store == [1, 0, 1, 0, 1, 1, 0]


def test_a_hold_that_begins_or_breaks_while_cooling_must_be_stored_at_once() -> None:
    story = Story(a_rule(cooldown_s=300))
    must_store = []
    for second, value in ((0, 90), (10, 70), (20, 90), (30, 90), (40, 70), (50, 70)):
        story.see(second, value)
        must_store.append(len(story.last.durable))
    assert must_store == [1, 1, 1, 0, 1, 0]


def test_states_given_are_not_changed() -> None:
    story = Story(a_rule())
    story.see(0, 90)
    before = dict(story.states)
    now = START + timedelta(seconds=10)
    evaluate(
        bind(story.rules), story.states, Observation(now, {"cpu": {"": 1.0}}), now, story.new_id
    )
    assert story.states == before


def test_a_state_whose_terms_were_lost_still_ends_truly_under_its_rule() -> None:
    story = Story(a_rule(category="machine"))
    story.see(0, 90)
    story.states["HighCPU", ""] = replace(story.state, terms={})
    assert story.reload(10, a_rule(category="machine", level=85.0)) == ["resolved"]
    assert (story.flip.category, story.flip.metric) == ("machine", "cpu")


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="timezone"):
        evaluate(bind([]), {}, Observation(naive, {}), naive, counted_ids())


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="HighCPU"):
        bind([a_rule(), a_rule(level=1.0)])


def test_service_down_clears_only_on_a_true_up() -> None:
    rule = a_rule(comparison=Comparison.GE, level=1.0, clear_level=0.25)
    story = Story(rule)
    assert story.see(0, 1.0, status="down") == ["fired"]
    assert story.see(60, 0.5, status="pending") == ["changed"]
    assert story.see(120, 0.0, status="up") == ["resolved"]
    assert {flip.kind for flip in story.last.flips} == {FlipKind.RESOLVED}
