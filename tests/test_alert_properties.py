"""Weeks of weather for the alert engine: random looks, gaps, restarts, rule edits, clock steps.

Beside the engine runs a naive one that at every look reads the whole history again and asks
the plain question. It knows only *watched* time: an interval longer than the allowed gap, or
a negative one, is no time at all.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.alert import (
    AlertKey,
    AlertState,
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
    reconcile,
    retire,
)
from bot.core.rule import Comparison, Rule, Severity, fingerprint

START = datetime(2026, 3, 1, tzinfo=UTC)
MAX_GAP_S = 60
SUBJECTS = ("a", "b")
TIMES = [f.name for f in fields(AlertState) if f.name.endswith("_at")]


# --- the naive engine --------------------------------------------------------------------------


@dataclass
class Look:
    """One look at one key: watched time so far, what the clock said, and what came before."""

    watched_s: float
    clock_s: float
    elapsed_s: float
    is_gap: bool
    value: float | None
    status: str


Told = tuple[int, str, str, str, float]
"""(look number, kind, severity, status, unknown seconds)"""


def naive(rule: Rule, looks: list[Look]) -> tuple[list[Told], bool]:
    """What must be told of one key, and whether an incident is open in the end."""
    told: list[Told] = []
    fired: int | None = None
    resolved: int | None = None
    severity, status = "", ""
    for now, look in enumerate(looks):
        first = 0 if resolved is None else resolved + 1
        if fired is None:
            began = run_start(rule, looks, first, now, lambda v: beyond(rule, v, rule.level))
            if look.value is None or began is None:
                continue
            is_held = look.watched_s - looks[began].watched_s >= rule.hold_s
            cools = (
                resolved is not None
                and look.watched_s - looks[resolved].watched_s < rule.cooldown_s
            )
            if is_held and not cools:
                fired, status = now, look.status
                severity = severity_at(rule, look.value).value
                told.append((now, "fired", severity, status, 0.0))
            continue

        unknown_s = unseen(looks[fired + 1 : now + 1])
        began = run_start(
            rule, looks, fired + 1, now, lambda v: not beyond(rule, v, rule.clear_level)
        )
        if look.value is None:
            with_value = max(n for n in range(fired, now) if looks[n].value is not None)
            is_silent = look.watched_s - looks[with_value].watched_s > rule.no_data_s
            if is_silent and status != "unknown":
                status = "unknown"
                told.append((now, "changed", severity, status, unknown_s))
        elif began is not None and look.watched_s - looks[began].watched_s >= rule.clear_hold_s:
            duration_s = max(0.0, look.clock_s - looks[fired].clock_s)
            unknown_s = min(unknown_s, duration_s)
            told.append((now, "resolved", severity, look.status, unknown_s))
            fired, resolved = None, now
        elif severity_at(rule, look.value).rank > Severity(severity).rank and beyond(
            rule, look.value, rule.level
        ):
            severity, status = severity_at(rule, look.value).value, look.status
            told.append((now, "escalated", severity, status, unknown_s))
        elif look.status != status:
            status = look.status
            told.append((now, "changed", severity, status, unknown_s))
    return told, fired is not None


def run_start(
    rule: Rule, looks: list[Look], first: int, now: int, is_good: Callable[[float], bool]
) -> int | None:
    """Where the unbroken run of good values began that still lasts at look `now`."""
    start: int | None = None
    last_missing: int | None = None
    for number in range(now, first - 1, -1):
        look = looks[number]
        if look.value is None:
            last_missing = number if last_missing is None else last_missing
            continue
        if not is_good(look.value):
            break
        if last_missing is not None:
            if looks[last_missing].watched_s - look.watched_s > rule.no_data_s:
                break
            last_missing = None
        start = number
    return start


def unseen(looks: Iterable[Look]) -> float:
    return sum(
        look.elapsed_s
        for look in looks
        if (look.is_gap or look.value is None) and look.elapsed_s > 0
    )


def beyond(rule: Rule, value: float, level: float) -> bool:
    return {
        Comparison.GT: value > level,
        Comparison.GE: value >= level,
        Comparison.LT: value < level,
        Comparison.LE: value <= level,
    }[rule.comparison]


def severity_at(rule: Rule, value: float) -> Severity:
    if rule.escalate_level is not None and beyond(rule, value, rule.escalate_level):
        assert rule.escalate_severity is not None
        return rule.escalate_severity
    return rule.severity


# --- what may happen ---------------------------------------------------------------------------


@dataclass
class See:
    """A look, `after_s` on; subjects not named are absent from the column."""

    after_s: int
    values: dict[str, float | None]
    status: str = ""


@dataclass
class Rest:
    """A look at something else: the metric is not in it."""

    after_s: int


@dataclass
class Restart:
    """The states go through plain JSON. A crash loses what need not be stored at once."""

    is_crash: bool


@dataclass
class StepClock:
    by_s: int


@dataclass
class Edit:
    """Rule number `which` gets these fields; without `is_told` nobody calls `reconcile`."""

    which: int
    change: dict[str, Any]
    is_told: bool


@dataclass
class Retire:
    subject: str


Event = See | Rest | Restart | StepClock | Edit | Retire


def to_plain(state: AlertState) -> str:
    plain = {f.name: getattr(state, f.name) for f in fields(state)}
    for name in TIMES:
        plain[name] = plain[name] and plain[name].isoformat()
    plain["phase"], plain["severity"] = state.phase.value, state.severity.value
    plain["incident_id"] = state.incident_id and str(state.incident_id)
    return json.dumps(plain, allow_nan=False)


def from_plain(text: str) -> AlertState:
    plain = json.loads(text)
    for name in TIMES:
        plain[name] = plain[name] and datetime.fromisoformat(plain[name])
    plain["phase"], plain["severity"] = Phase(plain["phase"]), Severity(plain["severity"])
    plain["incident_id"] = plain["incident_id"] and UUID(plain["incident_id"])
    return AlertState(**plain)


class Ids:
    """Numbers as ids; a copy made with `Ids(ids.last)` goes on with the same ones."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def __call__(self) -> UUID:
        self.last += 1
        return UUID(int=self.last)


@dataclass
class Chapter:
    """What one key saw and was told under one meaning of its rule."""

    rule: Rule
    looks: list[Look] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)


@dataclass
class World:
    """The engine, its clock and states, and the history that the naive engine reads."""

    rules: list[Rule]
    is_doubled: bool = True
    now: datetime = START
    looked_at: datetime = START
    states: dict[AlertKey, AlertState] = field(default_factory=dict)
    stored: dict[AlertKey, AlertState] = field(default_factory=dict)
    flips: list[Flip] = field(default_factory=list)
    chapters: dict[AlertKey, list[Chapter]] = field(default_factory=dict)
    ids: Ids = field(default_factory=Ids)

    def live(self, event: Event) -> None:
        match event:
            case See():
                self.now += timedelta(seconds=event.after_s)
                self._see(event)
            case Rest():
                self.now += timedelta(seconds=event.after_s)
                step = self._evaluate(Observation(self.now, {"other": {"": 1.0}}), self.states)
                assert step == Step()
            case Restart():
                kept = self.stored if event.is_crash else self.states
                self.states = through_json(kept)
                assert self.states == kept
                self.stored = dict(self.states)
            case StepClock():
                self.now += timedelta(seconds=event.by_s)
            case Edit():
                self._edit(event)
            case Retire():
                bound = bind(self.rules)
                step = retire(bound, self.states, event.subject, self.now, self.ids)
                self._take(step, {Ending.RETIRED})
                assert all(subject != event.subject for _, subject in self.states)
                for key, chapters in self.chapters.items():
                    if key[1] == event.subject:
                        chapters.append(Chapter(chapters[-1].rule))

    def _evaluate(
        self, seen: Observation, states: dict[AlertKey, AlertState], ids: Ids | None = None
    ) -> Step:
        rules, new_id = bind(self.rules), ids or self.ids
        return evaluate(rules, states, seen, self.now, new_id, max_gap_s=MAX_GAP_S)

    def _see(self, event: See) -> None:
        details = {subject: {"status": event.status} for subject in SUBJECTS}
        seen = Observation(self.now, {"m": event.values}, details)
        ids = Ids(self.ids.last)
        step = self._evaluate(seen, self.states)
        if self.is_doubled:
            others = through_json(dict(reversed(self.states.items())))
            assert step == self._evaluate(seen, others, ids)
        elapsed_s = (self.now - self.looked_at).total_seconds()
        self.looked_at = self.now
        for rule, subject in itertools.product(self.rules, SUBJECTS):
            if not rule.enabled:
                continue
            value = event.values.get(subject)
            if value is not None and not math.isfinite(value):
                value = None
            looks = self._chapter(rule, subject).looks
            is_gap = not 0 <= elapsed_s <= MAX_GAP_S
            watched_s = looks[-1].watched_s if looks else 0.0
            watched_s += 0.0 if is_gap else elapsed_s
            clock_s = (self.now - START).total_seconds()
            looks.append(Look(watched_s, clock_s, elapsed_s, is_gap, value, event.status))
        self._take(step, {Ending.CLEARED, Ending.RULE_CHANGED})
        enabled = {rule.name for rule in self.rules if rule.enabled}
        for state in self.states.values():
            assert state.evaluated_at == self.now or state.rule_name not in enabled

    def _chapter(self, rule: Rule, subject: str) -> Chapter:
        chapters = self.chapters.setdefault((rule.name, subject), [Chapter(rule)])
        if fingerprint(chapters[-1].rule) != fingerprint(rule):
            chapters.append(Chapter(rule))
        return chapters[-1]

    def _edit(self, event: Edit) -> None:
        rule = replace(self.rules[event.which], **event.change)
        self.rules[event.which] = rule
        if not event.is_told:
            return
        bound = bind(self.rules)
        self._take(reconcile(bound, self.states, self.now, self.ids), {Ending.RULE_CHANGED})
        assert reconcile(bound, self.states, self.now, self.ids) == Step()
        for other, subject in itertools.product(self.rules, SUBJECTS):
            chapters = self.chapters.get((other.name, subject), [])
            is_new = chapters and fingerprint(chapters[-1].rule) != fingerprint(other)
            if is_new or (chapters and not other.enabled):
                chapters.append(Chapter(other))

    def _take(self, step: Step, endings: set[Ending]) -> None:
        durable = {state.key for state in step.durable}
        assert durable <= {state.key for state in step.states}
        assert not {state.key for state in step.states} & set(step.forgotten)
        for flip in step.flips:
            key = (flip.rule_name, flip.subject)
            assert key in durable or (flip.kind is FlipKind.RESOLVED and key in step.forgotten)
            assert flip.ending is None or flip.ending in endings
            if flip.ending in (None, Ending.CLEARED):
                chapter = self.chapters[key][-1]
                told = (flip.kind.value, flip.severity.value, flip.status, flip.unknown_s)
                chapter.told.append((len(chapter.looks) - 1, *told))
        self.flips += step.flips
        step.apply(self.states)
        for key in step.forgotten:
            self.stored.pop(key, None)
        self.stored |= {state.key: state for state in step.durable}

    def check_incidents(self) -> None:
        """Each incident: FIRED once, RESOLVED at most once, in order, never two open at a key."""
        open_at: dict[AlertKey, Flip] = {}
        ended: set[UUID] = set()
        for flip in self.flips:
            key = (flip.rule_name, flip.subject)
            assert flip.at >= flip.fired_at
            assert flip.incident_id not in ended
            if flip.kind is FlipKind.FIRED:
                assert key not in open_at
                assert flip.at == flip.fired_at
                open_at[key] = flip
            fired = open_at[key]
            assert (flip.incident_id, flip.fired_at) == (fired.incident_id, fired.fired_at)
            if flip.kind is FlipKind.RESOLVED:
                assert flip.duration_s is not None
                assert flip.duration_s == (flip.at - flip.fired_at).total_seconds()
                assert 0 <= flip.unknown_s <= flip.duration_s
                ended.add(open_at.pop(key).incident_id)
        assert len({flip.flip_id for flip in self.flips}) == len(self.flips)
        firing = [state for state in self.states.values() if state.phase is Phase.FIRING]
        assert {state.key: state.incident_id for state in firing} == {
            key: flip.incident_id for key, flip in open_at.items()
        }

    def check_against_naive(self) -> None:
        for (name, subject), chapters in self.chapters.items():
            for number, chapter in enumerate(chapters):
                told, is_open = naive(chapter.rule, chapter.looks)
                assert chapter.told == told, (name, subject, number)
            state = self.states.get((name, subject))
            if state is not None and state.fingerprint == fingerprint(chapters[-1].rule):
                assert (state.phase is Phase.FIRING) is is_open

    def check_holds(self) -> None:
        """Whatever was lost: before each FIRED there was no false look for the whole hold."""
        for chapter in itertools.chain.from_iterable(self.chapters.values()):
            rule, looks = chapter.rule, chapter.looks
            for number, kind, *_ in chapter.told:
                if kind != "fired":
                    continue
                back = number
                while back >= 0 and not is_false(rule, looks[back].value):
                    back -= 1
                true = [n for n in range(back + 1, number + 1) if looks[n].value is not None]
                assert number in true
                assert looks[number].watched_s - looks[true[0]].watched_s >= rule.hold_s


def is_false(rule: Rule, value: float | None) -> bool:
    return value is not None and not beyond(rule, value, rule.level)


def through_json(states: dict[AlertKey, AlertState]) -> dict[AlertKey, AlertState]:
    """What a store makes of states: nothing but plain JSON, read back."""
    read = [from_plain(to_plain(state)) for state in states.values()]
    return {state.key: state for state in read}


# --- the weather -------------------------------------------------------------------------------

GAPS = st.sampled_from([10, 0, 1, 20, 29, 30, 31, 59, 60, 61, 300, 7200, 86_400])
VALUES = st.sampled_from([11.0, 0.0, 4.0, 5.0, 8.0, 9.0, 10.0, 12.0, 15.0, 20.0, 21.0])
MISSING = st.sampled_from([None, math.nan, math.inf])
STATUSES = st.sampled_from(["", "down", "pending", "unknown"])
CLOCKS: dict[str, st.SearchStrategy[Any]] = {
    "hold_s": st.sampled_from([0.0, 0.0, 10.0, 30.0, 60.0, 61.0, 120.0]),
    "clear_hold_s": st.sampled_from([0.0, 0.0, 30.0, 90.0]),
    "cooldown_s": st.sampled_from([0.0, 30.0, 60.0, 300.0]),
    "no_data_s": st.sampled_from([0.0, 10.0, 20.0, 60.0, 120.0]),
}
UPWARD = {"level": 10.0, "clear_level": 8.0}
DOWNWARD = {"level": 10.0, "clear_level": 12.0}
SHAPES = st.sampled_from(
    [
        {"comparison": Comparison.GT, **UPWARD, "escalate_level": None},
        {"comparison": Comparison.GE, **UPWARD, "escalate_level": 20.0},
        {"comparison": Comparison.LT, **DOWNWARD, "escalate_level": 5.0},
        {"comparison": Comparison.LE, **DOWNWARD, "escalate_level": None},
    ]
)


def rules(name: str) -> st.SearchStrategy[Rule]:
    plain = Rule(
        name,
        "m",
        Comparison.GT,
        10.0,
        8.0,
        Severity.WARNING,
        escalate_severity=Severity.CRITICAL,
    )
    return st.builds(
        lambda clocks, shape: replace(plain, **clocks, **shape),
        st.fixed_dictionaries(CLOCKS),
        SHAPES,
    )


def rare_events(*, can_crash: bool) -> st.SearchStrategy[Event]:
    change: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.fixed_dictionaries({}, optional=CLOCKS), SHAPES
    )
    switch = st.fixed_dictionaries({"enabled": st.booleans()})
    return st.one_of(
        st.builds(Rest, GAPS),
        st.builds(Restart, st.booleans() if can_crash else st.just(False)),
        st.builds(StepClock, st.sampled_from([-86_400, -3600, -61, -10, -1, 30, 3600])),
        st.builds(Edit, st.integers(0, 1), change, st.booleans()),
        st.builds(Edit, st.integers(0, 1), switch, st.just(True)),
        st.builds(Retire, st.sampled_from(SUBJECTS)),
    )


@st.composite
def events(draw: st.DrawFn, *, can_crash: bool) -> list[Event]:
    """Mostly looks at values that stay a while; now and then something else."""
    rare = rare_events(can_crash=can_crash)
    story: list[Event] = []
    column: dict[str, float | None] = dict.fromkeys(SUBJECTS, 0.0)
    status = ""
    for _ in range(draw(st.integers(5, 60))):
        what = draw(st.integers(0, 15))
        if what == 15:
            story.append(draw(rare))
        elif what >= 12:
            status = draw(STATUSES)
        elif what >= 4:
            subject = draw(st.sampled_from(SUBJECTS))
            if what >= 6:
                column[subject] = draw(VALUES)
            elif what == 5:
                column[subject] = draw(MISSING)
            else:
                column.pop(subject, None)
        for after_s in draw(st.lists(GAPS, min_size=1, max_size=3)):
            story.append(See(after_s, dict(column), status))
    return story


@settings(max_examples=4 * settings().max_examples)
@given(first=rules("first"), second=rules("second"), story=events(can_crash=False))
def test_it_tells_what_a_naive_engine_tells(first: Rule, second: Rule, story: list[Event]) -> None:
    world = World([first, second])
    for event in story:
        world.live(event)
    world.check_incidents()
    world.check_against_naive()
    world.check_holds()


@settings(max_examples=2 * settings().max_examples)
@given(first=rules("first"), second=rules("second"), story=events(can_crash=True))
def test_a_crash_that_loses_clocks_breaks_no_promise(
    first: Rule, second: Rule, story: list[Event]
) -> None:
    world = World([first, second])
    for event in story:
        world.live(event)
    world.check_incidents()
    world.check_holds()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_week_of_ten_second_looks(seed: int) -> None:
    chance = random.Random(seed)
    world = World([a_rule_by(chance, "first"), a_rule_by(chance, "second")], is_doubled=False)
    level = dict.fromkeys(SUBJECTS, 9.0)
    silent = dict.fromkeys(SUBJECTS, 0)
    for _ in range(7 * 8640):
        for subject in SUBJECTS:
            level[subject] = min(25.0, max(0.0, level[subject] + chance.gauss(0, 1.5)))
            if silent[subject]:
                silent[subject] -= 1
            elif chance.random() < 0.01:
                silent[subject] = chance.choice([1, 2, 6, 30])
        seen = {subject: level[subject] for subject in SUBJECTS if not silent[subject]}
        after_s = 10 if chance.random() > 0.001 else chance.choice([70, 600, 20_000])
        world.live(See(after_s, dict(seen), chance.choice(["", "", "", "", "", "slow"])))
        if chance.random() < 0.0005:
            world.live(StepClock(chance.choice([-3600, -5, 5, 3600])))
        if chance.random() < 0.0005:
            world.live(Restart(is_crash=False))
        if chance.random() < 0.0002:
            change = {"hold_s": chance.choice([0.0, 60.0, 300.0])}
            world.live(Edit(chance.randrange(2), change, is_told=chance.random() < 0.5))
    assert sum(flip.kind is FlipKind.FIRED for flip in world.flips) > 500
    world.check_incidents()
    world.check_against_naive()
    world.check_holds()


def a_rule_by(chance: random.Random, name: str) -> Rule:
    return Rule(
        name,
        "m",
        Comparison.GT,
        10.0,
        8.0,
        Severity.WARNING,
        hold_s=chance.choice([0.0, 60.0]),
        clear_hold_s=chance.choice([0.0, 30.0]),
        cooldown_s=chance.choice([0.0, 300.0]),
        no_data_s=60.0,
        escalate_level=20.0,
        escalate_severity=Severity.CRITICAL,
    )


@given(
    levels=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
    values=st.dictionaries(
        st.text(max_size=3), st.one_of(st.none(), st.floats(-100, 100)), max_size=20
    ),
    comparison=st.sampled_from(Comparison),
)
def test_ranking_finds_exactly_the_pairs_that_comparing_all_finds(
    levels: list[float], values: dict[str, float | None], comparison: Comparison
) -> None:
    many = [
        Rule(f"r{number}", "m", comparison, level, level, Severity.INFO)
        for number, level in enumerate(levels)
    ]
    step = evaluate(bind(many), {}, Observation(START, {"m": values}), START, Ids())
    expected = [
        (rule.name, subject)
        for rule in many
        for subject, value in sorted(values.items())
        if value is not None and beyond(rule, value, rule.level)
    ]
    assert [(flip.rule_name, flip.subject) for flip in step.flips] == expected
