"""Messages of channels, for the bot's own token.

From "Create Message" and its neighbours in Discord's message resource: Missing Access (50001)
where the channel cannot be seen, Missing Permissions (50013) where it can, 50005 for others'
messages, and an empty list where history may not be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors, payloads, permissions
from .errors import ApiError, FormErrors
from .rest import Answer, ApiRequest, Route
from .world import Channel, StoredMessage

if TYPE_CHECKING:
    from .peer import DiscordPeer


def visible_channel(peer: DiscordPeer, call: ApiRequest) -> Channel:
    """The channel of the path, if the bot may see it."""
    channel = peer.world.channels.get(call.id("channel_id"))
    if channel is None:
        raise errors.unknown_channel()
    if not permissions.has(channel, peer.world.bot.id, "view_channel"):
        raise errors.missing_access()
    return channel


def _found(peer: DiscordPeer, call: ApiRequest, channel: Channel) -> StoredMessage:
    message = peer.world.messages.get(call.id("message_id"))
    if message is None or message.deleted or message.ephemeral or message.channel is not channel:
        raise errors.unknown_message()
    return message


def refuse_unless(peer: DiscordPeer, channel: Channel, *names: str) -> None:
    if not permissions.has(channel, peer.world.bot.id, *names):
        raise errors.missing_permissions()


def create(peer: DiscordPeer, call: ApiRequest) -> Answer:
    channel = visible_channel(peer, call)
    bot = peer.world.bot
    if channel.recipient is not None and not channel.recipient.accepts_dms:
        raise ApiError(403, 50007, "Cannot send messages to this user")
    writing = "send_messages_in_threads" if channel.is_thread else "send_messages"
    refuse_unless(peer, channel, writing)
    if channel.archived and channel.locked:
        raise ApiError(400, 50083, "Thread is archived")
    if call.files:
        refuse_unless(peer, channel, "attach_files")
    if call.fields.get("tts"):
        refuse_unless(peer, channel, "send_tts_messages")
    message = peer.message_store.create(
        channel,
        bot,
        call.fields,
        call.files,
        embeds_permitted=permissions.has(channel, bot.id, "embed_links"),
    )
    return 200, payloads.message(message, peer.world)


def get(peer: DiscordPeer, call: ApiRequest) -> Answer:
    channel = visible_channel(peer, call)
    if not permissions.has(channel, peer.world.bot.id, "read_message_history"):
        raise errors.missing_access()
    return 200, payloads.message(_found(peer, call, channel), peer.world)


def listing(peer: DiscordPeer, call: ApiRequest) -> Answer:
    """GET …/messages with one of around, before, after; newest first."""
    channel = visible_channel(peer, call)
    faults = FormErrors()
    numbers: dict[str, int] = {}
    for key in ("around", "before", "after", "limit"):
        value = call.query.get(key)
        if value is None:
            continue
        if value.isdecimal():
            numbers[key] = int(value)
        else:
            faults.add((key,), "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')
    limit = numbers.get("limit", 50)
    if not 1 <= limit <= 100:
        faults.add(("limit",), "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    faults.raise_if_any()
    if not permissions.has(channel, peer.world.bot.id, "read_message_history"):
        return 200, []
    stored = [item for item in channel.messages if not item.deleted]
    if "around" in numbers:
        pivot = numbers["around"]
        older = [item for item in stored if item.id < pivot]
        newer = [item for item in stored if item.id >= pivot]
        half = limit // 2
        chosen = older[len(older) - min(half, len(older)) :] + newer[: limit - half]
    elif "after" in numbers:
        chosen = [item for item in stored if item.id > numbers["after"]][:limit]
    else:
        before = numbers.get("before", 1 << 63)
        chosen = [item for item in stored if item.id < before][-limit:]
    return 200, [payloads.message(item, peer.world) for item in reversed(chosen)]


def edit(peer: DiscordPeer, call: ApiRequest) -> Answer:
    channel = visible_channel(peer, call)
    message = _found(peer, call, channel)
    bot = peer.world.bot
    if message.author is not bot:
        raise errors.others_message()
    if channel.archived:
        raise ApiError(400, 50083, "Thread is archived")
    if call.files:
        refuse_unless(peer, channel, "attach_files")
    peer.message_store.refuse_old_edit(message)
    peer.message_store.edit(
        message,
        call.fields,
        call.files,
        embeds_permitted=permissions.has(channel, bot.id, "embed_links"),
    )
    return 200, payloads.message(message, peer.world)


def delete(peer: DiscordPeer, call: ApiRequest) -> Answer:
    channel = visible_channel(peer, call)
    message = _found(peer, call, channel)
    if message.author is not peer.world.bot:
        refuse_unless(peer, channel, "manage_messages")
    peer.message_store.delete(message)
    return 204, None


def typing(peer: DiscordPeer, call: ApiRequest) -> Answer:
    refuse_unless(peer, visible_channel(peer, call), "send_messages")
    return 204, None


_ALL = "/channels/{channel_id}/messages"
_ONE = "/channels/{channel_id}/messages/{message_id}"
ROUTES = [
    Route("POST", _ALL, create, "message.create"),
    Route("GET", _ALL, listing, "message.list"),
    Route("GET", _ONE, get, "message.get"),
    Route("PATCH", _ONE, edit, "message.edit"),
    Route("DELETE", _ONE, delete, "message.delete"),
    Route("POST", "/channels/{channel_id}/typing", typing, "typing"),
]
