"""The table of settings as people read it: for the README, and as `.env.example`."""

from __future__ import annotations

from bot.i18n import Translator, supported
from bot.settings_table import SPECS, Spec

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"

_translator = Translator()


def render_settings_table(locale: str) -> str:
    """Every variable as a Markdown table, without the markers around it."""
    t = _translator.t
    heads = [t(f"settings.table.{part}", locale) for part in ("variable", "default", "meaning")]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|"]
    for spec in SPECS:
        lines.append(f"| `{spec.name}` | {_default(spec, locale)} | {_meaning(spec, locale)} |")
    return "\n".join(lines) + "\n"


def replace_block(readme: str, locale: str) -> str:
    """`readme` with the table between its markers made anew. Raises ValueError without both."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{BEGIN} and {END} must both be there")
    return f"{head}{BEGIN}\n{render_settings_table(locale)}{END}{tail}"


def render_env_example() -> str:
    """`.env.example`: every variable commented out, explained in each language."""
    t = _translator.t
    lines = [f"# {t('settings.table.env_head', locale)}" for locale in supported]
    for spec in SPECS:
        lines.append("")
        for locale in supported:
            text = f"{_meaning(spec, locale)} [{_default(spec, locale)}]"
            lines.append(f"# {text.replace('`', '')}")
        lines.append(f"#{spec.name}={spec.example}")
    return "\n".join(lines) + "\n"


def _default(spec: Spec, locale: str) -> str:
    if _translator.has(f"settings.default.{spec.field}"):
        return _translator.t(f"settings.default.{spec.field}", locale)
    if spec.default is None:
        return _translator.t("settings.table.none", locale)
    return f"`{spec.default}`"


def _meaning(spec: Spec, locale: str) -> str:
    said = [_translator.t(f"settings.meaning.{spec.field}", locale)]
    if spec.is_secret:
        said.append(_translator.t("settings.table.secret", locale, name=spec.name))
    if spec.is_unused:
        said.append(_translator.t("settings.table.unused", locale))
    return " ".join(said)
