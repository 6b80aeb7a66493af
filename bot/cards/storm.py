"""Many incidents on one card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from bot.cards.state import (
    GREY,
    RANK,
    RECOVERED,
    UNCLEAR,
    colour_of,
    duration_s,
    kind_of,
    name_of,
    symbol_of,
)
from bot.cards.voice import Field, Voice
from bot.core.incident import Card, Incident
from bot.discord_text import TITLE_LIMIT, clip, moment, relative, shown_name, whole_lines

STORM_NAME_LIMIT: Final = 60
LIST_LIMIT: Final = 3500


def storm_embed(voice: Voice, card: Card, incidents: Sequence[Incident]) -> dict[str, object]:
    """Counts first, then as many names as fit, the open ones first."""
    states = _states(incidents)
    by_symbol: dict[str, list[Incident]] = {symbol: [] for symbol in RANK}
    for symbol, incident in states:
        by_symbol[symbol].append(incident)
    is_over = all(incident.resolved_at is not None for incident in incidents)
    counts = " · ".join(f"{symbol} {len(them)}" for symbol, them in by_symbol.items() if them)
    names = whole_lines(
        (incident_line(voice, incident) for them in by_symbol.values() for incident in them),
        len(incidents),
        LIST_LIMIT,
        more_line(voice, "card.more_over" if is_over else "card.more_open"),
    )
    at, fields = card.opened_at, []
    if incidents:
        at = min(incident.fired_at for incident in incidents)
        since = f"{moment(at)} ({relative(at)})"
        fields.append(Field(voice("card.field.since"), since, inline=False).as_json())
    if incidents and is_over:
        at = max(i.resolved_at for i in incidents if i.resolved_at is not None)
        until = Field(voice("card.field.until"), moment(at), inline=False)
        fields.append(until.as_json())
    worst = next((them[0] for them in by_symbol.values() if them), None)
    return {
        "title": clip(" ".join(_title_of_storm(voice, states)), TITLE_LIMIT),
        "description": "\n".join(part for part in (counts, names) if part) or "—",
        "color": GREY if worst is None else colour_of(worst),
        "fields": fields,
        "timestamp": at.isoformat(),
    }


def _states(incidents: Sequence[Incident]) -> list[tuple[str, Incident]]:
    return [(symbol_of(incident), incident) for incident in incidents]


def _title_of_storm(voice: Voice, states: Sequence[tuple[str, Incident]]) -> tuple[str, str]:
    """The worst state there is, and how many are in it."""
    total = len(states)
    if not states:
        return UNCLEAR, voice("card.title.ended")
    first = states[0][1]
    kind = kind_of(first)
    what = shown_name(voice.rule_title(first.rule_name))
    still = Counter(symbol for symbol, incident in states if incident.resolved_at is None)
    if not still:
        recovered = sum(1 for symbol, _ in states if symbol == RECOVERED)
        share = _share(recovered or total, total)
        if not recovered:
            return UNCLEAR, voice("card.storm.ended", share=share, what=what)
        key = "card.storm.up" if kind == "down" else "card.storm.cleared"
        return RECOVERED, voice(key, share=share, what=what)
    worst = min(still, key=RANK.__getitem__)
    share = _share(still[worst], total)
    match worst:
        case "🔴":
            key = "card.storm.down" if still[worst] == total else "card.storm.still_down"
        case "❔":
            key = "card.storm.kuma" if kind == "kuma" else "card.storm.unknown"
        case "🟡":
            key = "card.storm.pending"
        case "🔧":
            key = "card.storm.maintenance"
        case _:
            key = "card.storm.alerts"
    return worst, voice(key, share=share, what=what)


def _share(count: int, total: int) -> str:
    return str(total) if count == total else f"{count}/{total}"


def incident_line(voice: Voice, incident: Incident) -> str:
    name = name_of(incident) or voice.rule_title(incident.rule_name)
    line = f"{symbol_of(incident)} {shown_name(name, STORM_NAME_LIMIT)}"
    if incident.resolved_at is not None:
        return f"{line} · {voice.duration(duration_s(incident))}"
    comparison = voice.comparison(incident)
    return line if comparison is None else f"{line} · {clip(comparison, STORM_NAME_LIMIT)}"


def more_line(voice: Voice, key: str) -> str:
    """A template for the last line: its {n} is filled in once it is known."""
    return voice(key, n="{n}")


def storm_reply(voice: Voice, incidents: Sequence[Incident]) -> str:
    symbol, title = _title_of_storm(voice, _states(incidents))
    durations = [d for incident in incidents if (d := duration_s(incident)) is not None]
    if symbol != RECOVERED:
        return f"{symbol} **{title}**"
    lasted = voice.duration(max(durations))
    return f"{symbol} {voice('card.reply.longest', title=title, lasted=lasted)}"
