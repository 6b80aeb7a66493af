"""What one family of our `/metrics` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from bot.core.observation import Sample
from bot.services.parts import Parts


@dataclass(frozen=True, slots=True)
class Look:
    """What rows are read from. `now_s` is time.monotonic(); `sample` is None when it is stale."""

    parts: Parts
    now: datetime
    now_s: float
    sample: Sample | None
    version: str


Values = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True, slots=True)
class Row:
    """One family: `read` gives label values and a value; None, NaN and infinity are left out.

    The kind follows from the name: `_total` is a counter, `_info` is info, the rest are gauges.
    """

    name: str
    about: str
    labels: tuple[str, ...]
    read: Callable[[Look], Values]
