"""One monitor: how it stands now, how it has been for a day, what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import discord

from bot.core.incident import Incident
from bot.core.observation import MonitorReading, MonitorStatus
from bot.core.rule import Scope
from bot.discord_text import FIELD_VALUE_LIMIT, moment, relative, shown_name
from bot.services.fleet import Fleet, FleetMonitor
from bot.storage.store import ServiceStats, StatusChange, Store, StoreError
from cogs.answers import store_trouble
from cogs.embeds import (
    BLUE,
    Speech,
    Viewer,
    add_field,
    day_before,
    fitting,
    response_time_ms,
    shown_url,
    source_trouble,
)
from cogs.incidents import headline

CHANGES = 5
HISTORY = timedelta(days=30)
TITLE_NAME = 220


@dataclass(frozen=True, slots=True)
class Past:
    """What the store knows of one monitor."""

    stats: ServiceStats
    changes: Sequence[StatusChange]


async def read_past(store: Store, key: str, now: datetime) -> Past:
    stats = await store.service_stats(day_before(now), now, key)
    changes = await store.service_history(key, now - HISTORY, CHANGES)
    return Past(stats, sorted(changes, key=lambda change: change.at, reverse=True)[:CHANGES])


def details_embed(
    fleet: Fleet,
    monitor: FleetMonitor,
    past: Past | StoreError,
    incidents: Sequence[Incident],
    speech: Speech,
    viewer: Viewer,
    now: datetime,
) -> discord.Embed:
    """`incidents` are the open ones; the address is for those who may manage the server."""
    identity = monitor.identity
    embed = discord.Embed(
        title=speech("details.title", name=shown_name(identity.name, TITLE_NAME)),
        description=_description(fleet, monitor, past, speech, now),
        color=BLUE,
        timestamp=now,
    )
    url = shown_url(identity.url)
    if viewer.may_manage and url is not None:
        add_field(embed, speech("details.url"), url, inline=False)
    add_field(embed, speech("details.status"), _status(fleet, monitor, speech))
    add_field(embed, speech("details.type"), shown_name(identity.monitor_type or speech.unknown))
    add_field(embed, speech("details.interval"), speech("details.no_interval"))
    add_field(embed, speech("details.response"), _response(monitor, past, speech))
    add_field(embed, speech("details.uptime"), _uptime(monitor, past, speech))
    certificate = _certificate(monitor, speech)
    if certificate is not None:
        add_field(embed, speech("details.certificate"), certificate)
    if identity.tags:
        add_field(embed, speech("details.tags"), _tags(identity.tags, speech))
    if isinstance(past, Past) and past.changes:
        lines = [_change(change, speech) for change in past.changes]
        add_field(embed, speech("details.changes"), "\n".join(lines), inline=False)
    mine = [i for i in incidents if i.subject == monitor.key and i.scope == Scope.SERVICE.value]
    if mine:
        lines = [f"{headline(i, speech)} · {relative(i.fired_at)}" for i in mine]
        text = fitting(lines, FIELD_VALUE_LIMIT, speech)
        add_field(embed, speech("details.incident"), text, inline=False)
    embed.set_footer(text=speech("dashboard.last_check", at=speech.age(monitor.seen_at, now)))
    return embed


def _description(
    fleet: Fleet, monitor: FleetMonitor, past: Past | StoreError, speech: Speech, now: datetime
) -> str | None:
    lines = []
    source = fleet.sources.get(monitor.instance)
    trouble = speech("error.source.gone") if source is None else None
    if source is not None:
        trouble = source_trouble(source, now, speech)
    if trouble is not None:
        lines.append(f"⚠️ {trouble}")
    elif monitor.missing_since_at is not None:
        lines.append(speech("details.missing", since=relative(monitor.missing_since_at)))
    if isinstance(past, StoreError):
        lines.append(store_trouble(past, speech))
    return "\n".join(lines) or None


def _status(fleet: Fleet, monitor: FleetMonitor, speech: Speech) -> str:
    status = fleet.status_of(monitor)
    text = speech.status(status)
    # After a start the stored status is not yet confirmed, so neither is its age.
    if status is not monitor.status:
        return text
    return f"{text}\n{speech('details.since', at=speech.relative(monitor.since_at))}"


def _response(monitor: FleetMonitor, past: Past | StoreError, speech: Speech) -> str:
    mean_ms = past.stats.mean_response_time_ms if isinstance(past, Past) else None
    return "\n".join(
        [
            speech("details.now", value=speech.milliseconds(response_time_ms(monitor))),
            speech("details.mean", value=speech.milliseconds(mean_ms)),
            speech("details.median", value=speech.milliseconds(monitor.baseline.median_ms())),
        ]
    )


def _uptime(monitor: FleetMonitor, past: Past | StoreError, speech: Speech) -> str:
    lines = [speech.unknown]
    if isinstance(past, Past):
        lines = [uptime_text(past.stats, speech)]
    reading = monitor.reading
    if reading is not None and reading.uptime_ratio_1d is not None:
        lines.append(speech("details.kumas_own", value=speech.ratio(reading.uptime_ratio_1d)))
    return "\n".join(lines)


def uptime_text(stats: ServiceStats, speech: Speech) -> str:
    """ "99.2% (unknown 1 h 3 min)": what was not seen is left out, and said."""
    text = speech.ratio(stats.uptime_ratio)
    if stats.unknown_s >= 1:
        text += f" ({speech.unknown} {speech.duration(stats.unknown_s)})"
    return text


def _certificate(monitor: FleetMonitor, speech: Speech) -> str | None:
    """None where no certificate can be expected."""
    reading: MonitorReading | None = monitor.reading
    days = None if reading is None else reading.cert_days_remaining
    if reading is not None and reading.cert_is_valid is False:
        return speech("details.cert_invalid")
    if days is not None:
        return speech("details.cert_days", n=speech.number(days, 1))
    if (monitor.identity.url or "").lower().startswith("https://"):
        return speech.unknown
    return None


def _tags(tags: Mapping[str, str], speech: Speech) -> str:
    lines = [shown_name(f"{name}: {value}" if value else name, 100) for name, value in tags.items()]
    return fitting(lines, FIELD_VALUE_LIMIT, speech)


def _change(change: StatusChange, speech: Speech) -> str:
    text = f"{speech.status(change.status)} · {moment(change.at)}"
    if change.response_time_ms is not None and change.status is MonitorStatus.UP:
        text += f" ({speech.milliseconds(change.response_time_ms)})"
    return text
