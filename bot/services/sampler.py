"""Looks at machine, bot and sources every ten seconds, stores the look, lets the rules see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from bot.core.alert import Observation
from bot.core.copying import Copying
from bot.core.observation import MonitorStatus, Sample
from bot.core.readings import READINGS, DiscordLook, Looks, ServiceLook, take
from bot.services.command_stats import CommandStats
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.host_probe import HostProbe
from bot.services.loop_lag import LoopLag
from bot.services.recorder import Fact, FactKind, Recorder
from bot.services.ticker import Tasks
from bot.storage.store import Store

TASK_NAME = "sampler"


class DiscordLink(Protocol):
    """What the sampler may ask the Discord side."""

    def look(self) -> DiscordLook: ...


@dataclass(slots=True)
class SampleSources:
    """Where the sampler looks. `discord` is None without a token."""

    host: HostProbe
    lag: LoopLag
    commands: CommandStats
    fleet: Fleet
    recorder: Recorder
    delivery: Delivery
    tasks: Tasks
    discord: DiscordLink | None = None
    auth_failures_1m: Callable[[], float | None] = field(default=lambda: None)
    copying: Callable[[], Copying | None] = field(default=lambda: None)
    set_aside: Callable[[], str | None] = field(default=lambda: None)


class Sampler:
    """1. look, 2. store, 3. let the rules look. `latest` is the newest sample."""

    def __init__(
        self,
        bot_id: str,
        period_s: float,
        sources: SampleSources,
        observe: Callable[[Observation, float], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._bot_id = bot_id
        self._period_s = period_s
        self._sources = sources
        self._observe = observe
        self._now = now
        self.latest: Sample | None = None
        self.on_sample: list[Callable[[Sample], None]] = []

    async def tick(self) -> None:
        sample, lateness = self.take()
        self.latest = sample

        async def write(store: Store) -> None:
            await store.save_sample(sample)

        await self._sources.recorder.put(Fact(FactKind.SAMPLE, "a snapshot", write))
        for listener in self.on_sample:
            listener(sample)
        values: dict[str, dict[str, float | None]] = {
            name: {"": value} for name, value in sample.values.items() if name != "kuma_staleness"
        }
        values["task_lateness"] = dict(lateness)
        fleet = self._sources.fleet
        values["kuma_staleness"] = {
            instance: source.staleness(sample.at) for instance, source in fleet.sources.items()
        }
        details = {**fleet.source_details(sample.at), **{n: {"name": n} for n in lateness}}
        aside = self._sources.set_aside()
        values["store_set_aside"] = {"": 0.0 if aside is None else 1.0}
        problem = self._sources.recorder.problem
        copying = self._sources.copying()
        details[""] = {
            "file": aside,
            "problem": None if problem is None else problem.reason,
            "remote": None if copying is None else copying.backend,
            "remote_problem": None if copying is None else copying.reason,
        }
        await self._observe(Observation(sample.at, values, details), max(60.0, 3 * self._period_s))

    def take(self) -> tuple[Sample, dict[str, float]]:
        """One look, and how late each background task is. Raises nothing of the sources' own."""
        sources = self._sources
        at = self._now()
        health = sources.tasks.health.get(TASK_NAME)
        lateness = sources.tasks.lateness()
        process = replace(
            sources.host.process(),
            loop_lag_p99_ms=sources.lag.p99_ms(),
            loop_lag_max_ms=sources.lag.max_ms(),
            missed_ticks=None if health is None else float(health.missed),
            task_lateness_max=max(lateness.values(), default=None),
        )
        discord = DiscordLook() if sources.discord is None else sources.discord.look()
        looks = Looks(
            host=sources.host.host(),
            process=process,
            discord=discord,
            commands=sources.commands.look(),
            services=self._services(at),
        )
        values = take(looks)
        labelled: list[tuple[str, dict[str, str], float]] = []
        if len(discord.shard_ping_ms) > 1:
            labelled.extend(
                ("ping_gateway", {"shard": str(shard)}, ping)
                for shard, ping in discord.shard_ping_ms
            )
        labelled.extend(
            ("task_lateness", {"task": name}, value)
            for name, value in lateness.items()
            if value >= 2
        )
        labelled.extend(
            (spec.name, {}, value)
            for spec in READINGS
            if spec.column is None
            and not spec.is_derived
            and (value := values[spec.name]) is not None
        )
        sample = Sample(at, self._bot_id, values, self._status(discord, looks), tuple(labelled))
        return sample, lateness

    def _services(self, at: datetime) -> ServiceLook:
        sources = self._sources
        fleet, recorder, delivery = sources.fleet, sources.recorder, sources.delivery
        ages = [age for s in fleet.sources.values() if (age := s.age_s(at)) is not None]
        stale = [v for s in fleet.sources.values() if (v := s.staleness(at)) is not None]
        has_kuma = bool(fleet.sources)
        copying = sources.copying()
        counts = fleet.counts()
        return ServiceLook(
            kuma_age_s=max(ages, default=None),
            kuma_staleness=max(stale, default=None),
            monitors_up=float(counts[MonitorStatus.UP]) if has_kuma else None,
            monitors_down=float(counts[MonitorStatus.DOWN]) if has_kuma else None,
            monitors_unknown=float(counts[MonitorStatus.UNKNOWN]) if has_kuma else None,
            store_failing_s=recorder.failing_s,
            store_queue=float(recorder.waiting),
            remote_away_s=None if copying is None else copying.away_s,
            outbox_queued=float(len(delivery.queued)),
            outbox_age_s=delivery.oldest_queued_age_s(at),
            web_auth_failures_1m=sources.auth_failures_1m(),
        )

    @staticmethod
    def _status(discord: DiscordLook, looks: Looks) -> str:
        """online, degraded (something of ours is not well) or offline (Discord is away)."""
        if discord.away_s is not None and discord.away_s > 0:
            return "offline"
        failing = looks.services.store_failing_s or 0.0
        degraded = (discord.degradation or 0.0) >= 1 or failing > 0
        return "degraded" if degraded else "online"
