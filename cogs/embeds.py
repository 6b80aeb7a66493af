"""What every answer is drawn with: words in a person's language, fields that fit, true ages.

Nothing here talks to Discord. Builders take values and give an embed back; whatever can be
missing shows as the word for unknown, never as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

import discord

from bot.core.kuma import display_url
from bot.core.observation import MonitorStatus
from bot.core.readings import READING_BY_NAME, Unit
from bot.discord_text import (
    FIELD_NAME_LIMIT,
    FIELD_VALUE_LIMIT,
    as_code,
    clip,
    relative,
    shown_name,
    whole_lines,
)
from bot.i18n import Locale, Translator
from bot.services.fleet import Fleet, FleetMonitor
from bot.services.source import Source

BLUE = 0x0099FF
GREEN = 0x00FF00

STATUS_SYMBOLS = {
    MonitorStatus.DOWN: "🔴",
    MonitorStatus.UNKNOWN: "❔",
    MonitorStatus.PENDING: "🟡",
    MonitorStatus.MAINTENANCE: "🔧",
    MonitorStatus.UP: "🟢",
}
"""Worst first; every list of monitors is in this order."""

_RANK = {status: rank for rank, status in enumerate(STATUS_SYMBOLS)}

STALE_POLLS = 2
STALE_SLACK_S = 30.0


@dataclass(frozen=True, slots=True)
class Viewer:
    """For whom an answer is: what they read, where they are and what they may see."""

    locale: Locale
    guild_id: str
    is_operator: bool
    may_manage: bool


class Speech:
    """Words, numbers and times for one reader."""

    def __init__(self, translator: Translator, locale: Locale, zone: tzinfo) -> None:
        self._translator = translator
        self._zone = zone
        self.locale = locale

    def __call__(self, key: str, /, **params: object) -> str:
        return self._translator.t(key, self.locale, **params)

    def has(self, key: str) -> bool:
        return self._translator.has(key)

    @property
    def unknown(self) -> str:
        return self._translator.unknown(self.locale)

    def number(self, value: float | None, digits: int = 0) -> str:
        return self._translator.format_number(value, self.locale, digits)

    def percent(self, value: float | None, digits: int = 1) -> str:
        return self._translator.format_percent(value, self.locale, digits)

    def duration(self, seconds: float | None) -> str:
        return self._translator.format_duration(seconds, self.locale)

    def age(self, at: datetime | None, now: datetime) -> str:
        """Date, time and how long before `now`, for footers, where Discord shows no <t:…>.

        A message stays for years, hence "ago when shown" and not plain "ago".
        """
        if at is None:
            return self.unknown
        age_s = max(0, math.floor((now - at).total_seconds()))
        return f"{self.clock(at)} ({self('unit.ago', age=self.duration(age_s))})"

    def relative(self, at: datetime | None) -> str:
        """A time that Discord keeps telling truly: "12 seconds ago"."""
        return self.unknown if at is None else relative(at)

    def milliseconds(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return self.unknown
        return self("unit.milliseconds", n=self.number(value, 0 if abs(value) >= 10 else 1))

    def ratio(self, ratio: float | None) -> str:
        """A share in percent. Cut, not rounded: 99.999 % with an outage in it is not 100 %."""
        if ratio is None or not math.isfinite(ratio):
            return self.unknown
        return self.percent(math.floor(ratio * 10_000 + 1e-6) / 100, digits=2)

    def clock(self, at: datetime | None) -> str:
        """Date and time in the configured zone."""
        if at is None:
            return self.unknown
        return at.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")

    def unit(self, value: float | None, unit: Unit) -> str:
        """A value the way people read its unit."""
        if value is None or not math.isfinite(value):
            return self.unknown
        match unit:
            case Unit.PERCENT:
                return self.percent(value)
            case Unit.BYTES:
                return self._translator.format_bytes(value, self.locale)
            case Unit.SECONDS:
                return self.duration(value)
            case Unit.MILLISECONDS:
                return self.milliseconds(value)
            case Unit.COUNT:
                return self("unit.count", n=self.number(value))
            case Unit.MEGABYTES:
                return self("unit.megabytes", n=self.number(value, 1))
            case Unit.RATIO:
                return self("unit.ratio", n=self.number(value, 2))

    def reading(self, name: str, value: float | None) -> str:
        """One reading of the table, e.g. "23.4%"."""
        spec = READING_BY_NAME.get(name)
        return self.unit(value, Unit.RATIO if spec is None else spec.unit)

    def status(self, status: MonitorStatus) -> str:
        return f"{STATUS_SYMBOLS[status]} {self(f'status.{status.value}')}"


def shown_url(url: str | None) -> str | None:
    """An address without its secrets, as text and not as a link."""
    return as_code(display_url(url) or "") or None


def add_field(embed: discord.Embed, name: str, value: str, *, inline: bool = True) -> None:
    """A field within Discord's limits; what does not fit ends in "…"."""
    embed.add_field(
        name=clip(name, FIELD_NAME_LIMIT), value=clip(value, FIELD_VALUE_LIMIT), inline=inline
    )


def fitting(lines: Sequence[str], limit: int, speech: Speech) -> str:
    """As many whole lines as fit in `limit`; how many were left out is said."""
    return whole_lines(lines, len(lines), limit, speech("unit.more", n="{n}"))


def worst_first(fleet: Fleet, monitors: Iterable[FleetMonitor]) -> list[FleetMonitor]:
    """Down, unknown, pending, maintenance, up; then by name."""
    return sorted(
        monitors,
        key=lambda m: (_RANK[fleet.status_of(m)], m.identity.name.casefold(), m.key),
    )


def response_time_ms(monitor: FleetMonitor) -> float | None:
    return None if monitor.reading is None else monitor.reading.response_time_ms


def is_late(source: Source, now: datetime) -> bool:
    """Whether the data is older than it should be although no poll has failed."""
    age_s = source.age_s(now)
    return age_s is not None and age_s > STALE_POLLS * source.period_s + STALE_SLACK_S


def source_trouble(source: Source, now: datetime, speech: Speech) -> str | None:
    """What is wrong with one Kuma, in a sentence; None when its data is fresh."""
    why = "" if source.problem is None else speech(f"problem.{source.problem.value}")
    age = speech.relative(source.last_good_at)
    if source.last_good_at is None:
        if source.problem is None:
            return speech("error.source.waiting")
        return speech("error.source.never", why=why)
    if source.is_lost:
        return speech("error.source.lost", why=why, age=age)
    if source.failing_since_at is not None:
        return speech("error.source.failing", why=why, age=age)
    if is_late(source, now):
        return speech("error.source.late", age=age)
    return None


def source_lines(fleet: Fleet, now: datetime, speech: Speech) -> list[str]:
    """How fresh the knowledge of all Kumas is: the troubles, else the age of the oldest data."""
    if not fleet.sources:
        return [speech("error.source.none")]
    lines = []
    for source in fleet.sources.values():
        trouble = source_trouble(source, now, speech)
        if trouble is not None:
            name = f"{shown_name(source.instance, 60)}: " if len(fleet.sources) > 1 else ""
            lines.append(f"⚠️ {name}{trouble}")
    if not lines:
        lines.append(speech("dashboard.fresh", age=speech.relative(oldest_look(fleet))))
    return lines


def oldest_look(fleet: Fleet) -> datetime | None:
    """When the Kuma that has been silent longest last answered; None if one never did."""
    looks = [source.last_good_at for source in fleet.sources.values()]
    known = [at for at in looks if at is not None]
    return min(known) if known and len(known) == len(looks) else None


def day_before(now: datetime) -> datetime:
    return now - timedelta(hours=24)
