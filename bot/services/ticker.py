"""A steady beat: counts the ticks it missed, survives the ones that went wrong.

discord.ext.tasks replays missed ticks in a burst and dies on the first unexpected error; this
one skips what is past and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

MIN_ACTION_TIMEOUT_S = 30.0
LEAST_PERIOD_S = 10.0


@dataclass(slots=True)
class TaskHealth:
    """How one background task is doing. Times are time.monotonic() seconds."""

    name: str
    period_s: float
    started_s: float
    last_success_s: float | None = None
    runs: int = 0
    errors: int = 0
    missed: int = 0
    last_error: str | None = None

    def age_s(self, now_s: float) -> float:
        """Seconds since the last success, or since the start when there was none yet."""
        since = self.started_s if self.last_success_s is None else self.last_success_s
        return max(0.0, now_s - since)

    def lateness(self, now_s: float) -> float:
        """Age of the last success in periods: 1 is on time, 3 and more is dead.

        A beat of a second may wait ten for an answer without being dead.
        """
        return self.age_s(now_s) / max(self.period_s, LEAST_PERIOD_S)


class Tasks:
    """The background tasks of the process: starts, restarts and stops them, knows their health."""

    def __init__(self) -> None:
        self.health: dict[str, TaskHealth] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(
        self,
        name: str,
        period_s: float,
        action: Callable[[], Awaitable[object]],
        *,
        is_first_done: bool = False,
    ) -> None:
        """Call `action` every `period_s` until `stop`; at once, unless that `is_first_done`."""
        health = TaskHealth(name, period_s, time.monotonic())
        self.health[name] = health
        if is_first_done:
            health.runs = 1
            health.last_success_s = health.started_s
        beat = _beat(health, action, first_tick=int(is_first_done))
        self._running[name] = asyncio.create_task(beat, name=f"ticker:{name}")

    def lateness(self) -> dict[str, float]:
        now_s = time.monotonic()
        return {name: health.lateness(now_s) for name, health in self.health.items()}

    async def stop(self) -> None:
        running = list(self._running.values())
        self._running.clear()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _beat(
    health: TaskHealth, action: Callable[[], Awaitable[object]], first_tick: int
) -> None:
    """1. act, 2. note how it went, 3. skip what was missed, 4. sleep to the next beat."""
    period_s = health.period_s
    timeout_s = max(3 * period_s, MIN_ACTION_TIMEOUT_S)
    start_s = time.monotonic()
    tick = first_tick
    await asyncio.sleep(tick * period_s)
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                await action()
        except Exception as error:
            _note_failure(health, error, timeout_s)
        else:
            if health.last_error is not None:
                logger.info("task %s works again", health.name)
            health.last_error = None
            health.last_success_s = time.monotonic()
        health.runs += 1
        elapsed_s = time.monotonic() - start_s
        following = max(tick + 1, int(elapsed_s // period_s) + 1)
        health.missed += following - tick - 1
        tick = following
        await asyncio.sleep(max(0.0, start_s + tick * period_s - time.monotonic()))


def _note_failure(health: TaskHealth, error: Exception, timeout_s: float) -> None:
    health.errors += 1
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, TimeoutError) and not str(error):
        said = f"no end after {timeout_s:.0f} s"
    if said != health.last_error:
        # The same trouble every ten seconds is one line in the log, not a flood.
        logger.error("task %s failed: %s", health.name, said, exc_info=error)
    health.last_error = said
