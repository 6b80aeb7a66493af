"""Words, numbers and times about incidents for one reader."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from math import isfinite

from bot.cards.state import (
    CERT_METRIC,
    KUMA_METRIC,
    LATENESS_METRIC,
    REMOTE_METRIC,
    SLOW_METRIC,
    WITHOUT_NUMBER,
    duration_s,
)
from bot.core.incident import Incident
from bot.core.readings import READING_BY_NAME, Unit
from bot.discord_text import FIELD_NAME_LIMIT, FIELD_VALUE_LIMIT, clip, one_line
from bot.i18n import Translator, pick_locale


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    value: str
    inline: bool = True

    def as_json(self) -> dict[str, object]:
        return {
            "name": clip(self.name, FIELD_NAME_LIMIT),
            "value": clip(self.value, FIELD_VALUE_LIMIT).strip() or "—",
            "inline": self.inline,
        }


class Voice:
    """Speaks a channel's language; `tag` is Discord's, None the default."""

    def __init__(self, translator: Translator, tag: str | None, zone: tzinfo) -> None:
        self._translator = translator
        self._zone = zone
        self.locale = pick_locale(tag, translator.default_locale)

    def __call__(self, key: str, /, **params: object) -> str:
        return self._translator.t(key, self.locale, **params)

    def duration(self, seconds: float | None) -> str:
        return self._translator.format_duration(seconds, self.locale)

    def number(self, value: float | None, digits: int = 0) -> str:
        return self._translator.format_number(value, self.locale, digits)

    def clock(self, at: datetime) -> str:
        """For places where no `<t:…>` is understood."""
        return at.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")

    def rule_title(self, rule_name: str) -> str:
        """A built-in rule's title; a rule of somebody's own has only its name."""
        key = f"alert.rule.{rule_name}.title"
        return self(key) if self._translator.has(key) else one_line(rule_name)

    def advice(self, incident: Incident) -> str | None:
        """One line on what it means and what helps, where we know."""
        key = f"alert.rule.{incident.rule_name}.advice"
        return self(key) if self._translator.has(key) else None

    def problem(self, incident: Incident) -> str | None:
        """The reason as the source gave it, in plain words."""
        is_remote = incident.metric == REMOTE_METRIC
        problem = incident.detail.get("remote_problem" if is_remote else "problem")
        if not isinstance(problem, str):
            return None
        if incident.metric == KUMA_METRIC:
            key = f"problem.{problem}"
        elif incident.metric == "store_failing":
            key = f"problem.store.{problem}"
        elif is_remote:
            key = f"problem.remote.{problem}"
        else:
            return None
        return self(key) if self._translator.has(key) else one_line(problem)

    def quantity(self, metric: str, value: float | None, digits: int = 1) -> str:
        """A value with its unit, as people read it."""
        if value is None or not isfinite(value):
            return self._translator.unknown(self.locale)
        if metric == CERT_METRIC:
            return self("card.unit.days", n=self.number(value, digits))
        if metric == SLOW_METRIC:
            return self("card.unit.times", n=self.number(value, digits))
        if metric == LATENESS_METRIC:
            return self("card.unit.periods", n=self.number(value, digits))
        spec = READING_BY_NAME.get(metric)
        match None if spec is None else spec.unit:
            case Unit.PERCENT:
                return self._translator.format_percent(value, self.locale, digits)
            case Unit.SECONDS:
                return self.duration(value)
            case Unit.BYTES:
                return self._translator.format_bytes(value, self.locale)
            case Unit.MEGABYTES:
                return self("card.unit.megabytes", n=self.number(value, digits))
            case Unit.MILLISECONDS:
                return self("card.unit.milliseconds", n=self.number(value, digits))
            case _:
                return self.number(value, digits + 1)

    def comparison(self, incident: Incident) -> str | None:
        """ "93.2% > 80%", with as many digits as it takes to tell the two apart."""
        value, level = incident.value, incident.level
        if incident.metric in WITHOUT_NUMBER or value is None or not isfinite(value):
            return None
        sign = "=" if value == level else ">" if value > level else "<"
        for digits in range(1, 5):
            left = self.quantity(incident.metric, value, digits)
            right = self.quantity(incident.metric, level, digits)
            if left != right or sign == "=":
                break
        return f"{left} {sign if left != right else '='} {right}"

    def lasted(self, incident: Incident) -> str:
        """ "12 min 5 s, 3 min of it unknown"."""
        total = self.duration(duration_s(incident))
        if incident.unknown_s < 1:
            return total
        return self("card.lasted_unknown", total=total, unknown=self.duration(incident.unknown_s))
