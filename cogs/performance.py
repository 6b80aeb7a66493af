"""`/performance`: asks about machine and bot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.core.observation import Sample
from bot.discord_text import FIELD_VALUE_LIMIT
from cogs.answers import NOBODY, Ask, speech_of, viewer_of
from cogs.embeds import BLUE, Speech, Viewer, add_field, fitting
from cogs.localisation import said

if TYPE_CHECKING:
    from bot.client import CometBot

GROUPS: Mapping[str, tuple[str, ...]] = {
    "host": (
        "cpu_usage",
        "memory_usage",
        "swap_usage",
        "disk_usage",
        "load_average_1m",
        "load_average_5m",
        "load_average_15m",
        "network_rx",
        "network_tx",
    ),
    "bot": (
        "memory_rss",
        "process_cpu",
        "threads",
        "loop_lag_p99",
        "uptime",
    ),
    "discord": (
        "ping_gateway",
        "gateway_reconnects",
        "guild_count",
        "user_count",
        "channel_count",
    ),
    "commands": (
        "command_count",
        "command_errors",
        "command_error_rate",
        "command_latency_p50",
        "command_latency_p95",
        "command_latency_p99",
    ),
}
"""What operators see, field by field; names as in `bot/core/readings.py`."""

PUBLIC = ("ping_gateway", "uptime")
"""What every server sees."""

STALE_SAMPLES = 3


def performance_embed(
    sample: Sample | None,
    interval_s: float,
    has_operators: bool,
    speech: Speech,
    viewer: Viewer,
    now: datetime,
) -> discord.Embed:
    """`sample` is the newest one; None before the first."""
    values: Mapping[str, float | None] = {} if sample is None else sample.values
    embed = discord.Embed(
        title=speech("performance.title"),
        description=_age(sample, interval_s, speech, now),
        color=BLUE,
        timestamp=now,
    )
    if sample is not None:
        embed.set_footer(text=speech("performance.at", at=speech.age(sample.at, now)))
    if not viewer.is_operator:
        add_field(embed, speech("performance.bot"), _lines(PUBLIC, values, speech), inline=False)
        key = "performance.elsewhere" if has_operators else "performance.no_operators"
        add_field(embed, speech("performance.rest"), speech(key), inline=False)
        return embed
    for group, names in GROUPS.items():
        text = _lines(names, values, speech)
        if group == "discord" and sample is not None:
            text = fitting([text, *_shards(sample, speech)], FIELD_VALUE_LIMIT, speech)
        add_field(embed, speech(f"performance.{group}"), text, inline=False)
    return embed


def _age(sample: Sample | None, interval_s: float, speech: Speech, now: datetime) -> str:
    if sample is None:
        return speech("performance.no_sample")
    text = speech("performance.age", age=speech.relative(sample.at))
    is_old = (now - sample.at).total_seconds() > STALE_SAMPLES * interval_s
    return f"⚠️ {text}" if is_old else text


def _lines(names: tuple[str, ...], values: Mapping[str, float | None], speech: Speech) -> str:
    return "\n".join(
        f"{speech(f'reading.{name}')}: **{speech.reading(name, values.get(name))}**"
        for name in names
    )


def _shards(sample: Sample, speech: Speech) -> list[str]:
    """One line per shard, where there are several; the worst one stands above already."""
    return [
        speech("performance.shard", n=labels["shard"], value=speech.reading(name, value))
        for name, labels, value in sample.labelled
        if name == "ping_gateway" and "shard" in labels
    ]


class Performance(commands.Cog):
    """Shows the newest sample; takes none of its own."""

    @app_commands.command(name="performance", description=said("command.performance.description"))
    @app_commands.guild_only()
    async def performance(self, interaction: Ask) -> None:
        parts = interaction.client.parts
        embed = performance_embed(
            parts.sampler.latest,
            parts.choices.sample_interval_s,
            bool(parts.audience.operator_guild_ids),
            speech_of(interaction),
            viewer_of(interaction),
            parts.now(),
        )
        await interaction.response.send_message(embed=embed, allowed_mentions=NOBODY)


async def setup(bot: CometBot) -> None:
    await bot.add_cog(Performance())
