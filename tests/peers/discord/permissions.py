"""Permission bits and how Discord adds them up.

Bits and the order of overwrites follow Discord's "Permissions" page: @everyone, roles,
then in a channel the overwrites of @everyone, of roles together, of the member. Owner and
administrators have everything; without View Channel nothing in the channel is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import Channel, Guild

BITS: dict[str, int] = {
    "create_instant_invite": 1 << 0,
    "kick_members": 1 << 1,
    "ban_members": 1 << 2,
    "administrator": 1 << 3,
    "manage_channels": 1 << 4,
    "manage_guild": 1 << 5,
    "add_reactions": 1 << 6,
    "view_audit_log": 1 << 7,
    "view_channel": 1 << 10,
    "send_messages": 1 << 11,
    "send_tts_messages": 1 << 12,
    "manage_messages": 1 << 13,
    "embed_links": 1 << 14,
    "attach_files": 1 << 15,
    "read_message_history": 1 << 16,
    "mention_everyone": 1 << 17,
    "external_emojis": 1 << 18,
    "connect": 1 << 20,
    "speak": 1 << 21,
    "change_nickname": 1 << 26,
    "manage_nicknames": 1 << 27,
    "manage_roles": 1 << 28,
    "manage_webhooks": 1 << 29,
    "use_application_commands": 1 << 31,
    "manage_threads": 1 << 34,
    "create_public_threads": 1 << 35,
    "create_private_threads": 1 << 36,
    "send_messages_in_threads": 1 << 38,
    "moderate_members": 1 << 40,
}
ALIASES = {"read_messages": "view_channel", "use_external_emojis": "external_emojis"}
ALL = (1 << 53) - 1

PermissionsLike = int | str | Iterable[str]


def bits(names: PermissionsLike) -> int:
    """Names as in discord.py (or a ready number) as one bit set; unknown names raise KeyError."""
    if isinstance(names, int):
        return names
    if isinstance(names, str):
        names = [names]
    total = 0
    for name in names:
        total |= BITS[ALIASES.get(name, name)]
    return total


EVERYONE_DEFAULT = bits(
    [
        "view_channel",
        "send_messages",
        "read_message_history",
        "add_reactions",
        "external_emojis",
        "change_nickname",
        "use_application_commands",
    ]
)
"""Less than a new server gives @everyone, so that what the bot needs must come from its role."""

BOT_DEFAULT = bits(
    [
        "view_channel",
        "send_messages",
        "embed_links",
        "attach_files",
        "read_message_history",
        "create_public_threads",
        "send_messages_in_threads",
    ]
)

IN_DIRECT_MESSAGES = bits(
    [
        "view_channel",
        "send_messages",
        "embed_links",
        "attach_files",
        "read_message_history",
        "mention_everyone",
        "external_emojis",
    ]
)


def guild_permissions(guild: Guild, user_id: int) -> int:
    """What a member may do, without any channel's overwrites; 0 for a stranger."""
    member = guild.members.get(user_id)
    if member is None:
        return 0
    if guild.owner_id == user_id:
        return ALL
    total = guild.roles[guild.id].permissions
    for role_id in member.role_ids:
        total |= guild.roles[role_id].permissions
    return ALL if total & BITS["administrator"] else total


def channel_permissions(channel: Channel, user_id: int) -> int:
    """What a member may do in a channel; a thread asks its parent; a DM allows talking."""
    guild = channel.guild
    if guild is None:
        return IN_DIRECT_MESSAGES
    base = guild_permissions(guild, user_id)
    if base == ALL or user_id not in guild.members:
        return base
    overwrites = (channel.parent or channel).overwrites
    base = _apply(base, [overwrites.get(guild.id)])
    base = _apply(base, [overwrites.get(role) for role in guild.members[user_id].role_ids])
    base = _apply(base, [overwrites.get(user_id)])
    return base if base & BITS["view_channel"] else 0


def _apply(base: int, overwrites: list[tuple[int, int] | None]) -> int:
    allow = deny = 0
    for overwrite in overwrites:
        if overwrite is not None:
            allow |= overwrite[0]
            deny |= overwrite[1]
    return (base & ~deny) | allow


def has(channel: Channel, user_id: int, *names: str) -> bool:
    """Whether the member has all of the named permissions in the channel."""
    wanted = bits(names)
    return channel_permissions(channel, user_id) & wanted == wanted
