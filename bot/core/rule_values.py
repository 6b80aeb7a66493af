"""Single values of rule text: conditions, durations, levels, words. Each is checked or refused."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from bot.core.rule import Comparison, Scope, Severity

MAX_DURATION_S = 366 * 86_400.0
_CONDITION = re.compile(r"(?P<metric>[^\s<>=!]+)\s*(?P<comparison>[<>=!]+)\s*(?P<level>.+)")
_ESCALATION = re.compile(r"(?P<comparison>[<>=!]+)\s*(?P<level>\S+)\s+(?P<severity>\S+)")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
_UNIT_S = (86_400.0, 3600.0, 60.0, 1.0)


class ValueRefused(ValueError):
    """One value makes no sense: `reason` for programs, the message in words."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class Condition(NamedTuple):
    metric: str
    comparison: Comparison
    level: float


def parse_condition(text: object) -> Condition:
    """ "cpu_usage > 80" → its parts. Raises ValueRefused. Full-width signs are fine."""
    if not isinstance(text, str):
        refuse("condition", f"{shown(text)} is not a condition in quotes")
    match = _CONDITION.fullmatch(narrow(text))
    if match is None:
        refuse("condition", f"{shown(text)} is not a metric, a comparison and a level")
    return Condition(
        match["metric"], comparison_of(match["comparison"]), level_in_text(match["level"])
    )


def parse_duration(value: object) -> float:
    """ "1h30m" or a number of seconds → seconds. Raises ValueRefused; negative is refused."""
    if isinstance(value, str):
        text = narrow(value).lower().replace(" ", "")
        if text.startswith("-"):
            refuse("negative", f"{shown(value)} is negative")
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            refuse("duration", f"{shown(value)} is not a duration such as 90s, 5m, 1h30m, 2d")
        counts = zip(match.groups(), _UNIT_S, strict=True)
        seconds = sum(float(count) * unit_s for count, unit_s in counts if count)
    else:
        seconds = number_of(value, "duration")
        if seconds < 0:
            refuse("negative", f"{shown(value)} is negative")
    if seconds > MAX_DURATION_S:
        refuse("too_long", f"{shown(value)} is longer than a year")
    return seconds


def parse_escalation(value: object, condition: Condition | None) -> tuple[float, str]:
    """ "< 3 critical" → level and severity word; its comparison must be that of `condition`."""
    match = _ESCALATION.fullmatch(narrow(value)) if isinstance(value, str) else None
    if match is None:
        refuse("escalation", f"{shown(value)} is not a comparison, a level and a severity")
    comparison = comparison_of(match["comparison"])
    if condition is not None and comparison is not condition.comparison:
        refuse("comparison", f"{comparison.value} must be {condition.comparison.value}, as in when")
    return level_in_text(match["level"]), match["severity"]


def condition_or_none(text: object) -> Condition | None:
    try:
        return parse_condition(text)
    except ValueRefused:
        return None


def refuse(reason: str, problem: str) -> NoReturn:
    raise ValueRefused(reason, problem)


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 1e30:
        return "a number of more than 30 digits"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def narrow(text: str) -> str:
    """Full-width letters, digits and signs as a Japanese keyboard gives them, made plain."""
    return unicodedata.normalize("NFKC", text).strip()


def number_of(value: object, reason: str) -> float:
    """A finite float. TOML knows nan, inf and integers beyond any float; none is a level."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(reason, f"{shown(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse("not_finite", f"{shown(value)} is not a finite number")
    return number


def level_in_text(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        refuse("level", f"{shown(text)} is not a level: write a number alone, without a unit")
    return number_of(number, "level")


def level_of(value: object) -> float:
    return number_of(value, "level")


def comparison_of(text: str) -> Comparison:
    try:
        return Comparison(text)
    except ValueError:
        refuse("comparison", f"{shown(text)} is not one of > >= < <=")


def severity_of(value: object) -> Severity:
    words = {severity.value: severity for severity in Severity}
    found = words.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        refuse("severity", f"{shown(value)} is not one of {', '.join(words)}")
    return found


def scope_of(value: object) -> Scope:
    words = {scope.value: scope for scope in Scope}
    found = words.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        refuse("scope", f"{shown(value)} is not one of {', '.join(words)}")
    return found


def flag_of(value: object) -> bool:
    if not isinstance(value, bool):
        refuse("flag", f"{shown(value)} is not true or false")
    return value


def category_of(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 32:
        refuse("category", f"{shown(value)} is not a word of 1 to 32 characters")
    return value.strip()


def did_you_mean(given: str, known: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""
