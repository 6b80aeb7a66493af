"""How every command answers: who asks, in which language, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import discord
from discord import app_commands

from bot.i18n import pick_locale
from bot.storage.store import StoreError, StoreUnavailable
from cogs.embeds import Speech, Viewer

if TYPE_CHECKING:
    from bot.client import CometBot

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ask: TypeAlias = "discord.Interaction[CometBot]"

NOBODY = discord.AllowedMentions.none()
READ_TIMEOUT_S = 8.0


def viewer_of(interaction: Ask) -> Viewer:
    """Permissions as Discord sent them with this very interaction, not as cached."""
    guild_id = str(interaction.guild_id)
    return Viewer(
        locale=pick_locale(str(interaction.locale)),
        guild_id=guild_id,
        is_operator=interaction.client.parts.audience.is_operator(guild_id),
        may_manage=interaction.permissions.manage_guild,
    )


def speech_of(interaction: Ask) -> Speech:
    parts = interaction.client.parts
    return Speech(parts.translator, pick_locale(str(interaction.locale)), parts.choices.timezone)


async def refuse(interaction: Ask, text: str) -> None:
    """Say no, or why not, to the one person who asked."""
    await interaction.response.send_message(text, ephemeral=True, allowed_mentions=NOBODY)


@asynccontextmanager
async def mishaps_told(interaction: Ask) -> AsyncIterator[None]:
    """What goes wrong behind a button is said and logged as it is for a command.

    discord.py would log it only, and leave the person with "thinking…" for good.
    """
    try:
        yield
    except Exception as error:
        mishap = app_commands.AppCommandError(f"{type(error).__name__}: {error}")
        mishap.__cause__ = error
        await interaction.client.tree.on_error(interaction, mishap)


async def from_store(reading: Awaitable[T]) -> T | StoreError:
    """What the store says, or why it says nothing; a store that hangs counts as locked.

    The error is logged and returned, because an answer can still hold what is in memory.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await reading
    except TimeoutError:
        error: StoreError = StoreUnavailable("locked", "no answer")
    except StoreError as caught:
        error = caught
    logger.warning("a command could not read the store: %s", error)
    return error


def store_trouble(error: StoreError, speech: Speech) -> str:
    """Why history is missing, and what still works, in plain words."""
    return f"⚠️ {speech('error.store.reading', why=store_problem(error, speech))}"


def store_problem(error: StoreError, speech: Speech) -> str:
    key = f"problem.store.{error.reason}"
    return speech(key) if speech.has(key) else speech("error.store.other")
