"""An incident in one line: symbol, what it is about, how far it is beyond its level."""

from __future__ import annotations

from bot.core.incident import Incident
from bot.core.observation import MonitorStatus
from bot.core.readings import READING_BY_NAME, Unit
from bot.core.rule import Scope, Severity
from bot.discord_text import shown_name
from cogs.embeds import Speech, Viewer

NAME_LIMIT = 120

_STATUS = {
    MonitorStatus.DOWN.value: "🔴",
    MonitorStatus.UNKNOWN.value: "❔",
    MonitorStatus.PENDING.value: "🟡",
    MonitorStatus.MAINTENANCE.value: "🔧",
}
_DOWN_METRIC = "monitor_down"
_UNITS = {
    "monitor_cert_days_remaining": "unit.days",
    "monitor_slowness": "unit.times",
    "task_lateness": "unit.periods",
    "kuma_staleness": "unit.times",
}
_FLAGS = ("monitor_down", "monitor_missing")
"""Metrics that are only ever yes or no: their value tells people nothing."""


def is_visible(incident: Incident, viewer: Viewer) -> bool:
    """Services are everybody's; machine, bot and stores are the operators'."""
    return incident.scope == Scope.SERVICE.value or viewer.is_operator


def symbol(incident: Incident) -> str:
    if incident.resolved_at is not None:
        return "✅"
    if incident.status in _STATUS and incident.metric == _DOWN_METRIC:
        return _STATUS[incident.status]
    if incident.status == MonitorStatus.UNKNOWN.value:
        return "❔"
    if incident.scope == Scope.SERVICE.value and incident.severity is not Severity.CRITICAL:
        return "⚠️"
    return "🚨"


def subject_name(incident: Incident) -> str:
    """The monitor's, source's or task's name; the rule's where the machine itself is meant."""
    name = incident.detail.get("name")
    return str(name) if name else incident.subject or incident.rule_name


def headline(incident: Incident, speech: Speech) -> str:
    """ "🔴 Shop · service_down", safe to print."""
    name = shown_name(subject_name(incident), NAME_LIMIT)
    rule = shown_name(incident.rule_name, NAME_LIMIT)
    return f"{symbol(incident)} {name}" + ("" if name == rule else f" · {rule}")


def severity_text(incident: Incident, speech: Speech) -> str:
    return speech(f"alerts.severity.{incident.severity.value}")


def value_text(incident: Incident, speech: Speech) -> str | None:
    """ "93.1% (limit 80%)"; None where the value is but a yes or no."""
    if incident.metric in _FLAGS:
        return None
    value = _in_unit(incident.metric, incident.value, speech)
    return speech(
        "alerts.value", value=value, level=_in_unit(incident.metric, incident.level, speech)
    )


def _in_unit(metric: str, value: float | None, speech: Speech) -> str:
    spec = READING_BY_NAME.get(metric)
    if metric in _UNITS:
        if value is None:
            return speech.unknown
        return speech(_UNITS[metric], n=speech.number(value, 1))
    return speech.unit(value, Unit.RATIO if spec is None else spec.unit)


def metric_label(metric: str, speech: Speech) -> str | None:
    key = f"reading.{metric}"
    return speech(key) if speech.has(key) else None
