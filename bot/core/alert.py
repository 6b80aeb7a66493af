"""The words of alerting as values: states, observations, flips. What they obey is in engine.py."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from bot.core.rule import Severity

AlertKey = tuple[str, str]
"""(rule name, subject); the subject is "" for the host, a monitor key or a task name otherwise."""

Detail = Mapping[str, str | float | int | bool | None]
"""Facts for people and for the stored row, JSON-able: monitor name, status, reason, url, …"""

UNKNOWN = "unknown"


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
