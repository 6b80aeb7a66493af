"""Which message tells which flip: cards, storm cards and replies for one channel. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from bot.core.alert import Ending, FlipKind
from bot.core.incident import Card, Incident, OutboxItem

STORM_SIZE = 3
"""So many new incidents of one rule at once, or more in a minute, share a card."""

STORM_WINDOW = timedelta(seconds=60)
STORM_QUIET = timedelta(minutes=2)
STORM_OPEN = timedelta(minutes=10)
"""A storm card takes in newcomers while something on it is open, until two minutes pass without
one, and for ten minutes at most: an edit notifies nobody, so a later outage needs a card."""


@dataclass(frozen=True, slots=True)
class CardWork:
    """One card to post (no message yet) or edit, and the items that settles."""

    card: Card
    items: tuple[OutboxItem, ...]


@dataclass(frozen=True, slots=True)
class ReplyWork:
    """One short reply to a card, and the item it belongs to."""

    card: Card
    item: OutboxItem


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send to one channel now, in order: cards first, replies after."""

    cards: tuple[CardWork, ...]
    replies: tuple[ReplyWork, ...]


def plan_channel(
    items: Sequence[OutboxItem],
    cards: Iterable[Card],
    incidents: Mapping[UUID, Incident],
    now: datetime,
    new_card: Callable[[OutboxItem], Card],
) -> Plan:
    """Decide the messages for one channel.

    1. Items whose incident already has a card here edit that card.
    2. New incidents of one rule go on cards of their own until they are many; then they share
       one storm card, which stays open to newcomers for a while (`STORM_QUIET`, `STORM_OPEN`).
    3. Escalation and recovery each add one reply to a card that people have already seen; a
       storm answers once, when its last incident has ended.
    """
    mine = {card.card_id: card for card in cards}
    by_incident = {
        incident_id: card.card_id for card in mine.values() for incident_id in card.incident_ids
    }
    # An attempt without a receipt may have been seen too; who finds it was not drops the reply.
    seen_before = {
        card.card_id
        for card in mine.values()
        if card.message_id is not None or card.attempted_at is not None
    }
    touched: dict[UUID, list[OutboxItem]] = {}
    homeless: dict[str, dict[UUID, list[OutboxItem]]] = {}
    for item in items:
        card_id = by_incident.get(item.incident_id)
        if card_id is not None:
            touched.setdefault(card_id, []).append(item)
        elif (incident := incidents.get(item.incident_id)) is not None:
            group = homeless.setdefault(incident.rule_name, {})
            group.setdefault(item.incident_id, []).append(item)
    for rule_name, newcomers in homeless.items():
        _house(rule_name, newcomers, mine, incidents, now, new_card, touched)
    works: list[CardWork] = []
    replies: list[ReplyWork] = []
    for card_id, card_items in touched.items():
        card = mine[card_id]
        works.append(CardWork(card, tuple(card_items)))
        if card_id in seen_before:
            replies.extend(_replies(card, card_items, incidents))
    return Plan(tuple(works), tuple(replies))


def _house(
    rule_name: str,
    newcomers: Mapping[UUID, list[OutboxItem]],
    mine: dict[UUID, Card],
    incidents: Mapping[UUID, Incident],
    now: datetime,
    new_card: Callable[[OutboxItem], Card],
    touched: dict[UUID, list[OutboxItem]],
) -> None:
    def of_rule(card: Card) -> bool:
        first = incidents.get(card.incident_ids[0]) if card.incident_ids else None
        return first is not None and first.rule_name == rule_name

    storm = next(
        (
            card
            for card in mine.values()
            if card.is_storm
            and card.closed_at is None
            and now - (card.folded_at or card.opened_at) <= STORM_QUIET
            and now - card.opened_at <= STORM_OPEN
            and any(i in incidents and incidents[i].resolved_at is None for i in card.incident_ids)
            and of_rule(card)
        ),
        None,
    )
    recent = sum(
        1
        for card in mine.values()
        if not card.is_storm and now - card.opened_at <= STORM_WINDOW and of_rule(card)
    )
    is_storm = len(newcomers) >= STORM_SIZE or recent + len(newcomers) > STORM_SIZE
    if storm is None and not is_storm:
        for incident_items in newcomers.values():
            card = replace(
                new_card(incident_items[0]), incident_ids=(incident_items[0].incident_id,)
            )
            mine[card.card_id] = card
            touched[card.card_id] = list(incident_items)
        return
    if storm is None:
        first_items = next(iter(newcomers.values()))
        storm = replace(new_card(first_items[0]), is_storm=True, incident_ids=())
    storm = replace(storm, incident_ids=(*storm.incident_ids, *newcomers.keys()), folded_at=now)
    mine[storm.card_id] = storm
    settled = touched.setdefault(storm.card_id, [])
    for incident_items in newcomers.values():
        settled.extend(incident_items)


def _replies(
    card: Card, items: Sequence[OutboxItem], incidents: Mapping[UUID, Incident]
) -> list[ReplyWork]:
    if card.is_storm:
        all_of_it = [incidents[i] for i in card.incident_ids if i in incidents]
        resolved = [item for item in items if item.kind is FlipKind.RESOLVED]
        is_over = bool(all_of_it) and all(i.resolved_at is not None for i in all_of_it)
        is_recovery = any(i.ending is Ending.CLEARED for i in all_of_it)
        return [ReplyWork(card, resolved[-1])] if resolved and is_over and is_recovery else []
    replies = []
    for item in items:
        incident = incidents.get(item.incident_id)
        if incident is None:
            continue
        is_recovery = item.kind is FlipKind.RESOLVED and incident.ending is Ending.CLEARED
        is_worse = item.kind is FlipKind.ESCALATED and incident.resolved_at is None
        if is_recovery or is_worse:
            replies.append(ReplyWork(card, item))
    return replies
