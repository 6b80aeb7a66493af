"""Polls one Kuma on a steady beat and passes on what it saw."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from bot.core.alert import Observation
from bot.core.observation import KumaReport
from bot.services.fleet import Fleet
from bot.services.kuma_client import KumaPollError
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import CheckRow, Poll, StatusChange, Store

logger = logging.getLogger(__name__)

RETRY_PERIOD_S = 10.0
TRUST_POLLS = 2


def watched_gap_s(period_s: float) -> float:
    """Longest time between two looks at a monitor that still counts as watched."""
    return max(60.0, TRUST_POLLS * period_s + 60.0)


class ReportSource(Protocol):
    """Anything that can look at a Kuma; raises KumaPollError when it could not."""

    async def fetch(self) -> KumaReport: ...


class KumaPoller:
    """1. fetch, 2. tell the fleet, 3. store, 4. let the rules look.

    While Kuma answers it is asked every `period_s`; while it does not, at least every ten
    seconds, so that trouble and recovery are seen soon even with a long period.
    """

    def __init__(
        self,
        instance: str,
        period_s: float,
        client: ReportSource,
        fleet: Fleet,
        recorder: Recorder,
        observe: Callable[[Observation, float], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self.instance = instance
        self.period_s = period_s
        self.tick_s = period_s / math.ceil(period_s / RETRY_PERIOD_S)
        self._client = client
        self._fleet = fleet
        self._recorder = recorder
        self._observe = observe
        self._now = now
        self._next_due_s: float | None = None
        self.source = fleet.add_source(instance, period_s, now())

    async def tick(self) -> None:
        """Poll if it is time, or if the last poll failed."""
        now_s = time.monotonic()
        if self._next_due_s is None:
            self._next_due_s = now_s
        is_due = now_s >= self._next_due_s - self.tick_s / 2
        if not is_due and self.source.failing_since_at is None:
            return
        if is_due:
            behind = max(1, math.floor((now_s - self._next_due_s) / self.period_s + 0.5) + 1)
            self._next_due_s += behind * self.period_s
        await self.poll()

    async def poll(self) -> None:
        """One look, stored and judged."""
        was_failing = self.source.problem
        began_at = self._now()
        try:
            report = await self._client.fetch()
        except KumaPollError as error:
            now = self._now()
            changes = self._fleet.fail(self.instance, error.problem, error.detail, now)
            if was_failing is not error.problem:
                logger.warning(
                    "Kuma %s: poll failed (%s) %s", self.instance, error.problem.value, error.detail
                )
            if changes:
                await self._recorder.put(changes_fact(changes))
        else:
            now = self._now()
            changes = self._fleet.apply(report, now, began_at)
            if was_failing is not None:
                logger.info("Kuma %s answers again", self.instance)
            await self._recorder.put(self._poll_fact(report, changes, now))
        observation = self._fleet.observe(now)
        await self._observe(observation, watched_gap_s(self.period_s))

    def _poll_fact(self, report: KumaReport, changes: list[StatusChange], now: datetime) -> Fact:
        poll = Poll(
            at=now,
            instance=self.instance,
            valid_s=TRUST_POLLS * self.period_s,
            checks=[
                # What is believed: a poll may lag behind what Kuma has told.
                CheckRow(reading.identity.key, believed.status, reading.response_time_ms)
                for reading in report.monitors
                if (believed := self._fleet.monitors.get(reading.identity.key)) is not None
            ],
            changes=changes,
        )

        async def write(store: Store) -> None:
            await store.save_poll(poll)

        # A poll that carries a change is a fact to keep; the others are samples.
        kind = FactKind.KEEP if changes else FactKind.SAMPLE
        return Fact(kind, f"a poll of {self.instance}", write)


def changes_fact(changes: Sequence[StatusChange]) -> Fact:
    """Changes that no good poll carries."""

    async def write(store: Store) -> None:
        await store.save_status_changes(changes)

    return Fact(FactKind.KEEP, "status changes", write)
