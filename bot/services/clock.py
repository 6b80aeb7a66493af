"""The wall clock, watched: tells when it was set forward or back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

logger = logging.getLogger(__name__)

STEP_MIN_S = 2.0


class Clock:
    """`now()` is the wall clock in UTC.

    When it has moved other than time itself (NTP, a suspended machine, an operator), every
    listener is told by how much, so that ages keep counting what really passed.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last_wall = wall()
        self._last_monotonic_s = monotonic()
        self.on_step: list[Callable[[timedelta], None]] = []

    def now(self) -> datetime:
        wall, monotonic_s = self._wall(), self._monotonic()
        expected = self._last_wall + timedelta(seconds=monotonic_s - self._last_monotonic_s)
        self._last_wall, self._last_monotonic_s = wall, monotonic_s
        step = wall - expected
        if abs(step.total_seconds()) >= STEP_MIN_S:
            logger.warning("the system clock moved by %+.1f s", step.total_seconds())
            for listener in self.on_step:
                listener(step)
        return wall
