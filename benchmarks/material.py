"""What several benchmarks measure with: believable snapshots, figures, quantiles."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

from bot.core.observation import Sample
from bot.core.readings import READINGS


def figure(
    name: str,
    value: float,
    unit: str,
    baseline: float | None = None,
    budget: str | None = None,
    ratio: float | None = None,
) -> dict[str, object]:
    """A budget with an x is about the ratio (value / baseline where none is given)."""
    if ratio is None and baseline:
        ratio = value / baseline
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 4),
        "ratio": None if ratio is None else round(ratio, 4),
        "budget": budget,
    }


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def snapshot(at: datetime, rng: random.Random, bot_id: str = "primary") -> Sample:
    """Every reading was taken and moves, which is the worst for the size of it."""
    values: dict[str, float | None] = {}
    for spec in READINGS:
        if spec.quantum == 1:
            values[spec.name] = float(rng.randrange(20_000))
        else:
            values[spec.name] = rng.uniform(0, 100)
    return Sample(at, bot_id, values)
