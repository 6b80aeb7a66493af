"""key + locale → text.

The tables are `bot/locales/<locale>.toml`; nested tables are flattened with dots, so
`[value] unknown = "…"` is the key `value.unknown`. They are read once, at first use.
"""

from __future__ import annotations

import logging
import math
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

Locale = Literal["ja", "en"]

supported: tuple[Locale, ...] = ("ja", "en")
DEFAULT_LOCALE: Locale = "ja"

_LOCALES = Path(__file__).resolve().parent / "locales"
_log = logging.getLogger(__name__)
_strict = False
_told: set[tuple[str, str]] = set()

ByteUnit = Literal["B", "KB", "MB", "GB", "TB"]
_BYTE_UNITS: tuple[ByteUnit, ...] = ("B", "KB", "MB", "GB", "TB")


class TranslationError(LookupError):
    """A key or a placeholder that no table has. Raised in tests only; see `be_strict`."""


def be_strict(strict: bool = True) -> None:
    """Raise on a missing key or parameter instead of showing the key and logging once."""
    global _strict
    _strict = strict


def flatten(table: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted keys. Raises TypeError for a value that is not text."""
    flat: dict[str, str] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{key}."))
        elif isinstance(value, str):
            flat[key] = value
        else:
            raise TypeError(f"{key} is not text")
    return flat


@cache
def texts(locale: Locale) -> Mapping[str, str]:
    """The whole table of one language, flattened; read from its file once."""
    with (_LOCALES / f"{locale}.toml").open("rb") as file:
        return flatten(tomllib.load(file))


def pick_locale(tag: str | None, default: Locale = DEFAULT_LOCALE) -> Locale:
    """Our language for a tag such as Discord's "en-US".

    "ja" and its variants give Japanese; any other language gives English, which its readers
    are likelier to know; no tag at all gives the default.
    """
    if not tag:
        return default
    language = tag.replace("_", "-").split("-")[0].lower()
    return "ja" if language == "ja" else "en"


class Translator:
    """Texts in a person's language, or in the default language where that is not known."""

    def __init__(self, default_locale: Locale = DEFAULT_LOCALE) -> None:
        self.default_locale: Locale = default_locale

    def locale(self, wanted: str | None) -> Locale:
        """`wanted` if there is a table for exactly that, else the default."""
        for locale in supported:
            if locale == wanted:
                return locale
        return self.default_locale

    def t(self, key: str, locale: str | None = None, /, **params: object) -> str:
        """The text of `key` with its named placeholders filled in.

        A missing key shows as the key, a missing parameter as its placeholder; either is
        logged once. With `be_strict` both raise TranslationError.
        """
        table = texts(self.locale(locale))
        text = table.get(key)
        if text is None:
            return self._missing(key, "no such key", key)
        if not params and "{" not in text:
            return text
        try:
            return text.format_map(params)
        except (LookupError, ValueError) as error:
            return self._missing(key, f"cannot be filled in: {error!r}", text)

    def has(self, key: str) -> bool:
        return key in texts(self.default_locale)

    @staticmethod
    def _missing(key: str, why: str, shown: str) -> str:
        if _strict:
            raise TranslationError(f"{key}: {why}")
        if (key, why) not in _told:
            _told.add((key, why))
            _log.error("locale key %s: %s", key, why)
        return shown

    def unknown(self, locale: str | None = None) -> str:
        """The word for what was not measured. Never 0."""
        return self.t("value.unknown", locale)

    def format_duration(self, seconds: float | None, locale: str | None = None) -> str:
        """The two largest units: "2 min 5 s". None, NaN and infinity are unknown."""
        if seconds is None or not math.isfinite(seconds):
            return self.unknown(locale)
        seconds = max(0.0, seconds)
        if 0 < seconds < 1:
            return self.t(
                "duration.milliseconds", locale, n=max(1, min(999, round(seconds * 1000)))
            )
        days, rest = divmod(int(seconds), 86400)
        hours, rest = divmod(rest, 3600)
        minutes, whole = divmod(rest, 60)
        parts = [
            (days, "duration.days"),
            (hours, "duration.hours"),
            (minutes, "duration.minutes"),
            (whole, "duration.seconds"),
        ]
        first = next((i for i, (n, _) in enumerate(parts) if n), len(parts) - 1)
        shown = [self.t(key, locale, n=n) for n, key in parts[first : first + 2] if n]
        if not shown:
            return self.t("duration.seconds", locale, n=0)
        return self.t("duration.joint", locale).join(shown)

    def format_number(self, value: float | None, locale: str | None = None, digits: int = 0) -> str:
        """With thousands separators and at most `digits` decimals."""
        if value is None or not math.isfinite(value):
            return self.unknown(locale)
        text = f"{value:,.{digits}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return "0" if text == "-0" else text

    def format_percent(
        self, value: float | None, locale: str | None = None, digits: int = 1
    ) -> str:
        """`value` is already in percent (0 to 100), as people read it."""
        if value is None or not math.isfinite(value):
            return self.unknown(locale)
        return self.t("value.percent", locale, n=self.format_number(value, locale, digits))

    def format_bytes(
        self, value: float | None, locale: str | None = None, unit: ByteUnit | None = None
    ) -> str:
        """Bytes in `unit`, or in the largest unit that leaves at least 1 (1 KB is 1,024 B)."""
        if value is None or not math.isfinite(value):
            return self.unknown(locale)
        step = _BYTE_UNITS.index(unit) if unit else 0
        if unit is None:
            while step < len(_BYTE_UNITS) - 1 and abs(value) >= 1024 ** (step + 1):
                step += 1
        digits = 0 if step == 0 else 1
        number = self.format_number(value / 1024**step, locale, digits)
        return self.t("value.bytes", locale, n=number, unit=_BYTE_UNITS[step])
