"""Answers to interactions: the callback, @original and follow-ups.

From Discord's "Receiving and Responding"; these routes carry the interaction's token instead
of the bot's and do not count towards the bot's global rate limit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import errors, payloads
from .command_limits import check_choice
from .components import check_modal
from .errors import ApiError, FormErrors
from .interactions import AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT, InteractionResult
from .messages import INTERACTION_FLAGS, REPLY
from .rest import Answer, ApiRequest, Route
from .world import EPHEMERAL, LOADING, StoredMessage, snowflake

if TYPE_CHECKING:
    from .peer import DiscordPeer

PONG, MESSAGE, DEFERRED_MESSAGE, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 1, 4, 5, 6, 7, 8, 9
SLASH_REPLY = 20


def callback(peer: DiscordPeer, call: ApiRequest) -> Answer:
    """POST /interactions/{id}/{token}/callback"""
    result = peer.interactions.find(call.id("interaction_id"), call.params["token"])
    if result is None:
        raise errors.unknown_interaction()
    waited_s = time.monotonic() - result.sent_at
    try:
        if result.answered:
            raise errors.already_acknowledged()
        if waited_s > peer.interactions.first_response_s:
            result.timed_out = True
            raise errors.unknown_interaction()
        kind = _checked_kind(result, call.fields.get("type"))
        data = call.fields.get("data") or {}
        _respond(peer, result, kind, data, call)
    except ApiError as error:
        result.refusals.append(error)
        raise
    result.response_type = kind
    result.responded_after_s = waited_s
    peer.changed()
    if call.query.get("with_response") in ("1", "true", "True"):
        return 200, _callback_answer(peer, result, kind)
    return 204, None


def _checked_kind(result: InteractionResult, kind: Any) -> int:
    """The callback type, if it fits what is being answered."""
    allowed: tuple[int, ...] = (MESSAGE, DEFERRED_MESSAGE, MODAL)
    if result.type == AUTOCOMPLETE:
        allowed = (CHOICES,)
    elif result.type == COMPONENT:
        allowed = (MESSAGE, DEFERRED_MESSAGE, DEFERRED_UPDATE, UPDATE, MODAL)
    elif result.type == MODAL_SUBMIT:
        allowed = (MESSAGE, DEFERRED_MESSAGE)
        if result.source is not None:
            allowed += (DEFERRED_UPDATE, UPDATE)
    if kind not in allowed:
        raise errors.invalid_form(
            ("type",), "BASE_TYPE_CHOICES", f"Value must be one of {allowed}."
        )
    return int(kind)


def _respond(
    peer: DiscordPeer, result: InteractionResult, kind: int, data: Any, call: ApiRequest
) -> None:
    if kind == CHOICES:
        result.choices = _checked_choices(result, data)
    elif kind == MODAL:
        check_modal(data)
        result.modal = data
    elif kind in (UPDATE, DEFERRED_UPDATE):
        assert result.source is not None
        if result.source.deleted:
            raise errors.unknown_message()
        result.message = result.source
        result.deferred = kind == DEFERRED_UPDATE
        if kind == UPDATE:
            peer.message_store.edit(
                result.source, data, call.files, prefix=("data",), users_only=True
            )
    elif kind == DEFERRED_MESSAGE:
        flags = (data.get("flags") or 0) & EPHEMERAL | LOADING
        result.deferred = True
        result.message = StoredMessage(
            snowflake(), result.channel, peer.world.bot, flags=flags, **_origin(peer, result)
        )
        peer.message_store.store(result.message)
    else:
        result.message = _create(peer, result, data, call, prefix=("data",), first=True)


def _origin(peer: DiscordPeer, result: InteractionResult, *, first: bool = True) -> dict[str, Any]:
    """Fields that tie a message to its interaction."""
    kind = SLASH_REPLY if result.type == COMMAND and first else 0
    found: dict[str, Any] = {
        "type": kind,
        "webhook_id": peer.world.application_id,
        "application_id": peer.world.application_id,
        "interaction": peer.interactions.metadata(result),
        "interaction_user": result.user,
    }
    if not first and result.message is not None:
        found.update(type=REPLY, reply_to=result.message.id)
    elif result.type != COMMAND and result.source is not None:
        found.update(type=REPLY, reply_to=result.source.id)
    return found


def _create(
    peer: DiscordPeer,
    result: InteractionResult,
    data: dict[str, Any],
    call: ApiRequest,
    *,
    prefix: tuple[str | int, ...] = (),
    first: bool,
) -> StoredMessage:
    return peer.message_store.create(
        result.channel,
        peer.world.bot,
        data,
        call.files,
        allowed_flags=INTERACTION_FLAGS,
        prefix=prefix,
        users_only=True,
        **_origin(peer, result, first=first),
    )


def _checked_choices(result: InteractionResult, data: dict[str, Any]) -> list[dict[str, Any]]:
    faults = FormErrors(("data", "choices"))
    choices = data.get("choices")
    if not isinstance(choices, list):
        faults.required(())
        choices = []
    if len(choices) > 25:
        faults.too_long((), 25)
    for index, choice in enumerate(choices):
        check_choice(faults, (index,), choice, result.focused_type or 3)
    faults.raise_if_any()
    return choices


def _callback_answer(peer: DiscordPeer, result: InteractionResult, kind: int) -> dict[str, Any]:
    interaction: dict[str, Any] = {"id": str(result.id), "type": result.type}
    answer: dict[str, Any] = {"interaction": interaction}
    if result.message is not None:
        interaction.update(
            response_message_id=str(result.message.id),
            response_message_loading=result.message.loading,
            response_message_ephemeral=result.message.ephemeral,
        )
    if kind in (MESSAGE, UPDATE) and result.message is not None:
        shown = payloads.message(result.message, peer.world)
        answer["resource"] = {"type": kind, "message": shown}
    return answer


# Follow-ups: the routes of webhooks, with the interaction's token.


def alive(peer: DiscordPeer, token: str) -> InteractionResult:
    """The answered interaction of a token, or Discord's refusal."""
    result = peer.interactions.by_token.get(token)
    if result is None or not result.answered:
        error = errors.unknown_webhook()
    elif not peer.interactions.token_is_alive(result):
        error = errors.invalid_webhook_token()
    else:
        return result
    if result is not None:
        result.refusals.append(error)
    raise error


def followup(peer: DiscordPeer, call: ApiRequest, result: InteractionResult) -> Answer:
    """POST /webhooks/{application}/{token}; the first after type 5 fills in @original."""
    try:
        if result.pending:
            assert result.message is not None
            message = peer.message_store.edit(
                result.message, call.fields, call.files, users_only=True, fresh=True, ping=True
            )
        else:
            message = _create(peer, result, call.fields, call, first=False)
            result.followups.append(message)
    except ApiError as error:
        result.refusals.append(error)
        raise
    return 200, payloads.message(message, peer.world)


def message_of(peer: DiscordPeer, result: InteractionResult, name: str) -> StoredMessage:
    """@original or a follow-up by id."""
    if name == "@original":
        message = result.message
    else:
        wanted = int(name) if name.isdecimal() else -1
        known = [*result.followups, *([result.message] if result.message else [])]
        message = next((item for item in known if item.id == wanted), None)
    if message is None or message.deleted:
        raise errors.unknown_message()
    return message


def edit(
    peer: DiscordPeer, call: ApiRequest, result: InteractionResult, message: StoredMessage
) -> Answer:
    try:
        peer.message_store.edit(
            message, call.fields, call.files, users_only=True, fresh=message.loading
        )
    except ApiError as error:
        result.refusals.append(error)
        raise
    return 200, payloads.message(message, peer.world)


ROUTES = [
    Route(
        "POST",
        "/interactions/{interaction_id}/{token}/callback",
        callback,
        "interaction.callback",
        token_needed=False,
        counts_globally=False,
    )
]
