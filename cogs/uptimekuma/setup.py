"""`/monitoring_setup`: chooses the channel that alerts go to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.core.incident import GuildConfig
from bot.core.kuma import display_url
from bot.i18n import pick_locale
from bot.services.parts import Parts
from bot.services.recorder import Fact, FactKind
from bot.storage.store import Receipt, Store
from cogs.answers import NOBODY, Ask, refuse, speech_of, viewer_of
from cogs.embeds import GREEN, Speech, Viewer, add_field
from cogs.localisation import said

if TYPE_CHECKING:
    from bot.client import CometBot

NEEDED = ("view_channel", "send_messages", "embed_links", "read_message_history")
"""Without these no card can be told exactly once; by discord.py's names."""

WISHED = ("attach_files", "create_public_threads", "send_messages_in_threads")
"""For charts and threads; cards work without."""


def missing_permissions(
    channel: discord.TextChannel, me: discord.Member, wanted: tuple[str, ...] = NEEDED
) -> list[str]:
    """What of `wanted` the bot may not do there, named one by one.

    Without Send Messages, Discord (and `channel.permissions_for`) takes embeds and files away
    too; naming those would send people looking for switches that are on already. Hence the
    plain sum of roles and overwrites first.
    """
    plain = discord.abc.GuildChannel.permissions_for(channel, me)
    effective = channel.permissions_for(me)
    missing = [name for name in wanted if not getattr(plain, name)]
    return missing or [name for name in wanted if not getattr(effective, name)]


async def choose_channel(
    parts: Parts, guild_id: str, channel_id: str, locale: str, now: datetime
) -> bool:
    """1. remember, 2. let what waits follow, 3. tell what is open, 4. send at once.

    False when the store could not take it yet: it is in force, and will be stored later.
    """
    known = parts.audience.configs.get(guild_id)
    config = GuildConfig(
        guild_id=guild_id,
        alert_channel_id=channel_id,
        created_at=now if known is None else known.created_at,
        updated_at=now,
        locale=locale,
    )

    async def write(store: Store) -> None:
        await store.save_guild_config(config)

    is_stored = await parts.recorder.put(Fact(FactKind.KEEP, "a server's channel", write))
    parts.audience.configs[guild_id] = config
    moved = parts.delivery.move_guild(guild_id, channel_id)
    if moved:
        receipt = Receipt(outbox=tuple(moved))

        async def write_moved(store: Store) -> None:
            await store.record_receipt(receipt)

        await parts.recorder.put(Fact(FactKind.KEEP, "deliveries to a new channel", write_moved))
    await parts.alerting.tell_newcomers()
    parts.delivery.wake(at_once=True)
    return is_stored


@dataclass(frozen=True, slots=True)
class SetUp:
    """What was set up, and what is not configured yet."""

    channel: str
    check_interval_s: float
    kuma_urls: tuple[str, ...]
    has_kuma: bool
    has_operators: bool
    is_stored: bool
    wished_permissions: tuple[str, ...] = ()


def setup_embed(done: SetUp, speech: Speech, viewer: Viewer) -> discord.Embed:
    """The address of Kuma is for the operators, and never holds a password."""
    embed = discord.Embed(
        title=speech("setup.title"), description=speech("setup.description"), color=GREEN
    )
    add_field(embed, speech("setup.channel"), done.channel)
    interval = speech("unit.seconds", n=speech.number(done.check_interval_s))
    add_field(embed, speech("setup.interval"), interval)
    urls = [url for raw in done.kuma_urls if (url := display_url(raw))]
    if urls and viewer.is_operator:
        add_field(embed, speech("setup.kuma_url"), "\n".join(urls), inline=False)
    open_ends = []
    if not done.has_kuma:
        open_ends.append(speech("setup.no_kuma"))
    if not viewer.is_operator:
        key = "setup.services_only" if done.has_operators else "setup.no_operators"
        open_ends.append(speech(key))
    if done.wished_permissions:
        names = ", ".join(speech(f"setup.permission.{name}") for name in done.wished_permissions)
        open_ends.append(speech("setup.wished_permissions", names=names))
    if not done.is_stored:
        open_ends.append(speech("setup.not_stored"))
    if open_ends:
        text = "\n".join(f"• {line}" for line in open_ends)
        add_field(embed, speech("setup.open_ends"), text, inline=False)
    return embed


def _guild_locale(interaction: Ask) -> str:
    """The guild's language, or the admin's where the guild cannot have said one.

    Only Community guilds can choose a language; all others are en-US to Discord (its
    documentation of `preferred_locale`), whatever is spoken there.
    """
    tag = interaction.guild_locale
    guild = interaction.guild
    has_chosen = guild is not None and "COMMUNITY" in guild.features
    if tag is discord.Locale.american_english and not has_chosen:
        tag = interaction.locale
    return pick_locale(None if tag is None else str(tag))


class Setup(commands.Cog):
    """Chooses a channel; checks first that the bot can really speak there."""

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot

    @app_commands.command(
        name="monitoring_setup", description=said("command.monitoring_setup.description")
    )
    @app_commands.describe(channel=said("command.monitoring_setup.channel"))
    @app_commands.default_permissions(manage_guild=True)
    @app_commands.guild_only()
    async def monitoring_setup(self, interaction: Ask, channel: discord.TextChannel) -> None:
        speech, viewer = speech_of(interaction), viewer_of(interaction)
        if not viewer.may_manage:
            await refuse(interaction, speech("error.no_permission"))
            return
        missing = missing_permissions(channel, channel.guild.me)
        if missing:
            names = "\n".join(f"• {speech(f'setup.permission.{name}')}" for name in missing)
            await refuse(
                interaction,
                speech("setup.missing_permissions", channel=channel.mention, names=names),
            )
            return
        await interaction.response.defer(ephemeral=True, thinking=True)
        parts = interaction.client.parts
        is_stored = await choose_channel(
            parts,
            viewer.guild_id,
            str(channel.id),
            _guild_locale(interaction),
            parts.now(),
        )
        done = SetUp(
            channel=channel.mention,
            check_interval_s=parts.choices.check_interval_s,
            kuma_urls=parts.choices.kuma_urls,
            has_kuma=bool(parts.fleet.sources),
            has_operators=bool(parts.audience.operator_guild_ids),
            is_stored=is_stored,
            wished_permissions=tuple(missing_permissions(channel, channel.guild.me, WISHED)),
        )
        await interaction.edit_original_response(
            embed=setup_embed(done, speech, viewer), allowed_mentions=NOBODY
        )
