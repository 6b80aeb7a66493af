"""How delivery to one channel is doing, and when to try it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core.message import DeliveryError, DeliveryProblem

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 10.0
BLOCKED_RETRY_S = 60.0
LONGEST_WAIT_S = 900.0

_BLOCKED = (DeliveryProblem.CHANNEL_GONE, DeliveryProblem.FORBIDDEN)
"""Somebody must act before these end; asking seldom is enough."""


@dataclass(slots=True)
class ChannelHealth:
    """Exists only while something is wrong."""

    problem: DeliveryProblem | None = None
    detail: str = ""
    failing_since_at: datetime | None = None
    delay_s: float = BACKOFF_MIN_S
    next_try_at: datetime | None = None
    waits_s: float = 0.0
    is_asked_to_wait: bool = False

    def note(self, error: DeliveryError, now: datetime) -> bool:
        """One more failure. True when it is of another kind than the one before."""
        is_new = self.problem is not error.problem
        if self.failing_since_at is None:
            self.failing_since_at = now
        self.problem = error.problem
        self.detail = error.detail
        wait_s = BLOCKED_RETRY_S if error.problem in _BLOCKED else self.delay_s
        wait_s = max(wait_s, min(error.retry_after_s, LONGEST_WAIT_S))
        self.delay_s = min(BACKOFF_MAX_S, self.delay_s * 2)
        self.waits_s = wait_s
        self.is_asked_to_wait = error.retry_after_s > 0
        self.next_try_at = now + timedelta(seconds=wait_s)
        return is_new

    def hurry(self) -> None:
        """There is reason to think it works again: forget the waiting, but not what was asked."""
        if not self.is_asked_to_wait:
            self.next_try_at = None
        self.delay_s = BACKOFF_MIN_S

    def is_due(self, now: datetime) -> bool:
        """A clock that stepped back must not leave a channel waiting for hours."""
        due = self.next_try_at
        return due is None or due <= now or due - now > timedelta(seconds=self.waits_s)
