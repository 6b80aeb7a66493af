"""One Kuma as a source: when it last answered, and when its silence means that it is lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core.observation import PollProblem

STALE_POLLS = 3
STALE_MIN_S = 30.0
STALE_MAX_S = 120.0


@dataclass(slots=True)
class Source:
    """One Kuma and how long it has been silent."""

    instance: str
    period_s: float
    started_at: datetime
    last_good_at: datetime | None = None
    last_try_at: datetime | None = None
    failing_since_at: datetime | None = None
    problem: PollProblem | None = None
    problem_detail: str = ""
    version: str | None = None
    skipped: int = 0
    polls: int = 0
    failures: int = 0
    is_lost: bool = False

    @property
    def limit_s(self) -> float:
        """When silence means lost: three polls, at least 30 s and at most 2 minutes."""
        return min(max(STALE_POLLS * self.period_s, STALE_MIN_S), STALE_MAX_S)

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the last good answer; None when there never was one."""
        if self.last_good_at is None:
            return None
        return max(0.0, (now - self.last_good_at).total_seconds())

    def staleness(self, now: datetime) -> float | None:
        """Silence over its limit: 1 is lost; 0 while the last poll was good; None before the first.

        A long poll period must not turn one failed poll into two minutes of silence, so the
        clock starts at most a minute before the first failure.
        """
        if self.failing_since_at is None:
            return None if self.last_good_at is None else 0.0
        began = self.failing_since_at
        if self.last_good_at is not None:
            began = max(self.last_good_at, began - timedelta(seconds=min(self.period_s, 60.0)))
        return max(0.0, (now - began).total_seconds()) / self.limit_s
