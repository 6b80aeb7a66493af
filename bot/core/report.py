"""What other cogs may hand us, and in which shapes: ids, names, texts, times, numbers, labels.

An id may be a number, its text, or anything with an `id` (a member, a guild); a name may be text
or anything with a `display_name` or `name`. What cannot be taken is Refused with a reason that
repeats no text of a person.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from bot.core.kept_text import NAME_LIMIT, TEXT_LIMIT, TITLE_LIMIT, kept
from bot.core.readings import READING_BY_NAME

METRIC_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
"""As in Prometheus, and short enough for every table."""

LABEL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
LABELS_LIMIT: Final = 10
LABEL_VALUE_LIMIT: Final = 200

FIRST_AT: Final = datetime(2015, 1, 1, tzinfo=UTC)
"""Discord counts its ids from here; anything older is a mistake in the making."""

_SNOWFLAKE = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)


class Refused(ValueError):
    """`reason` is one of few, whatever was given; `given` shows it where it is nobody's text."""

    def __init__(self, reason: str, given: object = None) -> None:
        super().__init__(reason if given is None else f"{reason} (given: {str(given)[:60]!r})")
        self.reason = reason


def snowflake(field: str, value: object) -> str:
    if value is None:
        raise Refused(f"{field} is missing")
    found = getattr(value, "id", value)
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise Refused(f"{field} must be a Discord id, not {type(found).__name__}")
    text = str(found).strip()
    if not _SNOWFLAKE.fullmatch(text):
        raise Refused(f"{field} must be a Discord id: digits only")
    return text


def name(field: str, value: object, of: object = None) -> str:
    """A person's name; without one, that of the object given as their id; else empty."""
    if value is None:
        value = "" if isinstance(of, int | str) else of
    if not isinstance(value, str):
        for attribute in ("display_name", "name"):
            found = getattr(value, attribute, None)
            if isinstance(found, str):
                return kept(found, NAME_LIMIT)
        raise Refused(f"{field} must be a name, not {type(value).__name__}")
    return kept(value, NAME_LIMIT)


def text(field: str, value: object) -> str:
    if value is None:
        raise Refused(f"{field} is missing")
    if not isinstance(value, str):
        raise Refused(f"{field} must be text, not {type(value).__name__}")
    return kept(value, TEXT_LIMIT)


def title(field: str, value: object) -> str:
    """Of a song: text, or anything with a `title` (a track)."""
    found = value if isinstance(value, str) else getattr(value, "title", value)
    if found is None:
        raise Refused(f"{field} is missing")
    if not isinstance(found, str):
        raise Refused(f"{field} must be text, not {type(found).__name__}")
    if not found.strip():
        raise Refused(f"{field} is empty")
    return kept(found.strip(), TITLE_LIMIT)


def moment(value: object, now: datetime) -> datetime:
    """To the millisecond, as every store keeps it; never later than `now`.

    Nothing given is now. Text is ISO; a number counts seconds since 1970; without a zone it is
    UTC. What comes from the future would outlive every deletion.
    """
    at = now
    try:
        match value:
            case None:
                pass
            case datetime():
                at = value
            case bool():
                raise Refused("timestamp must be a time, not bool")
            case int() | float():
                at = datetime.fromtimestamp(value, UTC)
            case str():
                at = datetime.fromisoformat(value)
            case _:
                raise Refused(f"timestamp must be a time, not {type(value).__name__}")
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except Refused:
        raise
    except (ValueError, OverflowError, OSError) as error:
        raise Refused("timestamp cannot be read as a time") from error
    if at < FIRST_AT:
        raise Refused("timestamp lies before 2015")
    if at > now + timedelta(days=1):
        raise Refused("timestamp lies in the future")
    at = min(at, now)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def metric_name(value: object) -> str:
    if not isinstance(value, str) or not METRIC_NAME.fullmatch(value):
        raise Refused(
            "a metric's name must be letters, digits and _, at most 100, no digit first", value
        )
    if value in READING_BY_NAME:
        raise Refused("a metric may not have the name of one of the bot's own readings", value)
    return value


def number(value: object) -> float:
    """Any finite number, also Decimal's and numpy's; text is none."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise Refused(f"a metric's value must be a number, not {type(value).__name__}")
    try:
        found = float(value)
    except Exception as error:
        raise Refused("a metric's value cannot be made a number") from error
    if not math.isfinite(found):
        raise Refused("a metric's value must be finite", found)
    return found


def labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Refused(f"labels must be a mapping, not {type(value).__name__}")
    if len(value) > LABELS_LIMIT:
        raise Refused(f"a metric may have {LABELS_LIMIT} labels at most", len(value))
    found = {}
    for key, item in value.items():
        if not isinstance(key, str) or not LABEL_NAME.fullmatch(key):
            raise Refused("a label's name must be letters, digits and _, at most 64", key)
        if not isinstance(item, str | int | float):
            raise Refused(f"a label's value must be text or a number, not {type(item).__name__}")
        if len(shown := str(item)) > LABEL_VALUE_LIMIT:
            raise Refused(f"a label's value may have {LABEL_VALUE_LIMIT} characters at most")
        found[key] = shown
    return dict(sorted(found.items()))
