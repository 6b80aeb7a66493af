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

from collections.abc import Callable, Collection, Generator, Mapping
from datetime import datetime
from math import isfinite
from uuid import UUID

from bot.core.alert import AlertKey, AlertState, Ending, Observation, Step
from bot.core.bound import BoundRule, BoundRules
from bot.core.judge import Judge

MAX_GAP_S = 60.0
"""Longest time between two looks that still counts as watched; polled metrics need more."""

_PIECE = 200
"""Alerts looked at between two yields: about a millisecond, three when every one of them flips."""


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
    run = Judge(now, new_id, observation.details, max_gap_s)
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
    run = Judge(now, new_id, {}, max_gap_s)
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
    run = Judge(now, new_id, {}, max_gap_s)
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
