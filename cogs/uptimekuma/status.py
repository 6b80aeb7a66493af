"""`/status_dashboard`, `/service_details`, `/monitoring_stats`: asks about monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import discord
from discord import app_commands
from discord.ext import commands

from bot.discord_text import shown_name
from bot.services.fleet import FleetMonitor
from cogs.answers import NOBODY, Ask, from_store, refuse, speech_of, viewer_of
from cogs.localisation import said
from cogs.uptimekuma.dashboard import DashboardButton
from cogs.uptimekuma.details import details_embed, read_past
from cogs.uptimekuma.lookup import by_text, labels, near, offers
from cogs.uptimekuma.stats import read_day, stats_embed

if TYPE_CHECKING:
    import re

    from bot.client import CometBot

NAME_MAX = 1000
Select = discord.ui.Select[discord.ui.View]


class Status(commands.Cog):
    """Answers from memory at once; what needs the store is deferred first."""

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot

    async def cog_load(self) -> None:
        self._bot.add_dynamic_items(DashboardButton, MonitorSelect)

    async def cog_unload(self) -> None:
        self._bot.remove_dynamic_items(DashboardButton, MonitorSelect)

    @app_commands.command(
        name="status_dashboard", description=said("command.status_dashboard.description")
    )
    @app_commands.guild_only()
    async def status_dashboard(self, interaction: Ask) -> None:
        await DashboardButton.answer(interaction)

    @app_commands.command(
        name="service_details", description=said("command.service_details.description")
    )
    @app_commands.describe(service_name=said("command.service_details.service_name"))
    @app_commands.guild_only()
    async def service_details(
        self, interaction: Ask, service_name: app_commands.Range[str, 1, NAME_MAX]
    ) -> None:
        fleet = interaction.client.parts.fleet
        found = by_text(fleet, service_name)
        if len(found) == 1:
            await answer_details(interaction, found[0])
            return
        speech = speech_of(interaction)
        name = shown_name(service_name, 200)
        if found:
            text = speech("details.twins", name=name, n=speech.number(len(found)))
        else:
            found = await near(fleet, service_name)
            text = speech("details.near" if found else "details.not_found", name=name)
            if not fleet.monitors:
                text = speech("details.none_yet")
        options = labels(fleet, found)[:25]
        if not options:
            await refuse(interaction, text)
            return
        view = MonitorSelect.menu(options, speech("details.choose"))
        await interaction.response.send_message(
            text, view=view, ephemeral=True, allowed_mentions=NOBODY
        )

    @service_details.autocomplete("service_name")
    async def _names(self, interaction: Ask, current: str) -> list[app_commands.Choice[str]]:
        fleet = interaction.client.parts.fleet
        found = labels(fleet, offers(fleet, current), current)
        return [app_commands.Choice(name=label, value=value) for label, value in found]

    @app_commands.command(
        name="monitoring_stats", description=said("command.monitoring_stats.description")
    )
    @app_commands.guild_only()
    async def monitoring_stats(self, interaction: Ask) -> None:
        await interaction.response.defer(thinking=True)
        parts = interaction.client.parts
        day = await from_store(read_day(parts.store, parts.now()))
        embed = stats_embed(parts, day, speech_of(interaction), viewer_of(interaction), parts.now())
        await interaction.edit_original_response(embed=embed, allowed_mentions=NOBODY)


async def answer_details(interaction: Ask, monitor: FleetMonitor) -> None:
    """An answer that shows the monitored address is for the eyes of the one who may see it."""
    parts = interaction.client.parts
    viewer = viewer_of(interaction)
    is_private = viewer.may_manage and monitor.identity.url is not None
    await interaction.response.defer(ephemeral=is_private, thinking=True)
    now = parts.now()
    past = await from_store(read_past(parts.store, monitor.key, now))
    embed = details_embed(
        parts.fleet,
        monitor,
        past,
        list(parts.alerting.open.values()),
        speech_of(interaction),
        viewer,
        now,
    )
    await interaction.edit_original_response(embed=embed, allowed_mentions=NOBODY)


class MonitorSelect(discord.ui.DynamicItem[Select], template="comet:monitor"):
    """Which of several monitors is meant; works after a restart too."""

    @classmethod
    def menu(cls, options: list[tuple[str, str]], placeholder: str) -> discord.ui.View:
        view = discord.ui.View(timeout=None)
        choices = [discord.SelectOption(label=label, value=value) for label, value in options]
        view.add_item(
            discord.ui.Select(custom_id="comet:monitor", placeholder=placeholder, options=choices)
        )
        view.stop()
        return view

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: discord.ui.Item[Any], match: re.Match[str]
    ) -> Self:
        assert isinstance(item, discord.ui.Select)
        return cls(item)

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        found = by_text(interaction.client.parts.fleet, self.item.values[0])
        if len(found) == 1:
            await answer_details(interaction, found[0])
            return
        name = shown_name(self.item.values[0], 200)
        await refuse(interaction, speech_of(interaction)("details.not_found", name=name))
