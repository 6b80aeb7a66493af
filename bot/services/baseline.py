"""What is usual for a monitor."""

from __future__ import annotations

from array import array

BASELINE_WINDOW_S = 24 * 3600
BASELINE_VALUES = 144
BASELINE_MIN_VALUES = 5


class Baseline:
    """The 24-hour median of a monitor's response times, from at most 144 values of a day."""

    __slots__ = ("_stride_s", "_times", "_values")

    def __init__(self) -> None:
        self._times = array("I")
        self._values = array("f")
        self._stride_s = 0

    def add(self, at_s: int, response_time_ms: float) -> None:
        times, values = self._times, self._values
        if times and 0 <= at_s - times[-1] < self._stride_s:
            return
        times.append(max(0, at_s))
        values.append(response_time_ms)
        if len(times) <= BASELINE_VALUES:
            return
        first = next((i for i, t in enumerate(times) if t > at_s - BASELINE_WINDOW_S), 0)
        if first:
            del times[:first], values[:first]
        else:
            # Full before a day has passed: keep every second one and take fewer from now on.
            del times[::2], values[::2]
            self._stride_s = max(1, 2 * (at_s - times[0]) // BASELINE_VALUES)

    def median_ms(self) -> float | None:
        """None until there are enough values to call anything usual."""
        if len(self._values) < BASELINE_MIN_VALUES:
            return None
        ordered = sorted(self._values)
        middle = len(ordered) // 2
        return (ordered[middle] + ordered[-middle - 1]) / 2
