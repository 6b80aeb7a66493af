"""Carries stored flips to Discord: each exactly once on exactly one card per channel.

The order is always the same: note the attempt in the store, send, note the receipt. A crash in
between leaves an attempt without a receipt; then the channel is looked at before anything is
sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

from bot.core.grouping import STORM_OPEN, CardWork, ReplyWork, plan_channel
from bot.core.incident import Card, Incident, OutboxItem, OutboxStatus
from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.services.audience import Audience, Destination
from bot.services.channel_health import ChannelHealth
from bot.services.fallback import Fallback
from bot.services.notifier import Notifier, Renderer, bounded
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import Receipt, Store

logger = logging.getLogger(__name__)

NONCE_LENGTH = 25


@dataclass(slots=True)
class DeliveryCounts:
    delivered: int = 0
    failed_attempts: int = 0
    dropped: int = 0
    by_fallback: int = 0


class Delivery:
    """One worker per destination; `wake` starts those with something to do."""

    def __init__(
        self,
        recorder: Recorder,
        audience: Audience,
        renderer: Renderer,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._recorder = recorder
        self._audience = audience
        self._renderer = renderer
        self._now = now
        self._new_id = new_id
        self._notifiers: dict[bool, Notifier] = {}
        self._workers: dict[Destination, asyncio.Task[None]] = {}
        self._is_stopping = False
        self._fallback = Fallback(renderer, now)
        self._places: dict[UUID, dict[Destination, None]] = {}
        self.incidents: dict[UUID, Incident] = {}
        self.cards: dict[UUID, Card] = {}
        self.queued: dict[UUID, OutboxItem] = {}
        self.health: dict[Destination, ChannelHealth] = {}
        self.counts = DeliveryCounts()
        self.on_receipt: Callable[[Destination, OutboxItem], None] | None = None

    def use(self, notifier: Notifier, *, is_webhook: bool) -> None:
        """From now on, send through `notifier`; one for channels, one for the webhook."""
        self._notifiers[is_webhook] = notifier

    def restore(
        self, incidents: Iterable[Incident], cards: Iterable[Card], items: Iterable[OutboxItem]
    ) -> None:
        """What was unfinished; of what is known already, nothing is taken back."""
        self.incidents = {**{i.incident_id: i for i in incidents}, **self.incidents}
        self.cards = {**{c.card_id: c for c in cards}, **self.cards}
        self.queued = {**{i.outbox_id: i for i in items}, **self.queued}
        self._index(self.cards.values(), self.queued.values())

    def enqueue(self, incidents: Iterable[Incident], items: Sequence[OutboxItem]) -> None:
        self.incidents.update((i.incident_id, i) for i in incidents)
        self.queued.update((i.outbox_id, i) for i in items)
        self._index((), items)
        self.wake()

    def told(self, incident_id: UUID) -> list[Destination]:
        """Where an incident has a card, or is about to get one."""
        return list(self._places.get(incident_id, ()))

    def _index(self, cards: Iterable[Card], items: Iterable[OutboxItem]) -> None:
        for card in cards:
            place = Destination(card.guild_id, card.channel_id)
            for incident_id in card.incident_ids:
                self._places.setdefault(incident_id, {})[place] = None
        for item in items:
            place = Destination(item.guild_id, item.channel_id)
            self._places.setdefault(item.incident_id, {})[place] = None

    def move_guild(self, guild_id: str, channel_id: str) -> list[OutboxItem]:
        """What still waits for a guild follows it to its new channel."""
        moved = [
            replace(item, channel_id=channel_id, attempted_at=None, card_id=None)
            for item in self.queued.values()
            if item.guild_id == guild_id and item.channel_id != channel_id
        ]
        self.queued.update((item.outbox_id, item) for item in moved)
        self._index((), moved)
        for destination in [d for d in self.health if d.guild_id == guild_id]:
            del self.health[destination]
        return moved

    def oldest_queued_age_s(self, now: datetime) -> float | None:
        ages = [(now - item.created_at).total_seconds() for item in self.queued.values()]
        return max(0.0, max(ages)) if ages else None

    def wake(self, *, at_once: bool = False) -> None:
        """Start a worker for every destination with something due. `at_once` forgets back-off."""
        if self._is_stopping:
            return
        now = self._now()
        waiting = {Destination(i.guild_id, i.channel_id): None for i in self.queued.values()}
        for destination in waiting:
            if (destination.guild_id is None) not in self._notifiers:
                continue
            health = self.health.get(destination)
            if health is not None and at_once:
                health.hurry()
            is_due = health is None or health.is_due(now)
            if is_due and destination not in self._workers:
                task = asyncio.create_task(self._work(destination), name="delivery")
                self._workers[destination] = task
                task.add_done_callback(partial(self._finished, destination))

    async def beat(self) -> None:
        """Called on a beat: retries what is due, lets go of what is over."""
        self._let_go()
        self.wake()
        await self._fallback.tell(self._notifiers, self.queued, self.incidents)
        self.counts.by_fallback = self._fallback.told

    async def stop(self, grace_s: float = 3.0) -> None:
        """Let what is being sent finish, for at most `grace_s`."""
        self._is_stopping = True
        workers = list(self._workers.values())
        if workers:
            _, late = await asyncio.wait(workers, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _finished(self, destination: Destination, _: asyncio.Task[None]) -> None:
        self._workers.pop(destination, None)
        if not self._is_stopping and self._due_items(destination):
            health = self.health.get(destination)
            if health is None or health.next_try_at is None:
                self.wake()

    def _due_items(self, destination: Destination) -> list[OutboxItem]:
        return [
            item
            for item in self.queued.values()
            if item.guild_id == destination.guild_id and item.channel_id == destination.channel_id
        ]

    async def _work(self, destination: Destination) -> None:
        notifier = self._notifiers[destination.guild_id is None]
        try:
            while not self._is_stopping and (items := self._due_items(destination)):
                if not await self._round(notifier, destination, items):
                    return
        except Exception as error:
            logger.exception("delivery to channel %s failed unexpectedly", destination.channel_id)
            self._note_problem(
                destination, DeliveryError(DeliveryProblem.TRANSIENT, type(error).__name__)
            )

    async def _round(
        self, notifier: Notifier, destination: Destination, items: list[OutboxItem]
    ) -> bool:
        """One plan carried out; False when it must be tried again later."""
        now = self._now()
        mine = [
            card
            for card in self.cards.values()
            if card.channel_id == destination.channel_id and card.guild_id == destination.guild_id
        ]
        plan = plan_channel(items, mine, self.incidents, now, self._new_card)
        replying = {work.item.outbox_id for work in plan.replies}
        settled_ids = {item.outbox_id for work in plan.cards for item in work.items}
        orphans = [item for item in items if item.outbox_id not in settled_ids]
        if orphans:
            await self._settle((), orphans, OutboxStatus.DROPPED, "incident unknown")
        fresh: set[UUID] = set()
        for work in plan.cards:
            try:
                if await self._send_card(notifier, destination, work, replying):
                    fresh.add(work.card.card_id)
            except DeliveryError as error:
                if not await self._failed(destination, error, work.items):
                    return False
        for reply in plan.replies:
            if reply.card.card_id in fresh:
                # Nobody saw the card before; it says all there is to say.
                card = self.cards[reply.card.card_id]
                over = self._closed_if_over(card, [reply.item])
                await self._settle((over,), [reply.item], OutboxStatus.DELIVERED)
                continue
            try:
                await self._send_reply(notifier, destination, reply)
            except DeliveryError as error:
                if not await self._failed(destination, error, (reply.item,)):
                    return False
        self._note_success(destination)
        return True

    async def _send_card(
        self,
        notifier: Notifier,
        destination: Destination,
        work: CardWork,
        replying: set[UUID],
    ) -> bool:
        """True when the message is new in the channel."""
        card = work.card
        is_new = False
        if card.message_id is not None:
            try:
                await bounded(notifier.edit(destination, card.message_id, self._draw(card)))
            except DeliveryError as error:
                if error.problem is not DeliveryProblem.MESSAGE_GONE:
                    raise
                # Somebody deleted the message; what it told must still be read.
                # A new marker makes a new nonce: Discord answers an old one with the old message.
                marker = _marker(self._new_id())
                card = replace(card, message_id=None, attempted_at=None, marker=marker)
        if card.message_id is None:
            card, is_new = await self._post_card(notifier, destination, card, work.items)
        settled = [item for item in work.items if item.outbox_id not in replying]
        await self._settle((self._closed_if_over(card, settled),), settled, OutboxStatus.DELIVERED)
        return is_new

    async def _post_card(
        self,
        notifier: Notifier,
        destination: Destination,
        card: Card,
        items: Sequence[OutboxItem],
    ) -> tuple[Card, bool]:
        """The card with its message, and whether that was posted just now or found."""
        if card.attempted_at is not None:
            found = await bounded(notifier.find_card(destination, card.marker))
            if found is not None:
                card = replace(card, message_id=found)
                await bounded(notifier.edit(destination, found, self._draw(card)))
                return card, False
        card = replace(card, attempted_at=self._now())
        await self._record((card,), [replace(item, card_id=card.card_id) for item in items])
        message = replace(self._draw(card), nonce=f"{card.card_id.hex[:16]}{card.marker}")
        try:
            message_id = await bounded(notifier.post(destination, message))
        except DeliveryError as error:
            if error.problem is not DeliveryProblem.UNCERTAIN:
                # Surely not there: no need to look for it next time.
                self.cards[card.card_id] = replace(card, attempted_at=None)
            raise
        return replace(card, message_id=message_id), True

    async def _send_reply(
        self, notifier: Notifier, destination: Destination, work: ReplyWork
    ) -> None:
        card = self.cards.get(work.card.card_id, work.card)
        item = self.queued.get(work.item.outbox_id)
        if item is None or card.message_id is None:
            return
        locale = self._audience.locale_of(card.guild_id)
        incidents = self._incidents_of(card)
        message = replace(
            self._renderer.reply(card, incidents, item.kind, locale, self._now()),
            reply_to=card.message_id,
            nonce=item.outbox_id.hex[:NONCE_LENGTH],
        )
        message_id: str | None = None
        if item.attempted_at is not None:
            symbol = (message.content or "")[:1]
            message_id = await bounded(notifier.find_reply(destination, card.message_id, symbol))
        if message_id is None:
            item = replace(item, attempted_at=self._now(), card_id=card.card_id)
            await self._record((), [item])
            try:
                message_id = await bounded(notifier.post(destination, message))
            except DeliveryError as error:
                if error.problem is not DeliveryProblem.UNCERTAIN:
                    self.queued[item.outbox_id] = replace(item, attempted_at=None)
                raise
        item = replace(item, reply_message_id=message_id)
        await self._settle((self._closed_if_over(card, [item]),), [item], OutboxStatus.DELIVERED)

    async def _failed(
        self, destination: Destination, error: DeliveryError, items: Sequence[OutboxItem]
    ) -> bool:
        """True when the round may go on without these items."""
        self.counts.failed_attempts += 1
        if error.problem is DeliveryProblem.REJECTED:
            logger.error("Discord refuses a message for good: %s", error.detail)
            self.counts.dropped += len(items)
            await self._settle((), items, OutboxStatus.DROPPED, error.detail)
            return True
        self._note_problem(destination, error)
        for item in items:
            current = self.queued.get(item.outbox_id)
            if current is not None:
                self.queued[item.outbox_id] = replace(
                    current, attempts=current.attempts + 1, last_error=str(error)
                )
        return False

    def _note_problem(self, destination: Destination, error: DeliveryError) -> None:
        health = self.health.setdefault(destination, ChannelHealth())
        if health.note(error, self._now()):
            logger.warning(
                "delivery to channel %s fails (%s); it will be tried again",
                destination.channel_id,
                error,
            )

    def _note_success(self, destination: Destination) -> None:
        health = self.health.pop(destination, None)
        if health is not None and health.failing_since_at is not None:
            logger.info("delivery to channel %s works again", destination.channel_id)

    async def _settle(
        self,
        cards: Sequence[Card],
        items: Sequence[OutboxItem],
        status: OutboxStatus,
        reason: str | None = None,
    ) -> None:
        now = self._now()
        card_id = cards[0].card_id if cards else None
        done = [
            replace(
                item,
                status=status,
                delivered_at=now if status is OutboxStatus.DELIVERED else None,
                last_error=reason,
                card_id=card_id or item.card_id,
            )
            for item in items
        ]
        await self._record(cards, done)
        for item in done:
            if status is OutboxStatus.DELIVERED:
                self.counts.delivered += 1
                if self.on_receipt is not None:
                    self.on_receipt(Destination(item.guild_id, item.channel_id), item)

    async def _record(self, cards: Sequence[Card], items: Sequence[OutboxItem]) -> None:
        receipt = Receipt(cards=tuple(cards), outbox=tuple(items))
        self.cards.update((card.card_id, card) for card in cards)
        self._index(cards, ())
        for item in items:
            if item.status is OutboxStatus.QUEUED:
                self.queued[item.outbox_id] = item
            else:
                self.queued.pop(item.outbox_id, None)

        async def write(store: Store) -> None:
            await store.record_receipt(receipt)

        await self._recorder.put(Fact(FactKind.KEEP, "a receipt", write))

    def _draw(self, card: Card) -> OutgoingMessage:
        return self._renderer.card(
            card,
            self._incidents_of(card),
            self._audience.locale_of(card.guild_id),
            self._now(),
        )

    def _incidents_of(self, card: Card) -> list[Incident]:
        return [self.incidents[i] for i in card.incident_ids if i in self.incidents]

    def _closed_if_over(self, card: Card, settled: Sequence[OutboxItem]) -> Card:
        """A card is closed once nothing on it is open and nothing but `settled` waits for it."""
        mine = set(card.incident_ids)
        settled_ids = {item.outbox_id for item in settled}
        waits = any(
            item.incident_id in mine
            and item.channel_id == card.channel_id
            and item.outbox_id not in settled_ids
            for item in self.queued.values()
        )
        is_over = all(i.resolved_at is not None for i in self._incidents_of(card))
        if card.closed_at is None and is_over and not waits:
            return replace(card, closed_at=self._now())
        return card

    def _let_go(self) -> None:
        """Forget what is over; a closed card stays a while, since storms look back at it."""
        now = self._now()
        over = [
            card
            for card in self.cards.values()
            if card.closed_at is not None and now - card.closed_at > STORM_OPEN
        ]
        for card in over:
            del self.cards[card.card_id]
        needed = {i for card in self.cards.values() for i in card.incident_ids}
        needed.update(item.incident_id for item in self.queued.values())
        for incident_id in [
            i
            for i, incident in self.incidents.items()
            if incident.resolved_at is not None and i not in needed
        ]:
            del self.incidents[incident_id]
            self._places.pop(incident_id, None)

    def _new_card(self, item: OutboxItem) -> Card:
        card_id = self._new_id()
        return Card(
            card_id=card_id,
            marker=_marker(card_id),
            guild_id=item.guild_id,
            channel_id=item.channel_id,
            opened_at=self._now(),
            incident_ids=(item.incident_id,),
        )


def _marker(made_from: UUID) -> str:
    """Eight characters, so that with sixteen of the card's id a nonce has 24 of at most 25."""
    return made_from.hex[-8:].upper()
