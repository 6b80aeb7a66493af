"""Webhooks: those people make in a channel, and those every interaction brings with it.

From Discord's webhook resource: executing answers 204 unless `wait`, an unknown webhook is
10015, a wrong token 50027; only users are pinged by default; a channel webhook sends no
interactive components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors, payloads, rest_interactions
from .errors import FormErrors
from .limits import check_text, check_url
from .rest import Answer, ApiRequest, Route
from .world import StoredMessage, User, Webhook

if TYPE_CHECKING:
    from .peer import DiscordPeer


def _webhook(peer: DiscordPeer, call: ApiRequest) -> Webhook:
    hook = peer.world.webhooks.get(call.id("webhook_id"))
    if hook is None or hook.channel.id not in peer.world.channels:
        raise errors.unknown_webhook()
    if hook.token != call.params["token"]:
        raise errors.invalid_webhook_token()
    return hook


def _is_interaction(peer: DiscordPeer, call: ApiRequest) -> bool:
    return call.id("webhook_id") == peer.world.application_id


def _shown(hook: Webhook) -> dict[str, Any]:
    assert hook.channel.guild is not None
    return {
        "id": str(hook.id),
        "type": 1,
        "name": hook.name,
        "avatar": None,
        "channel_id": str(hook.channel.id),
        "guild_id": str(hook.channel.guild.id),
        "application_id": None,
        "token": hook.token,
    }


def get(peer: DiscordPeer, call: ApiRequest) -> Answer:
    return 200, _shown(_webhook(peer, call))


def execute(peer: DiscordPeer, call: ApiRequest) -> Answer:
    """POST /webhooks/{id}/{token}"""
    if _is_interaction(peer, call):
        result = rest_interactions.alive(peer, call.params["token"])
        return rest_interactions.followup(peer, call, result)
    hook = _webhook(peer, call)
    body = dict(call.fields)
    faults = FormErrors()
    check_text(faults, ("username",), body.get("username"), 80, low=1)
    check_url(faults, ("avatar_url",), body.get("avatar_url"))
    faults.raise_if_any()
    body.pop("components", None)
    channel = hook.channel
    if "thread_id" in call.query:
        found = peer.world.channels.get(int(call.query["thread_id"]))
        if found is None or found.parent is not channel:
            raise errors.unknown_channel()
        channel = found
    message = peer.message_store.create(
        channel,
        peer.world.users.setdefault(hook.id, User(hook.id, hook.name, bot=True)),
        body,
        call.files,
        users_only=True,
        webhook_id=hook.id,
        username=body.get("username"),
    )
    if call.query.get("wait", "").lower() in ("1", "true"):
        return 200, payloads.message(message, peer.world)
    return 204, None


def _message(peer: DiscordPeer, hook: Webhook, name: str) -> StoredMessage:
    message = peer.world.messages.get(int(name)) if name.isdecimal() else None
    if message is None or message.deleted or message.webhook_id != hook.id:
        raise errors.unknown_message()
    return message


def get_message(peer: DiscordPeer, call: ApiRequest) -> Answer:
    name = call.params["message"]
    if _is_interaction(peer, call):
        result = rest_interactions.alive(peer, call.params["token"])
        message = rest_interactions.message_of(peer, result, name)
    else:
        message = _message(peer, _webhook(peer, call), name)
    return 200, payloads.message(message, peer.world)


def edit_message(peer: DiscordPeer, call: ApiRequest) -> Answer:
    name = call.params["message"]
    if _is_interaction(peer, call):
        result = rest_interactions.alive(peer, call.params["token"])
        message = rest_interactions.message_of(peer, result, name)
        return rest_interactions.edit(peer, call, result, message)
    message = _message(peer, _webhook(peer, call), name)
    body = {key: value for key, value in call.fields.items() if key != "components"}
    peer.message_store.edit(message, body, call.files, users_only=True)
    return 200, payloads.message(message, peer.world)


def delete_message(peer: DiscordPeer, call: ApiRequest) -> Answer:
    name = call.params["message"]
    if _is_interaction(peer, call):
        result = rest_interactions.alive(peer, call.params["token"])
        message = rest_interactions.message_of(peer, result, name)
    else:
        message = _message(peer, _webhook(peer, call), name)
    peer.message_store.delete(message)
    return 204, None


def _route(method: str, template: str, handler: Any) -> Route:
    return Route(method, template, handler, "webhook", token_needed=False, counts_globally=False)


ROUTES = [
    _route("GET", "/webhooks/{webhook_id}/{token}", get),
    _route("POST", "/webhooks/{webhook_id}/{token}", execute),
    _route("GET", "/webhooks/{webhook_id}/{token}/messages/{message}", get_message),
    _route("PATCH", "/webhooks/{webhook_id}/{token}/messages/{message}", edit_message),
    _route("DELETE", "/webhooks/{webhook_id}/{token}/messages/{message}", delete_message),
]
