"""What delivery needs from others: someone who sends, someone who draws."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from bot.core.alert import FlipKind
from bot.core.incident import Card, Incident
from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.services.audience import Destination

T = TypeVar("T")

SEND_TIMEOUT_S = 60.0


class Notifier(Protocol):
    """Sends to one kind of place. Raises DeliveryError."""

    async def post(self, destination: Destination, message: OutgoingMessage) -> str:
        """The id of the accepted message."""

    async def edit(
        self, destination: Destination, message_id: str, message: OutgoingMessage
    ) -> None: ...

    async def find_card(self, destination: Destination, marker: str) -> str | None:
        """The id of our recent message that carries `marker`, or None."""

    async def find_reply(
        self, destination: Destination, message_id: str, symbol: str
    ) -> str | None:
        """The id of our own reply to `message_id` whose text begins with `symbol`, or None."""


class Renderer(Protocol):
    """Draws cards; see bot/cards.py."""

    def card(
        self, card: Card, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage: ...

    def reply(
        self,
        card: Card,
        incidents: Sequence[Incident],
        kind: FlipKind,
        locale: str | None,
        now: datetime,
    ) -> OutgoingMessage: ...

    def fallback(
        self, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage: ...


async def bounded(sending: Awaitable[T]) -> T:
    """`sending` with an end: whoever never answers may have accepted all the same."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            return await sending
    except TimeoutError as error:
        raise DeliveryError(DeliveryProblem.UNCERTAIN, "no answer") from error
