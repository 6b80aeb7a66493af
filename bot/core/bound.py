"""Rules made ready for the engine: once per rule set, so that looking costs little.

Rules are grouped by metric and ranked by level: a rule whose level nobody's value is beyond is
not even visited.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from bot.core.rule import Comparison, Rule, Severity, fingerprint


class Limit(NamedTuple):
    """A level one can fire at: how bad that is, and what its incidents remember of it."""

    level: float
    severity: Severity
    terms: Mapping[str, str | float | bool]


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule made ready: durations as time spans, its fingerprint, its place in the order."""

    rule: Rule
    fingerprint: str
    order: int
    is_beyond: Callable[[float, float], bool]
    hold: timedelta
    clear_hold: timedelta
    cooldown: timedelta
    no_data: timedelta
    base: Limit
    escalated: Limit | None

    @classmethod
    def of(cls, rule: Rule, order: int) -> BoundRule:
        escalated = None
        if rule.escalate_level is not None:
            severity = rule.escalate_severity or Severity.CRITICAL
            escalated = cls._limit(rule, rule.escalate_level, severity)
        return cls(
            rule=rule,
            fingerprint=fingerprint(rule),
            order=order,
            is_beyond=rule.comparison.holds,
            hold=timedelta(seconds=rule.hold_s),
            clear_hold=timedelta(seconds=rule.clear_hold_s),
            cooldown=timedelta(seconds=rule.cooldown_s),
            no_data=timedelta(seconds=rule.no_data_s),
            base=cls._limit(rule, rule.level, rule.severity),
            escalated=escalated,
        )

    @staticmethod
    def _limit(rule: Rule, level: float, severity: Severity) -> Limit:
        terms: Mapping[str, str | float | bool] = {
            "metric": rule.metric,
            "level": level,
            "category": rule.category,
            "scope": rule.scope.value,
            "silent": rule.silent,
        }
        return Limit(level, severity, terms)

    def limit_at(self, value: float) -> Limit:
        """The worst limit that `value`, which fires, is beyond."""
        if self.escalated is not None and self.is_beyond(value, self.escalated.level):
            return self.escalated
        return self.base

    def limit_in_force(self, severity: Severity) -> Limit:
        """The limit a firing alert of this severity has crossed."""
        if self.escalated is not None and severity is self.escalated.severity:
            return self.escalated
        return self.base

    def beyond(self, subjects: list[str], values: list[float]) -> list[str]:
        """Those whose value is beyond the level; `values` are the subjects' and rise."""
        level = self.rule.level
        match self.rule.comparison:
            case Comparison.GT:
                return subjects[bisect_right(values, level) :]
            case Comparison.GE:
                return subjects[bisect_left(values, level) :]
            case Comparison.LT:
                return subjects[: bisect_left(values, level)]
            case Comparison.LE:
                return subjects[: bisect_right(values, level)]


class Watch:
    """The bound rules of one metric, arranged so that a level nobody crosses costs nothing."""

    def __init__(self, bound: Iterable[BoundRule]) -> None:
        rules = list(bound)
        upward = [one for one in rules if one.rule.comparison.is_upward]
        downward = [one for one in rules if not one.rule.comparison.is_upward]
        self._upward = sorted(upward, key=lambda one: one.rule.level)
        self._downward = sorted(downward, key=lambda one: -one.rule.level)
        self._upward_levels = [one.rule.level for one in self._upward]
        self._downward_levels = [-one.rule.level for one in self._downward]

    def may_fire(self, lowest: float, highest: float) -> list[BoundRule]:
        """The rules that some value between the two may be beyond."""
        return [
            *self._upward[: bisect_right(self._upward_levels, highest)],
            *self._downward[: bisect_right(self._downward_levels, -lowest)],
        ]


class BoundRules:
    """Enabled rules, ready for `evaluate`. Make it once per rule set, with `bind`."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_name: dict[str, BoundRule] = {}
        by_metric: dict[str, list[BoundRule]] = {}
        for order, rule in enumerate(rules):
            if not rule.enabled:
                continue
            if rule.name in self.by_name:
                raise ValueError(f"two rules are named {rule.name}")
            bound = self.by_name[rule.name] = BoundRule.of(rule, order)
            by_metric.setdefault(rule.metric, []).append(bound)
        self.watches = {metric: Watch(bound) for metric, bound in by_metric.items()}

    @property
    def metrics(self) -> frozenset[str]:
        """What these rules watch."""
        return frozenset(self.watches)


def bind(rules: Iterable[Rule]) -> BoundRules:
    """Make rules ready, once; disabled ones are left out. Raises ValueError on a name twice."""
    return BoundRules(rules)
