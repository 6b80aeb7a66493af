"""Puts facts into the store in order; keeps them in bounded memory while it cannot.

A full disk, a locked or read-only file must not stop the bot from seeing and telling. While
the store refuses, facts wait here; the oldest samples are given up first, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from bot.storage.store import Store, StoreCorrupt, StoreError

logger = logging.getLogger(__name__)

MAX_WAITING = 20_000
RETRY_MIN_S = 1.0
RETRY_MAX_S = 10.0


class FactKind(Enum):
    """SAMPLE may be given up when memory is short; KEEP only when nothing else is left."""

    SAMPLE = "sample"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Fact:
    """One idempotent write. `what` is for the log."""

    kind: FactKind
    what: str
    write: Callable[[Store], Awaitable[None]]


class Recorder:
    """The only writer of the process. `put` raises no StoreError: what is refused waits."""

    def __init__(
        self,
        store: Store,
        *,
        recover: Callable[[], Awaitable[list[Fact]]] | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`recover` is called when the file is found corrupt: it must leave an empty, working
        store behind and return the facts that the process still knows."""
        self._store = store
        self._recover = recover
        self._max_waiting = max_waiting
        self._waiting: deque[Fact] = deque()
        self._lock = asyncio.Lock()
        self._failing_since_s: float | None = None
        self._next_try_s = 0.0
        self._delay_s = RETRY_MIN_S
        self.dropped = 0
        self.refused = 0
        self.problem: StoreError | None = None
        self.last_write_s: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def failing_s(self) -> float:
        """Seconds since the store first refused; 0.0 while it works."""
        since = self._failing_since_s
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    async def put(self, fact: Fact) -> bool:
        """Store `fact` now (True) or keep it for later (False). Order of facts is kept.

        While the store refuses, nobody waits for its next refusal: facts queue up at once.
        """
        if self._failing_since_s is not None:
            self._keep(fact)
            return False
        async with self._lock:
            if self._waiting:
                self._keep(fact)
                return False
            return await self._write(fact)

    async def drain(self) -> None:
        """Write what waits, as far as the store lets us. Called on a beat."""
        async with self._lock:
            if not self._waiting or time.monotonic() < self._next_try_s:
                return
            while self._waiting:
                fact = self._waiting.popleft()
                if not await self._write(fact, requeue_front=True):
                    return

    async def _write(self, fact: Fact, *, requeue_front: bool = False) -> bool:
        try:
            await fact.write(self._store)
        except asyncio.CancelledError:
            # Perhaps written, perhaps not: it is idempotent, and nothing else remembers it.
            self._keep(fact, front=True)
            raise
        except StoreCorrupt as error:
            self._note_failure(error)
            self._keep(fact, front=requeue_front)
            await self._start_afresh()
            return False
        except StoreError as error:
            if not error.retriable:
                # This one fact can never be stored; the next may. Counted, never in the way.
                self.refused += 1
                logger.error("the store refuses %s for good: %s", fact.what, error)
                return True
            self._note_failure(error)
            self._keep(fact, front=requeue_front)
            return False
        self.last_write_s = time.monotonic()
        if self._failing_since_s is not None and not self._waiting:
            logger.warning(
                "the store works again after %.0f s; %d facts were given up",
                self.failing_s,
                self.dropped,
            )
            self._failing_since_s = None
            self.problem = None
            self._delay_s = RETRY_MIN_S
        return True

    async def _start_afresh(self) -> None:
        if self._recover is None:
            return
        try:
            facts = await self._recover()
        except StoreError as error:
            self.problem = error
            return
        self._waiting.extendleft(reversed(facts))
        self._next_try_s = 0.0

    def _keep(self, fact: Fact, *, front: bool = False) -> None:
        if front:
            self._waiting.appendleft(fact)
        else:
            self._waiting.append(fact)
        if len(self._waiting) <= self._max_waiting:
            return
        victim = next(
            (i for i, waiting in enumerate(self._waiting) if waiting.kind is FactKind.SAMPLE), 0
        )
        del self._waiting[victim]
        self.dropped += 1

    def _note_failure(self, error: StoreError) -> None:
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
            self._delay_s = RETRY_MIN_S
            logger.error("the store refuses to write (%s); facts wait in memory", error)
        else:
            self._delay_s = min(RETRY_MAX_S, self._delay_s * 2)
        self.problem = error
        self._next_try_s = now_s + self._delay_s
