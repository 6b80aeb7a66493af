"""Slash commands: measured from receipt to completion, refused politely, synced when changed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord
from discord import app_commands

from bot.i18n import pick_locale
from cogs.localisation import LocaleTranslator, with_default

if TYPE_CHECKING:
    from bot.client import CometBot

logger = logging.getLogger(__name__)

SYNC_RETRY_MIN_S: Final = 5.0
SYNC_RETRY_MAX_S: Final = 300.0
SYNC_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 10.0

Payload = dict[str, Any]
_BEGAN = "comet_began_s"


class Commands(app_commands.CommandTree["CometBot"]):
    """Notes every command in the statistics; a user's mistake is not an error of ours."""

    async def interaction_check(self, interaction: discord.Interaction[CometBot], /) -> bool:
        interaction.extras[_BEGAN] = time.perf_counter()
        return True

    def note(self, interaction: discord.Interaction[CometBot], *, ok: bool) -> None:
        began_s = interaction.extras.pop(_BEGAN, None)
        if began_s is None or interaction.type is not discord.InteractionType.application_command:
            return
        latency_ms = (time.perf_counter() - began_s) * 1000
        self.client.parts.commands.note(_name_of(interaction), latency_ms, ok=ok)

    async def on_error(
        self, interaction: discord.Interaction[CometBot], error: app_commands.AppCommandError, /
    ) -> None:
        """Answer in the user's language; what is our fault is logged once, with a number."""
        text = self._refusal(interaction, error)
        self.note(interaction, ok=text is not None)
        if text is None:
            cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
            error_id = secrets.token_hex(4)
            logger.error("command %s failed [%s]", _name_of(interaction), error_id, exc_info=cause)
            text = self._say(interaction, "client.error", error_id=error_id)
        await _answer(interaction, text)

    def _refusal(
        self, interaction: discord.Interaction[CometBot], error: app_commands.AppCommandError
    ) -> str | None:
        """What to tell somebody who may not, or not so; None when the fault is ours."""
        match error:
            case app_commands.MissingPermissions():
                names = _permission_names(error.missing_permissions)
                return self._say(interaction, "client.no_permission", permissions=names)
            case app_commands.BotMissingPermissions():
                names = _permission_names(error.missing_permissions)
                return self._say(interaction, "client.bot_no_permission", permissions=names)
            case app_commands.NoPrivateMessage():
                return self._say(interaction, "client.guild_only")
            case app_commands.CommandOnCooldown():
                locale = pick_locale(str(interaction.locale))
                wait = self.client.parts.translator.format_duration(error.retry_after, locale)
                return self._say(interaction, "client.cooldown", wait=wait)
            case app_commands.CheckFailure():
                return self._say(interaction, "client.not_allowed")
            case (
                app_commands.CommandNotFound()
                | app_commands.CommandSignatureMismatch()
                | app_commands.TransformerError()
            ):
                logger.warning("Discord still has another version of a command: %s", error)
                return self._say(interaction, "client.stale")
            case _:
                return None

    def _say(self, interaction: discord.Interaction[CometBot], key: str, **params: object) -> str:
        return self.client.parts.translator.t(key, pick_locale(str(interaction.locale)), **params)


class CommandSync:
    """Brings Discord's list of our commands up to date, sparing the limits when nothing changed."""

    def __init__(self, bot: CometBot, guild_ids: Sequence[int]) -> None:
        self._bot = bot
        self._scopes: tuple[int | None, ...] = tuple(guild_ids) or (None,)
        self._wake = asyncio.Event()

    def hurry(self) -> None:
        """Something changed that may let a failed sync succeed now: a guild was joined."""
        self._wake.set()

    async def run(self) -> None:
        """Until every scope is in order; a failure is logged once and tried again later."""
        await self._bot.tree.set_translator(LocaleTranslator())
        left = list(self._scopes)
        wait_s = SYNC_RETRY_MIN_S
        is_said = False
        while left:
            for scope in list(left):
                try:
                    async with asyncio.timeout(SYNC_TIMEOUT_S):
                        await self._sync(scope)
                except (
                    discord.DiscordException,
                    aiohttp.ClientError,
                    OSError,
                    TimeoutError,
                ) as error:
                    if isinstance(error, discord.HTTPException) and error.status == 400:
                        logger.error("Discord refuses the commands as they are: %s", error)
                        left.remove(scope)
                    elif not is_said:
                        is_said = True
                        logger.warning(
                            "commands are not synced yet (%s); it will be tried again", error
                        )
                else:
                    left.remove(scope)
            if left:
                self._wake.clear()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    wait_s = min(SYNC_RETRY_MAX_S, wait_s * 2)

    async def payload(self) -> list[Payload]:
        """What Discord is to know, in the form it takes."""
        tree, translator = self._bot.tree, LocaleTranslator()
        default = self._bot.parts.translator.default_locale
        return [
            with_default(await command.get_translated_payload(tree, translator), default)
            for command in tree.get_commands()
        ]

    async def _sync(self, scope: int | None) -> None:
        wanted = await self.payload()
        known = await self._fetch(scope)
        if same(wanted, known):
            logger.info("commands are as Discord knows them")
        else:
            await self._put(scope, wanted)
            logger.info("%d commands synced", len(wanted))
        if scope is not None:
            await self._clear_global({command["name"] for command in wanted})

    async def _clear_global(self, ours: set[str]) -> None:
        """Commands once synced globally would stand beside a guild's own, each twice."""
        everywhere = await self._fetch(None)
        if everywhere and all(command["name"] in ours for command in everywhere):
            await self._put(None, [])

    async def _fetch(self, scope: int | None) -> Sequence[Mapping[str, Any]]:
        # discord.py's own methods leave out the localisations.
        path = "/applications/{application_id}/commands"
        if scope is not None:
            path = "/applications/{application_id}/guilds/{guild_id}/commands"
        route = discord.http.Route(
            "GET", path, application_id=self._bot.application_id, guild_id=scope
        )
        found: list[Payload] = await self._bot.http.request(
            route, params={"with_localizations": "true"}
        )
        return found

    async def _put(self, scope: int | None, payload: list[Payload]) -> None:
        application_id = self._bot.application_id
        assert application_id is not None
        if scope is None:
            await self._bot.http.bulk_upsert_global_commands(application_id, payload)
        else:
            await self._bot.http.bulk_upsert_guild_commands(application_id, scope, payload)


def same(wanted: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]) -> bool:
    """Whether Discord's list says what ours says; a needless difference costs one request."""
    return _by_name(wanted) == _by_name(known)


def _by_name(commands: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Payload]:
    return {(c["name"], c.get("type") or 1): _essence(c) for c in commands}


_COMPARED: Final = (
    "name",
    "required",
    "autocomplete",
    "channel_types",
    "min_value",
    "max_value",
    "min_length",
    "max_length",
    "value",
    "nsfw",
    "name_localizations",
    "description_localizations",
)


def _essence(part: Mapping[str, Any]) -> Payload:
    """One command or option without what Discord adds, and with its defaults left out."""
    kept = {key: part[key] for key in _COMPARED if part.get(key) not in (None, False, {}, [])}
    kept["description"] = part.get("description") or ""
    kept["type"] = part.get("type") or 1
    wanted = part.get("default_member_permissions")
    kept["permissions"] = None if wanted is None else str(wanted)
    kept["dm"] = part.get("dm_permission") is not False
    for key in ("options", "choices"):
        kept[key] = [_essence(inner) for inner in part.get(key) or ()]
    return kept


def _name_of(interaction: discord.Interaction[Any]) -> str:
    command = interaction.command
    if command is not None:
        return command.qualified_name
    data: Mapping[str, Any] = interaction.data or {}
    return str(data.get("name") or "?")


def _permission_names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name.replace('_', ' ')}`" for name in names)


async def _answer(interaction: discord.Interaction[Any], text: str) -> None:
    """Tell the one who asked, if Discord still lets us."""
    nobody = discord.AllowedMentions.none()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            if interaction.response.is_done():
                await interaction.followup.send(text, ephemeral=True, allowed_mentions=nobody)
            else:
                await interaction.response.send_message(
                    text, ephemeral=True, allowed_mentions=nobody
                )
    except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
        logger.warning("a refusal could not be told: %s", error)
