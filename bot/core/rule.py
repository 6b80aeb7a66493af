"""What a checked rule is, the set of them, and the fingerprint that tells two meanings apart.

Words as in Prometheus: a rule watches one metric, `for` is the hold. A rule says when it
fires, when it clears (hysteresis), how long silence of the source may last, and who it is for.
`rule_text.py` makes rules from TOML.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad. Order matters: INFO < WARNING < CRITICAL (see `rank`)."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return ("info", "warning", "critical").index(self.value)


class Scope(Enum):
    """Who is told: OPERATOR goes to operator guilds only, SERVICE to every guild set up."""

    OPERATOR = "operator"
    SERVICE = "service"


class Comparison(Enum):
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="

    @property
    def holds(self) -> Callable[[float, float], bool]:
        """`comparison.holds(value, level)`: is the value beyond the level?"""
        return _HOLDS[self]

    @property
    def is_upward(self) -> bool:
        """True when large values are the bad ones."""
        return self in (Comparison.GT, Comparison.GE)


_HOLDS: dict[Comparison, Callable[[float, float], bool]] = {
    Comparison.GT: operator.gt,
    Comparison.GE: operator.ge,
    Comparison.LT: operator.lt,
    Comparison.LE: operator.le,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One checked rule.

    `metric` names a column of an observation. It fires while `value comparison level` holds and
    clears once `value comparison clear_level` no longer does ("> 80, clear 75" keeps firing at
    76). `escalate_level` (same comparison) raises a firing alert to
    `escalate_severity`. Seconds everywhere; `hold_s` before firing, `clear_hold_s` before
    resolving, `cooldown_s` after resolving, `no_data_s` before missing values make the alert's
    own state unknown. With `follow_status` False the status in the details is not its headline
    (a certificate does not care whether its monitor is down). `origin` names the last text that
    had a say in it.
    """

    name: str
    metric: str
    comparison: Comparison
    level: float
    clear_level: float
    severity: Severity
    scope: Scope = Scope.OPERATOR
    category: str = "system"
    hold_s: float = 0.0
    clear_hold_s: float = 0.0
    cooldown_s: float = 300.0
    no_data_s: float = 120.0
    escalate_level: float | None = None
    escalate_severity: Severity | None = None
    silent: bool = False
    enabled: bool = True
    origin: str = "built-in"
    follow_status: bool = True


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Every rule known, disabled ones too, in the order they were first named. Names are unique."""

    rules: tuple[Rule, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def get(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)

    @property
    def metrics(self) -> frozenset[str]:
        """The metrics that enabled rules watch."""
        return frozenset(rule.metric for rule in self.rules if rule.enabled)


def fingerprint(rule: Rule) -> str:
    """16 hex digits that change exactly when the rule would decide differently.

    Name, origin, category, silent and enabled are left out: renaming a category must not end
    an open incident.
    """
    meaning = [
        rule.metric,
        rule.comparison.value,
        _plain(rule.level),
        _plain(rule.clear_level),
        _plain(rule.hold_s),
        _plain(rule.clear_hold_s),
        _plain(rule.cooldown_s),
        _plain(rule.no_data_s),
        None if rule.escalate_level is None else _plain(rule.escalate_level),
        None if rule.escalate_severity is None else rule.escalate_severity.value,
        rule.severity.value,
        rule.scope.value,
        rule.follow_status,
    ]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]


def _plain(number: float) -> float:
    """80 and 80.0, 0.0 and -0.0 are the same level and must give the same digits."""
    return float(number) + 0.0
