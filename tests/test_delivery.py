"""Delivery: exactly one card and one reply, whatever dies at whichever step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest

from bot.core.alert import Ending, FlipKind
from bot.core.incident import Card, GuildConfig, Incident, OutboxItem, OutboxStatus
from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.core.rule import Severity
from bot.services.audience import Audience, Destination
from bot.services.delivery import Delivery
from bot.services.recorder import Recorder
from bot.storage.store import Receipt, Store

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLACE = Destination("1", "10")


class PowerCut(BaseException):
    """The process is gone at this very step."""


class World:
    """Discord's channel and the disk; they survive the process. Time is moved by hand."""

    def __init__(self) -> None:
        self.messages: list[dict[str, object]] = []
        self.cards: dict[UUID, Card] = {}
        self.items: dict[UUID, OutboxItem] = {}
        self.now = T0
        self.steps = 0
        self.cut_at: int | None = None
        self.trouble: list[DeliveryError] = []

    def step(self) -> None:
        self.steps += 1
        if self.cut_at is not None and self.steps == self.cut_at:
            raise PowerCut

    # the disk

    async def record_receipt(self, receipt: Receipt) -> None:
        self.step()
        self.cards.update((card.card_id, card) for card in receipt.cards)
        self.items.update((item.outbox_id, item) for item in receipt.outbox)
        self.step()

    # the channel

    async def post(self, destination: Destination, message: OutgoingMessage) -> str:
        self.step()
        if self.trouble:
            raise self.trouble.pop(0)
        self.messages.append(
            {
                "text": message.content or message.embeds[0]["title"],
                "reply_to": message.reply_to,
                "marker": message.embeds[0]["footer"] if message.embeds else None,
                "channel": destination.channel_id,
            }
        )
        self.step()
        return str(len(self.messages) - 1)

    async def edit(
        self, destination: Destination, message_id: str, message: OutgoingMessage
    ) -> None:
        self.step()
        if self.trouble:
            raise self.trouble.pop(0)
        if self.messages[int(message_id)].get("deleted"):
            raise DeliveryError(DeliveryProblem.MESSAGE_GONE)
        self.messages[int(message_id)]["text"] = message.embeds[0]["title"]
        self.step()

    async def find_card(self, destination: Destination, marker: str) -> str | None:
        self.step()
        return next((str(n) for n, m in enumerate(self.messages) if m["marker"] == marker), None)

    async def find_reply(
        self, destination: Destination, message_id: str, symbol: str
    ) -> str | None:
        self.step()
        return next(
            (
                str(n)
                for n, m in enumerate(self.messages)
                if m["reply_to"] == message_id and str(m["text"]).startswith(symbol)
            ),
            None,
        )

    @property
    def posted_cards(self) -> list[dict[str, object]]:
        return [m for m in self.messages if m["reply_to"] is None]

    @property
    def replies(self) -> list[dict[str, object]]:
        return [m for m in self.messages if m["reply_to"] is not None]


class Plain:
    """Draws as little as a card needs."""

    def card(
        self, card: Card, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage:
        is_over = all(i.resolved_at is not None for i in incidents)
        title = f"{'✅' if is_over else '🔴'} {len(incidents)}"
        return OutgoingMessage(embeds=({"title": title, "footer": card.marker},))

    def reply(
        self,
        card: Card,
        incidents: Sequence[Incident],
        kind: FlipKind,
        locale: str | None,
        now: datetime,
    ) -> OutgoingMessage:
        return OutgoingMessage(content="✅ back" if kind is FlipKind.RESOLVED else "🚨 worse")

    def fallback(
        self, incidents: Sequence[Incident], locale: str | None, now: datetime
    ) -> OutgoingMessage:
        return OutgoingMessage(content=f"late: {len(incidents)}")


def make_incident(number: int = 1) -> Incident:
    return Incident(
        uuid4(),
        "service_down",
        f"kuma:{number}",
        Severity.CRITICAL,
        "service",
        "service",
        "monitor_down",
        1.0,
        T0,
    )


def make_item(incident: Incident, kind: FlipKind = FlipKind.FIRED) -> OutboxItem:
    return OutboxItem(uuid4(), uuid4(), incident.incident_id, kind, "1", "10", T0)


def ended(incident: Incident) -> Incident:
    return replace(incident, resolved_at=T0 + timedelta(minutes=3), ending=Ending.CLEARED)


def process(world: World, incidents: Sequence[Incident]) -> Delivery:
    """A process that has just started and taken up what the disk holds."""
    audience = Audience((), has_only_webhook=False)
    audience.configs["1"] = GuildConfig("1", "10", T0, T0)
    delivery = Delivery(Recorder(cast(Store, world)), audience, Plain(), lambda: world.now, uuid4)
    delivery.use(world, is_webhook=False)
    queued = [i for i in world.items.values() if i.status is OutboxStatus.QUEUED]
    delivery.restore(incidents, world.cards.values(), queued)
    return delivery


async def settle(delivery: Delivery, world: World, *, cut_at: int | None = None) -> bool:
    """Let delivery work until nothing is left (True) or the power is cut (False)."""
    world.cut_at = None if cut_at is None else world.steps + cut_at
    for _ in range(50):
        delivery.wake()
        workers = list(delivery._workers.values())
        results = await asyncio.gather(*workers, return_exceptions=True)
        if any(isinstance(result, PowerCut) for result in results):
            world.cut_at = None
            return False
        if not delivery.queued:
            return True
        world.now += timedelta(seconds=61)
    return False


@pytest.mark.parametrize("cut_at", range(1, 24))
async def test_power_cut_at_any_step_tells_once(cut_at: int) -> None:
    world = World()
    incident = make_incident()
    fired = make_item(incident)
    world.items[fired.outbox_id] = fired
    if not await settle(process(world, [incident]), world, cut_at=cut_at):
        assert await settle(process(world, [incident]), world)
    assert [m["text"] for m in world.posted_cards] == ["🔴 1"]

    incident = ended(incident)
    resolved = make_item(incident, FlipKind.RESOLVED)
    world.items[resolved.outbox_id] = resolved
    if not await settle(process(world, [incident]), world, cut_at=cut_at):
        assert await settle(process(world, [incident]), world)
    assert [m["text"] for m in world.posted_cards] == ["✅ 1"]
    assert [m["text"] for m in world.replies] == ["✅ back"]
    assert all(item.status is OutboxStatus.DELIVERED for item in world.items.values())
    assert all(card.closed_at is not None for card in world.cards.values())


@pytest.mark.parametrize(
    "problem",
    [
        DeliveryProblem.TRANSIENT,
        DeliveryProblem.UNCERTAIN,
        DeliveryProblem.FORBIDDEN,
        DeliveryProblem.CHANNEL_GONE,
    ],
)
async def test_trouble_delays_but_neither_loses_nor_doubles(problem: DeliveryProblem) -> None:
    world = World()
    incident = make_incident()
    world.trouble = [DeliveryError(problem)] * 4
    delivery = process(world, [incident])
    delivery.enqueue([incident], [make_item(incident)])
    assert await settle(delivery, world)
    assert len(world.messages) == 1
    assert delivery.counts.failed_attempts == 4
    assert not delivery.health


async def test_a_refused_message_is_dropped_counted_and_not_in_the_way() -> None:
    world = World()
    one, two = make_incident(1), make_incident(2)
    world.trouble = [DeliveryError(DeliveryProblem.REJECTED, "too long")]
    delivery = process(world, [one, two])
    delivery.enqueue([one, two], [make_item(one), make_item(two)])
    assert await settle(delivery, world)
    assert len(world.messages) == 1
    assert delivery.counts.dropped == 1


async def test_what_waits_follows_the_guild_to_its_new_channel() -> None:
    world = World()
    incident = make_incident()
    delivery = process(world, [incident])
    world.trouble = [DeliveryError(DeliveryProblem.CHANNEL_GONE)]
    delivery.enqueue([incident], [make_item(incident)])
    await asyncio.gather(*delivery._workers.values())
    assert delivery.health[PLACE].problem is DeliveryProblem.CHANNEL_GONE
    moved = delivery.move_guild("1", "20")
    assert [item.channel_id for item in moved] == ["20"]
    assert await settle(delivery, world)
    assert [m["channel"] for m in world.messages] == ["20"]


async def test_a_deleted_card_is_posted_anew() -> None:
    world = World()
    incident = make_incident()
    delivery = process(world, [incident])
    delivery.enqueue([incident], [make_item(incident)])
    assert await settle(delivery, world)
    world.messages[0]["deleted"] = True
    delivery.enqueue([ended(incident)], [make_item(incident, FlipKind.RESOLVED)])
    assert await settle(delivery, world)
    assert [m["text"] for m in world.posted_cards] == ["🔴 1", "✅ 1"]


async def test_what_no_channel_takes_for_a_minute_goes_to_the_webhook_once() -> None:
    world, hook = World(), World()
    incident = make_incident()
    delivery = process(world, [incident])
    delivery.use(hook, is_webhook=True)
    world.trouble = [DeliveryError(DeliveryProblem.TRANSIENT)] * 100
    delivery.enqueue([incident], [make_item(incident)])
    for _ in range(4):
        await asyncio.gather(*delivery._workers.values())
        await delivery.beat()
        world.now += timedelta(seconds=40)
    await asyncio.gather(*delivery._workers.values())
    assert [m["text"] for m in hook.messages] == ["late: 1"]
    assert delivery.counts.by_fallback == 1
    world.trouble.clear()
    assert await settle(delivery, world)
    assert len(world.messages) == 1, "the channel still gets its card"


async def test_a_storm_is_one_card_one_edit_and_one_reply() -> None:
    world = World()
    incidents = [make_incident(n) for n in range(300)]
    delivery = process(world, incidents)
    delivery.enqueue(incidents, [make_item(i) for i in incidents])
    assert await settle(delivery, world)
    over = [ended(i) for i in incidents]
    delivery.enqueue(over, [make_item(i, FlipKind.RESOLVED) for i in over])
    assert await settle(delivery, world)
    assert [m["text"] for m in world.posted_cards] == ["✅ 300"]
    assert len(world.replies) == 1


async def test_memory_lets_go_of_what_is_over() -> None:
    world = World()
    incident = make_incident()
    delivery = process(world, [incident])
    delivery.enqueue([incident], [make_item(incident)])
    assert await settle(delivery, world)
    delivery.enqueue([ended(incident)], [make_item(incident, FlipKind.RESOLVED)])
    assert await settle(delivery, world)
    world.now += timedelta(hours=1)
    await delivery.beat()
    assert (delivery.cards, delivery.incidents, delivery.queued) == ({}, {}, {})
    assert delivery.told(incident.incident_id) == []


@pytest.mark.parametrize("cut_at", range(1, 16))
async def test_resolved_before_the_receipt_of_its_card_is_known(cut_at: int) -> None:
    """The card may already have been read: then its recovery needs a reply, else it does not."""
    world = World()
    incident = make_incident()
    fired = make_item(incident)
    world.items[fired.outbox_id] = fired
    await settle(process(world, [incident]), world, cut_at=cut_at)
    was_seen = bool(world.messages)
    resolved = make_item(incident, FlipKind.RESOLVED)
    world.items[resolved.outbox_id] = resolved
    assert await settle(process(world, [ended(incident)]), world)
    assert [m["text"] for m in world.posted_cards] == ["✅ 1"]
    assert len(world.replies) == was_seen
    assert all(card.closed_at is not None for card in world.cards.values())


async def test_discord_is_not_asked_again_before_the_time_it_named() -> None:
    world = World()
    incident = make_incident()
    delivery = process(world, [incident])
    world.trouble = [DeliveryError(DeliveryProblem.TRANSIENT, "429", retry_after_s=40)]
    delivery.enqueue([incident], [make_item(incident)])
    await asyncio.gather(*delivery._workers.values())
    for waited_s, told in ((20, 0), (19, 0), (2, 1)):
        world.now += timedelta(seconds=waited_s)
        delivery.wake(at_once=True)
        await asyncio.gather(*delivery._workers.values())
        assert len(world.messages) == told
