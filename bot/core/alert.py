"""(state, observation, now) → (state, flips). Pure: no clock, no I/O.

What the engine promises, by number; the tests quote these.

 1. Hold. A condition true at every look for `hold_s` fires at the first look at or after that
    moment, never by hitting it exactly; hold 0 fires at the first true look. Only a look with
    a true value fires.
 2. A pending alert goes when its condition turns false. Missing values leave it waiting; after
    more than `no_data_s` of them it goes too.
 3. Hysteresis. A firing alert stays until its value is on the good side of `clear_level`, and
    has been for `clear_hold_s`. A value on the bad side starts that clock again, and so does
    silence longer than `no_data_s`.
 4. Cooldown. After RESOLVED the key cools for `cooldown_s`; a condition true meanwhile runs its
    hold but fires only afterwards, if it is still true. Nothing delays a RESOLVED.
 5. No data. A firing alert without a value stays firing, and `unknown_s` grows. After more than
    `no_data_s` its status becomes "unknown" (one CHANGED), until a value returns: then CHANGED
    back, or RESOLVED at once if the value clears and no `clear_hold_s` asks for more.
    `unknown_s` counts the time between two looks when the later one had no value.
 6. Headline. The status of a firing alert follows `details[subject]["status"]` of looks that
    have a value; each change gives one CHANGED. A look without details keeps the last ones. A
    rule with `follow_status` False has no status but "unknown".
 7. Escalation. A value beyond `escalate_level` gives ESCALATED once, and never back. Firing
    beyond it is FIRED with the higher severity. If the status changes in the same look, the
    one ESCALATED tells both.
 8. Gaps. More than `max_gap_s` since the last look, or less than none (a clock stepped back),
    was not watched: pending, clear, cooling and no-data clocks are moved along by it, so none
    advances. A firing alert counts it as unseen. `fired_at` stays; `at` of a flip is never
    before it, durations are never negative, and `unknown_s` told is never more than they are.
 9. A rule with another fingerprint starts afresh: the open incident ends as RULE_CHANGED, what
    was pending or cooling is forgotten. A removed or disabled rule likewise, in `reconcile`;
    `evaluate` leaves states of rules it was not given alone.
10. A metric that is absent rests with all its alerts. 0.0 is a value; None, NaN, infinities and
    an absent subject are no data.
11. Flips come in the order of metrics, rules (as bound), subjects (sorted).

One run at a time: states must not change between the pieces of `evaluate_slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from math import isfinite
from uuid import UUID

from bot.core.bound import BoundRule, BoundRules
from bot.core.rule import Scope, Severity

AlertKey = tuple[str, str]
"""(rule name, subject); the subject is "" for the host, a monitor key or a task name otherwise."""

Detail = Mapping[str, str | float | int | bool | None]
"""Facts for people and for the stored row, JSON-able: monitor name, status, reason, url, …"""

MAX_GAP_S = 60.0
"""Longest time between two looks that still counts as watched; polled metrics need more."""

UNKNOWN = "unknown"

_PIECE = 200
"""Alerts looked at between two yields: about a millisecond, three when every one of them flips."""

_ZERO = timedelta(0)


class Phase(Enum):
    PENDING = "pending"
    FIRING = "firing"
    COOLING = "cooling"


class FlipKind(Enum):
    """What changed for people. CHANGED: still open, but the card must say something else."""

    FIRED = "fired"
    ESCALATED = "escalated"
    CHANGED = "changed"
    RESOLVED = "resolved"


class Ending(Enum):
    """Why an incident ended; only CLEARED may be told as a recovery."""

    CLEARED = "cleared"
    RULE_CHANGED = "rule_changed"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class AlertState:
    """Where one alert stands; an inactive alert has no state at all.

    `since_at` is when the phase's clock began (pending: first true value; firing: when it
    fired; cooling: when it resolved). `status` is what the card's headline says beside the
    phase (a monitor's status value, "unknown" without data, "" for plain rules).
    `data_at` is when a value was last seen, `value` what it was, `unknown_s` how much of the
    incident went unseen. `evaluated_at` lets a gap (restart, clock step) shift the clocks
    instead of counting. `hold_since_at` is when the condition became true again while cooling.
    `terms` is what a firing alert fired under (metric, level, category, scope, silent), so that
    its end can be told truly when the rule is gone.
    """

    rule_name: str
    subject: str
    fingerprint: str
    phase: Phase
    since_at: datetime
    evaluated_at: datetime
    severity: Severity
    incident_id: UUID | None = None
    value: float | None = None
    status: str = ""
    data_at: datetime | None = None
    clear_since_at: datetime | None = None
    unknown_s: float = 0.0
    detail: Detail = field(default_factory=dict)
    hold_since_at: datetime | None = None
    terms: Detail = field(default_factory=dict)

    @property
    def key(self) -> AlertKey:
        return (self.rule_name, self.subject)


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one moment, by metric and subject.

    A metric that is absent was not looked at: its rules rest. A metric that is present with a
    subject missing (or None, or NaN) has no data for that subject.
    """

    at: datetime
    values: Mapping[str, Mapping[str, float | None]]
    details: Mapping[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flip:
    """One stored change. Durations in seconds, never negative.

    `duration_s` is how long the incident lasted (RESOLVED only), of which nobody could see
    `unknown_s`. `level` is the one crossed when it fired or, later, escalated, on every flip of
    the incident alike. `value` is None on the CHANGED to "unknown", else the last one seen.
    """

    flip_id: UUID
    incident_id: UUID
    rule_name: str
    subject: str
    kind: FlipKind
    at: datetime
    fired_at: datetime
    severity: Severity
    category: str
    scope: str
    value: float | None
    level: float
    metric: str
    status: str = ""
    ending: Ending | None = None
    duration_s: float | None = None
    unknown_s: float = 0.0
    silent: bool = False
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What one run decided: `states` that are new or changed, keys `forgotten`, and flips.

    `durable` are those of `states` that must be stored together with the flips. In the others
    only clocks, value and detail moved: storing them now and then is enough, a lost one merely
    makes the next gap look longer.
    """

    states: tuple[AlertState, ...] = ()
    forgotten: tuple[AlertKey, ...] = ()
    flips: tuple[Flip, ...] = ()
    durable: tuple[AlertState, ...] = ()

    def apply(self, states: MutableMapping[AlertKey, AlertState]) -> None:
        for key in self.forgotten:
            states.pop(key, None)
        for state in self.states:
            states[(state.rule_name, state.subject)] = state


def evaluate(
    rules: BoundRules,
    states: Mapping[AlertKey, AlertState],
    observation: Observation,
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    max_gap_s: float = MAX_GAP_S,
    subjects: Collection[str] | None = None,
) -> Step:
    """One look, in one go. `states` is not changed; apply the step to a copy of one's own.

    `max_gap_s` must exceed the period of the source. `subjects` narrows the look to these (a
    webhook that speaks of one monitor); all others rest.
    """
    pieces = evaluate_slices(
        rules, states, observation, now, new_id, max_gap_s=max_gap_s, subjects=subjects
    )
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            step: Step = done.value
            return step


def evaluate_slices(
    rules: BoundRules,
    states: Mapping[AlertKey, AlertState],
    observation: Observation,
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    max_gap_s: float = MAX_GAP_S,
    subjects: Collection[str] | None = None,
) -> Generator[None, None, Step]:
    """`evaluate` in pieces of a few milliseconds: yields between them, returns the step."""
    run = _Run(now, new_id, observation.details, max_gap_s)
    subjects = None if subjects is None else frozenset(subjects)
    active: dict[str, dict[str, AlertState]] = {}
    by_name = rules.by_name
    values = observation.values
    for count, state in enumerate(tuple(states.values()), start=1):
        bound = by_name.get(state.rule_name)
        if bound is None or bound.rule.metric not in values:
            continue
        if subjects is None or state.subject in subjects:
            active.setdefault(state.rule_name, {})[state.subject] = state
        if count % (_PIECE * 20) == 0:
            yield
    active_by_metric: dict[str, list[BoundRule]] = {}
    for name in active:
        bound = by_name[name]
        active_by_metric.setdefault(bound.rule.metric, []).append(bound)

    budget = _PIECE
    for metric, watch in rules.watches.items():
        column = values.get(metric)
        if column is None:
            continue
        known = _known_values(column, subjects)
        ranked = sorted(known, key=known.__getitem__)
        ordered = [known[subject] for subject in ranked]
        budget -= len(ordered) // 20
        busy = {bound.order: bound for bound in active_by_metric.get(metric, ())}
        if ordered:
            for bound in watch.may_fire(ordered[0], ordered[-1]):
                busy[bound.order] = bound
        for order in sorted(busy):
            bound = busy[order]
            open_states = active.get(bound.rule.name, {})
            crossing = bound.beyond(ranked, ordered)
            budget -= 1
            for subject in sorted({*open_states, *crossing}):
                run.look(bound, subject, open_states.get(subject), known.get(subject))
                budget -= 1
                if budget <= 0:
                    budget = _PIECE
                    yield
            if budget <= 0:
                budget = _PIECE
                yield
    return run.step()


def reconcile(
    rules: BoundRules,
    states: Mapping[AlertKey, AlertState],
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    max_gap_s: float = MAX_GAP_S,
) -> Step:
    """End what no longer has its rule: after a start and after every load of rules.

    `rules` must be all there are: every state of a rule that is not among them ends.
    """
    run = _Run(now, new_id, {}, max_gap_s)
    for key in sorted(states):
        state = states[key]
        bound = rules.by_name.get(state.rule_name)
        if bound is None or bound.fingerprint != state.fingerprint:
            run.end(state, Ending.RULE_CHANGED, bound)
    return run.step()


def retire(
    rules: BoundRules,
    states: Mapping[AlertKey, AlertState],
    subject: str,
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    max_gap_s: float = MAX_GAP_S,
) -> Step:
    """End every alert of a subject that no longer exists, whatever rule it is of."""
    run = _Run(now, new_id, {}, max_gap_s)
    order = {name: bound.order for name, bound in rules.by_name.items()}
    of_subject = [state for state in states.values() if state.subject == subject]
    for state in sorted(of_subject, key=lambda s: (order.get(s.rule_name, -1), s.rule_name)):
        run.end(state, Ending.RETIRED, rules.by_name.get(state.rule_name))
    return run.step()


def _known_values(
    column: Mapping[str, float | None], subjects: Collection[str] | None
) -> dict[str, float]:
    if subjects is None:
        return {
            subject: value
            for subject, value in column.items()
            if value is not None and isfinite(value)
        }
    narrowed = {subject: column.get(subject) for subject in subjects}
    return _known_values(narrowed, None)


class _Run:
    """One evaluation while it is under way: gathers what will become the step."""

    def __init__(
        self,
        now: datetime,
        new_id: Callable[[], UUID],
        details: Mapping[str, Detail],
        max_gap_s: float,
    ) -> None:
        if now.tzinfo is None:
            raise ValueError("now must be timezone-aware")
        self._now = now
        self._new_id = new_id
        self._details = details
        self._max_gap = timedelta(seconds=max_gap_s)
        self._states: list[AlertState] = []
        self._durable: list[AlertState] = []
        self._forgotten: list[AlertKey] = []
        self._flips: list[Flip] = []

    def step(self) -> Step:
        return Step(
            tuple(self._states), tuple(self._forgotten), tuple(self._flips), tuple(self._durable)
        )

    def look(
        self, bound: BoundRule, subject: str, state: AlertState | None, value: float | None
    ) -> None:
        """One alert at one moment; `value` None is no data."""
        if state is not None and state.fingerprint != bound.fingerprint:
            self._end_firing(state, Ending.RULE_CHANGED, bound)
            if value is None or not bound.is_beyond(value, bound.rule.level):
                self._forgotten.append(state.key)
                return
            state = None
        if state is None:
            if value is not None:
                self._begin(bound, subject, value)
        elif state.phase is Phase.FIRING:
            self._look_firing(bound, state, value)
        elif state.phase is Phase.PENDING:
            self._look_pending(bound, state, value)
        else:
            self._look_cooling(bound, state, value)

    def end(self, state: AlertState, ending: Ending, bound: BoundRule | None) -> None:
        """The alert ends without a look at its value."""
        self._forgotten.append(state.key)
        self._end_firing(state, ending, bound)

    def _end_firing(self, state: AlertState, ending: Ending, bound: BoundRule | None) -> None:
        """Tell the end of a firing alert under the terms it fired under; others end unheard."""
        if state.phase is not Phase.FIRING:
            return
        _, gap, _ = self._clocks(state)
        unknown_s = state.unknown_s + max(0.0, gap.total_seconds())
        terms: Detail = state.terms
        if not terms and bound is not None:
            terms = bound.limit_in_force(state.severity).terms
        self._resolve(state, ending, terms, unknown_s=unknown_s)

    def _begin(self, bound: BoundRule, subject: str, value: float) -> None:
        """A condition that was not true before is."""
        detail = self._details.get(subject, {})
        if bound.hold <= _ZERO:
            self._fire(bound, subject, value, detail)
        else:
            self._wait(bound, subject, self._now, value, self._now, detail, is_new=True)

    def _look_pending(self, bound: BoundRule, state: AlertState, value: float | None) -> None:
        _, gap, data_at = self._clocks(state)
        since_at = state.since_at + gap
        detail = self._details.get(state.subject, state.detail)
        if value is None:
            if self._now - data_at > bound.no_data:
                self._forgotten.append(state.key)
            else:
                self._wait(bound, state.subject, since_at, state.value, data_at, detail)
        elif not bound.is_beyond(value, bound.rule.level):
            self._forgotten.append(state.key)
        elif self._now - since_at >= bound.hold:
            self._fire(bound, state.subject, value, detail)
        else:
            self._wait(bound, state.subject, since_at, value, self._now, detail)

    def _look_cooling(self, bound: BoundRule, state: AlertState, value: float | None) -> None:
        _, gap, data_at = self._clocks(state)
        since_at = state.since_at + gap
        hold_since_at = None if state.hold_since_at is None else state.hold_since_at + gap
        detail = self._details.get(state.subject, state.detail)
        if value is None:
            value = state.value
            is_true = False
            if self._now - data_at > bound.no_data:
                hold_since_at = None
        else:
            data_at = self._now
            is_true = bound.is_beyond(value, bound.rule.level)
            if not is_true:
                hold_since_at = None
            elif hold_since_at is None:
                hold_since_at = self._now

        if self._now - since_at < bound.cooldown:
            cooling = AlertState(
                rule_name=state.rule_name,
                subject=state.subject,
                fingerprint=bound.fingerprint,
                phase=Phase.COOLING,
                since_at=since_at,
                evaluated_at=self._now,
                severity=state.severity,
                value=value,
                status=state.status,
                data_at=data_at,
                detail=detail,
                hold_since_at=hold_since_at,
            )
            changed = (hold_since_at is None) is not (state.hold_since_at is None)
            self._keep(cooling, is_durable=changed)
        elif hold_since_at is None:
            self._forgotten.append(state.key)
        elif is_true and value is not None and self._now - hold_since_at >= bound.hold:
            self._fire(bound, state.subject, value, detail)
        else:
            self._wait(bound, state.subject, hold_since_at, value, data_at, detail, is_new=True)

    def _look_firing(self, bound: BoundRule, state: AlertState, value: float | None) -> None:
        now = self._now
        elapsed, gap, data_at = self._clocks(state)
        clear_since_at = None if state.clear_since_at is None else state.clear_since_at + gap
        detail = self._details.get(state.subject, state.detail)
        status, severity, terms = state.status, state.severity, state.terms
        unseen = elapsed if value is None else gap
        unknown_s = state.unknown_s + unseen.total_seconds() if unseen > _ZERO else state.unknown_s
        kind: FlipKind | None = None

        if value is None:
            if now - data_at > bound.no_data:
                status = UNKNOWN
                clear_since_at = None
        else:
            data_at = now
            status = _status(bound, detail)
            if bound.is_beyond(value, bound.rule.clear_level):
                clear_since_at = None
            else:
                clear_since_at = clear_since_at or now
                if now - clear_since_at >= bound.clear_hold:
                    seen = replace(
                        state, value=value, status=status, unknown_s=unknown_s, detail=detail
                    )
                    self._clear(bound, seen)
                    return
            if bound.escalated is not None and severity is not bound.escalated.severity:
                limit = bound.limit_at(value)
                if limit is bound.escalated:
                    kind = FlipKind.ESCALATED
                    severity, terms = limit.severity, limit.terms

        if kind is None and status != state.status:
            kind = FlipKind.CHANGED
        after = AlertState(
            state.rule_name,
            state.subject,
            bound.fingerprint,
            Phase.FIRING,
            state.since_at,
            now,
            severity,
            state.incident_id,
            state.value if value is None else value,
            status,
            data_at,
            clear_since_at,
            unknown_s,
            detail,
            None,
            terms,
        )
        clear_turned = (clear_since_at is None) is not (state.clear_since_at is None)
        self._keep(after, is_durable=kind is not None or clear_turned)
        if kind is not None:
            self._tell(bound, after, kind, value)

    def _clocks(self, state: AlertState) -> tuple[timedelta, timedelta, datetime]:
        """Time since the last look, how much of it is a gap (all or nothing), and `data_at` moved.

        The gap is negative when the clock was set back.
        """
        elapsed = self._now - state.evaluated_at
        data_at = state.data_at or state.evaluated_at
        if _ZERO <= elapsed <= self._max_gap:
            return elapsed, _ZERO, data_at
        return elapsed, elapsed, data_at + elapsed

    def _keep(self, state: AlertState, *, is_durable: bool) -> None:
        self._states.append(state)
        if is_durable:
            self._durable.append(state)

    def _wait(
        self,
        bound: BoundRule,
        subject: str,
        since_at: datetime,
        value: float | None,
        data_at: datetime,
        detail: Detail,
        *,
        is_new: bool = False,
    ) -> None:
        pending = AlertState(
            rule_name=bound.rule.name,
            subject=subject,
            fingerprint=bound.fingerprint,
            phase=Phase.PENDING,
            since_at=since_at,
            evaluated_at=self._now,
            severity=bound.rule.severity,
            value=value,
            status=_status(bound, detail),
            data_at=data_at,
            detail=detail,
        )
        self._keep(pending, is_durable=is_new)

    def _fire(self, bound: BoundRule, subject: str, value: float, detail: Detail) -> None:
        limit = bound.limit_at(value)
        firing = AlertState(
            rule_name=bound.rule.name,
            subject=subject,
            fingerprint=bound.fingerprint,
            phase=Phase.FIRING,
            since_at=self._now,
            evaluated_at=self._now,
            severity=limit.severity,
            incident_id=self._new_id(),
            value=value,
            status=_status(bound, detail),
            data_at=self._now,
            detail=detail,
            terms=limit.terms,
        )
        self._keep(firing, is_durable=True)
        self._tell(bound, firing, FlipKind.FIRED, value)

    def _clear(self, bound: BoundRule, state: AlertState) -> None:
        """The incident is over; what is left of the alert cools."""
        terms = bound.limit_in_force(state.severity).terms
        self._resolve(state, Ending.CLEARED, terms, unknown_s=state.unknown_s)
        if bound.cooldown <= _ZERO:
            self._forgotten.append(state.key)
            return
        cooling = AlertState(
            rule_name=state.rule_name,
            subject=state.subject,
            fingerprint=bound.fingerprint,
            phase=Phase.COOLING,
            since_at=self._now,
            evaluated_at=self._now,
            severity=state.severity,
            value=state.value,
            status=state.status,
            data_at=self._now,
            detail=state.detail,
        )
        self._keep(cooling, is_durable=True)

    def _tell(
        self, bound: BoundRule, state: AlertState, kind: FlipKind, value: float | None
    ) -> None:
        """A flip of an incident that is open, under the rule as it stands."""
        assert state.incident_id is not None
        rule = bound.rule
        flip = Flip(
            flip_id=self._new_id(),
            incident_id=state.incident_id,
            rule_name=rule.name,
            subject=state.subject,
            kind=kind,
            at=max(self._now, state.since_at),
            fired_at=state.since_at,
            severity=state.severity,
            category=rule.category,
            scope=rule.scope.value,
            value=value,
            level=bound.limit_in_force(state.severity).level,
            metric=rule.metric,
            status=state.status,
            unknown_s=state.unknown_s,
            silent=rule.silent,
            detail=state.detail,
        )
        self._flips.append(flip)

    def _resolve(
        self, state: AlertState, ending: Ending, terms: Detail, *, unknown_s: float
    ) -> None:
        assert state.incident_id is not None
        at = max(self._now, state.since_at)
        duration_s = (at - state.since_at).total_seconds()
        flip = Flip(
            flip_id=self._new_id(),
            incident_id=state.incident_id,
            rule_name=state.rule_name,
            subject=state.subject,
            kind=FlipKind.RESOLVED,
            at=at,
            fired_at=state.since_at,
            severity=state.severity,
            category=str(terms.get("category", "system")),
            scope=str(terms.get("scope", Scope.OPERATOR.value)),
            value=state.value,
            level=float(terms.get("level") or 0.0),
            metric=str(terms.get("metric", "")),
            status=state.status,
            ending=ending,
            duration_s=duration_s,
            unknown_s=min(unknown_s, duration_s),
            silent=bool(terms.get("silent", False)),
            detail=state.detail,
        )
        self._flips.append(flip)


def _status(bound: BoundRule, detail: Detail) -> str:
    status = detail.get("status", "") if bound.rule.follow_status else ""
    return status if isinstance(status, str) else ""
