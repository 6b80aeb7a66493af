"""An incident in a list: symbol, what it is about, how far it is beyond its level."""

from __future__ import annotations

from bot.cards import name_of, symbol_of
from bot.core.incident import Incident
from bot.core.readings import READING_BY_NAME, Unit
from bot.core.rule import Scope
from bot.discord_text import shown_name
from cogs.embeds import Speech, Viewer

NAME_LIMIT = 120

_UNITS = {
    "monitor_cert_days_remaining": "card.unit.days",
    "monitor_slowness": "card.unit.times",
    "task_lateness": "card.unit.periods",
}
_WITHOUT_NUMBER = frozenset(
    {"monitor_down", "monitor_missing", "kuma_staleness", "store_set_aside", "discord_degradation"}
)
"""Metrics whose number means nothing to people."""


def is_visible(incident: Incident, viewer: Viewer) -> bool:
    """Services are everybody's; machine, bot and stores are the operators'."""
    return incident.scope == Scope.SERVICE.value or viewer.is_operator


def headline(incident: Incident, speech: Speech) -> str:
    """ "🔴 Shop · service down", safe to print."""
    name = name_of(incident)
    rule = shown_name(rule_title(incident, speech), NAME_LIMIT)
    about = f"{shown_name(name, NAME_LIMIT)} · {rule}" if name else rule
    return f"{symbol_of(incident)} {about}"


def rule_title(incident: Incident, speech: Speech) -> str:
    """A built-in rule's title; a rule of somebody's own has only its name."""
    key = f"alert.rule.{incident.rule_name}.title"
    return speech(key) if speech.has(key) else incident.rule_name


def value_text(incident: Incident, speech: Speech) -> str | None:
    """ "CPU usage: 93.1% (threshold 80%)"; None where the number means nothing to people."""
    metric = incident.metric
    if metric in _WITHOUT_NUMBER:
        return None
    value, level = (_in_unit(metric, v, speech) for v in (incident.value, incident.level))
    text = speech("alerts.value", value=value, level=level)
    key = f"reading.{metric}"
    return f"{speech(key)}: {text}" if speech.has(key) else text


def _in_unit(metric: str, value: float | None, speech: Speech) -> str:
    if metric in _UNITS and value is not None:
        return speech(_UNITS[metric], n=speech.number(value, 1))
    spec = READING_BY_NAME.get(metric)
    return speech.unit(value, Unit.RATIO if spec is None else spec.unit)
