"""How fast something grows, and when it will have used up the room that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

DAY_S = 86_400.0
LEAST_POINTS = 24
LEAST_SPAN = timedelta(hours=23)
"""A trend is told from a day of hourly points on; before that it would be a guess."""
FARTHEST_DAYS = 3650.0
"""What is ten years away is no forecast any more."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How large the store is, how it grows and when the disk is full. None is unknown.

    `per_day_bytes` is negative for a store that shrinks. `full_in_days` is None as well for one
    that does not grow, or so slowly that the disk lasts ten years.
    """

    size_bytes: float | None = None
    per_day_bytes: float | None = None
    free_bytes: float | None = None
    full_in_days: float | None = None


def per_day(points: Sequence[tuple[datetime, float]]) -> float | None:
    """Change per day, from (time, value) pairs in any order; None while there are too few.

    The median over pairs half the span apart: one vacuum, one burst or one hole in the points
    does not bend it, as it would bend a straight line fitted through all of them.
    """
    ordered = sorted(points)
    if len(ordered) < LEAST_POINTS or ordered[-1][0] - ordered[0][0] < LEAST_SPAN:
        return None
    half = len(ordered) // 2
    slopes = [
        (later - earlier) / ((until - since).total_seconds() / DAY_S)
        for (since, earlier), (until, later) in zip(ordered, ordered[-half:], strict=False)
        if until > since
    ]
    return median(slopes) if slopes else None


def forecast(
    points: Sequence[tuple[datetime, float]], size_bytes: float | None, free_bytes: float | None
) -> Growth:
    """What the hourly sizes of the last days say about a store of `size_bytes`."""
    grows = per_day(points)
    full_in_days = None
    if grows is not None and grows > 0 and free_bytes is not None:
        full_in_days = max(0.0, free_bytes) / grows
        if full_in_days > FARTHEST_DAYS:
            full_in_days = None
    return Growth(size_bytes, grows, free_bytes, full_in_days)
