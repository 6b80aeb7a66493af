"""Posting, editing and deleting messages: one way for bots, webhooks and interactions.

Follows "Create Message" and "Edit Message" of Discord's message resource: empty messages are
50006, a nonce with `enforce_nonce` returns the earlier message, an edit replaces the listed
attachments and pings nobody. Without Embed Links a message that is nothing but embeds is
403 50013, and one with content besides loses them silently (discord-api-docs#2601).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import errors, limits, mentions, permissions
from .components import check_components
from .errors import ApiError, FormErrors
from .payloads import ATTACHMENT_LIMIT_BYTES
from .rest import Upload
from .world import (
    COMPONENTS_V2,
    EPHEMERAL,
    LOADING,
    SUPPRESS_NOTIFICATIONS,
    Channel,
    StoredAttachment,
    StoredMessage,
    User,
    snowflake,
    utcnow,
)

if TYPE_CHECKING:
    from .peer import DiscordPeer

Body = dict[str, Any]
SUPPRESS_EMBEDS, VOICE_MESSAGE = 4, 8192
CREATE_FLAGS = SUPPRESS_EMBEDS | SUPPRESS_NOTIFICATIONS | VOICE_MESSAGE | COMPONENTS_V2
INTERACTION_FLAGS = CREATE_FLAGS | EPHEMERAL
REPLY = 19


class Messages:
    """The messages of one peer's world. Callers have checked who may write where."""

    def __init__(self, peer: DiscordPeer) -> None:
        self._peer = peer
        self.nonce_window_s = 180.0
        self.old_edits_allowed: int | None = None
        self.old_after_s = 3600.0
        self._old_edits = 0
        self._nonces: dict[tuple[int, str], tuple[float, StoredMessage]] = {}

    def forget_nonces(self) -> None:
        """As if a few minutes had passed since every message."""
        self._nonces.clear()

    # Checks

    def check(
        self,
        body: Body,
        files: list[Upload],
        *,
        prefix: tuple[str | int, ...] = (),
        flags: int = 0,
        kept: set[int] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        """Raise 50035 with every fault of the body."""
        faults = FormErrors(prefix)
        limits.check_content(faults, body.get("content"))
        limits.check_embeds(faults, body.get("embeds"))
        limits.check_nonce(faults, body.get("nonce"))
        limits.check_allowed_mentions(faults, body.get("allowed_mentions"))
        v2 = bool(flags & COMPONENTS_V2)
        check_components(faults, body.get("components"), v2=v2)
        if v2:
            for key in ("content", "embeds", "sticker_ids", "poll"):
                if body.get(key):
                    faults.add(
                        (key,),
                        "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
                        f"The '{key}' field cannot be used when using "
                        "MessageFlags.IS_COMPONENTS_V2",
                    )
        if len(files) > limits.FILES_LIMIT:
            faults.too_long(("files",), limits.FILES_LIMIT)
        uploaded = {item.index for item in files}
        limits.check_attachments(faults, body.get("attachments"), uploaded, kept)
        flag_value = body.get("flags", 0)
        if flag_value is not None and (
            isinstance(flag_value, bool) or not isinstance(flag_value, int)
        ):
            faults.add(("flags",), "NUMBER_TYPE_COERCE", f'Value "{flag_value}" is not int.')
        faults.raise_if_any()
        if any(len(item.data) > ATTACHMENT_LIMIT_BYTES for item in files):
            raise ApiError(413, 40005, "Request entity too large")

    # Create

    def create(
        self,
        channel: Channel,
        author: User,
        body: Body,
        files: list[Upload],
        *,
        allowed_flags: int = CREATE_FLAGS,
        prefix: tuple[str | int, ...] = (),
        embeds_permitted: bool = True,
        users_only: bool = False,
        **more: Any,
    ) -> StoredMessage:
        """Check, store and announce a message; `more` goes to StoredMessage."""
        flags = body.get("flags") or 0
        flags = flags & allowed_flags if isinstance(flags, int) else 0
        self.check(body, files, prefix=prefix, flags=flags)
        known = self._known_nonce(author, body)
        if known is not None:
            return known
        message = StoredMessage(
            snowflake(),
            channel,
            author,
            content=(body.get("content") or "").strip(),
            embeds=list(body.get("embeds") or []),
            components=list(body.get("components") or []),
            flags=flags,
            nonce=body.get("nonce"),
            tts=bool(body.get("tts")),
            allowed_mentions=body.get("allowed_mentions"),
            **more,
        )
        self._reply(message, body.get("message_reference"))
        self._attach(message, body, files)
        if message.embeds and not embeds_permitted:
            if not message.content and not message.attachments:
                raise errors.missing_permissions()
            message.dropped_embeds, message.embeds = message.embeds, []
        self._refuse_empty(message)
        self._mention(message, body, users_only=users_only, ping=True)
        self.store(message)
        if body.get("enforce_nonce") and message.nonce is not None:
            self._nonces[author.id, str(message.nonce)] = (time.monotonic(), message)
        return message

    def store(self, message: StoredMessage) -> None:
        """Put a finished message into its channel and tell the gateway, unless ephemeral."""
        self._peer.world.messages[message.id] = message
        if not message.ephemeral:
            message.channel.messages.append(message)
            message.channel.archived = False
            self._peer.gateway.message_event("MESSAGE_CREATE", message)
        self._peer.changed()

    def _known_nonce(self, author: User, body: Body) -> StoredMessage | None:
        if not body.get("enforce_nonce") or body.get("nonce") is None:
            return None
        found = self._nonces.get((author.id, str(body["nonce"])))
        if found is None or time.monotonic() - found[0] > self.nonce_window_s:
            return None
        return found[1]

    def _reply(self, message: StoredMessage, reference: Any) -> None:
        if not isinstance(reference, dict):
            return
        faults = FormErrors()
        wanted = limits.check_snowflake(
            faults, ("message_reference", "message_id"), reference.get("message_id")
        )
        faults.raise_if_any()
        assert wanted is not None
        original = self._peer.world.messages.get(wanted)
        if original is None or original.deleted or original.channel is not message.channel:
            if reference.get("fail_if_not_exists", True):
                raise errors.invalid_form(
                    ("message_reference",), "MESSAGE_REFERENCE_UNKNOWN_MESSAGE", "Unknown message"
                )
            return
        if not permissions.has(message.channel, message.author.id, "read_message_history"):
            raise ApiError(403, 160002, "Cannot reply without permission to read message history")
        message.reply_to = wanted
        message.type = REPLY

    def _attach(self, message: StoredMessage, body: Body, files: list[Upload]) -> None:
        described = {
            int(item["id"]): item
            for item in body.get("attachments") or []
            if isinstance(item, dict)
        }
        for upload in sorted(files, key=lambda item: item.index):
            more = described.get(upload.index, {})
            message.attachments.append(
                StoredAttachment(
                    snowflake(),
                    more.get("filename") or upload.filename,
                    upload.data,
                    more.get("description"),
                    upload.content_type,
                )
            )

    def _refuse_empty(self, message: StoredMessage) -> None:
        if message.flags & LOADING:
            return
        if not (message.content or message.embeds or message.attachments or message.components):
            raise errors.empty_message()

    def _mention(self, message: StoredMessage, body: Body, *, users_only: bool, ping: bool) -> None:
        replied = None
        if message.reply_to is not None:
            replied = self._peer.world.messages[message.reply_to].author.id
        found = mentions.find(
            mentions.text_of(message.content, message.flags, message.components),
            body.get("allowed_mentions"),
            channel=message.channel,
            author_id=message.author.id,
            replied_user=replied,
            users_only_by_default=users_only,
        )
        message.mention_users = found.users
        message.mention_roles = found.roles
        message.mention_everyone = found.everyone
        if ping:
            message.pings = found.pings(silent=bool(message.flags & SUPPRESS_NOTIFICATIONS))

    # Edit and delete

    def edit(
        self,
        message: StoredMessage,
        body: Body,
        files: list[Upload],
        *,
        prefix: tuple[str | int, ...] = (),
        embeds_permitted: bool = True,
        users_only: bool = False,
        fresh: bool = False,
        ping: bool = False,
    ) -> StoredMessage:
        """Change what the body names and nothing else.

        `fresh` fills in a deferred response, which people do not see as an edit; `ping` is for
        the follow-up that does so, since it is a new message in all but name.
        """
        flags = message.flags
        asked = body.get("flags")
        if isinstance(asked, int):
            flags = (flags & ~SUPPRESS_EMBEDS) | (asked & SUPPRESS_EMBEDS)
            flags |= asked & COMPONENTS_V2
        kept = {item.id for item in message.attachments}
        self.check(body, files, prefix=prefix, flags=flags, kept=kept)
        content, embeds, components = message.content, message.embeds, message.components
        if "content" in body:
            content = (body["content"] or "").strip()
        if "embeds" in body:
            embeds = list(body["embeds"] or [])
        if "components" in body:
            components = list(body["components"] or [])
        if flags & COMPONENTS_V2 and (content or embeds):
            raise errors.invalid_form(
                (*prefix, "flags"),
                "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
                "Existing content and embeds must be reset",
            )
        dropped: list[Body] = []
        if embeds and "embeds" in body and not embeds_permitted:
            dropped, embeds = embeds, []
        attachments = self._kept(message, body)
        if not (content or embeds or components or attachments or files or dropped):
            raise errors.empty_message()
        message.content, message.embeds = content, embeds
        message.components, message.attachments = components, attachments
        message.flags = flags & ~LOADING
        message.dropped_embeds = dropped or message.dropped_embeds
        self._attach(message, body, files)
        self._mention(message, body, users_only=users_only, ping=ping)
        now = utcnow()
        if not fresh:
            message.edited_at = now
        message.edits.append((now, message.snapshot()))
        if not message.ephemeral:
            self._peer.gateway.message_event("MESSAGE_UPDATE", message)
        self._peer.changed()
        return message

    @staticmethod
    def _kept(message: StoredMessage, body: Body) -> list[StoredAttachment]:
        if body.get("attachments") is None:
            return list(message.attachments) if "attachments" not in body else []
        listed = {int(item["id"]) for item in body["attachments"]}
        return [item for item in message.attachments if item.id in listed]

    def refuse_old_edit(self, message: StoredMessage) -> None:
        """429 code 30046 once the allowance for edits of old messages is used up."""
        if self.old_edits_allowed is None:
            return
        if (utcnow() - message.created_at).total_seconds() < self.old_after_s:
            return
        self._old_edits += 1
        if self._old_edits > self.old_edits_allowed:
            raise ApiError(
                429,
                30046,
                "Maximum number of edits to messages older than 1 hour reached. Try again later.",
                extra={"retry_after": 1.0, "global": False},
            )

    def limit_old_edits(self, allowed: int | None, older_than_s: float) -> None:
        self.old_edits_allowed, self.old_after_s, self._old_edits = allowed, older_than_s, 0

    def delete(self, message: StoredMessage) -> None:
        """Remove a message and tell the gateway."""
        message.deleted = True
        if not message.ephemeral:
            self._peer.gateway.message_event("MESSAGE_DELETE", message)
        self._peer.changed()
