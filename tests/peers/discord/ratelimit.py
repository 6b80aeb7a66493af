"""Rate limits, told in headers and really enforced.

Discord's rate limit page: a bucket per route and major parameter (channel, guild, webhook),
50 requests a second over everything, and a ban of the address after 10,000 invalid requests
(401, 403, 429) in ten minutes. The figures per route are not published; the defaults here are
the commonly observed ones, and 5 messages in 5 s per channel is the one that matters.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """So many requests in so many seconds."""

    count: int
    per_s: float


DEFAULTS: dict[str, Limit] = {
    "message.create": Limit(5, 5.0),
    "message.edit": Limit(5, 5.0),
    "message.delete": Limit(5, 1.0),
    "message.list": Limit(5, 1.0),
    "message.get": Limit(50, 1.0),
    "webhook": Limit(5, 2.0),
    "interaction.webhook": Limit(5, 2.0),
    "commands.write": Limit(5, 5.0),
    "thread.create": Limit(10, 15.0),
    "channel.edit": Limit(5, 15.0),
    "gateway.bot": Limit(5, 5.0),
}
OTHERWISE = Limit(50, 1.0)


@dataclass
class _Window:
    ends_at: float
    used: int = 0


@dataclass
class Verdict:
    """What the limiter says of one request; `retry_after_s` is None when it may pass."""

    headers: dict[str, str]
    retry_after_s: float | None = None
    is_global: bool = False

    def body(self) -> dict[str, object]:
        assert self.retry_after_s is not None
        return {
            "message": "You are being rate limited.",
            "retry_after": round(self.retry_after_s, 3),
            "global": self.is_global,
        }


class RateLimiter:
    """Counts requests per bucket. A bucket's window starts with its first request."""

    def __init__(self) -> None:
        self.limits: dict[str, Limit] = dict(DEFAULTS)
        self.global_limit: Limit | None = Limit(50, 1.0)
        self.ban_after_invalid: Limit | None = Limit(10_000, 600.0)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._global = _Window(0.0)
        self._invalid: deque[float] = deque()

    def set(self, bucket: str, count: int, per_s: float) -> None:
        """Change one bucket's limit, for example `set("message.create", 100, 5)`."""
        self.limits[bucket] = Limit(count, per_s)
        self.reset()

    def reset(self) -> None:
        """Forget what was used."""
        self._windows.clear()
        self._global = _Window(0.0)
        self._invalid.clear()

    def check(self, bucket: str, major: str, *, counts_globally: bool) -> Verdict:
        """Count one request and say whether it may pass."""
        now = time.monotonic()
        if counts_globally and self.global_limit is not None:
            over_for_s = self._check_global(now, self.global_limit)
            if over_for_s is not None:
                headers = {
                    "X-RateLimit-Global": "true",
                    "X-RateLimit-Scope": "global",
                    "Retry-After": str(math.ceil(over_for_s)),
                }
                return Verdict(headers, over_for_s, is_global=True)
        limit = self.limits.get(bucket, OTHERWISE)
        window = self._windows.get((bucket, major))
        if window is None or window.ends_at <= now:
            window = self._windows[bucket, major] = _Window(now + limit.per_s)
        left_s = window.ends_at - now
        blocked = window.used >= limit.count
        if not blocked:
            window.used += 1
        headers = {
            "X-RateLimit-Limit": str(limit.count),
            "X-RateLimit-Remaining": str(limit.count - window.used),
            "X-RateLimit-Reset": f"{time.time() + left_s:.3f}",
            "X-RateLimit-Reset-After": f"{left_s:.3f}",
            "X-RateLimit-Bucket": hashlib.md5(bucket.encode()).hexdigest(),
        }
        if not blocked:
            return Verdict(headers)
        headers["X-RateLimit-Scope"] = "user"
        headers["Retry-After"] = str(math.ceil(left_s))
        return Verdict(headers, left_s)

    def _check_global(self, now: float, limit: Limit) -> float | None:
        if self._global.ends_at <= now:
            self._global = _Window(now + limit.per_s)
        if self._global.used >= limit.count:
            return self._global.ends_at - now
        self._global.used += 1
        return None

    def note_invalid(self) -> None:
        """Count an answer of 401, 403 or 429 towards the ban."""
        self._invalid.append(time.monotonic())

    def is_banned(self) -> bool:
        """Whether this address has made too many invalid requests lately."""
        if self.ban_after_invalid is None:
            return False
        horizon = time.monotonic() - self.ban_after_invalid.per_s
        while self._invalid and self._invalid[0] < horizon:
            self._invalid.popleft()
        return len(self._invalid) >= self.ban_after_invalid.count
