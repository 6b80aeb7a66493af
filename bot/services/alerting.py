"""Runs the rules, stores what flipped together with whom to tell, then wakes delivery."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from bot.core.alert import (
    AlertKey,
    AlertState,
    Flip,
    FlipKind,
    Observation,
    Step,
)
from bot.core.bound import BoundRules, bind
from bot.core.engine import (
    evaluate_slices,
    reconcile,
    retire,
)
from bot.core.incident import GuildConfig, Incident, OutboxItem
from bot.core.rule import Rule
from bot.services.audience import Audience
from bot.services.delivery import Delivery
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import AlertingState, Decision, ServiceStats, Store, StoreError

logger = logging.getLogger("comet.alert")

CLOCKS_STORED_EVERY_S = 60.0
FLIPS_PER_SLICE = 50
FLIPS_WITH_UPTIME = 5
"""A mass recovery is one storm card, which has no room for the uptime of each."""


class Alerting:
    """The state of every alert, and the only one who changes it."""

    def __init__(
        self,
        recorder: Recorder,
        audience: Audience,
        delivery: Delivery,
        describe: Callable[[Incident], str],
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
        monotonic: Callable[[], float] = time.monotonic,
        stats_24h: Callable[[str], Awaitable[ServiceStats]] | None = None,
    ) -> None:
        """`stats_24h` gives a monitor's last day, for the card of its recovery."""
        self._recorder = recorder
        self._audience = audience
        self._delivery = delivery
        self._describe = describe
        self._now = now
        self._new_id = new_id
        self._stats_24h = stats_24h
        self._lock = asyncio.Lock()
        self._bound: BoundRules = bind(())
        self.rules: tuple[Rule, ...] = ()
        self.states: dict[AlertKey, AlertState] = {}
        self.open: dict[UUID, Incident] = {}
        # What the machine looked like when something flipped is stored beside the incident.
        self.last_values: Mapping[str, float | None] = {}
        self._moved: dict[AlertKey, AlertState] = {}
        self._stored_s = monotonic()
        self._monotonic = monotonic

    async def load(self, stored: AlertingState, rules: Iterable[Rule]) -> None:
        """Take up where the last process stopped; alerts of changed rules start afresh."""
        self.states = {state.key: state for state in stored.states}
        self.open = {i.incident_id: i for i in stored.incidents if i.resolved_at is None}
        self._delivery.restore(stored.incidents, stored.cards, stored.outbox)
        await self.set_rules(rules)

    async def take_up(self, configs: Iterable[GuildConfig], left: AlertingState) -> None:
        """An earlier life's memory came only now: its settings are in force, what it had still to
        tell is told, and what it left open ends, as nobody has watched that since."""
        for config in configs:
            self._audience.configs.setdefault(config.guild_id, config)
        async with self._lock:
            watched = {state.incident_id for state in self.states.values()}
            over = [i for i in left.incidents if i.resolved_at is None]
            over = [incident for incident in over if incident.incident_id not in watched]
            self.open.update((incident.incident_id, incident) for incident in over)
            self._delivery.restore(left.incidents, left.cards, left.outbox)
            await self._commit(Step(flips=tuple(map(self._given_up, over))))
        await self.tell_newcomers()
        self._delivery.wake(at_once=True)

    async def set_rules(self, rules: Iterable[Rule]) -> None:
        async with self._lock:
            self.rules = tuple(rules)
            self._bound = bind(self.rules)
            await self._commit(reconcile(self._bound, self.states, self._now(), self._new_id))

    async def observe(
        self,
        observation: Observation,
        max_gap_s: float = 60.0,
        subjects: Collection[str] | None = None,
    ) -> None:
        """Let every rule that watches one of these metrics look at them; at `subjects` only."""
        async with self._lock:
            host = {name: column[""] for name, column in observation.values.items() if "" in column}
            if host:
                self.last_values = host
            work = evaluate_slices(
                self._bound,
                self.states,
                observation,
                self._now(),
                self._new_id,
                max_gap_s=max_gap_s,
                subjects=subjects,
            )
            while True:
                try:
                    next(work)
                except StopIteration as done:
                    step: Step = done.value
                    break
                await asyncio.sleep(0)
            await self._commit(step)

    async def flush(self) -> None:
        """Store the clocks too, so that a planned restart leaves the smallest gap."""
        async with self._lock:
            if self._moved:
                await self._store(Decision(states=tuple(self._moved.values())))
                self._moved.clear()

    async def retire(self, subject: str) -> None:
        """The subject is no longer there: its alerts end, without being called recovered."""
        async with self._lock:
            await self._commit(retire(self._bound, self.states, subject, self._now(), self._new_id))

    async def tell_newcomers(self) -> None:
        """Open incidents that a destination has not heard of (it was just set up) are told now."""
        async with self._lock:
            now = self._now()
            items = []
            for incident in self.open.values():
                told = set(self._delivery.told(incident.incident_id))
                for destination in self._audience.destinations(incident.scope):
                    if destination not in told:
                        items.append(
                            OutboxItem(
                                outbox_id=self._new_id(),
                                flip_id=self._new_id(),
                                incident_id=incident.incident_id,
                                kind=FlipKind.FIRED,
                                guild_id=destination.guild_id,
                                channel_id=destination.channel_id,
                                created_at=now,
                            )
                        )
            if items:
                await self._store(Decision(outbox=tuple(items)))
                self._delivery.enqueue(self.open.values(), items)

    def facts(self) -> Decision:
        """Everything known about alerts now, for a store that had to be made anew."""
        return Decision(
            states=tuple(self.states.values()),
            incidents=tuple(self._delivery.incidents.values()),
            outbox=tuple(self._delivery.queued.values()),
            metrics_snapshot=self.last_values,
        )

    async def _commit(self, step: Step) -> None:
        """1. incidents, 2. outbox, 3. all of it in one stored step, 4. memory, 5. delivery.

        A step in which only clocks moved is stored once a minute, or with the next flip: losing
        it merely makes the gap after a restart look longer.
        """
        step.apply(self.states)
        for key in step.forgotten:
            self._moved.pop(key, None)
        self._moved.update((state.key, state) for state in step.states)
        is_urgent = bool(step.flips or step.forgotten or step.durable)
        is_time = self._monotonic() - self._stored_s >= CLOCKS_STORED_EVERY_S
        if not is_urgent and not (self._moved and is_time):
            return
        incidents: dict[UUID, Incident] = {}
        items: list[OutboxItem] = []
        for count, flip in enumerate(step.flips, start=1):
            if count % FLIPS_PER_SLICE == 0:
                await asyncio.sleep(0)
            known = incidents.get(flip.incident_id) or self.open.get(flip.incident_id)
            incident = self._incident(flip, known)
            if flip.kind is FlipKind.RESOLVED and count <= FLIPS_WITH_UPTIME:
                incident = await self._with_uptime(incident)
            incidents[flip.incident_id] = incident
            items.extend(self._outbox(flip))
        await self._store(
            Decision(
                states=tuple(self._moved.values()),
                forgotten=tuple(step.forgotten),
                flips=tuple(step.flips),
                incidents=tuple(incidents.values()),
                outbox=tuple(items),
                metrics_snapshot=self.last_values,
            )
        )
        self._moved.clear()
        self._stored_s = self._monotonic()
        for incident in incidents.values():
            if incident.resolved_at is None:
                self.open[incident.incident_id] = incident
            else:
                self.open.pop(incident.incident_id, None)
        for flip in step.flips:
            logger.log(
                logging.INFO if flip.kind is FlipKind.CHANGED else logging.WARNING,
                "%s",
                incidents[flip.incident_id].message,
                extra={"rule": flip.rule_name, "kind": flip.kind.value, "subject": flip.subject},
            )
        self._delivery.enqueue(incidents.values(), items)

    def _incident(self, flip: Flip, known: Incident | None) -> Incident:
        if known is None:
            incident = Incident(
                incident_id=flip.incident_id,
                rule_name=flip.rule_name,
                subject=flip.subject,
                severity=flip.severity,
                category=flip.category,
                scope=flip.scope,
                metric=flip.metric,
                level=flip.level,
                fired_at=flip.fired_at,
                value=flip.value,
                status=flip.status,
                silent=flip.silent,
                detail=flip.detail,
            )
        else:
            incident = replace(
                known,
                severity=flip.severity,
                level=flip.level,
                value=known.value if flip.value is None else flip.value,
                status=flip.status,
                unknown_s=flip.unknown_s,
                detail={**known.detail, **flip.detail},
                version=known.version + 1,
            )
        if flip.kind is FlipKind.RESOLVED:
            incident = replace(
                incident,
                resolved_at=max(flip.at, incident.fired_at),
                ending=flip.ending,
                unknown_s=flip.unknown_s,
            )
        return replace(incident, message=self._describe(incident))

    async def _with_uptime(self, incident: Incident) -> Incident:
        if self._stats_24h is None or incident.metric != "monitor_down":
            return incident
        try:
            stats = await self._stats_24h(incident.subject)
        except StoreError:
            return incident
        day = {"uptime_24h": stats.uptime_ratio, "uptime_24h_unknown_s": stats.unknown_s}
        return replace(incident, detail={**incident.detail, **day})

    def _given_up(self, incident: Incident) -> Flip:
        now = self._now()
        return Flip(
            flip_id=self._new_id(),
            incident_id=incident.incident_id,
            rule_name=incident.rule_name,
            subject=incident.subject,
            kind=FlipKind.RESOLVED,
            at=now,
            fired_at=incident.fired_at,
            severity=incident.severity,
            category=incident.category,
            scope=incident.scope,
            value=incident.value,
            level=incident.level,
            metric=incident.metric,
            status=incident.status,
            duration_s=max(0.0, (now - incident.fired_at).total_seconds()),
            unknown_s=incident.unknown_s,
            silent=incident.silent,
            detail=incident.detail,
        )

    def _outbox(self, flip: Flip) -> list[OutboxItem]:
        places = dict.fromkeys(self._delivery.told(flip.incident_id))
        if flip.kind is FlipKind.FIRED:
            places.update(dict.fromkeys(self._audience.destinations(flip.scope)))
        return [
            OutboxItem(
                outbox_id=self._new_id(),
                flip_id=flip.flip_id,
                incident_id=flip.incident_id,
                kind=flip.kind,
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                created_at=flip.at,
            )
            for place in places
        ]

    async def _store(self, decision: Decision) -> None:
        async def write(store: Store) -> None:
            await store.record_decision(decision)

        await self._recorder.put(Fact(FactKind.KEEP, "a decision", write))
