"""How late the event loop wakes: the first sign that something blocks it."""

from __future__ import annotations

import asyncio
from array import array

INTERVAL_S = 1.0
WINDOW_S = 60.0


class LoopLag:
    """Measures the lateness of a timer once a second, over the last minute."""

    def __init__(self) -> None:
        self._late_ms = array("f")
        self._due_s = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def p99_ms(self) -> float | None:
        """99th percentile of the last minute; None before the first measurement."""
        if not self._late_ms:
            return None
        ordered = sorted(self._late_ms)
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

    def max_ms(self) -> float | None:
        return max(self._late_ms) if self._late_ms else None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + INTERVAL_S
        self._handle = loop.call_at(self._due_s, self._woke, loop)

    def _woke(self, loop: asyncio.AbstractEventLoop) -> None:
        self._late_ms.append(max(0.0, (loop.time() - self._due_s) * 1000))
        if len(self._late_ms) > WINDOW_S / INTERVAL_S:
            del self._late_ms[0]
        self._schedule(loop)
