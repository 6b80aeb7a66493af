"""Takes in what Uptime Kuma's webhooks bring, and works it off behind the answer.

A slow receiver stalls Kuma's own checks, so `offer` only puts a body in line. The line is bounded
in bodies and in bytes: what does not fit is refused and counted, and the next poll tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bot.core.alert import Observation
from bot.core.kuma_webhook import Notice, NoticeKind, read_webhook
from bot.services.fleet import Fleet
from bot.services.kuma_poller import changes_fact, watched_gap_s
from bot.services.recorder import Recorder
from bot.storage.store import StatusChange

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 4096
MOST_BYTES: Final = 16 * 1024 * 1024
BATCH: Final = 100

Observe = Callable[[Observation, float, Collection[str]], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Ledger:
    """What one Kuma has sent so far. `repeated`: nothing new. `strange`: nothing we know."""

    received: int = 0
    refused: int = 0
    repeated: int = 0
    unmatched: int = 0
    notices: int = 0
    strange: int = 0
    last_at: datetime | None = None


class KumaInbox:
    """1. read a few bodies, 2. tell the fleet, 3. store changes, 4. let the rules look.

    `observe` gets the observation, how long a gap still counts as watched, and the monitors it
    is about.
    """

    def __init__(
        self, fleet: Fleet, recorder: Recorder, observe: Observe, now: Callable[[], datetime]
    ) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._observe = observe
        self._now = now
        self._line: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._work: asyncio.Task[None] | None = None
        self.ledgers: dict[str, Ledger] = {}

    def expect(self, instances: Iterable[str]) -> None:
        """These may send; their figures begin at zero."""
        self.ledgers.update((instance, Ledger()) for instance in instances)

    @property
    def waiting(self) -> int:
        return len(self._line)

    def offer(self, instance: str, body: bytes) -> bool:
        """Put a body in line; False when the line is full. Needs a running loop."""
        ledger = self.ledgers[instance]
        if len(self._line) >= MOST_WAITING or self._bytes + len(body) > MOST_BYTES:
            ledger.refused += 1
            if ledger.refused % 100 == 1:
                logger.warning("Kuma %s: webhooks come too fast; the next poll tells", instance)
            return False
        ledger.received += 1
        ledger.last_at = self._now()
        self._line.append((instance, body))
        self._bytes += len(body)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain(), name="webhooks")
        return True

    async def stop(self, grace_s: float = 0.5) -> None:
        """Work off what is in line, as far as `grace_s` allows."""
        if self._work is not None:
            await asyncio.wait((self._work,), timeout=grace_s)
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _drain(self) -> None:
        while self._line:
            try:
                await self._batch()
            except Exception:
                # These few are lost to us, not to people: the next poll shows the same.
                logger.exception("webhooks could not be worked off")

    async def _batch(self) -> None:
        """A few bodies from the front of the line, each with a turn of the loop in between."""
        heard: dict[str, set[str]] = {}
        changes: list[StatusChange] = []
        try:
            for _ in range(BATCH):
                if not self._line:
                    break
                instance, body = self._line.popleft()
                self._bytes -= len(body)
                self._hear(instance, body, heard, changes)
                await asyncio.sleep(0)
        finally:
            if changes:
                await self._recorder.put(changes_fact(changes))
            now = self._now()
            for instance, keys in heard.items():
                gap_s = watched_gap_s(self._fleet.sources[instance].period_s)
                await self._observe(self._fleet.observe_some(keys, now), gap_s, keys)

    def _hear(
        self, instance: str, body: bytes, heard: dict[str, set[str]], changes: list[StatusChange]
    ) -> None:
        ledger = self.ledgers[instance]
        told = read_webhook(body)
        if told is None:
            ledger.strange += 1
            return
        if isinstance(told, Notice):
            ledger.notices += 1
            if told.kind is NoticeKind.TEST:
                logger.info("Kuma %s: the test of its webhook has arrived", instance)
            return
        result = self._fleet.hear(instance, told, self._now())
        if result.key is None:
            ledger.unmatched += 1
        elif not result.is_news:
            ledger.repeated += 1
        else:
            changes.extend(result.changes)
            heard.setdefault(instance, set()).add(result.key)
