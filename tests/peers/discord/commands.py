"""Registered application commands, and how a person's input becomes an interaction's data.

Registering follows Discord's application command page (a name is unique per type and scope,
a bulk overwrite keeps the ids of what it still names); invoking follows "Application Command
Data Structure": nested options for groups, `resolved` for users, roles and channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import payloads, permissions
from .command_limits import (
    ATTACHMENT,
    BOOLEAN,
    CHANNEL,
    CHAT_INPUT,
    INTEGER,
    MENTIONABLE,
    NUMBER,
    ROLE,
    STRING,
    SUB_COMMAND,
    SUB_COMMAND_GROUP,
    USER,
    USER_COMMAND,
)
from .world import Channel, Guild, Role, StoredMessage, User, World, snowflake

Command = dict[str, Any]


class NotRegistered(LookupError):
    """The command, or that path of it, is not registered with Discord."""


class BadOptions(ValueError):
    """Discord's client would not have let a person send these options."""


class CommandStore:
    """Commands per scope: a guild's id, or None for global ones."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.scopes: dict[int | None, dict[int, Command]] = {}

    def all(self, guild_id: int | None) -> list[Command]:
        return list(self.scopes.get(guild_id, {}).values())

    def put(self, guild_id: int | None, body: Command) -> tuple[Command, bool]:
        """Create or replace by name and type; tells whether it is new."""
        scope = self.scopes.setdefault(guild_id, {})
        kind = body.get("type", CHAT_INPUT)
        known = next(
            (old for old in scope.values() if old["name"] == body["name"] and old["type"] == kind),
            None,
        )
        command_id = int(known["id"]) if known else snowflake()
        scope[command_id] = self._complete(command_id, guild_id, body)
        return scope[command_id], known is None

    def overwrite(self, guild_id: int | None, bodies: list[Command]) -> list[Command]:
        """Replace the whole scope."""
        kept = [self.put(guild_id, body)[0] for body in bodies]
        self.scopes[guild_id] = {int(command["id"]): command for command in kept}
        return kept

    def _complete(self, command_id: int, guild_id: int | None, body: Command) -> Command:
        wanted = body.get("default_member_permissions")
        found: Command = {
            "id": str(command_id),
            "application_id": str(self._world.application_id),
            "version": str(snowflake()),
            "default_member_permissions": None if wanted is None else str(wanted),
            "type": body.get("type", CHAT_INPUT),
            "name": body["name"],
            "name_localizations": body.get("name_localizations"),
            "description": body.get("description") or "",
            "description_localizations": body.get("description_localizations"),
            "dm_permission": body.get("dm_permission") is not False,
            "contexts": body.get("contexts"),
            "integration_types": body.get("integration_types") or [0],
            "nsfw": bool(body.get("nsfw")),
        }
        if body.get("options"):
            found["options"] = body["options"]
        if guild_id is not None:
            found["guild_id"] = str(guild_id)
        return found

    def find(self, guild: Guild | None, name: str, kind: int) -> Command:
        """The command a person in that place would get; guild commands come first."""
        scopes: list[int | None] = [None] if guild is None else [guild.id, None]
        for scope in scopes:
            for command in self.all(scope):
                if command["name"] == name and command["type"] == kind:
                    return command
        known = sorted({c["name"] for scope in self.scopes for c in self.all(scope)})
        raise NotRegistered(f"no command {name!r} of type {kind}; registered: {known}")


@dataclass
class Invocation:
    """`data` of an interaction, ready to send."""

    command: Command
    data: dict[str, Any]
    path: str


@dataclass
class Resolver:
    """Collects `resolved` while ids are put in place of entities."""

    world: World
    guild: Guild | None
    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, entity_id: int, shown: dict[str, Any]) -> str:
        self.resolved.setdefault(kind, {})[str(entity_id)] = shown
        return str(entity_id)

    def user(self, value: Any) -> str:
        user = value if isinstance(value, User) else self.world.users.get(_as_id(value))
        if user is None:
            raise BadOptions(f"no such user: {value!r}")
        if self.guild is not None and user.id in self.guild.members:
            member = self.guild.members[user.id]
            shown = payloads.member(member, with_user=False)
            shown.pop("deaf"), shown.pop("mute")
            shown["permissions"] = str(permissions.guild_permissions(self.guild, user.id))
            self.add("members", user.id, shown)
        return self.add("users", user.id, payloads.user(user))

    def role(self, value: Any) -> str:
        roles = self.guild.roles if self.guild else {}
        role = value if isinstance(value, Role) else roles.get(_as_id(value))
        if role is None or role.id not in roles:
            raise BadOptions(f"no such role here: {value!r}")
        return self.add("roles", role.id, payloads.role(role))

    def any(self, select_type: int, value: Any, user_id: int) -> str:
        """What a user (5), role (6), mentionable (7) or channel (8) select picked."""
        if select_type == 6 or (select_type == 7 and isinstance(value, Role)):
            return self.role(value)
        if select_type == 8:
            return self.channel(value, {}, user_id)
        return self.user(value)

    def channel(self, value: Any, option: dict[str, Any], user_id: int) -> str:
        channels = self.guild.channels if self.guild else {}
        channel = value if isinstance(value, Channel) else channels.get(_as_id(value))
        if channel is None or channel.id not in channels:
            raise BadOptions(f"no such channel here: {value!r}")
        types = option.get("channel_types")
        if types and channel.type not in types:
            raise BadOptions(f"{option['name']}: channel type {channel.type} is not in {types}")
        return self.add("channels", channel.id, payloads.partial_channel(channel, user_id))


def _as_id(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1


def invoke(
    store: CommandStore,
    world: World,
    guild: Guild | None,
    user: User,
    name: str,
    given: dict[str, Any],
    *,
    focused: str | None = None,
) -> Invocation:
    """Turn "alerts rules add" and its options into data; `focused` is for autocomplete."""
    first, *rest = name.split()
    command = store.find(guild, first, CHAT_INPUT)
    resolver = Resolver(world, guild)
    level = command.get("options") or []
    path: list[dict[str, Any]] = []
    for word in rest:
        step = next((item for item in level if item["name"] == word), None)
        if step is None or step["type"] not in (SUB_COMMAND, SUB_COMMAND_GROUP):
            raise NotRegistered(f"/{name}: {word!r} is no subcommand; known: {_names(level)}")
        path.append(step)
        level = step.get("options") or []
    if any(item["type"] in (SUB_COMMAND, SUB_COMMAND_GROUP) for item in level):
        raise NotRegistered(f"/{name} needs a subcommand of {_names(level)}")
    unknown = set(given) - {item["name"] for item in level}
    if unknown:
        raise BadOptions(f"/{name} has no options {sorted(unknown)}; known: {_names(level)}")
    options = []
    for item in level:
        if item["name"] == focused:
            typed = str(given.get(item["name"], ""))
            options.append(
                {"name": item["name"], "type": item["type"], "value": typed, "focused": True}
            )
        elif item["name"] in given:
            value = _value(resolver, item, given[item["name"]], user.id, checked=focused is None)
            options.append({"name": item["name"], "type": item["type"], "value": value})
        elif item.get("required") and focused is None:
            raise BadOptions(f"/{name}: the required option {item['name']!r} is missing")
    for step in reversed(path):
        options = [{"name": step["name"], "type": step["type"], "options": options}]
    data: dict[str, Any] = {"id": command["id"], "name": first, "type": CHAT_INPUT}
    if options:
        data["options"] = options
    if resolver.resolved and focused is None:
        data["resolved"] = resolver.resolved
    if "guild_id" in command:
        data["guild_id"] = command["guild_id"]
    return Invocation(command, data, name)


def invoke_menu(
    store: CommandStore,
    world: World,
    guild: Guild | None,
    name: str,
    target: User | StoredMessage,
) -> Invocation:
    """A context menu command on a user or a message."""
    kind = USER_COMMAND if isinstance(target, User) else 3
    command = store.find(guild, name, kind)
    resolver = Resolver(world, guild)
    if isinstance(target, User):
        resolver.user(target)
    else:
        resolver.add("messages", target.id, payloads.message(target, world))
    data = {
        "id": command["id"],
        "name": name,
        "type": kind,
        "target_id": str(target.id),
        "resolved": resolver.resolved,
    }
    return Invocation(command, data, name)


def focused_option(store: CommandStore, guild: Guild | None, name: str, option: str) -> int:
    """The type of an option that offers autocomplete; raises if it does not."""
    first, *rest = name.split()
    level = store.find(guild, first, CHAT_INPUT).get("options") or []
    for word in rest:
        step = next((item for item in level if item["name"] == word), None)
        if step is None:
            raise NotRegistered(f"/{name}: {word!r} is no subcommand; known: {_names(level)}")
        level = step.get("options") or []
    for item in level:
        if item["name"] == option:
            if not item.get("autocomplete"):
                raise BadOptions(f"/{name}: option {option!r} has no autocomplete")
            return int(item["type"])
    raise BadOptions(f"/{name} has no option {option!r}; known: {_names(level)}")


def _names(level: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in level]


def _value(
    resolver: Resolver, option: dict[str, Any], value: Any, user_id: int, *, checked: bool
) -> Any:
    kind, name = option["type"], option["name"]
    if kind == USER:
        return resolver.user(value)
    if kind == ROLE:
        return resolver.role(value)
    if kind == CHANNEL:
        return resolver.channel(value, option, user_id)
    if kind == MENTIONABLE:
        return resolver.role(value) if isinstance(value, Role) else resolver.user(value)
    if kind == ATTACHMENT:
        raise BadOptions(f"{name}: attachments are not modelled")
    fits = {
        STRING: isinstance(value, str),
        INTEGER: isinstance(value, int) and not isinstance(value, bool),
        BOOLEAN: isinstance(value, bool),
        NUMBER: isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if not fits[kind]:
        raise BadOptions(f"{name}: {value!r} does not fit option type {kind}")
    if not checked:
        return value
    choices = option.get("choices")
    if choices and value not in [choice["value"] for choice in choices]:
        raise BadOptions(f"{name}: {value!r} is none of {[c['value'] for c in choices]}")
    if kind == STRING:
        low, high, size = option.get("min_length"), option.get("max_length"), len(value)
        if not value:
            raise BadOptions(f"{name}: Discord sends no empty strings")
    else:
        low, high, size = option.get("min_value"), option.get("max_value"), value
    if (low is not None and size < low) or (high is not None and size > high):
        raise BadOptions(f"{name}: {value!r} is outside {low}..{high}")
    return value


def refuse_forbidden(command: Command, guild: Guild | None, user: User) -> None:
    """Raise PermissionError where Discord would not show the command to this person."""
    contexts = command.get("contexts")
    if guild is None:
        in_dm = command["dm_permission"] if contexts is None else 1 in contexts
        if not in_dm or "guild_id" in command:
            raise PermissionError(f"/{command['name']} is not offered in direct messages")
        return
    if contexts is not None and 0 not in contexts:
        raise PermissionError(f"/{command['name']} is not offered in servers")
    wanted = command.get("default_member_permissions")
    held = permissions.guild_permissions(guild, user.id)
    if wanted is None or held == permissions.ALL:
        return
    if int(wanted) == 0 or held & int(wanted) != int(wanted):
        raise PermissionError(
            f"/{command['name']} needs permissions {wanted}; {user.name} has {held}"
        )
