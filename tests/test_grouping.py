"""Which message tells which flip."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from bot.core.alert import Ending, FlipKind
from bot.core.grouping import STORM_OPEN, STORM_QUIET, Plan, plan_channel
from bot.core.incident import Card, Incident, OutboxItem
from bot.core.rule import Severity

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


def incident(rule: str = "service_down", subject: str = "kuma:1") -> Incident:
    return Incident(
        incident_id=uuid4(),
        rule_name=rule,
        subject=subject,
        severity=Severity.CRITICAL,
        category="service",
        scope="service",
        metric="monitor_down",
        level=1.0,
        fired_at=T0,
    )


def ended(one: Incident, ending: Ending = Ending.CLEARED) -> Incident:
    return replace(one, resolved_at=T0 + timedelta(minutes=2), ending=ending)


def item(of: Incident, kind: FlipKind = FlipKind.FIRED) -> OutboxItem:
    return OutboxItem(uuid4(), uuid4(), of.incident_id, kind, "1", "10", T0)


def new_card(at: datetime) -> object:
    def make(first: OutboxItem) -> Card:
        return Card(uuid4(), "MARK", "1", "10", at, (first.incident_id,))

    return make


def plan(
    items: list[OutboxItem],
    incidents: list[Incident],
    cards: list[Card] | None = None,
    now: datetime = T0,
) -> Plan:
    by_id: dict[UUID, Incident] = {i.incident_id: i for i in incidents}
    return plan_channel(items, cards or [], by_id, now, new_card(now))  # type: ignore[arg-type]


def posted(*of: Incident, is_storm: bool = False, at: datetime = T0) -> Card:
    return Card(
        uuid4(),
        "SEEN",
        "1",
        "10",
        at,
        tuple(i.incident_id for i in of),
        is_storm=is_storm,
        message_id="99",
        attempted_at=at,
        folded_at=at,
    )


def test_one_or_two_new_incidents_get_a_card_each() -> None:
    both = [incident(subject="a"), incident(subject="b")]
    done = plan([item(i) for i in both], both)
    assert [work.card.incident_ids for work in done.cards] == [(i.incident_id,) for i in both]
    assert not any(work.card.is_storm for work in done.cards)


def test_three_at_once_share_one_card() -> None:
    many = [incident(subject=str(n)) for n in range(3)]
    done = plan([item(i) for i in many], many)
    assert len(done.cards) == 1
    assert done.cards[0].card.is_storm
    assert set(done.cards[0].card.incident_ids) == {i.incident_id for i in many}
    assert len(done.cards[0].items) == 3


def test_a_trickle_becomes_a_storm_with_the_fourth_card_of_a_minute() -> None:
    first = [incident(subject=str(n)) for n in range(3)]
    fourth = incident(subject="4")
    cards = [posted(i) for i in first]
    now = T0 + timedelta(seconds=30)
    assert plan([item(fourth)], [*first, fourth], cards, now).cards[0].card.is_storm
    later = T0 + timedelta(seconds=90)
    assert not plan([item(fourth)], [*first, fourth], cards, later).cards[0].card.is_storm


def test_later_flips_fold_into_the_open_storm_and_different_rules_do_not_mix() -> None:
    many = [incident(subject=str(n)) for n in range(5)]
    storm = posted(*many, is_storm=True)
    late, other = incident(subject="late"), incident("KumaUnreachable", "kuma")
    everyone = [*many, late, other]
    done = plan([item(late), item(other)], everyone, [storm], T0 + timedelta(minutes=1))
    by_card = {work.card.card_id: work for work in done.cards}
    assert late.incident_id in by_card[storm.card_id].card.incident_ids
    assert len(done.cards) == 2
    quiet = plan([item(late)], everyone, [storm], T0 + STORM_QUIET + timedelta(seconds=1))
    assert quiet.cards[0].card.card_id != storm.card_id
    old = replace(storm, folded_at=T0 + STORM_OPEN)
    too_old = plan([item(late)], everyone, [old], T0 + STORM_OPEN + timedelta(seconds=1))
    assert too_old.cards[0].card.card_id != storm.card_id


def test_an_outage_after_a_storm_has_passed_gets_a_card_that_notifies() -> None:
    many = [ended(incident(subject=str(n))) for n in range(5)]
    storm = posted(*many, is_storm=True)
    late = incident(subject="late")
    done = plan([item(late)], [*many, late], [storm], T0 + timedelta(seconds=30))
    assert done.cards[0].card.card_id != storm.card_id
    assert not done.cards[0].card.is_storm


def test_recovery_edits_the_card_and_adds_one_reply() -> None:
    one = ended(incident())
    card = posted(one)
    done = plan([item(one, FlipKind.RESOLVED)], [one], [card])
    assert [work.card for work in done.cards] == [card]
    assert [(r.card, r.item.kind) for r in done.replies] == [(card, FlipKind.RESOLVED)]


def test_a_card_first_posted_after_the_end_needs_no_reply() -> None:
    one = ended(incident())
    done = plan([item(one), item(one, FlipKind.RESOLVED)], [one])
    assert len(done.cards) == 1
    assert len(done.cards[0].items) == 2
    assert done.replies == ()


def test_only_a_true_recovery_is_told_as_one() -> None:
    one = ended(incident(), Ending.RULE_CHANGED)
    done = plan([item(one, FlipKind.RESOLVED)], [one], [posted(one)])
    assert len(done.cards) == 1
    assert done.replies == ()


def test_a_storm_answers_once_when_its_last_incident_has_ended() -> None:
    many = [incident(subject=str(n)) for n in range(4)]
    storm = posted(*many, is_storm=True)
    some = [ended(many[0]), ended(many[1]), *many[2:]]
    resolved = [item(i, FlipKind.RESOLVED) for i in some[:2]]
    assert plan(resolved, some, [storm]).replies == ()
    everyone = [ended(i) for i in many]
    last = [item(i, FlipKind.RESOLVED) for i in everyone[2:]]
    assert len(plan(last, everyone, [storm]).replies) == 1


def test_an_escalation_answers_while_it_is_open() -> None:
    one = incident()
    done = plan([item(one, FlipKind.ESCALATED)], [one], [posted(one)])
    assert [r.item.kind for r in done.replies] == [FlipKind.ESCALATED]
