"""A message on its way to Discord, as plain data: drawn by `bot/cards.py`, sent by a notifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """`embeds` in Discord's own JSON shape. `is_silent` asks for no push notification.

    `reply_to` is the id of the message answered; `nonce` (at most 25 characters) lets Discord
    recognise a repeat within a few minutes.
    """

    content: str | None = None
    embeds: tuple[Mapping[str, object], ...] = ()
    is_silent: bool = False
    reply_to: str | None = None
    nonce: str | None = None


class DeliveryProblem(Enum):
    """Why a message was not accepted, by what helps.

    TRANSIENT: surely not accepted, try again. UNCERTAIN: perhaps accepted, look first.
    CHANNEL_GONE, FORBIDDEN: somebody must act; try again seldom. MESSAGE_GONE: post anew.
    REJECTED: this very message will never be accepted.
    """

    TRANSIENT = "transient"
    UNCERTAIN = "uncertain"
    CHANNEL_GONE = "channel_gone"
    FORBIDDEN = "forbidden"
    MESSAGE_GONE = "message_gone"
    REJECTED = "rejected"


class DeliveryError(Exception):
    """A notifier could not deliver. `retry_after_s` is how long Discord asked us to wait."""

    def __init__(
        self, problem: DeliveryProblem, detail: str = "", *, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(f"{problem.value}: {detail}" if detail else problem.value)
        self.problem = problem
        self.detail = detail
        self.retry_after_s = retry_after_s
