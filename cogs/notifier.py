"""Sends cards to channels with the bot's own account, and tells apart why one was not taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord

from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.discord_text import CONTENT_LIMIT, clip
from bot.services.audience import Destination

if TYPE_CHECKING:
    from bot.client import CometBot

LOOK_BACK: Final = 200
"""How many of a channel's newest messages are searched for one of ours."""

NOBODY: Final = discord.AllowedMentions.none()

UNKNOWN_MESSAGE: Final = 10008
EDITS_RATIONED: Final = 30046
MISSING_PERMISSIONS: Final = 50013
# No text, however plain, goes there: not a text channel, archived, locked.
_CHANNEL_CODES: Final = frozenset({50008, 50024, 50083, 160005})


class ChannelNotifier:
    """A Notifier for the channels of guilds.

    discord.py waits out rate limits and repeats 500, 502 and 504 by itself; a repeat of the
    same nonce gives the message that is there already.
    """

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot

    async def post(self, destination: Destination, message: OutgoingMessage) -> str:
        channel = self._channel(destination)
        options: dict[str, Any] = {"silent": message.is_silent, "allowed_mentions": NOBODY}
        if message.nonce is not None:
            options["nonce"] = message.nonce
        if message.reply_to is not None:
            options["reference"] = discord.MessageReference(
                message_id=int(message.reply_to), channel_id=channel.id, fail_if_not_exists=False
            )
        async with _problems_told():
            try:
                sent = await channel.send(
                    content=message.content, embeds=_embeds(message), **options
                )
            except discord.HTTPException as error:
                plain = _plain(message)
                if plain is None or not _is_about_form(error):
                    raise
                # An alert without its looks is better than none.
                sent = await channel.send(content=plain, **options)
        return str(sent.id)

    async def edit(
        self, destination: Destination, message_id: str, message: OutgoingMessage
    ) -> None:
        target = self._channel(destination).get_partial_message(int(message_id))
        async with _problems_told():
            try:
                await target.edit(
                    content=message.content, embeds=_embeds(message), allowed_mentions=NOBODY
                )
            except discord.HTTPException as error:
                if error.code == EDITS_RATIONED:
                    # Only a new message helps, and the old one must not stand there with what
                    # is no longer true.
                    with suppress(discord.HTTPException):
                        await target.delete()
                    raise DeliveryError(DeliveryProblem.MESSAGE_GONE, "too many edits") from error
                plain = _plain(message)
                if plain is None or not _is_about_form(error):
                    raise
                await target.edit(content=plain, embeds=[], allowed_mentions=NOBODY)

    async def find_card(self, destination: Destination, marker: str) -> str | None:
        mark = f"#{marker}"
        async with _problems_told():
            async for found in self._own_messages(destination):
                footers = [embed.footer.text or "" for embed in found.embeds]
                if any(mark in text for text in (*footers, found.content)):
                    return str(found.id)
        return None

    async def find_reply(
        self, destination: Destination, message_id: str, symbol: str
    ) -> str | None:
        async with _problems_told():
            async for found in self._own_messages(destination):
                reference = found.reference
                is_ours = reference is not None and str(reference.message_id) == message_id
                if is_ours and found.content.startswith(symbol):
                    return str(found.id)
        return None

    async def _own_messages(self, destination: Destination) -> AsyncIterator[discord.Message]:
        me = self._bot.user
        async for message in self._channel(destination).history(limit=LOOK_BACK):
            if me is not None and message.author.id == me.id:
                yield message

    def _channel(self, destination: Destination) -> discord.PartialMessageable:
        if not self._bot.is_logged_in:
            raise DeliveryError(DeliveryProblem.TRANSIENT, "not logged in")
        guild_id = None if destination.guild_id is None else int(destination.guild_id)
        return self._bot.get_partial_messageable(int(destination.channel_id), guild_id=guild_id)


def _embeds(message: OutgoingMessage) -> list[discord.Embed]:
    return [discord.Embed.from_dict(dict(embed)) for embed in message.embeds]


def _plain(message: OutgoingMessage) -> str | None:
    """The least that tells it, for a channel or a Discord that takes no embed; None if it has none.

    The footer stays: it holds the mark by which the card is found again.
    """
    if not message.embeds:
        return None
    embed = message.embeds[0]
    footer = embed.get("footer")
    mark = str(footer.get("text") or "") if isinstance(footer, dict) else ""
    head = "\n".join(str(embed[key]) for key in ("title", "description") if embed.get(key))
    return f"{clip(head, CONTENT_LIMIT - 100)}\n-# {clip(mark, 80)}"


def _is_about_form(error: discord.HTTPException) -> bool:
    """Whether a plainer message may be taken: its form was refused, or embeds are not allowed."""
    if error.status == 403:
        return error.code == MISSING_PERMISSIONS
    return error.status in (400, 413) and error.code not in _CHANNEL_CODES


@asynccontextmanager
async def _problems_told() -> AsyncIterator[None]:
    """Every way in which discord.py says no, as a DeliveryError."""
    try:
        yield
    except discord.RateLimited as error:
        raise DeliveryError(
            DeliveryProblem.TRANSIENT, "rate limit", retry_after_s=error.retry_after
        ) from error
    except discord.HTTPException as error:
        raise DeliveryError(
            _problem_of(error),
            f"HTTP {error.status}, code {error.code}",
            retry_after_s=_retry_after_s(error),
        ) from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        # Raised before anything was sent.
        raise DeliveryError(DeliveryProblem.TRANSIENT, type(error).__name__) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise DeliveryError(DeliveryProblem.UNCERTAIN, type(error).__name__) from error
    except RuntimeError as error:
        # aiohttp's word for a session that was closed meanwhile.
        raise DeliveryError(DeliveryProblem.TRANSIENT, str(error)) from error


def _retry_after_s(error: discord.HTTPException) -> float:
    """What a 429 asks for that discord.py did not wait out itself (one without `Via`)."""
    if error.status != 429:
        return 0.0
    try:
        return max(0.0, float(error.response.headers.get("Retry-After", "0")))
    except (AttributeError, ValueError):
        return 0.0


def _problem_of(error: discord.HTTPException) -> DeliveryProblem:
    if error.code in _CHANNEL_CODES:
        return DeliveryProblem.CHANNEL_GONE
    match error.status:
        case 404 if error.code == UNKNOWN_MESSAGE:
            return DeliveryProblem.MESSAGE_GONE
        case 404:
            return DeliveryProblem.CHANNEL_GONE
        case 403:
            return DeliveryProblem.FORBIDDEN
        case 400 | 413:
            return DeliveryProblem.REJECTED
        case status if status >= 500:
            return DeliveryProblem.UNCERTAIN
        case _:
            return DeliveryProblem.TRANSIENT
