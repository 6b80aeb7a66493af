"""What other cogs report, and `/activity …`, which asks about it.

Any cog in the same bot may report, without knowing whether anybody listens:

    bot.dispatch("comet_conversation", user_id=…, user_name=…, prompt=…, response=…)
    bot.dispatch("comet_music_play", guild_id=…, song_title=…, requested_by=…, requested_by_id=…)
    bot.dispatch("comet_metric", "recipes_served", 12, {"kitchen": "north"})

Each also takes `timestamp=`. Ids may be numbers, text or discord objects. Who wants to know
whether a report was kept awaits `bot.comet.report_conversation(…)`, `report_song(…)` or
`report_metric(…)` with the same fields. Neither way raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.discord_text import DESCRIPTION_LIMIT, shown_name
from bot.services.activity import Kind, Mode
from bot.storage.store import StoreError
from cogs.answers import NOBODY, Ask, from_store, refuse, speech_of, store_trouble, viewer_of
from cogs.embeds import BLUE, Speech, fitting
from cogs.localisation import said

if TYPE_CHECKING:
    from bot.client import CometBot

DAYS = 30
MOST_DAYS = 400
ROWS = 20

Days = app_commands.Range[int, 1, MOST_DAYS]


def ranking_embed(
    topic: str,
    rows: Sequence[tuple[str, int]] | StoreError,
    days: int,
    mode: Mode,
    speech: Speech,
    now: datetime,
) -> discord.Embed:
    """`topic`: songs or members. `rows`: (name as somebody chose it, how often), most first."""
    if isinstance(rows, StoreError):
        lines = [store_trouble(rows, speech)]
    else:
        lines = [
            speech(
                f"activity.{topic}.row",
                rank=speech.number(rank),
                name=shown_name(name),
                n=speech.number(count),
            )
            for rank, (name, count) in enumerate(rows, start=1)
        ]
        if not rows:
            lines.append(speech("activity.off" if mode == "off" else "activity.nothing"))
    embed = discord.Embed(
        title=speech(f"activity.{topic}.title"),
        description=fitting(lines, DESCRIPTION_LIMIT, speech),
        color=BLUE,
        timestamp=now,
    )
    embed.set_footer(text=speech("activity.days", days=speech.number(days)))
    return embed


@app_commands.guild_only()
class Activities(
    commands.GroupCog, group_name="activity", group_description=said("command.activity.description")
):
    """Listens to other cogs; what they send wrong goes to the log and never back to them."""

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot
        super().__init__()

    # -- events -------------------------------------------------------------------------

    @commands.Cog.listener("on_comet_conversation")
    async def conversation(self, *values: object, **fields: object) -> None:
        report = self._bot.comet.report_conversation
        await self._take("conversations", report, values, fields)

    @commands.Cog.listener("on_comet_music_play")
    async def music_play(self, *values: object, **fields: object) -> None:
        await self._take("music", self._bot.comet.report_song, values, fields)

    @commands.Cog.listener("on_comet_metric")
    async def metric(self, *values: object, **fields: object) -> None:
        await self._take("metrics", self._bot.comet.report_metric, values, fields)

    async def _take(
        self,
        kind: Kind,
        report: Callable[..., Awaitable[bool]],
        values: tuple[object, ...],
        fields: Mapping[str, object],
    ) -> None:
        """Fields by name, in their order, or all in one mapping."""
        first = values[0] if len(values) == 1 and not fields else None
        if isinstance(first, Mapping):
            values, fields = (), {str(key): value for key, value in first.items()}
        try:
            inspect.signature(report).bind(*values, **fields)
        except TypeError as error:
            self._bot.comet.complain(kind, str(error))
            return
        await report(*values, **fields)

    # -- questions ----------------------------------------------------------------------

    @app_commands.command(name="songs", description=said("command.activity_songs.description"))
    @app_commands.describe(days=said("command.activity.days"))
    async def songs(self, interaction: Ask, days: Days = DAYS) -> None:
        """Of this server; whoever may see the server has heard them."""
        parts, keeping = interaction.client.parts, interaction.client.comet.keeping
        days = min(days, keeping.music_days)
        await interaction.response.defer(thinking=True)
        now = parts.now()
        since_at = now - timedelta(days=days)
        rows = await from_store(
            parts.store.popular_songs(since_at, ROWS, str(interaction.guild_id))
        )
        embed = ranking_embed("songs", rows, days, keeping.music_mode, speech_of(interaction), now)
        await interaction.edit_original_response(embed=embed, allowed_mentions=NOBODY)

    @app_commands.command(name="members", description=said("command.activity_members.description"))
    @app_commands.describe(days=said("command.activity.days"))
    async def members(self, interaction: Ask, days: Days = DAYS) -> None:
        """For who manages an operators' server: conversations do not say in which server they
        were, and one server's managers have no business with another's people."""
        speech, viewer = speech_of(interaction), viewer_of(interaction)
        if not viewer.may_manage:
            await refuse(interaction, speech("error.no_permission"))
            return
        if not viewer.is_operator:
            await refuse(interaction, speech("activity.operators_only"))
            return
        parts, keeping = interaction.client.parts, interaction.client.comet.keeping
        days = min(days, keeping.conversation_days)
        await interaction.response.defer(ephemeral=True, thinking=True)
        now = parts.now()
        found = await from_store(parts.store.most_active(now - timedelta(days=days), ROWS))
        rows = found if isinstance(found, StoreError) else [(n or i, c) for i, n, c in found]
        embed = ranking_embed("members", rows, days, keeping.conversation_mode, speech, now)
        await interaction.edit_original_response(embed=embed, allowed_mentions=NOBODY)


async def setup(bot: CometBot) -> None:
    await bot.add_cog(Activities(bot))
