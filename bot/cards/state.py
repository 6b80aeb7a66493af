"""What a card is about and how that stands: symbols, colours, words for code. No text."""

from __future__ import annotations

from typing import Final

from bot.core.alert import UNKNOWN, Ending
from bot.core.incident import Incident
from bot.core.observation import MonitorStatus
from bot.core.rule import Scope, Severity
from bot.discord_text import one_line

RED: Final = 0xFF0000
DARK_RED: Final = 0x990000
GREEN: Final = 0x00FF00
ORANGE: Final = 0xFF9900
GREY: Final = 0x808080

DOWN, WARNING, ALERT, UNCLEAR = "🔴", "⚠️", "🚨", "❔"
PENDING, MAINTENANCE, RECOVERED = "🟡", "🔧", "✅"
RANK: Final = {
    symbol: rank
    for rank, symbol in enumerate((DOWN, ALERT, WARNING, UNCLEAR, PENDING, MAINTENANCE, RECOVERED))
}

LONGEST_NAME: Final = 500

# What the metric of a rule says about its cards; anything else is a plain threshold.
DOWN_METRIC = "monitor_down"
KUMA_METRIC = "kuma_staleness"
REMOTE_METRIC = "remote_away"
MISSING_METRIC = "monitor_missing"
CERT_METRIC = "monitor_cert_days_remaining"
SLOW_METRIC = "monitor_slowness"
LATENESS_METRIC = "task_lateness"
WITHOUT_NUMBER = frozenset(
    {DOWN_METRIC, KUMA_METRIC, MISSING_METRIC, "store_set_aside", "discord_degradation"}
)
"""Metrics whose number means nothing to people; their cards say it in words."""

_SERVICE = Scope.SERVICE.value
_DOWN_SYMBOLS: Final = {
    "": DOWN,
    MonitorStatus.DOWN.value: DOWN,
    MonitorStatus.MAINTENANCE.value: MAINTENANCE,
}
"""Of an outage that is not over; a monitor that answers again is still being watched: pending."""

_HIGH = frozenset({"HighMemory", "HighErrorRate"})
"""Warnings that people know as HIGH; the other warnings are MEDIUM."""


def severity_word(rule_name: str, severity: Severity) -> str:
    """CRITICAL, HIGH, MEDIUM or LOW, the same in every language."""
    if severity is Severity.CRITICAL:
        return "CRITICAL"
    if severity is Severity.INFO:
        return "LOW"
    return "HIGH" if rule_name in _HIGH else "MEDIUM"


def severity_colour(rule_name: str, severity: Severity) -> int:
    word = severity_word(rule_name, severity)
    return {"CRITICAL": DARK_RED, "HIGH": RED, "MEDIUM": ORANGE, "LOW": GREY}[word]


def symbol_of(incident: Incident) -> str:
    """The state of an incident as its headline's first character."""
    if incident.resolved_at is not None:
        return RECOVERED if incident.ending is Ending.CLEARED else UNCLEAR
    if incident.status == UNKNOWN or incident.metric in (KUMA_METRIC, MISSING_METRIC):
        return UNCLEAR
    if incident.metric == DOWN_METRIC:
        return _DOWN_SYMBOLS.get(incident.status, PENDING)
    is_warning = incident.scope == _SERVICE and incident.severity is not Severity.CRITICAL
    return WARNING if is_warning else ALERT


def colour_of(incident: Incident) -> int:
    match symbol_of(incident):
        case "✅":
            return GREEN
        case "🔴":
            return RED
        case "🚨":
            return severity_colour(incident.rule_name, incident.severity)
        case "❔":
            return GREY
        case _:
            return ORANGE


def name_of(incident: Incident) -> str:
    """The monitor, Kuma or task it is about, as it was named; "" for the machine itself."""
    name = incident.detail.get("name")
    known = name if isinstance(name, str) and name.strip() else incident.subject
    return one_line(known[:LONGEST_NAME])


def duration_s(incident: Incident) -> float | None:
    """From firing to the end, which never lies before; None while it lasts."""
    if incident.resolved_at is None:
        return None
    return max(0.0, (incident.resolved_at - incident.fired_at).total_seconds())


def situation_of(incident: Incident) -> str:
    """The part of a locale key that names what a card is about and how that stands."""
    kind = kind_of(incident)
    if incident.resolved_at is not None:
        return f"{kind}_recovered" if incident.ending is Ending.CLEARED else "ended"
    if kind in ("kuma", "missing"):
        return kind
    match symbol_of(incident):
        case "❔":
            return f"{kind}_unknown"
        case "🟡":
            is_up = incident.status == MonitorStatus.UP.value
            return "down_recovering" if is_up else "down_pending"
        case "🔧":
            return "down_maintenance"
        case "⚠️":
            return "warning"
        case _:
            # A warning about a service that became critical is told like any other alert.
            return "down" if kind == "down" else "alert"


def kind_of(incident: Incident) -> str:
    if incident.metric == DOWN_METRIC:
        return "down"
    if incident.metric == KUMA_METRIC:
        return "kuma"
    if incident.metric == MISSING_METRIC:
        return "missing"
    return "warning" if incident.scope == _SERVICE else "alert"
