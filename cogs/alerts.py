"""`/alerts …`: asks about incidents."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.cards import colour_of, severity_word
from bot.core.incident import Incident
from bot.discord_text import as_code, relative
from bot.services.fleet import Fleet
from bot.services.parts import Parts
from bot.services.sampler import TASK_NAME
from bot.services.ticker import Tasks
from cogs.answers import Ask
from cogs.embeds import GREEN, Speech, Viewer, add_field, fitting, source_lines
from cogs.incidents import headline, is_visible, value_text
from cogs.localisation import said
from cogs.pager import Page, PageButton, page_count, template, within

if TYPE_CHECKING:
    from bot.client import CometBot

PER_PAGE = 10
LATE_PERIODS = 3.0
TROUBLE_LIMIT = 600
"""10 × (256 + 220) + 600 + 200 for title and footer stays below Discord's 6,000."""


def active_page(
    incidents: Iterable[Incident],
    fleet: Fleet,
    tasks: Tasks,
    speech: Speech,
    viewer: Viewer,
    now: datetime,
    number: int,
) -> Page:
    """Open incidents, newest first. None at all is told with when the rules last looked."""
    seen = [i for i in incidents if i.resolved_at is None and is_visible(i, viewer)]
    seen.sort(key=lambda i: (i.fired_at, str(i.incident_id)), reverse=True)
    count = page_count(len(seen), PER_PAGE)
    number = within(number, count)
    worst = max(seen, key=lambda i: i.severity.rank, default=None)
    head = speech("alerts.count", n=speech.number(len(seen))) if seen else speech("alerts.none")
    embed = discord.Embed(
        title=speech("alerts.title"),
        description=fitting(
            [head, _looked(tasks, speech, now), *source_lines(fleet, now, speech)],
            TROUBLE_LIMIT,
            speech,
        ),
        color=GREEN if worst is None else colour_of(worst),
        timestamp=now,
    )
    for incident in seen[number * PER_PAGE : (number + 1) * PER_PAGE]:
        add_field(embed, headline(incident, speech), _field(incident, speech), inline=False)
    if count > 1:
        embed.set_footer(text=speech("dashboard.page", page=number + 1, pages=count))
    return Page(embed, number, count)


def _looked(tasks: Tasks, speech: Speech, now: datetime) -> str:
    """When the rules last looked at a whole sample, so that silence is not taken for health."""
    health = tasks.health.get(TASK_NAME)
    if health is None or health.last_success_s is None:
        return f"⚠️ {speech('alerts.never_evaluated')}"
    now_s = time.monotonic()
    looked_at = now - timedelta(seconds=health.age_s(now_s))
    text = speech("alerts.evaluated", age=speech.relative(looked_at))
    return f"⚠️ {text}" if health.lateness(now_s) >= LATE_PERIODS else text


def _field(incident: Incident, speech: Speech) -> str:
    """Severity, rule and age; then the value, where it tells anything."""
    severity = severity_word(incident.rule_name, incident.severity)
    rule = as_code(incident.rule_name, 100)
    first = f"{severity} · {relative(incident.fired_at)} · {rule}"
    value = value_text(incident, speech)
    return first if value is None else f"{first}\n{value}"


class ActiveButton(PageButton, template=template("active")):
    list_name = "active"

    @classmethod
    def draw(cls, parts: Parts, viewer: Viewer, number: int) -> Page:
        speech = Speech(parts.translator, viewer.locale, parts.choices.timezone)
        return active_page(
            parts.alerting.open.values(),
            parts.fleet,
            parts.tasks,
            speech,
            viewer,
            parts.now(),
            number,
        )


@app_commands.guild_only()
class Alerts(
    commands.GroupCog, group_name="alerts", group_description=said("command.alerts.description")
):
    """Each server sees its own: services everywhere, machine and bot in the operators' servers."""

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot
        super().__init__()

    async def cog_load(self) -> None:
        self._bot.add_dynamic_items(ActiveButton)

    async def cog_unload(self) -> None:
        self._bot.remove_dynamic_items(ActiveButton)

    @app_commands.command(name="active", description=said("command.alerts_active.description"))
    async def active(self, interaction: Ask) -> None:
        await ActiveButton.answer(interaction)


async def setup(bot: CometBot) -> None:
    await bot.add_cog(Alerts(bot))
