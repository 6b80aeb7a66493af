"""One incident on one card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import floor, isfinite
from typing import Final

from bot.cards.state import (
    ALERT,
    KUMA_METRIC,
    RECOVERED,
    colour_of,
    kind_of,
    name_of,
    severity_word,
    situation_of,
    symbol_of,
)
from bot.cards.voice import Field, Voice
from bot.core.alert import UNKNOWN, Ending
from bot.core.incident import Card, Incident
from bot.discord_text import (
    FIELD_VALUE_LIMIT,
    TITLE_LIMIT,
    as_code,
    clip,
    is_showable_url,
    moment,
    one_line,
    relative,
    shown_name,
)

JOINT: Final = " · "
NAME_LIMIT: Final = 100
TEXT_LIMIT: Final = 900
UNKNOWN_WORTH_SAYING_S: Final = 60.0

LATE: Final = timedelta(seconds=30)
"""A card this long after its incident says so."""

_SAFE_URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/%@+,=")


def single_embed(voice: Voice, incident: Incident) -> dict[str, object]:
    at = incident.resolved_at or incident.fired_at
    return {
        "title": clip(f"{symbol_of(incident)} {_title(voice, incident)}", TITLE_LIMIT),
        "description": "\n".join(_description(voice, incident)),
        "color": colour_of(incident),
        "fields": [field.as_json() for field in _fields(voice, incident)],
        "timestamp": at.isoformat(),
    }


def _title(voice: Voice, incident: Incident) -> str:
    return voice(f"card.title.{situation_of(incident)}", **_severity(incident))


def _severity(incident: Incident) -> dict[str, str]:
    if situation_of(incident) != "alert":
        return {}
    return {"severity": severity_word(incident.rule_name, incident.severity)}


def _about(voice: Voice, incident: Incident, title: str) -> str:
    """What, and of whom: the machine itself has no name; a task or a monitor has one."""
    name = name_of(incident)
    if not name:
        return f"**{shown_name(title)}**"
    return voice("card.say.about", what=shown_name(title), name=shown_name(name, NAME_LIMIT))


def _description(voice: Voice, incident: Incident) -> Iterator[str]:
    situation = situation_of(incident)
    name = shown_name(name_of(incident), NAME_LIMIT)
    title = voice.rule_title(incident.rule_name)
    if situation == "ended":
        key = "other" if incident.ending is None else incident.ending.value
        yield _about(voice, incident, title)
        yield voice(f"card.ended.{key}")
        return
    if situation.startswith(("alert", "warning")):
        if situation.startswith("warning"):
            yield voice(f"card.say.{situation}", name=name)
            if situation == "warning":
                yield shown_name(title)
        else:
            yield _about(voice, incident, title)
    else:
        yield voice(f"card.say.{situation}", name=name)
    if incident.resolved_at is not None:
        return
    if situation.endswith("_unknown"):
        yield voice("card.say.frozen")
    problem = voice.problem(incident)
    if problem is not None:
        yield clip(problem, TEXT_LIMIT)
    advice = voice.advice(incident)
    if advice is not None:
        yield advice


def _fields(voice: Voice, incident: Incident) -> Iterator[Field]:
    """Facts, the most useful first; a fact that is not known is left out."""
    detail = incident.detail
    is_over = incident.resolved_at is not None
    since = f"{moment(incident.fired_at)} ({relative(incident.fired_at)})"
    if is_over:
        key = "downtime" if kind_of(incident) == "down" else "lasted"
        yield Field(voice(f"card.field.{key}"), voice.lasted(incident))
    yield Field(voice("card.field.since"), since, inline=False)
    if incident.resolved_at is not None:
        yield Field(voice("card.field.until"), moment(incident.resolved_at), inline=False)
    url = detail.get("url")
    if isinstance(url, str) and (shown := _shown_url(url)):
        yield Field(voice("card.field.url"), shown, inline=False)
    reason = reason_of(incident)
    if reason is not None and not is_over:
        yield Field(voice("card.field.error"), shown_name(reason, TEXT_LIMIT), inline=False)
    comparison = voice.comparison(incident)
    if comparison is not None:
        key = "last_value" if is_over or incident.status == UNKNOWN else "value"
        yield Field(voice(f"card.field.{key}"), comparison)
    response_ms = _number(detail.get("response_time_ms"))
    if response_ms is not None and response_ms >= 0:
        yield Field(
            voice("card.field.response"),
            voice("card.unit.milliseconds", n=voice.number(response_ms, 1)),
        )
    uptime = _number(detail.get("uptime_24h"))
    if uptime is not None and 0 <= uptime <= 1:
        # Cut, not rounded: 99.999 % with an outage in it is not 100 %.
        percent = floor(uptime * 10_000 + 1e-6) / 100
        shown_percent = voice("value.percent", n=voice.number(percent, 2))
        unknown_s = _number(detail.get("uptime_24h_unknown_s")) or 0.0
        if unknown_s >= UNKNOWN_WORTH_SAYING_S:
            unseen = voice("card.uptime_unknown", duration=voice.duration(unknown_s))
            shown_percent = f"{shown_percent} {unseen}"
        yield Field(voice("card.field.uptime"), shown_percent)
    kind = detail.get("type")
    if isinstance(kind, str) and one_line(kind):
        yield Field(voice("card.field.type"), shown_name(kind))
    if incident.metric == KUMA_METRIC:
        yield from _kuma_fields(voice, incident)
    file = detail.get("file")
    if incident.metric == "store_set_aside" and isinstance(file, str) and (code := as_code(file)):
        yield Field(voice("card.field.file"), code, inline=False)
    if kind_of(incident) in ("alert", "warning"):
        yield Field(voice("card.field.rule"), shown_name(incident.rule_name))
    if incident.unknown_s >= 1 and not is_over:
        yield Field(voice("card.field.unseen"), voice.duration(incident.unknown_s))


def _kuma_fields(voice: Voice, incident: Incident) -> Iterator[Field]:
    if incident.resolved_at is None:
        last = _moment_in(incident.detail.get("last_good_at"))
        never = voice("card.never")
        yield Field(voice("card.field.last_answer"), never if last is None else relative(last))
    monitors = _number(incident.detail.get("monitors"))
    if monitors:
        yield Field(voice("card.field.monitors"), voice.number(monitors))


def late_field(
    voice: Voice, card: Card, incidents: Sequence[Incident], now: datetime
) -> Field | None:
    """How late the card reached its channel, if that was not at once.

    `attempted_at` is set just before the send that put it there; before that, it is now.
    """
    if not incidents:
        return None
    fired_at = min(incident.fired_at for incident in incidents)
    delay = (card.attempted_at or now) - fired_at
    if delay <= LATE:
        return None
    said = voice("card.late", delay=voice.duration(delay.total_seconds()))
    return Field(voice("card.field.late"), said, inline=False)


def single_reply(voice: Voice, incident: Incident, *, is_escalation: bool) -> str:
    name = shown_name(name_of(incident) or voice.rule_title(incident.rule_name), NAME_LIMIT)
    title = shown_name(voice.rule_title(incident.rule_name))
    if is_escalation and incident.resolved_at is None:
        word = severity_word(incident.rule_name, incident.severity)
        comparison = voice.comparison(incident)
        facts = [title] if name != title else []
        facts += [comparison] if comparison is not None else []
        key = "card.reply.worse_facts" if facts else "card.reply.worse"
        return f"{ALERT} {voice(key, name=name, severity=word, facts=JOINT.join(facts))}"
    if incident.ending is not Ending.CLEARED:
        return f"{symbol_of(incident)} **{name}** {ending_of(voice, incident)}"
    match kind_of(incident):
        case "down":
            key = "card.reply.up"
        case "kuma":
            key = "card.reply.kuma"
        case _:
            key = "card.reply.cleared_of" if name_of(incident) else "card.reply.cleared"
    return f"{RECOVERED} {voice(key, name=name, what=title, lasted=voice.lasted(incident))}"


def ending_of(voice: Voice, incident: Incident) -> str:
    """The end of an incident in words; only a cleared one is called a recovery."""
    if incident.resolved_at is None:
        return ""
    if incident.ending is Ending.CLEARED:
        return voice("card.plain.recovered", lasted=voice.lasted(incident))
    return voice(f"card.ended.{'other' if incident.ending is None else incident.ending.value}")


def status_word(voice: Voice, incident: Incident) -> str | None:
    """How an open incident differs from what its title says."""
    if incident.resolved_at is not None:
        return None
    if incident.status in ("pending", "maintenance", "unknown"):
        return voice(f"card.status.{incident.status}")
    return None


def reason_of(incident: Incident) -> str | None:
    reason = incident.detail.get("reason")
    return one_line(reason) or None if isinstance(reason, str) else None


def _shown_url(url: str) -> str:
    """A link where Discord takes it as one, else only its text."""
    if is_showable_url(url) and set(url) <= _SAFE_URL and len(url) <= FIELD_VALUE_LIMIT:
        return url
    return as_code(url)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _moment_in(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
