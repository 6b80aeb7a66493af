"""A day of monitoring in figures, and how the monitoring itself is doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import discord

from bot.core.forecast import Growth
from bot.core.incident import Incident
from bot.core.observation import MonitorStatus
from bot.core.readings import Unit
from bot.discord_text import FIELD_VALUE_LIMIT, as_code, relative, shown_name
from bot.services.backups import Backups
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.kuma_inbox import Ledger
from bot.services.parts import Parts
from bot.services.recorder import Recorder
from bot.services.sampler import TASK_NAME
from bot.services.ticker import Tasks
from bot.storage.store import ServiceStats, Store, StoreError
from cogs.answers import store_problem, store_trouble
from cogs.embeds import BLUE, Speech, Viewer, add_field, day_before, fitting, source_trouble
from cogs.incidents import headline, is_visible

INCIDENTS = 5
INCIDENTS_READ = 200
LATE_PERIODS = 3.0
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Day:
    """What the store knows of the last 24 hours. `snapshots` counts the stored ones."""

    services: ServiceStats
    incidents: Sequence[Incident]
    snapshots: int


async def read_day(store: Store, now: datetime) -> Day:
    begin = day_before(now)
    return Day(
        services=await store.service_stats(begin, now),
        incidents=await store.incidents(begin, INCIDENTS_READ),
        snapshots=(await store.metric_stats("uptime", 24, now)).count,
    )


def stats_embed(
    parts: Parts, day: Day | StoreError, speech: Speech, viewer: Viewer, now: datetime
) -> discord.Embed:
    embed = discord.Embed(
        title=speech("stats.title"),
        description=speech("stats.description"),
        color=BLUE,
        timestamp=now,
    )
    if isinstance(day, StoreError):
        embed.description = f"{embed.description}\n{store_trouble(day, speech)}"
    _add_fleet(embed, parts.fleet, speech)
    stats = None if isinstance(day, StoreError) else day.services
    checks = None if stats is None or not stats.checks else float(stats.checks)
    mean_ms = None if stats is None else stats.mean_response_time_ms
    add_field(embed, speech("stats.checks"), speech.number(checks))
    add_field(embed, speech("stats.response"), speech.milliseconds(mean_ms))
    uptime = speech.unknown if stats is None else _overall_uptime(stats, speech)
    add_field(embed, speech("stats.uptime"), uptime)
    add_field(embed, speech("stats.incidents"), _incidents(day, speech, viewer), inline=False)
    add_field(embed, speech("stats.sources"), _sources(parts, speech, now), inline=False)
    own = [
        _snapshots(parts, day, speech),
        _writes(parts.recorder, speech),
        _growth(parts.growth(), speech),
        *_copying(parts, speech),
        *_backups(parts.backups, speech),
        *_late_tasks(parts.tasks, speech, now),
    ]
    add_field(embed, speech("stats.health"), "\n".join(own), inline=False)
    delivery = _deliveries(parts, viewer, speech)
    add_field(embed, speech("stats.delivery"), delivery, inline=False)
    return embed


def _add_fleet(embed: discord.Embed, fleet: Fleet, speech: Speech) -> None:
    """Counts of now. Of monitors that nobody has seen yet, nothing is said but that."""
    total = len(fleet.monitors)
    counts = fleet.counts()
    unknown = counts[MonitorStatus.UNKNOWN]
    is_known = unknown < total

    def count(status: MonitorStatus) -> str:
        return speech.number(counts[status]) if is_known else speech.unknown

    has_looked = any(source.last_good_at is not None for source in fleet.sources.values())
    shown_total = speech.number(total) if total or has_looked else speech.unknown
    add_field(embed, speech("stats.total"), shown_total)
    add_field(embed, speech("stats.up"), count(MonitorStatus.UP))
    add_field(embed, speech("stats.down"), count(MonitorStatus.DOWN))
    add_field(embed, speech("stats.unknown"), speech.number(unknown) if total else speech.unknown)
    for status in (MonitorStatus.PENDING, MonitorStatus.MAINTENANCE):
        if counts[status]:
            add_field(embed, speech.status(status), count(status))


def _overall_uptime(stats: ServiceStats, speech: Speech) -> str:
    text = speech.ratio(stats.uptime_ratio)
    whole_s = stats.up_s + stats.down_s + stats.other_s + stats.unknown_s
    if stats.unknown_s >= 1 and whole_s > 0:
        share = speech.percent(100 * stats.unknown_s / whole_s)
        text += f"\n{speech('stats.unknown_share', share=share)}"
    return text


def _incidents(day: Day | StoreError, speech: Speech, viewer: Viewer) -> str:
    if isinstance(day, StoreError):
        return speech.unknown
    seen = [incident for incident in day.incidents if is_visible(incident, viewer)]
    if not seen:
        return speech("stats.no_incidents")
    lines = []
    for incident in seen[:INCIDENTS]:
        end = incident.resolved_at
        lasted = (
            speech("stats.open")
            if end is None
            else speech.duration((end - incident.fired_at).total_seconds())
        )
        lines.append(f"• {headline(incident, speech)} ({relative(incident.fired_at)}, {lasted})")
    return fitting(lines, FIELD_VALUE_LIMIT, speech)


def _sources(parts: Parts, speech: Speech, now: datetime) -> str:
    fleet = parts.fleet
    ledgers = {} if parts.webhooks is None else parts.webhooks.ledgers
    if not fleet.sources:
        return speech("error.source.none")
    lines = []
    for source in fleet.sources.values():
        version = f" {as_code(source.version, 40)}" if source.version else ""
        age = speech.relative(source.last_good_at)
        line = f"Uptime Kuma {shown_name(source.instance, 60)}{version}: {age}"
        trouble = source_trouble(source, now, speech)
        if trouble is not None:
            line += f"\n⚠️ {trouble}"
        if source.skipped:
            line += f"\n{speech('stats.skipped', n=speech.number(source.skipped))}"
        if source.instance in ledgers:
            line += f"\n{_webhooks(ledgers[source.instance], speech)}"
        lines.append(line)
    return fitting(lines, FIELD_VALUE_LIMIT, speech)


def _webhooks(ledger: Ledger, speech: Speech) -> str:
    if ledger.last_at is None:
        return speech("stats.webhook_none")
    age = speech.relative(ledger.last_at)
    line = speech("stats.webhook", age=age, n=speech.number(ledger.received))
    if ledger.refused or ledger.strange:
        refused, strange = speech.number(ledger.refused), speech.number(ledger.strange)
        line += f"\n{speech('stats.webhook_lost', refused=refused, strange=strange)}"
    return line


def _snapshots(parts: Parts, day: Day | StoreError, speech: Speech) -> str:
    stored = None if isinstance(day, StoreError) else float(day.snapshots)
    ticker = parts.tasks.health.get(TASK_NAME)
    return speech(
        "stats.snapshots",
        stored=speech.number(stored),
        missed=speech.number(None if ticker is None else ticker.missed),
    )


def _writes(recorder: Recorder, speech: Speech) -> str:
    line = speech(
        "stats.writes",
        waiting=speech.number(recorder.waiting),
        dropped=speech.number(recorder.dropped + recorder.refused),
    )
    problem = recorder.problem
    if problem is not None:
        why = store_problem(problem, speech)
        line += f"\n⚠️ {speech('error.store.writing', why=why)}"
    return line


def _copying(parts: Parts, speech: Speech) -> list[str]:
    """How the copy in the remote store stands; nothing where none is set up."""
    copying = parts.copying()
    if copying is None:
        return []
    age = speech.duration(copying.oldest_age_s) if copying.depth else speech("stats.copy_none")
    lines = [
        speech(
            f"stats.copy_{copying.phase.value}",
            backend=speech(f"backend.{copying.backend}"),
            depth=speech.number(copying.depth),
            age=age,
        )
    ]
    lost = copying.refused + copying.given_up
    if lost:
        lines.append(
            speech(
                "stats.copy_lost",
                refused=speech.number(copying.refused),
                given_up=speech.number(copying.given_up),
            )
        )
    if copying.reason is not None:
        key = f"problem.remote.{copying.reason}"
        why = speech(key) if speech.has(key) else speech("error.store.other")
        away = speech.duration(copying.away_s)
        lines.append(f"⚠️ {speech('stats.copy_away', away=away, why=why)}")
    return lines


def _growth(growth: Growth, speech: Speech) -> str:
    """How large the database is; how it grows only once that can be told."""
    size = speech.unit(growth.size_bytes, Unit.BYTES)
    if growth.per_day_bytes is None:
        return speech("stats.size", size=size)
    line = speech(
        "stats.size_growing", size=size, daily=speech.unit(growth.per_day_bytes, Unit.BYTES)
    )
    if growth.full_in_days is not None:
        line += f"\n{speech('stats.full_in', n=speech.number(growth.full_in_days))}"
    return line


def _backups(backups: Backups | None, speech: Speech) -> list[str]:
    """When the newest backup was made, and what went wrong since; nothing without a schedule."""
    if backups is None:
        return []
    lines = [speech("stats.backup", age=speech.relative(backups.last_ok_at))]
    if backups.last_error is not None:
        lines.append(f"⚠️ {speech('stats.backup_failed', n=speech.number(backups.failed))}")
    return lines


def _late_tasks(tasks: Tasks, speech: Speech, now: datetime) -> list[str]:
    """Background tasks without success for three of their periods; one line when there is none."""
    now_s = time.monotonic()
    late = [
        speech(
            "stats.late",
            name=shown_name(health.name, 60),
            age=speech.relative(now - timedelta(seconds=health.age_s(now_s))),
        )
        for health in tasks.health.values()
        if health.lateness(now_s) >= LATE_PERIODS
    ]
    return [f"⚠️ {line}" for line in late[:5]] or [
        speech("stats.punctual", n=speech.number(len(tasks.health)))
        if tasks.health
        else speech("stats.no_tasks")
    ]


def _deliveries(parts: Parts, viewer: Viewer, speech: Speech) -> str:
    """Counts of all deliveries, and what is wrong with this server's own channel."""
    delivery = parts.delivery
    lines = [
        speech(
            "stats.deliveries",
            waiting=speech.number(len(delivery.queued)),
            delivered=speech.number(delivery.counts.delivered),
            failed=speech.number(delivery.counts.failed_attempts),
            dropped=speech.number(delivery.counts.dropped),
        )
    ]
    if viewer.guild_id not in parts.audience.configs:
        lines.append(speech("stats.not_set_up"))
    lines.extend(_failing_channels(delivery, viewer.guild_id, speech))
    return fitting(lines, FIELD_VALUE_LIMIT, speech)


def _failing_channels(delivery: Delivery, guild_id: str, speech: Speech) -> list[str]:
    lines = []
    for place, health in delivery.health.items():
        if place.guild_id != guild_id or health.problem is None:
            continue
        since = health.failing_since_at
        lines.append(
            "⚠️ "
            + speech(
                "stats.failing",
                channel=f"<#{place.channel_id}>",
                why=speech(f"error.delivery.{health.problem.value}"),
                since=speech.unknown if since is None else relative(since),
            )
        )
    return lines
