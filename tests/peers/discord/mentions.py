"""Who is pinged by a message.

Discord's "Allowed Mentions Object": only what stands in the content (or in the text displays
of a components-v2 message), never in embeds, never in code; `allowed_mentions` narrows it,
roles must be mentionable unless the author may mention everyone, and an edit pings nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import permissions
from .components import TEXT_DISPLAY, walk
from .world import COMPONENTS_V2, Channel, Pings

_CODE = re.compile(r"```.*?```|``.*?``|`[^`\n]+`", re.DOTALL)
_USER = re.compile(r"<@!?(\d{15,20})>")
_ROLE = re.compile(r"<@&(\d{15,20})>")
_EVERYONE = re.compile(r"@(everyone|here)")


@dataclass
class Found:
    """What the text mentions after `allowed_mentions`: shown as mentions and, if new, pinged."""

    users: list[int]
    roles: list[int]
    everyone: bool

    def pings(self, *, silent: bool) -> Pings:
        return Pings(set(self.users), set(self.roles), self.everyone, silent)


def text_of(content: str, flags: int, components: list[dict[str, Any]]) -> str:
    """The part of a message in which mentions count."""
    if not flags & COMPONENTS_V2:
        return content
    texts = [item.get("content", "") for item in walk(components)]
    return "\n".join(
        text
        for text, item in zip(texts, walk(components), strict=True)
        if item.get("type") == TEXT_DISPLAY
    )


def find(
    text: str,
    allowed: dict[str, Any] | None,
    *,
    channel: Channel,
    author_id: int,
    replied_user: int | None,
    users_only_by_default: bool,
) -> Found:
    """Mentions that count. Webhooks and interactions parse only users unless told otherwise."""
    default_parse = ["users"] if users_only_by_default else ["users", "roles", "everyone"]
    rules: dict[str, Any] = (
        {"parse": default_parse, "replied_user": True} if allowed is None else allowed
    )
    parse = set(rules.get("parse") or [])
    plain = _CODE.sub(" ", text)
    guild = channel.guild
    powerful = guild is None or permissions.has(channel, author_id, "mention_everyone")

    users = [int(item) for item in _USER.findall(plain)]
    if "users" not in parse:
        listed = {int(item) for item in rules.get("users") or []}
        users = [item for item in users if item in listed]
    if guild is not None:
        users = [item for item in users if item in guild.members]
    if replied_user is not None and rules.get("replied_user"):
        users.append(replied_user)

    roles: list[int] = []
    if guild is not None:
        roles = [int(item) for item in _ROLE.findall(plain) if int(item) in guild.roles]
        if "roles" not in parse:
            listed = {int(item) for item in rules.get("roles") or []}
            roles = [item for item in roles if item in listed]
        roles = [item for item in roles if guild.roles[item].mentionable or powerful]

    everyone = bool(_EVERYONE.search(plain)) and "everyone" in parse and powerful
    return Found(list(dict.fromkeys(users)), list(dict.fromkeys(roles)), everyone)
