"""The things Discord keeps: users, guilds, roles, channels, messages, webhooks.

Nothing here knows of HTTP or the gateway. Ids are snowflakes: milliseconds since 2015-01-01
in the upper bits, so that they sort by age ("Snowflakes" in the API reference).
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import permissions
from .permissions import PermissionsLike

DISCORD_EPOCH_MS = 1_420_070_400_000
TEXT, DM, PUBLIC_THREAD, PRIVATE_THREAD = 0, 1, 11, 12
EPHEMERAL, LOADING, SUPPRESS_NOTIFICATIONS, COMPONENTS_V2 = 64, 128, 4096, 32768

_counter = itertools.count()


def snowflake() -> int:
    """A new id, larger than every earlier one of this process."""
    now_ms = int(time.time() * 1000) - DISCORD_EPOCH_MS
    step = next(_counter)
    return ((now_ms + (step >> 22)) << 22) | (step & 0x3FFFFF)


def utcnow() -> datetime:
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """The way Discord writes times."""
    return moment.isoformat(timespec="microseconds")


@dataclass(eq=False)
class User:
    """An account. `accepts_dms=False` makes Discord answer 50007 to a direct message."""

    id: int
    name: str
    bot: bool = False
    locale: str = "en-US"
    accepts_dms: bool = True

    @property
    def mention(self) -> str:
        return f"<@{self.id}>"


@dataclass(eq=False)
class Role:
    id: int
    name: str
    permissions: int = 0
    mentionable: bool = False
    managed: bool = False
    position: int = 0
    bot_id: int | None = None

    @property
    def mention(self) -> str:
        return f"<@&{self.id}>"


@dataclass(eq=False)
class Member:
    user: User
    role_ids: list[int] = field(default_factory=list)
    joined_at: datetime = field(default_factory=utcnow)


@dataclass(eq=False, repr=False)
class Channel:
    """A text channel, a thread or a DM. `overwrites` maps role or user id to (allow, deny)."""

    id: int
    name: str
    type: int = TEXT
    guild: Guild | None = None
    parent: Channel | None = None
    owner_id: int | None = None
    recipient: User | None = None
    topic: str | None = None
    position: int = 0
    overwrites: dict[int, tuple[int, int]] = field(default_factory=dict)
    archived: bool = False
    locked: bool = False
    auto_archive_minutes: int = 1440
    created_at: datetime = field(default_factory=utcnow)
    messages: list[StoredMessage] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Channel #{self.name} {self.id} with {len(self.messages)} messages>"

    @property
    def mention(self) -> str:
        return f"<#{self.id}>"

    @property
    def is_thread(self) -> bool:
        return self.type in (PUBLIC_THREAD, PRIVATE_THREAD)


@dataclass(eq=False, repr=False)
class Guild:
    """A server. `peer` is set by the peer, so that changes made here reach the bot."""

    id: int
    name: str
    owner_id: int
    locale: str = "en-US"
    member_count: int | None = None
    roles: dict[int, Role] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    unavailable: bool = False
    peer: Any = None

    def __repr__(self) -> str:
        return f"<Guild {self.name!r} {self.id}>"

    @property
    def owner(self) -> User:
        return self.members[self.owner_id].user

    def add_channel(
        self,
        name: str,
        *,
        topic: str | None = None,
        overwrites: dict[int, tuple[PermissionsLike, PermissionsLike]] | None = None,
    ) -> Channel:
        """A new text channel; a connected bot receives CHANNEL_CREATE."""
        found = {
            target: (permissions.bits(allow), permissions.bits(deny))
            for target, (allow, deny) in (overwrites or {}).items()
        }
        channel = Channel(
            snowflake(),
            name,
            guild=self,
            topic=topic,
            position=len(self.channels),
            overwrites=found,
        )
        self.channels[channel.id] = channel
        if self.peer is not None:
            self.peer.channel_added(channel)
        return channel

    def add_role(
        self, name: str, *, permissions: PermissionsLike = 0, mentionable: bool = False
    ) -> Role:
        role = Role(snowflake(), name, _bits(permissions), mentionable, position=len(self.roles))
        self.roles[role.id] = role
        if self.peer is not None:
            self.peer.role_added(self, role)
        return role

    def add_user(
        self,
        name: str,
        *,
        permissions: PermissionsLike = (),
        roles: Iterable[Role] = (),
        locale: str | None = None,
        user: User | None = None,
    ) -> User:
        """A member with a role of its own for `permissions`; `user` lets one account join twice."""
        user = user or User(snowflake(), name, locale=locale or self.locale)
        member = Member(user, [role.id for role in roles])
        wanted = _bits(permissions)
        if wanted:
            member.role_ids.append(self.add_role(f"{name}'s role", permissions=wanted).id)
        self.members[user.id] = member
        if self.peer is not None:
            self.peer.member_added(self, member)
        return user


_bits = permissions.bits


@dataclass
class Pings:
    """Who would have been notified by a message; empty sets and False mean nobody."""

    users: set[int] = field(default_factory=set)
    roles: set[int] = field(default_factory=set)
    everyone: bool = False
    silent: bool = False

    def __bool__(self) -> bool:
        return bool(self.users or self.roles or self.everyone)


@dataclass
class StoredAttachment:
    id: int
    filename: str
    data: bytes
    description: str | None = None
    content_type: str = "application/octet-stream"


@dataclass(eq=False, repr=False)
class StoredMessage:
    """A message as it stands; `edits` holds (time, what it was made into) for each edit.

    `dropped_embeds` are those Discord would have taken away for want of Embed Links.
    """

    id: int
    channel: Channel
    author: User
    content: str = ""
    embeds: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[StoredAttachment] = field(default_factory=list)
    flags: int = 0
    type: int = 0
    nonce: str | int | None = None
    reply_to: int | None = None
    tts: bool = False
    webhook_id: int | None = None
    application_id: int | None = None
    username: str | None = None
    interaction: dict[str, Any] | None = None
    interaction_user: User | None = None
    mention_users: list[int] = field(default_factory=list)
    mention_roles: list[int] = field(default_factory=list)
    mention_everyone: bool = False
    pings: Pings = field(default_factory=Pings)
    allowed_mentions: dict[str, Any] | None = None
    created_at: datetime = field(default_factory=utcnow)
    edited_at: datetime | None = None
    edits: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    dropped_embeds: list[dict[str, Any]] = field(default_factory=list)
    thread: Channel | None = None
    deleted: bool = False

    def __repr__(self) -> str:
        state = " deleted" if self.deleted else ""
        return f"<StoredMessage {self.id}{state} {self.text!r} with {len(self.edits)} edits>"

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """Whether it is still "thinking…" after a deferred response."""
        return bool(self.flags & LOADING)

    @property
    def files(self) -> dict[str, bytes]:
        return {item.filename: item.data for item in self.attachments}

    @property
    def text(self) -> str:
        """Everything a person could read: content, embeds, text displays, labels."""
        return "\n".join(_strings(self.content, self.embeds, self.components))

    def snapshot(self) -> dict[str, Any]:
        """What the message shows now."""
        return {
            "content": self.content,
            "embeds": [dict(embed) for embed in self.embeds],
            "components": [dict(row) for row in self.components],
            "attachments": [item.filename for item in self.attachments],
            "flags": self.flags,
        }


_READABLE = frozenset(
    ["title", "description", "name", "value", "text", "content", "label", "placeholder"]
)


def _strings(*parts: Any) -> Iterable[str]:
    for part in parts:
        if isinstance(part, str):
            if part:
                yield part
        elif isinstance(part, list):
            yield from _strings(*part)
        elif isinstance(part, dict):
            for key, value in part.items():
                if isinstance(value, (dict, list)) or key in _READABLE:
                    yield from _strings(value)


@dataclass(eq=False)
class Webhook:
    """A channel webhook made by a person; `url` is what one would copy from Discord."""

    id: int
    token: str
    channel: Channel
    name: str
    url: str = ""


class World:
    """Everything that exists, by id."""

    def __init__(self, bot_name: str, application_id: int | None = None) -> None:
        self.bot = User(application_id or snowflake(), bot_name, bot=True)
        self.application_owner = User(snowflake(), "application-owner")
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.messages: dict[int, StoredMessage] = {}
        self.webhooks: dict[int, Webhook] = {}
        self.users: dict[int, User] = {
            self.bot.id: self.bot,
            self.application_owner.id: self.application_owner,
        }
        self.dms: dict[int, Channel] = {}

    @property
    def application_id(self) -> int:
        return self.bot.id

    def make_guild(
        self,
        name: str,
        *,
        locale: str,
        member_count: int | None,
        bot_permissions: PermissionsLike,
        everyone: PermissionsLike,
    ) -> Guild:
        """A guild with an owner and the bot in it, the bot with a managed role of its own."""
        guild_id = snowflake()
        owner = User(snowflake(), f"{name}-owner", locale=locale)
        guild = Guild(guild_id, name, owner.id, locale, member_count)
        guild.roles[guild_id] = Role(guild_id, "@everyone", _bits(everyone))
        bot_role = Role(
            snowflake(),
            self.bot.name,
            _bits(bot_permissions),
            managed=True,
            position=1,
            bot_id=self.bot.id,
        )
        guild.roles[bot_role.id] = bot_role
        guild.members[owner.id] = Member(owner)
        guild.members[self.bot.id] = Member(self.bot, [bot_role.id])
        self.users[owner.id] = owner
        self.guilds[guild_id] = guild
        return guild

    def dm_with(self, user: User) -> Channel:
        """The one DM channel with a user, made on first use."""
        if user.id not in self.dms:
            channel = Channel(snowflake(), user.name, type=DM, recipient=user)
            self.dms[user.id] = channel
            self.channels[channel.id] = channel
        return self.dms[user.id]

    def make_webhook(self, channel: Channel, name: str) -> Webhook:
        hook = Webhook(snowflake(), secrets.token_urlsafe(51), channel, name)
        self.webhooks[hook.id] = hook
        return hook
