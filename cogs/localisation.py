"""Names stay as written, so that people can tell each other; descriptions speak one's language."""

from __future__ import annotations

from typing import Any, Final

from discord import Locale, app_commands
from discord.app_commands import TranslationContextTypes, locale_str

from bot.i18n import Locale as OurLocale
from bot.i18n import Translator

TAGS: Final[dict[Locale, OurLocale]] = {
    Locale.japanese: "ja",
    Locale.american_english: "en",
    Locale.british_english: "en",
}

_texts = Translator()


def said(key: str) -> locale_str:
    """A description, option or choice by the key of its text."""
    return locale_str(_texts.t(key), key=key)


class LocaleTranslator(app_commands.Translator):
    """Fills in what `said` named, for every language we have."""

    async def translate(
        self, string: locale_str, locale: Locale, context: TranslationContextTypes
    ) -> str | None:
        key = string.extras.get("key")
        ours = TAGS.get(locale)
        return None if key is None or ours is None else _texts.t(key, ours)


def with_default(payload: dict[str, Any], default: OurLocale) -> dict[str, Any]:
    """A command's payload whose texts without a language are those of `default`.

    They are what anybody sees whose language we do not have. `said` runs before the settings
    are known, hence afterwards.
    """
    tag = next(locale.value for locale, ours in TAGS.items() if ours == default)
    done = {**payload}
    texts = payload.get("description_localizations") or {}
    if tag in texts:
        done["description"] = texts[tag]
    names = payload.get("name_localizations") or {}
    if "value" in payload and tag in names:
        done["name"] = names[tag]
    for key in ("options", "choices"):
        if payload.get(key):
            done[key] = [with_default(inner, default) for inner in payload[key]]
    return done
