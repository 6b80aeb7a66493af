"""How slash commands fare: totals since start, rates and latencies of the last five minutes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bot.core.readings import CommandLook

WINDOW_S = 300.0
MAX_KEPT = 5_000


class CommandStats:
    """`note` is called once per finished command. Nothing run means None, never zero percent."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._recent: deque[tuple[float, float, bool]] = deque(maxlen=MAX_KEPT)
        self.count = 0
        self.errors = 0
        self.by_name: dict[str, tuple[int, int]] = {}

    def note(self, name: str, latency_ms: float, *, ok: bool) -> None:
        self.count += 1
        self.errors += not ok
        runs, errors = self.by_name.get(name, (0, 0))
        self.by_name[name] = (runs + 1, errors + (not ok))
        self._recent.append((self._monotonic(), latency_ms, ok))

    def look(self) -> CommandLook:
        begin_s = self._monotonic() - WINDOW_S
        while self._recent and self._recent[0][0] < begin_s:
            self._recent.popleft()
        count, errors = float(self.count), float(self.errors)
        if not self._recent:
            return CommandLook(count=count, errors=errors)
        latencies = sorted(latency_ms for _, latency_ms, _ in self._recent)
        failed = sum(1 for *_, ok in self._recent if not ok)
        return CommandLook(
            count=count,
            errors=errors,
            error_percent=100.0 * failed / len(latencies),
            p50_ms=percentile(latencies, 0.50),
            p95_ms=percentile(latencies, 0.95),
            p99_ms=percentile(latencies, 0.99),
        )


def percentile(ordered: list[float], fraction: float) -> float:
    """Interpolated percentile of a sorted, non-empty list (PostgreSQL's percentile_cont)."""
    position = fraction * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
