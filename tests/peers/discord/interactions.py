"""Interactions: sent to the bot, answered in time or not at all.

From Discord's "Receiving and Responding": one first response within 3 s, afterwards the
interaction is unknown (10062); a second one is 40060; the token lives 15 minutes; follow-ups
before the first response find no webhook (10015). The first follow-up to a deferred response
fills it in and keeps the visibility chosen when deferring.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import components, payloads, permissions
from .commands import Invocation
from .errors import ApiError
from .world import Channel, Guild, StoredMessage, User, snowflake

if TYPE_CHECKING:
    from .peer import DiscordPeer

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5
FIRST_RESPONSE_S = 3.0
TOKEN_LIFE_S = 900.0


@dataclass(eq=False, repr=False)
class InteractionResult:
    """What became of one interaction; it keeps filling in after the first response.

    `response_type` is Discord's callback type, None if none came in time. `message` is
    @original: the answer, or for types 6 and 7 the message the component sits on.
    `refusals` are the bot's attempts which the peer answered with an error.
    """

    id: int
    token: str
    type: int
    user: User
    channel: Channel
    guild: Guild | None
    name: str
    payload: dict[str, Any]
    sent_at: float = field(default_factory=time.monotonic)
    responded_after_s: float | None = None
    response_type: int | None = None
    timed_out: bool = False
    message: StoredMessage | None = None
    source: StoredMessage | None = None
    followups: list[StoredMessage] = field(default_factory=list)
    choices: list[dict[str, Any]] | None = None
    modal: dict[str, Any] | None = None
    refusals: list[ApiError] = field(default_factory=list)
    deferred: bool = False
    focused_type: int | None = None
    _peer: Any = None

    @property
    def answered(self) -> bool:
        return self.response_type is not None

    @property
    def pending(self) -> bool:
        """Whether a person would still see "thinking…"."""
        return self.message is not None and self.message.loading and not self.message.deleted

    @property
    def ephemeral(self) -> bool:
        return self.message is not None and self.message.ephemeral

    @property
    def content(self) -> str:
        return self.message.content if self.message else ""

    @property
    def embeds(self) -> list[dict[str, Any]]:
        return self.message.embeds if self.message else []

    @property
    def components(self) -> list[dict[str, Any]]:
        return self.message.components if self.message else []

    @property
    def edits(self) -> list[tuple[datetime, dict[str, Any]]]:
        return self.message.edits if self.message else []

    @property
    def files(self) -> dict[str, bytes]:
        return self.message.files if self.message else {}

    @property
    def text(self) -> str:
        """Everything readable in the answer and its follow-ups."""
        parts = [self.message] if self.message else []
        return "\n".join(item.text for item in [*parts, *self.followups])

    @property
    def buttons(self) -> list[dict[str, Any]]:
        return [item for item in components.walk(self.components) if item.get("type") == 2]

    def modal_field(self, label: str) -> str:
        """The custom_id of the form's field with this label."""
        for item in components.walk((self.modal or {}).get("components", [])):
            if item.get("label") == label:
                found = item.get("component", item)
                return str(found["custom_id"])
        raise LookupError(f"{self.name}: no field {label!r} in {self.modal}")

    def expire_token(self) -> None:
        """As if 15 minutes had passed."""
        self.sent_at -= TOKEN_LIFE_S

    async def finished(self, timeout_s: float = 10.0) -> InteractionResult:
        """Wait until a deferred response is filled in; raises TimeoutError with the dump."""
        await self._peer.wait_for(lambda: not self.pending, timeout_s)
        return self

    def __repr__(self) -> str:
        late = " (timed out)" if self.timed_out else ""
        return f"<{self.name}{late}: type {self.response_type}, {self.text!r}, {self.refusals}>"


class Interactions:
    """All interactions of one peer, by token and by id."""

    def __init__(self, peer: DiscordPeer) -> None:
        self._peer = peer
        self.first_response_s = FIRST_RESPONSE_S
        self.by_token: dict[str, InteractionResult] = {}

    def find(self, interaction_id: int, token: str) -> InteractionResult | None:
        result = self.by_token.get(token)
        return result if result is not None and result.id == interaction_id else None

    def token_is_alive(self, result: InteractionResult) -> bool:
        return time.monotonic() - result.sent_at < TOKEN_LIFE_S

    async def send(
        self,
        kind: int,
        data: dict[str, Any],
        *,
        guild: Guild | None,
        channel: Channel,
        user: User,
        name: str,
        locale: str | None = None,
        guild_locale: str | None = None,
        message: StoredMessage | None = None,
        focused_type: int | None = None,
    ) -> InteractionResult:
        """Dispatch INTERACTION_CREATE and wait for the first response or for the deadline."""
        token = secrets.token_urlsafe(60)
        interaction_id = snowflake()
        payload: dict[str, Any] = {
            "id": str(interaction_id),
            "application_id": str(self._peer.world.application_id),
            "type": kind,
            "token": token,
            "version": 1,
            "data": data,
            "locale": locale or user.locale,
            "entitlements": [],
            "entitlement_sku_ids": [],
            "attachment_size_limit": payloads.ATTACHMENT_LIMIT_BYTES,
            **self._place(guild, channel, user, guild_locale),
        }
        if message is not None:
            payload["message"] = payloads.message(message, self._peer.world)
        result = InteractionResult(
            interaction_id, token, kind, user, channel, guild, name, payload, source=message
        )
        result.focused_type = focused_type
        result._peer = self._peer
        self.by_token[token] = result
        guild_id = guild.id if guild else None
        if self._peer.gateway.dispatch("INTERACTION_CREATE", payload, guild_id) == 0:
            raise RuntimeError(f"{name}: no bot has identified with this gateway")
        await self._first_response(result)
        return result

    async def _first_response(self, result: InteractionResult) -> None:
        left_s = result.sent_at + self.first_response_s - time.monotonic()
        try:
            await self._peer.wait_until(lambda: result.answered, left_s)
        except TimeoutError:
            result.timed_out = True

    def _place(
        self, guild: Guild | None, channel: Channel, user: User, guild_locale: str | None
    ) -> dict[str, Any]:
        """Where and by whom: member in a guild, user in a DM."""
        place: dict[str, Any] = {
            "channel_id": str(channel.id),
            "channel": payloads.partial_channel(channel, user.id),
            "app_permissions": str(
                permissions.channel_permissions(channel, self._peer.world.bot.id)
            ),
        }
        if guild is None:
            place.update(
                user=payloads.user(user), context=1, authorizing_integration_owners={"0": "0"}
            )
            return place
        held = permissions.channel_permissions(channel, user.id)
        place.update(
            guild_id=str(guild.id),
            guild={
                "id": str(guild.id),
                "locale": guild_locale or guild.locale,
                "features": [],
            },
            guild_locale=guild_locale or guild.locale,
            member={**payloads.member(guild.members[user.id]), "permissions": str(held)},
            context=0,
            authorizing_integration_owners={"0": str(guild.id)},
        )
        return place

    async def invoke(
        self,
        invocation: Invocation,
        kind: int,
        *,
        guild: Guild | None,
        channel: Channel,
        user: User,
        locale: str | None,
        guild_locale: str | None,
        focused_type: int | None = None,
    ) -> InteractionResult:
        """Send a command or, with `focused_type`, a request for choices."""
        return await self.send(
            kind,
            invocation.data,
            guild=guild,
            channel=channel,
            user=user,
            name=f"/{invocation.path}",
            locale=locale,
            guild_locale=guild_locale,
            focused_type=focused_type,
        )

    def metadata(self, result: InteractionResult) -> dict[str, Any]:
        """`interaction_metadata` of the answer."""
        found: dict[str, Any] = {
            "id": str(result.id),
            "type": result.type,
            "user": payloads.user(result.user),
            "authorizing_integration_owners": result.payload["authorizing_integration_owners"],
        }
        if result.type == COMMAND:
            found["name"] = result.name.lstrip("/")
        if result.source is not None:
            found["interacted_message_id"] = str(result.source.id)
        return found


def find_component(message: StoredMessage, wanted: str, kinds: tuple[int, ...]) -> dict[str, Any]:
    """The component with this custom_id or label; raises LookupError naming those there are."""
    usable = [item for item in components.walk(message.components) if item.get("type") in kinds]
    for item in usable:
        if wanted in (item.get("custom_id"), item.get("label"), item.get("placeholder")):
            break
    else:
        known = [(item.get("custom_id"), item.get("label")) for item in usable]
        raise LookupError(f"no component {wanted!r} on that message; there are {known}")
    if item.get("disabled"):
        raise ValueError(f"component {wanted!r} is disabled")
    if item.get("style") in (5, 6):
        raise ValueError(f"button {wanted!r} is a link; pressing it tells the bot nothing")
    return item


def component_data(item: dict[str, Any], values: list[str] | None = None) -> dict[str, Any]:
    """`data` of a component interaction."""
    data: dict[str, Any] = {
        "component_type": item["type"],
        "custom_id": item["custom_id"],
        "id": item.get("id", 1),
    }
    if values is not None:
        data["values"] = values
    return data


def modal_data(modal: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`data` of a submitted modal; refuses what its fields would not accept."""
    known: set[str] = set()

    def fill(item: dict[str, Any]) -> dict[str, Any]:
        custom_id = item["custom_id"]
        known.add(custom_id)
        given = values.get(custom_id, item.get("value") or "")
        found = {"type": item["type"], "custom_id": custom_id, "id": item.get("id", 1)}
        if item["type"] != components.TEXT_INPUT:
            return {**found, "values": list(given or [])}
        low = item.get("min_length", 1 if item.get("required", True) else 0)
        if item.get("required", True) and not given:
            raise ValueError(f"field {custom_id!r} is required")
        if given and not low <= len(given) <= item.get("max_length", 4000):
            raise ValueError(f"field {custom_id!r}: {len(given)} characters do not fit")
        return {**found, "value": given}

    rows: list[dict[str, Any]] = []
    for row in modal["components"]:
        if row["type"] == components.ROW:
            rows.append({"type": 1, "components": [fill(item) for item in row["components"]]})
        elif row["type"] == components.LABEL:
            rows.append({"type": 18, "id": row.get("id", 1), "component": fill(row["component"])})
    if set(values) - known:
        raise LookupError(f"no fields {sorted(set(values) - known)}; there are {sorted(known)}")
    return {"custom_id": modal["custom_id"], "components": rows}
