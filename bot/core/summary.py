"""What is remembered of a day: from what the store counted to one small JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo

SUMMARISED = ("cpu_usage", "memory_usage", "disk_usage", "ping_gateway")
"""Readings whose average, extremes and 95th percentile a summary tells."""

SEVERITIES = ("critical", "warning", "info")
WORST = 5
_FARTHEST_ZONE = timedelta(hours=16)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Spread:
    """One reading's day. None where there was no reading at all."""

    avg: float | None = None
    min: float | None = None
    max: float | None = None
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Incidents of one severity that were open at some time of the day.

    `longest_s` counts the time within the day only, so that it is final when the day is over.
    """

    count: int
    longest_s: float | None


@dataclass(frozen=True, slots=True)
class ServiceDay:
    """How long one monitor was known to be up and down that day."""

    service_id: str
    name: str
    up_s: float
    down_s: float

    @property
    def uptime_ratio(self) -> float | None:
        return ratio(self.up_s, self.down_s)


@dataclass(frozen=True, slots=True)
class DayCounts:
    """What the store counts of one day. `services` holds every monitor that was ever down."""

    samples: int = 0
    incidents: Mapping[str, Trouble] = field(default_factory=dict)
    up_s: float = 0.0
    down_s: float = 0.0
    services: tuple[ServiceDay, ...] = ()
    commands: int = 0
    command_errors: int = 0
    conversations: int = 0
    songs: int = 0


def ratio(up_s: float, down_s: float) -> float | None:
    """Uptime from 0 to 1, unknown time left out; None when nothing was known."""
    return up_s / (up_s + down_s) if up_s + down_s > 0 else None


def day_bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """The first moment of a local day and of the next, in UTC: 23, 24 or 25 hours apart.

    Found by asking the zone about moments, not about wall-clock times: a midnight may come twice
    or never. A day that a zone skipped altogether has no length.
    """
    return _first_moment(day, zone), _first_moment(day + timedelta(days=1), zone)


def _first_moment(day: date, zone: tzinfo) -> datetime:
    middle = datetime.combine(day, time(), UTC)
    before, after = middle - _FARTHEST_ZONE, middle + _FARTHEST_ZONE
    while after - before > _SECOND:
        between = before + (after - before) // _SECOND // 2 * _SECOND
        if between.astimezone(zone).date() < day:
            before = between
        else:
            after = between
    return after


def local_day(at: datetime, zone: tzinfo) -> date:
    return at.astimezone(zone).date()


def summarise(
    day: date,
    zone: tzinfo,
    sample_interval_s: float,
    readings: Mapping[str, Spread],
    counts: DayCounts,
) -> dict[str, object]:
    """One day as a JSON-able object; what is not known is null, never zero."""
    start, end = day_bounds(day, zone)
    expected = round((end - start).total_seconds() / sample_interval_s)
    unlucky = sorted(
        (one for one in counts.services if one.down_s > 0),
        key=lambda one: (one.uptime_ratio or 0.0, -one.down_s, one.service_id),
    )
    return {
        "day": day.isoformat(),
        "timezone": str(zone),
        "start": start.isoformat(),
        "end": end.isoformat(),
        "samples": {
            "taken": counts.samples,
            "expected": expected,
            "coverage": round(min(1.0, counts.samples / expected), 4) if expected else None,
        },
        "readings": {name: _spread(readings.get(name, Spread())) for name in SUMMARISED},
        "incidents": {
            severity: {"count": trouble.count, "longest_s": _rounded(trouble.longest_s)}
            for severity in dict.fromkeys((*SEVERITIES, *sorted(counts.incidents)))
            for trouble in (counts.incidents.get(severity, Trouble(0, None)),)
        },
        "services": {
            "uptime_ratio": _rounded(ratio(counts.up_s, counts.down_s), 6),
            "worst": [
                {
                    "service_id": one.service_id,
                    "name": one.name,
                    "uptime_ratio": _rounded(one.uptime_ratio, 6),
                    "down_s": _rounded(one.down_s),
                }
                for one in unlucky[:WORST]
            ],
        },
        "commands": {"count": counts.commands, "errors": counts.command_errors},
        "conversations": counts.conversations,
        "songs": counts.songs,
    }


def replaces(new: Mapping[str, object], old: Mapping[str, object] | None) -> bool:
    """Whether a summary made now is worth more than the stored one of the same day.

    Rows of a day may come in late, and then it is made again; they also expire, and what was
    made while they were all there must outlive them.
    """
    taken = samples_taken(new)
    if old is None:
        return taken > 0
    return taken >= samples_taken(old) and new != old


def samples_taken(summary: Mapping[str, object]) -> int:
    samples = summary.get("samples")
    taken = samples.get("taken") if isinstance(samples, Mapping) else None
    return taken if isinstance(taken, int) else 0


def _spread(one: Spread) -> dict[str, float | None]:
    values = {"avg": one.avg, "min": one.min, "max": one.max, "p95": one.p95}
    return {name: _rounded(value, 2) for name, value in values.items()}


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
