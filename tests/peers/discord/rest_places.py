"""Who and where: the application, users, guilds, channels, threads, direct messages.

From the resource pages of the same names in Discord's API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors, payloads
from .errors import ApiError, FormErrors
from .limits import check_snowflake, check_text
from .rest import Answer, ApiRequest, Route
from .rest_messages import refuse_unless, visible_channel
from .world import DM, PRIVATE_THREAD, PUBLIC_THREAD, TEXT, Channel, Guild, snowflake

if TYPE_CHECKING:
    from .peer import DiscordPeer

ARCHIVE_MINUTES = (60, 1440, 4320, 10080)


def own_user(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, payloads.own_user(peer.world.bot)


def application(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, payloads.application(peer.world)


def gateway(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, {"url": peer.gateway_url}


def gateway_bot(peer: DiscordPeer, call: ApiRequest) -> Answer:
    left = max(0, 1000 - peer.stats.identifies)
    return 200, {
        "url": peer.gateway_url,
        "shards": peer.recommended_shards,
        "session_start_limit": {
            "total": 1000,
            "remaining": left,
            "reset_after": 14_400_000,
            "max_concurrency": 1,
        },
    }


def user(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = peer.world.users.get(call.id("user_id"))
    if found is None:
        raise errors.unknown_user()
    return 200, payloads.user(found)


def own_guilds(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, [
        {"id": str(item.id), "name": item.name, "icon": None, "owner": False, "features": []}
        for item in peer.world.guilds.values()
    ]


def _guild(peer: DiscordPeer, call: ApiRequest) -> Guild:
    found = peer.world.guilds.get(call.id("guild_id"))
    if found is None:
        raise errors.unknown_guild()
    return found


def guild(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = _guild(peer, call)
    shown = payloads.guild(found)
    if call.query.get("with_counts") in ("1", "true"):
        shown["approximate_member_count"] = payloads.member_count(found)
        shown["approximate_presence_count"] = 1
    return 200, shown


def guild_channels(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = _guild(peer, call)
    return 200, [payloads.channel(c) for c in found.channels.values() if not c.is_thread]


def guild_roles(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, [payloads.role(item) for item in _guild(peer, call).roles.values()]


def guild_member(peer: DiscordPeer, call: ApiRequest) -> Answer:
    member = _guild(peer, call).members.get(call.id("user_id"))
    if member is None:
        raise errors.unknown_member()
    return 200, payloads.member(member)


def active_threads(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = _guild(peer, call)
    threads = [c for c in found.channels.values() if c.is_thread and not c.archived]
    return 200, {"threads": [payloads.channel(item) for item in threads], "members": []}


def channel(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, payloads.channel(visible_channel(peer, call))


def edit_channel(peer: DiscordPeer, call: ApiRequest) -> Answer:
    """PATCH /channels/{id}: name and topic of channels; name, archived and locked of threads."""
    found = visible_channel(peer, call)
    own_thread = found.is_thread and found.owner_id == peer.world.bot.id
    if not own_thread or "locked" in call.fields:
        refuse_unless(peer, found, "manage_threads" if found.is_thread else "manage_channels")
    faults = FormErrors()
    if "name" in call.fields:
        check_text(faults, ("name",), call.fields["name"], 100, required=True, low=1)
    check_text(faults, ("topic",), call.fields.get("topic"), 1024)
    faults.raise_if_any()
    found.name = call.fields.get("name") or found.name
    found.topic = call.fields.get("topic", found.topic)
    if found.is_thread:
        found.archived = bool(call.fields.get("archived", found.archived))
        found.locked = bool(call.fields.get("locked", found.locked))
    event = "THREAD_UPDATE" if found.is_thread else "CHANNEL_UPDATE"
    peer.gateway.channel_event(event, found)
    peer.changed()
    return 200, payloads.channel(found)


def delete_channel(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = visible_channel(peer, call)
    if found.type != DM:
        refuse_unless(peer, found, "manage_threads" if found.is_thread else "manage_channels")
        peer.delete_channel(found)
    return 200, payloads.channel(found)


def thread_from_message(peer: DiscordPeer, call: ApiRequest) -> Answer:
    """The thread gets the message's id, and a message has at most one."""
    parent = visible_channel(peer, call)
    message = peer.world.messages.get(call.id("message_id"))
    if message is None or message.deleted or message.channel is not parent:
        raise errors.unknown_message()
    if message.thread is not None:
        raise ApiError(400, 160004, "A thread has already been created for this message")
    thread = _new_thread(peer, parent, call.fields, message.id, PUBLIC_THREAD)
    message.thread = thread
    return 201, payloads.channel(thread)


def thread(peer: DiscordPeer, call: ApiRequest) -> Answer:
    kind = call.fields.get("type", PRIVATE_THREAD)
    parent = visible_channel(peer, call)
    return 201, payloads.channel(_new_thread(peer, parent, call.fields, snowflake(), kind))


def _new_thread(
    peer: DiscordPeer, parent: Channel, fields: dict[str, Any], thread_id: int, kind: int
) -> Channel:
    if parent.type != TEXT:
        raise ApiError(400, 50024, "Cannot execute action on this channel type")
    private = kind == PRIVATE_THREAD
    refuse_unless(peer, parent, "create_private_threads" if private else "create_public_threads")
    faults = FormErrors()
    check_text(faults, ("name",), fields.get("name"), 100, required=True, low=1)
    minutes = fields.get("auto_archive_duration") or 1440
    if minutes not in ARCHIVE_MINUTES:
        faults.not_one_of(("auto_archive_duration",), ARCHIVE_MINUTES)
    faults.raise_if_any()
    found = Channel(
        thread_id,
        fields["name"],
        type=kind,
        guild=parent.guild,
        parent=parent,
        owner_id=peer.world.bot.id,
        auto_archive_minutes=minutes,
    )
    peer.add_thread(found)
    return found


def join_thread(peer: DiscordPeer, call: ApiRequest) -> Answer:
    visible_channel(peer, call)
    return 204, None


def open_dm(peer: DiscordPeer, call: ApiRequest) -> Answer:
    faults = FormErrors()
    wanted = check_snowflake(faults, ("recipient_id",), call.fields.get("recipient_id"))
    faults.raise_if_any()
    found = peer.world.users.get(wanted or 0)
    if found is None or found.bot:
        raise ApiError(400, 50033, "Invalid Recipient(s)")
    return 200, payloads.channel(peer.world.dm_with(found))


ROUTES = [
    Route("GET", "/users/@me", own_user, "user.me"),
    Route("GET", "/users/@me/guilds", own_guilds, "user.guilds"),
    Route("POST", "/users/@me/channels", open_dm, "user.channels"),
    Route("GET", "/users/{user_id}", user, "user"),
    Route("GET", "/oauth2/applications/@me", application, "application"),
    Route("GET", "/applications/@me", application, "application"),
    Route("GET", "/gateway", gateway, "gateway", token_needed=False),
    Route("GET", "/gateway/bot", gateway_bot, "gateway.bot"),
    Route("GET", "/guilds/{guild_id}", guild, "guild"),
    Route("GET", "/guilds/{guild_id}/channels", guild_channels, "guild.channels"),
    Route("GET", "/guilds/{guild_id}/roles", guild_roles, "guild.roles"),
    Route("GET", "/guilds/{guild_id}/members/{user_id}", guild_member, "guild.member"),
    Route("GET", "/guilds/{guild_id}/threads/active", active_threads, "guild.threads"),
    Route("GET", "/channels/{channel_id}", channel, "channel"),
    Route("PATCH", "/channels/{channel_id}", edit_channel, "channel.edit"),
    Route("DELETE", "/channels/{channel_id}", delete_channel, "channel"),
    Route("POST", "/channels/{channel_id}/threads", thread, "thread.create"),
    Route(
        "POST",
        "/channels/{channel_id}/messages/{message_id}/threads",
        thread_from_message,
        "thread.create",
    ),
    Route("PUT", "/channels/{channel_id}/thread-members/@me", join_thread, "thread.member"),
]
