"""Draws incidents: cards, storm cards, replies, and the plain sentence for logs and SQL readers.

A headline begins with its state: 🔴 down, ⚠️ warning, 🚨 rule alert, ❔ unknown, 🟡 pending,
🔧 maintenance, ✅ recovered. ✅ stands for a value that was seen to be good again and for
nothing else: an incident that ended because its rule or monitor went away says so in words.
Every message fits Discord's limits, whatever a monitor is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from math import floor, isfinite
from typing import Final

from bot.core.alert import UNKNOWN, Ending, FlipKind
from bot.core.incident import Card, Incident
from bot.core.message import OutgoingMessage
from bot.core.observation import MonitorStatus
from bot.core.readings import READING_BY_NAME, Unit
from bot.core.rule import Scope, Severity
from bot.discord_text import (
    CONTENT_LIMIT,
    FIELD_NAME_LIMIT,
    FIELD_VALUE_LIMIT,
    TITLE_LIMIT,
    as_code,
    clip,
    is_showable_url,
    moment,
    one_line,
    relative,
    shown_name,
    whole_lines,
)
from bot.i18n import Translator, pick_locale

RED: Final = 0xFF0000
DARK_RED: Final = 0x990000
GREEN: Final = 0x00FF00
ORANGE: Final = 0xFF9900
GREY: Final = 0x808080

DOWN, WARNING, ALERT, UNCLEAR = "🔴", "⚠️", "🚨", "❔"
PENDING, MAINTENANCE, RECOVERED = "🟡", "🔧", "✅"
_RANK: Final = {
    symbol: rank
    for rank, symbol in enumerate((DOWN, ALERT, WARNING, UNCLEAR, PENDING, MAINTENANCE, RECOVERED))
}

_JOINT: Final = " · "

LATE: Final = timedelta(seconds=30)
"""A card this long after its incident says so."""

NAME_LIMIT: Final = 100
STORM_NAME_LIMIT: Final = 60
LIST_LIMIT: Final = 3500
TEXT_LIMIT: Final = 900
PLAIN_LIMIT: Final = 500

# What the metric of a rule says about its cards; anything else is a plain threshold.
_DOWN_METRIC = "monitor_down"
_KUMA_METRIC = "kuma_staleness"
_MISSING_METRIC = "monitor_missing"
_CERT_METRIC = "monitor_cert_days_remaining"
_SLOW_METRIC = "monitor_slowness"
_LATENESS_METRIC = "task_lateness"
_WITHOUT_NUMBER = frozenset(
    {_DOWN_METRIC, _KUMA_METRIC, _MISSING_METRIC, "store_set_aside", "discord_degradation"}
)
"""Metrics whose number means nothing to people; their cards say it in words."""

_HIGH = frozenset({"HighMemory", "HighErrorRate"})
"""Warnings that people know as HIGH; the other warnings are MEDIUM."""

_SAFE_URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/%@+,=")


def severity_word(rule_name: str, severity: Severity) -> str:
    """CRITICAL, HIGH, MEDIUM or LOW, the same in every language."""
    if severity is Severity.CRITICAL:
        return "CRITICAL"
    if severity is Severity.INFO:
        return "LOW"
    return "HIGH" if rule_name in _HIGH else "MEDIUM"


def severity_colour(rule_name: str, severity: Severity) -> int:
    word = severity_word(rule_name, severity)
    return {"CRITICAL": DARK_RED, "HIGH": RED, "MEDIUM": ORANGE, "LOW": GREY}[word]


def symbol_of(incident: Incident) -> str:
    """The state of an incident as its headline's first character."""
    if incident.resolved_at is not None:
        return RECOVERED if incident.ending is Ending.CLEARED else UNCLEAR
    if incident.status == UNKNOWN or incident.metric in (_KUMA_METRIC, _MISSING_METRIC):
        return UNCLEAR
    if incident.metric == _DOWN_METRIC:
        if incident.status == MonitorStatus.MAINTENANCE.value:
            return MAINTENANCE
        still_down = incident.status in ("", MonitorStatus.DOWN.value)
        return DOWN if still_down else PENDING
    is_warning = (
        incident.scope == Scope.SERVICE.value and incident.severity is not Severity.CRITICAL
    )
    return WARNING if is_warning else ALERT


def colour_of(incident: Incident) -> int:
    match symbol_of(incident):
        case "✅":
            return GREEN
        case "🔴":
            return RED
        case "🚨":
            return severity_colour(incident.rule_name, incident.severity)
        case "❔":
            return GREY
        case _:
            return ORANGE


def name_of(incident: Incident) -> str:
    """The monitor, Kuma or task it is about, as it was named; "" for the machine itself."""
    name = incident.detail.get("name")
    return one_line(name if isinstance(name, str) and name.strip() else incident.subject)


def duration_s(incident: Incident) -> float | None:
    """From firing to the end, which never lies before; None while it lasts."""
    if incident.resolved_at is None:
        return None
    return max(0.0, (incident.resolved_at - incident.fired_at).total_seconds())


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    value: str
    inline: bool = True

    def as_json(self) -> dict[str, object]:
        return {
            "name": clip(self.name, FIELD_NAME_LIMIT),
            "value": clip(self.value, FIELD_VALUE_LIMIT).strip() or "—",
            "inline": self.inline,
        }


class _Voice:
    """Words and numbers about incidents for one reader."""

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
        problem = incident.detail.get("problem")
        if not isinstance(problem, str):
            return None
        if incident.metric == _KUMA_METRIC:
            key = f"problem.{problem}"
        elif incident.metric == "store_failing":
            key = f"problem.store.{problem}"
        else:
            return None
        return self(key) if self._translator.has(key) else one_line(problem)

    def quantity(self, metric: str, value: float | None, digits: int = 1) -> str:
        """A value with its unit, as people read it."""
        if value is None or not isfinite(value):
            return self._translator.unknown(self.locale)
        if metric == _CERT_METRIC:
            return self("card.unit.days", n=self.number(value, digits))
        if metric == _SLOW_METRIC:
            return self("card.unit.times", n=self.number(value, digits))
        if metric == _LATENESS_METRIC:
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
        if incident.metric in _WITHOUT_NUMBER or value is None or not isfinite(value):
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
            embed = _storm(voice, card, incidents)
        else:
            embed = _single(voice, incidents[0])
        fields = embed["fields"]
        assert isinstance(fields, list)
        late = _late(voice, card, incidents, now)
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
            text = _storm_reply(voice, incidents)
        else:
            text = _single_reply(voice, incidents[0], is_escalation=is_escalation)
        is_silent = not is_escalation or _is_silent(incidents)
        return OutgoingMessage(content=clip(text, CONTENT_LIMIT), is_silent=is_silent)

    def fallback(
        self, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage:
        """All that the usual channel could not be told, in one message."""
        voice = self._voice(locale)
        ordered = sorted(incidents, key=lambda i: (_RANK[symbol_of(i)], i.fired_at))
        worst = symbol_of(ordered[0]) if ordered else UNCLEAR
        lines = whole_lines(
            (f"{_line(voice, i)} {relative(i.fired_at)}" for i in ordered),
            len(ordered),
            LIST_LIMIT,
            _more(voice, "card.more_open"),
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
                _reason(incident),
                voice.problem(incident),
                _status_word(voice, incident),
            )
            if fact
        ]
        if facts:
            text = voice("card.plain.facts", what=text, facts=_JOINT.join(facts))
        if incident.resolved_at is not None:
            text = voice("card.plain.end", what=text, end=_ending(voice, incident))
        return clip(text, PLAIN_LIMIT)

    def _voice(self, locale: str | None) -> _Voice:
        return _Voice(self._translator, locale, self._zone)


def _is_silent(incidents: Sequence[Incident]) -> bool:
    return all(i.silent or i.severity is Severity.INFO for i in incidents)


# -- one incident -----------------------------------------------------------------------------


def _single(voice: _Voice, incident: Incident) -> dict[str, object]:
    at = incident.resolved_at or incident.fired_at
    return {
        "title": clip(f"{symbol_of(incident)} {_title(voice, incident)}", TITLE_LIMIT),
        "description": "\n".join(_description(voice, incident)),
        "color": colour_of(incident),
        "fields": [field.as_json() for field in _fields(voice, incident)],
        "timestamp": at.isoformat(),
    }


def _title(voice: _Voice, incident: Incident) -> str:
    return voice(f"card.title.{_situation(incident)}", **_severity(incident))


def _severity(incident: Incident) -> dict[str, str]:
    if _situation(incident) != "alert":
        return {}
    return {"severity": severity_word(incident.rule_name, incident.severity)}


def _situation(incident: Incident) -> str:
    """The part of a locale key that names what a card is about and how that stands."""
    kind = _kind(incident)
    if incident.resolved_at is not None:
        return f"{kind}_recovered" if incident.ending is Ending.CLEARED else "ended"
    if kind in ("kuma", "missing"):
        return kind
    match symbol_of(incident):
        case "❔":
            return f"{kind}_unknown"
        case "🟡":
            is_up = incident.status == MonitorStatus.UP.value
            return "down_recovering" if is_up else "down_pending"
        case "🔧":
            return "down_maintenance"
        case "⚠️":
            return "warning"
        case _:
            # A warning about a service that became critical is told like any other alert.
            return "down" if kind == "down" else "alert"


def _kind(incident: Incident) -> str:
    if incident.metric == _DOWN_METRIC:
        return "down"
    if incident.metric == _KUMA_METRIC:
        return "kuma"
    if incident.metric == _MISSING_METRIC:
        return "missing"
    return "warning" if incident.scope == Scope.SERVICE.value else "alert"


def _description(voice: _Voice, incident: Incident) -> Iterator[str]:
    situation = _situation(incident)
    name = shown_name(name_of(incident), NAME_LIMIT)
    title = voice.rule_title(incident.rule_name)
    if situation == "ended":
        key = "other" if incident.ending is None else incident.ending.value
        yield voice("card.say.about", what=shown_name(title), name=name)
        yield voice(f"card.ended.{key}")
        return
    if situation.startswith(("alert", "warning")):
        # The machine itself has no name; a task, a monitor or a metric's subject has one.
        has_name = bool(name_of(incident))
        if situation.startswith("warning"):
            yield voice(f"card.say.{situation}", name=name)
            if situation == "warning":
                yield shown_name(title)
        elif has_name:
            yield voice("card.say.about", what=shown_name(title), name=name)
        else:
            yield f"**{shown_name(title)}**"
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


def _fields(voice: _Voice, incident: Incident) -> Iterator[_Field]:
    """Facts, the most useful first; a fact that is not known is left out."""
    detail = incident.detail
    is_over = incident.resolved_at is not None
    since = f"{moment(incident.fired_at)} ({relative(incident.fired_at)})"
    if is_over:
        key = "downtime" if _kind(incident) == "down" else "lasted"
        yield _Field(voice(f"card.field.{key}"), voice.lasted(incident))
    yield _Field(voice("card.field.since"), since, inline=False)
    if incident.resolved_at is not None:
        yield _Field(voice("card.field.until"), moment(incident.resolved_at), inline=False)
    url = detail.get("url")
    if isinstance(url, str) and (shown := _shown_url(url)):
        yield _Field(voice("card.field.url"), shown, inline=False)
    reason = _reason(incident)
    if reason is not None and not is_over:
        yield _Field(voice("card.field.error"), shown_name(reason, TEXT_LIMIT), inline=False)
    comparison = voice.comparison(incident)
    if comparison is not None:
        key = "last_value" if is_over or incident.status == UNKNOWN else "value"
        yield _Field(voice(f"card.field.{key}"), comparison)
    response_ms = _number(detail.get("response_time_ms"))
    if response_ms is not None and response_ms >= 0:
        yield _Field(
            voice("card.field.response"),
            voice("card.unit.milliseconds", n=voice.number(response_ms, 1)),
        )
    uptime = _number(detail.get("uptime_24h"))
    if uptime is not None and 0 <= uptime <= 1:
        # Cut, not rounded: 99.999 % with an outage in it is not 100 %.
        percent = floor(uptime * 10_000 + 1e-6) / 100
        shown_percent = voice("value.percent", n=voice.number(percent, 2))
        yield _Field(voice("card.field.uptime"), shown_percent)
    kind = detail.get("type")
    if isinstance(kind, str) and one_line(kind):
        yield _Field(voice("card.field.type"), shown_name(kind))
    if incident.metric == _KUMA_METRIC:
        yield from _kuma_fields(voice, incident)
    file = detail.get("file")
    if incident.metric == "store_set_aside" and isinstance(file, str) and (code := as_code(file)):
        yield _Field(voice("card.field.file"), code, inline=False)
    if _kind(incident) in ("alert", "warning"):
        yield _Field(voice("card.field.rule"), shown_name(incident.rule_name))
    if incident.unknown_s >= 1 and not is_over:
        yield _Field(voice("card.field.unseen"), voice.duration(incident.unknown_s))


def _kuma_fields(voice: _Voice, incident: Incident) -> Iterator[_Field]:
    if incident.resolved_at is None:
        last = _moment_in(incident.detail.get("last_good_at"))
        never = voice("card.never")
        yield _Field(voice("card.field.last_answer"), never if last is None else relative(last))
    monitors = _number(incident.detail.get("monitors"))
    if monitors:
        yield _Field(voice("card.field.monitors"), voice.number(monitors))


def _late(voice: _Voice, card: Card, incidents: Sequence[Incident], now: datetime) -> _Field | None:
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
    return _Field(voice("card.field.late"), said, inline=False)


def _single_reply(voice: _Voice, incident: Incident, *, is_escalation: bool) -> str:
    name = shown_name(name_of(incident) or voice.rule_title(incident.rule_name), NAME_LIMIT)
    title = shown_name(voice.rule_title(incident.rule_name))
    if is_escalation and incident.resolved_at is None:
        word = severity_word(incident.rule_name, incident.severity)
        comparison = voice.comparison(incident)
        facts = [title] if name != title else []
        facts += [comparison] if comparison is not None else []
        key = "card.reply.worse_facts" if facts else "card.reply.worse"
        return f"{ALERT} {voice(key, name=name, severity=word, facts=_JOINT.join(facts))}"
    if incident.ending is not Ending.CLEARED:
        return f"{symbol_of(incident)} **{name}** {_ending(voice, incident)}"
    match _kind(incident):
        case "down":
            key = "card.reply.up"
        case "kuma":
            key = "card.reply.kuma"
        case _:
            key = "card.reply.cleared_of" if name_of(incident) else "card.reply.cleared"
    return f"{RECOVERED} {voice(key, name=name, what=title, lasted=voice.lasted(incident))}"


def _ending(voice: _Voice, incident: Incident) -> str:
    """The end of an incident in words; only a cleared one is called a recovery."""
    if incident.resolved_at is None:
        return ""
    if incident.ending is Ending.CLEARED:
        return voice("card.plain.recovered", lasted=voice.lasted(incident))
    return voice(f"card.ended.{'other' if incident.ending is None else incident.ending.value}")


def _status_word(voice: _Voice, incident: Incident) -> str | None:
    """How an open incident differs from what its title says."""
    if incident.resolved_at is not None:
        return None
    if incident.status in ("pending", "maintenance", "unknown"):
        return voice(f"card.status.{incident.status}")
    return None


def _reason(incident: Incident) -> str | None:
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


# -- many incidents on one card ---------------------------------------------------------------


def _storm(voice: _Voice, card: Card, incidents: Sequence[Incident]) -> dict[str, object]:
    """Counts first, then as many names as fit, the open ones first."""
    symbols = Counter(symbol_of(incident) for incident in incidents)
    ordered = sorted(incidents, key=lambda i: _RANK[symbol_of(i)])
    is_over = all(incident.resolved_at is not None for incident in incidents)
    counts = " · ".join(f"{symbol} {symbols[symbol]}" for symbol in _RANK if symbols[symbol])
    names = whole_lines(
        (_line(voice, incident) for incident in ordered),
        len(ordered),
        LIST_LIMIT,
        _more(voice, "card.more_over" if is_over else "card.more_open"),
    )
    fields = []
    if incidents:
        first = min(incident.fired_at for incident in incidents)
        since = f"{moment(first)} ({relative(first)})"
        fields.append(_Field(voice("card.field.since"), since, inline=False).as_json())
    ended = [incident.resolved_at for incident in incidents if incident.resolved_at is not None]
    if is_over and ended:
        fields.append(_Field(voice("card.field.until"), moment(max(ended)), inline=False).as_json())
        at = max(ended)
    else:
        at = max((incident.fired_at for incident in incidents), default=card.opened_at)
    return {
        "title": clip(" ".join(_storm_title(voice, incidents, symbols)), TITLE_LIMIT),
        "description": "\n".join(part for part in (counts, names) if part) or "—",
        "color": colour_of(ordered[0]) if ordered else GREY,
        "fields": fields,
        "timestamp": at.isoformat(),
    }


def _storm_title(
    voice: _Voice, incidents: Sequence[Incident], symbols: Counter[str]
) -> tuple[str, str]:
    """The worst state there is, and how many are in it."""
    total = len(incidents)
    if not incidents:
        return UNCLEAR, voice("card.title.ended")
    kind = _kind(incidents[0])
    what = voice.rule_title(incidents[0].rule_name)
    if all(incident.resolved_at is not None for incident in incidents):
        recovered = symbols[RECOVERED]
        share = _share(recovered or total, total)
        if not recovered:
            return UNCLEAR, voice("card.storm.ended", share=share, what=what)
        key = "card.storm.up" if kind == "down" else "card.storm.cleared"
        return RECOVERED, voice(key, share=share, what=what)
    still = Counter(symbol_of(i) for i in incidents if i.resolved_at is None)
    worst = min(still, key=_RANK.__getitem__)
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


def _line(voice: _Voice, incident: Incident) -> str:
    name = name_of(incident) or voice.rule_title(incident.rule_name)
    line = f"{symbol_of(incident)} {shown_name(name, STORM_NAME_LIMIT)}"
    if incident.resolved_at is not None:
        return f"{line} · {voice.duration(duration_s(incident))}"
    comparison = voice.comparison(incident)
    return line if comparison is None else f"{line} · {clip(comparison, STORM_NAME_LIMIT)}"


def _more(voice: _Voice, key: str) -> str:
    """A template for the last line: its {n} is filled in once it is known."""
    return voice(key, n="{n}")


def _storm_reply(voice: _Voice, incidents: Sequence[Incident]) -> str:
    symbol, title = _storm_title(voice, incidents, Counter(map(symbol_of, incidents)))
    durations = [d for incident in incidents if (d := duration_s(incident)) is not None]
    if symbol != RECOVERED:
        return f"{symbol} **{title}**"
    lasted = voice.duration(max(durations))
    return f"{symbol} {voice('card.reply.longest', title=title, lasted=lasted)}"
