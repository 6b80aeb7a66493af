"""The world as Discord writes it in JSON: snowflakes as strings, times in ISO 8601.

Fields follow the resource pages of the API reference for v10; what a bot of this kind never
looks at is present with Discord's neutral value where discord.py 2.7 requires the key.
"""

from __future__ import annotations

from typing import Any

from . import permissions
from .world import (
    DM,
    Channel,
    Guild,
    Member,
    Role,
    StoredAttachment,
    StoredMessage,
    User,
    World,
    iso,
)

Json = dict[str, Any]
ATTACHMENT_LIMIT_BYTES = 10 * 1024 * 1024


def user(entity: User) -> Json:
    return {
        "id": str(entity.id),
        "username": entity.name,
        "discriminator": "0000" if entity.bot else "0",
        "global_name": None if entity.bot else entity.name,
        "avatar": None,
        "banner": None,
        "accent_color": None,
        "avatar_decoration_data": None,
        "bot": entity.bot,
        "public_flags": 0,
    }


def own_user(entity: User) -> Json:
    return {
        **user(entity),
        "mfa_enabled": True,
        "verified": True,
        "email": None,
        "flags": 0,
        "locale": "en-US",
    }


def role(entity: Role) -> Json:
    found: Json = {
        "id": str(entity.id),
        "name": entity.name,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "position": entity.position,
        "permissions": str(entity.permissions),
        "managed": entity.managed,
        "mentionable": entity.mentionable,
        "flags": 0,
    }
    if entity.bot_id is not None:
        found["tags"] = {"bot_id": str(entity.bot_id)}
    return found


def member(entity: Member, *, with_user: bool = True) -> Json:
    found: Json = {
        "nick": None,
        "avatar": None,
        "banner": None,
        "roles": [str(role_id) for role_id in entity.role_ids],
        "joined_at": iso(entity.joined_at),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "flags": 0,
        "pending": False,
        "communication_disabled_until": None,
    }
    if with_user:
        found["user"] = user(entity.user)
    return found


def channel(entity: Channel) -> Json:
    found: Json = {"id": str(entity.id), "type": entity.type, "flags": 0}
    last = entity.messages[-1].id if entity.messages else None
    found["last_message_id"] = None if last is None else str(last)
    if entity.type == DM:
        assert entity.recipient is not None
        found["recipients"] = [user(entity.recipient)]
        return found
    assert entity.guild is not None
    found.update(
        guild_id=str(entity.guild.id),
        name=entity.name,
        rate_limit_per_user=0,
        parent_id=str(entity.parent.id) if entity.parent else None,
    )
    if entity.is_thread:
        found.update(_thread_fields(entity))
        return found
    found.update(
        position=entity.position,
        topic=entity.topic,
        nsfw=False,
        permission_overwrites=[
            {
                "id": str(target),
                "type": 0 if target in entity.guild.roles else 1,
                "allow": str(allow),
                "deny": str(deny),
            }
            for target, (allow, deny) in entity.overwrites.items()
        ],
    )
    return found


def _thread_fields(entity: Channel) -> Json:
    return {
        "owner_id": str(entity.owner_id),
        "message_count": len(entity.messages),
        "total_message_sent": len(entity.messages),
        "member_count": 1,
        "thread_metadata": {
            "archived": entity.archived,
            "auto_archive_duration": entity.auto_archive_minutes,
            "archive_timestamp": iso(entity.created_at),
            "create_timestamp": iso(entity.created_at),
            "locked": entity.locked,
        },
        "member": {
            "id": str(entity.id),
            "user_id": str(entity.owner_id),
            "join_timestamp": iso(entity.created_at),
            "flags": 1,
        },
    }


def partial_channel(entity: Channel, user_id: int) -> Json:
    """The channel of an interaction or of its resolved data, with the user's permissions."""
    allowed = permissions.channel_permissions(entity, user_id)
    return {**channel(entity), "permissions": str(allowed)}


def guild(entity: Guild) -> Json:
    """The guild of REST answers."""
    return {
        "id": str(entity.id),
        "name": entity.name,
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "owner_id": str(entity.owner_id),
        "afk_channel_id": None,
        "afk_timeout": 300,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "roles": [role(item) for item in entity.roles.values()],
        "emojis": [],
        "features": [],
        "mfa_level": 0,
        "application_id": None,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "vanity_url_code": None,
        "description": None,
        "banner": None,
        "premium_tier": 0,
        "premium_subscription_count": 0,
        "preferred_locale": entity.locale,
        "public_updates_channel_id": None,
        "nsfw_level": 0,
        "stickers": [],
        "premium_progress_bar_enabled": False,
    }


def guild_create(entity: Guild, members: list[Member]) -> Json:
    """GUILD_CREATE: with channels, threads and those members the intents allow."""
    plain = [item for item in entity.channels.values() if not item.is_thread]
    threads = [item for item in entity.channels.values() if item.is_thread and not item.archived]
    return {
        **guild(entity),
        "joined_at": iso(next(iter(entity.members.values())).joined_at),
        "large": member_count(entity) >= 250,
        "unavailable": False,
        "member_count": member_count(entity),
        "voice_states": [],
        "members": [member(item) for item in members],
        "channels": [channel(item) for item in plain],
        "threads": [channel(item) for item in threads],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def member_count(entity: Guild) -> int:
    return entity.member_count if entity.member_count is not None else len(entity.members)


def application(world: World) -> Json:
    return {
        "id": str(world.application_id),
        "name": world.bot.name,
        "icon": None,
        "description": "",
        "type": None,
        "bot": user(world.bot),
        "summary": "",
        "bot_public": True,
        "bot_require_code_grant": False,
        "verify_key": "0" * 64,
        "flags": 1 << 23,
        "hook": True,
        "redirect_uris": [],
        "interactions_endpoint_url": None,
        "role_connections_verification_url": None,
        "owner": user(world.application_owner),
        "approximate_guild_count": len(world.guilds),
        "approximate_user_install_count": 0,
        "rpc_origins": [],
        "team": None,
    }


def attachment(item: StoredAttachment, message: StoredMessage) -> Json:
    url = f"https://cdn.discordapp.com/attachments/{message.channel.id}/{item.id}/{item.filename}"
    found: Json = {
        "id": str(item.id),
        "filename": item.filename,
        "size": len(item.data),
        "url": url,
        "proxy_url": url.replace("cdn.discordapp.com", "media.discordapp.net"),
        "content_type": item.content_type,
    }
    if item.description is not None:
        found["description"] = item.description
    if message.ephemeral:
        found["ephemeral"] = True
    return found


def message(entity: StoredMessage, world: World) -> Json:
    """A message of REST answers; the gateway adds `guild_id` and `member`."""
    author = user(entity.author)
    if entity.username:
        author["username"] = entity.username
    found: Json = {
        "id": str(entity.id),
        "channel_id": str(entity.channel.id),
        "author": author,
        "content": entity.content,
        "timestamp": iso(entity.created_at),
        "edited_timestamp": iso(entity.edited_at) if entity.edited_at else None,
        "tts": entity.tts,
        "mention_everyone": entity.mention_everyone,
        "mentions": [user(world.users[i]) for i in entity.mention_users if i in world.users],
        "mention_roles": [str(role_id) for role_id in entity.mention_roles],
        "attachments": [attachment(item, entity) for item in entity.attachments],
        "embeds": [_with_cdn(embed, entity) for embed in entity.embeds],
        "components": entity.components,
        "pinned": False,
        "type": entity.type,
        "flags": entity.flags,
    }
    if entity.nonce is not None:
        found["nonce"] = entity.nonce
    if entity.webhook_id is not None:
        found["webhook_id"] = str(entity.webhook_id)
    if entity.application_id is not None:
        found["application_id"] = str(entity.application_id)
    if entity.interaction is not None:
        found["interaction_metadata"] = entity.interaction
        if entity.interaction.get("type") == 2:
            found["interaction"] = {
                "id": entity.interaction["id"],
                "type": 2,
                "name": entity.interaction["name"],
                "user": entity.interaction["user"],
            }
    if entity.reply_to is not None:
        found.update(_reference(entity, world))
    if entity.thread is not None:
        found["thread"] = channel(entity.thread)
    return found


def _reference(entity: StoredMessage, world: World) -> Json:
    assert entity.reply_to is not None
    reference: Json = {
        "type": 0,
        "channel_id": str(entity.channel.id),
        "message_id": str(entity.reply_to),
    }
    if entity.channel.guild is not None:
        reference["guild_id"] = str(entity.channel.guild.id)
    original = world.messages.get(entity.reply_to)
    found: Json = {"message_reference": reference, "referenced_message": None}
    if original is not None and not original.deleted:
        shown = message(original, world)
        shown.pop("referenced_message", None)
        found["referenced_message"] = shown
    return found


def _with_cdn(embed: Json, entity: StoredMessage) -> Json:
    """An embed with `attachment://name` turned into the address Discord would serve it from."""
    found = {"type": "rich", **embed}
    for key in ("image", "thumbnail"):
        media = found.get(key)
        if isinstance(media, dict) and str(media.get("url", "")).startswith("attachment://"):
            name = media["url"].removeprefix("attachment://")
            for item in entity.attachments:
                if item.filename == name:
                    found[key] = {**media, "url": attachment(item, entity)["url"]}
    return found


def gateway_message(entity: StoredMessage, world: World, *, content_visible: bool) -> Json:
    """MESSAGE_CREATE and MESSAGE_UPDATE; without the Message Content intent, much is blank."""
    found = message(entity, world)
    home = entity.channel.guild
    if home is not None:
        found["guild_id"] = str(home.id)
        author = home.members.get(entity.author.id)
        if author is not None and entity.webhook_id is None:
            found["member"] = member(author, with_user=False)
    if not content_visible:
        found.update(content="", embeds=[], attachments=[], components=[])
    return found
