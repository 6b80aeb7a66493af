"""Draws incidents: cards, storm cards, replies, and the plain sentence for logs and SQL readers.

A headline begins with its state: 🔴 down, ⚠️ warning, 🚨 rule alert, ❔ unknown, 🟡 pending,
🔧 maintenance, ✅ recovered. ✅ stands for a value that was seen to be good again and for
nothing else: an incident that ended because its rule or monitor went away says so in words.
Every message fits Discord's limits, whatever a monitor is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

from bot.cards.single import (
    JOINT,
    ending_of,
    late_field,
    reason_of,
    single_embed,
    single_reply,
    status_word,
)
from bot.cards.state import (
    DARK_RED,
    GREEN,
    GREY,
    ORANGE,
    RANK,
    RED,
    UNCLEAR,
    colour_of,
    name_of,
    severity_colour,
    severity_word,
    symbol_of,
)
from bot.cards.storm import LIST_LIMIT, incident_line, more_line, storm_embed, storm_reply
from bot.cards.voice import Voice
from bot.core.alert import FlipKind
from bot.core.incident import Card, Incident
from bot.core.message import OutgoingMessage
from bot.core.rule import Severity
from bot.discord_text import CONTENT_LIMIT, TITLE_LIMIT, clip, relative, whole_lines
from bot.i18n import Translator

__all__ = [
    "DARK_RED",
    "GREEN",
    "GREY",
    "ORANGE",
    "RED",
    "CardRenderer",
    "colour_of",
    "name_of",
    "severity_colour",
    "severity_word",
    "symbol_of",
]

PLAIN_LIMIT: Final = 500


class CardRenderer:
    """The Renderer of `bot/services/delivery.py`, and the sentence that is stored and printed."""

    def __init__(self, translator: Translator, zone: tzinfo = UTC) -> None:
        self._translator = translator
        self._zone = zone

    def card(
        self, card: Card, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage:
        """What the card says now. A deleted incident leaves the others on it standing."""
        voice = self._voice(locale)
        if card.is_storm or len(incidents) != 1:
            embed = storm_embed(voice, card, incidents)
        else:
            embed = single_embed(voice, incidents[0])
        fields = embed["fields"]
        assert isinstance(fields, list)
        late = late_field(voice, card, incidents, now)
        if late is not None:
            fields.append(late.as_json())
        embed["footer"] = {"text": f"C.O.M.E.T. · #{clip(card.marker, 40)}"}
        return OutgoingMessage(embeds=(embed,), is_silent=_is_silent(incidents))

    def reply(
        self,
        card: Card,
        incidents: Sequence[Incident],
        kind: FlipKind,
        locale: str | None,
        now: datetime,
    ) -> OutgoingMessage:
        """One line under a card: it recovered (without a sound), or it became worse."""
        voice = self._voice(locale)
        is_escalation = kind is FlipKind.ESCALATED
        if card.is_storm or len(incidents) != 1:
            text = storm_reply(voice, incidents)
        else:
            text = single_reply(voice, incidents[0], is_escalation=is_escalation)
        is_silent = not is_escalation or _is_silent(incidents)
        return OutgoingMessage(content=clip(text, CONTENT_LIMIT), is_silent=is_silent)

    def fallback(
        self, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage:
        """All that the usual channel could not be told, in one message."""
        voice = self._voice(locale)
        ordered = sorted(incidents, key=lambda i: (RANK[symbol_of(i)], i.fired_at))
        worst = symbol_of(ordered[0]) if ordered else UNCLEAR
        lines = whole_lines(
            (f"{incident_line(voice, i)} {relative(i.fired_at)}" for i in ordered),
            len(ordered),
            LIST_LIMIT,
            more_line(voice, "card.more_open"),
        )
        embed: dict[str, object] = {
            "title": clip(f"{worst} {voice('card.fallback.title', n=len(ordered))}", TITLE_LIMIT),
            "description": "\n".join(part for part in (voice("card.fallback.why"), lines) if part),
            "color": colour_of(ordered[0]) if ordered else GREY,
            "timestamp": now.isoformat(),
            "footer": {"text": "C.O.M.E.T."},
        }
        return OutgoingMessage(embeds=(embed,), is_silent=_is_silent(incidents))

    def describe(self, incident: Incident) -> str:
        """One plain line in the default language: what, whom, value and level, and the end."""
        voice = self._voice(None)
        name = name_of(incident)
        text = voice.rule_title(incident.rule_name)
        if name:
            text = voice("card.plain.about", what=text, name=clip(name, 200))
        facts = [
            clip(fact, 200)
            for fact in (
                voice.comparison(incident),
                reason_of(incident),
                voice.problem(incident),
                status_word(voice, incident),
            )
            if fact
        ]
        if facts:
            text = voice("card.plain.facts", what=text, facts=JOINT.join(facts))
        if incident.resolved_at is not None:
            text = voice("card.plain.end", what=text, end=ending_of(voice, incident))
        return clip(text, PLAIN_LIMIT) or "—"

    def _voice(self, locale: str | None) -> Voice:
        return Voice(self._translator, locale, self._zone)


def _is_silent(incidents: Sequence[Incident]) -> bool:
    return all(i.silent or i.severity is Severity.INFO for i in incidents)
