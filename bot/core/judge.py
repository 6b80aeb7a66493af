"""One look at one alert, and what comes of it. The promises are numbered in engine.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from bot.core.alert import (
    UNKNOWN,
    AlertKey,
    AlertState,
    Detail,
    Ending,
    Flip,
    FlipKind,
    Phase,
    Step,
)
from bot.core.bound import BoundRule
from bot.core.rule import Scope

_ZERO = timedelta(0)


class Judge:
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
