"""Application commands over REST, global and per guild.

From Discord's application command page: POST answers 201 for a new name and 200 for a known
one, PUT replaces the whole scope, PATCH keeps what it does not name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from .command_limits import check_command, check_set
from .commands import Command
from .errors import ApiError
from .rest import Answer, ApiRequest, Route

if TYPE_CHECKING:
    from .peer import DiscordPeer


def _scope(peer: DiscordPeer, call: ApiRequest) -> int | None:
    """The guild of the path or None; refuses other applications and unknown guilds."""
    if call.id("application_id") != peer.world.application_id:
        raise ApiError(403, 20012, "You are not authorized to perform this action")
    if "guild_id" not in call.params:
        return None
    guild_id = call.id("guild_id")
    if guild_id not in peer.world.guilds:
        raise errors.missing_access()
    return guild_id


def _one(peer: DiscordPeer, call: ApiRequest) -> Command:
    found = peer.commands.scopes.get(_scope(peer, call), {}).get(call.id("command_id"))
    if found is None:
        raise errors.unknown_command()
    return found


def listing(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = peer.commands.all(_scope(peer, call))
    if call.query.get("with_localizations", "").lower() not in ("1", "true"):
        hidden = ("name_localizations", "description_localizations")
        found = [{key: item[key] for key in item if key not in hidden} for item in found]
    return 200, found


def get(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, _one(peer, call)


def create(peer: DiscordPeer, call: ApiRequest) -> Answer:
    scope = _scope(peer, call)
    check_command(call.fields)
    command, new = peer.commands.put(scope, call.fields)
    peer.changed()
    return (201 if new else 200), command


def overwrite(peer: DiscordPeer, call: ApiRequest) -> Answer:
    scope = _scope(peer, call)
    check_set(call.body)
    commands = peer.commands.overwrite(scope, call.body)
    peer.stats.command_syncs += 1
    peer.changed()
    return 200, commands


def edit(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = _one(peer, call)
    after = {**found, **call.fields, "type": found["type"]}
    check_command(after)
    found.update({key: value for key, value in after.items() if key in found or key == "options"})
    peer.changed()
    return 200, found


def delete(peer: DiscordPeer, call: ApiRequest) -> Answer:
    found = _one(peer, call)
    del peer.commands.scopes[_scope(peer, call)][int(found["id"])]
    peer.changed()
    return 204, None


def _routes(prefix: str) -> list[Route]:
    return [
        Route("GET", prefix, listing, "commands.read"),
        Route("POST", prefix, create, "commands.write"),
        Route("PUT", prefix, overwrite, "commands.write"),
        Route("GET", prefix + "/{command_id}", get, "commands.read"),
        Route("PATCH", prefix + "/{command_id}", edit, "commands.write"),
        Route("DELETE", prefix + "/{command_id}", delete, "commands.write"),
    ]


ROUTES = _routes("/applications/{application_id}/commands") + _routes(
    "/applications/{application_id}/guilds/{guild_id}/commands"
)
