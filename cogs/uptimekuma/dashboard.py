"""All monitors at a glance, worst first, however many there are."""

from __future__ import annotations

from datetime import datetime

import discord

from bot.core.observation import MonitorStatus
from bot.discord_text import shown_name
from bot.services.fleet import Fleet, FleetMonitor
from bot.services.parts import Parts
from cogs.embeds import (
    BLUE,
    STATUS_SYMBOLS,
    Speech,
    Viewer,
    add_field,
    fitting,
    oldest_look,
    response_time_ms,
    source_lines,
    worst_first,
)
from cogs.pager import Page, PageButton, page_count, template, within

PER_PAGE = 15
NAME_LIMIT = 240
TROUBLE_LIMIT = 600
"""15 × (240 + 64) + 600 + 300 for summary, title and footer stays below Discord's 6,000."""


def dashboard_page(fleet: Fleet, speech: Speech, now: datetime, number: int) -> Page:
    monitors = worst_first(fleet, fleet.monitors.values())
    count = page_count(len(monitors), PER_PAGE)
    number = within(number, count)
    embed = discord.Embed(
        title=speech("dashboard.title"),
        description=_description(fleet, speech, now),
        color=BLUE,
        timestamp=now,
    )
    for monitor in monitors[number * PER_PAGE : (number + 1) * PER_PAGE]:
        name = shown_name(monitor.identity.name, NAME_LIMIT)
        add_field(embed, name, _field(fleet, monitor, speech))
    if monitors:
        add_field(embed, speech("dashboard.summary"), summary(fleet, speech), inline=False)
    embed.set_footer(text=_footer(fleet, speech, now, number, count))
    return Page(embed, number, count)


def _description(fleet: Fleet, speech: Speech, now: datetime) -> str:
    lines = []
    if fleet.monitors:
        lines.append(speech("dashboard.all"))
    elif any(source.last_good_at is not None for source in fleet.sources.values()):
        lines.append(speech("dashboard.empty"))
    lines.extend(source_lines(fleet, now, speech))
    return fitting(lines, TROUBLE_LIMIT, speech)


def _field(fleet: Fleet, monitor: FleetMonitor, speech: Speech) -> str:
    status = fleet.status_of(monitor)
    text = speech.status(status)
    value_ms = response_time_ms(monitor)
    if value_ms is not None and status is not MonitorStatus.UNKNOWN:
        text += f" ({speech.milliseconds(value_ms)})"
    if status is MonitorStatus.DOWN:
        text += f"\n{speech('details.since', at=speech.relative(monitor.since_at))}"
    return text


def summary(fleet: Fleet, speech: Speech) -> str:
    """Counts of every status. No share is told while part of the fleet is unknown."""
    total = len(fleet.monitors)
    counted = fleet.counts()
    counts = {status: counted[status] for status in STATUS_SYMBOLS}
    unknown = counts[MonitorStatus.UNKNOWN]
    up = counts[MonitorStatus.UP]
    shown_up = speech.unknown if unknown == total else speech.number(up)
    first = speech("dashboard.up", up=shown_up, total=speech.number(total))
    if not unknown and total:
        first += f" ({speech.ratio(up / total)})"
    others = [
        f"{speech.status(status)}: {speech.number(count)}"
        for status, count in counts.items()
        if count and status is not MonitorStatus.UP
    ]
    return "\n".join([first, *others])


def _footer(fleet: Fleet, speech: Speech, now: datetime, number: int, count: int) -> str:
    parts = [speech("dashboard.last_check", at=speech.age(oldest_look(fleet), now))]
    if count > 1:
        parts.append(speech("dashboard.page", page=number + 1, pages=count))
    return " · ".join(parts)


class DashboardButton(PageButton, template=template("dashboard")):
    list_name = "dashboard"

    @classmethod
    def draw(cls, parts: Parts, viewer: Viewer, number: int) -> Page:
        speech = Speech(parts.translator, viewer.locale, parts.choices.timezone)
        return dashboard_page(parts.fleet, speech, parts.now(), number)
