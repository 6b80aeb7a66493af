"""What can go wrong between the bot and its remote, at the word of a test."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from enum import StrEnum


class Fault(StrEnum):
    """One bad answer of the gateway. Up to HANG nothing reaches the database."""

    DROPPED = "connection cut before anything was forwarded"
    BUSY_503 = "503, PostgREST has lost its database"
    POOL_504 = "504, no free connection to the database"
    UNREACHABLE_522 = "522, the proxy in front does not reach the project; HTML"
    PAUSED_540 = "540, the project sleeps"
    HTML_200 = "200 with a web page"
    EMPTY_CODE_400 = "400 with an empty code, seen first after a crash of the database"
    UNAUTHORIZED_401 = "401, the key is not known any more"
    TOO_MANY_429 = "429 with Retry-After: 1"
    HANG = "accepted, never answered"
    SLOW = "forwarded after slow_s"
    ANSWER_LOST = "done, then the connection is cut"
    RESET_IN_BODY = "done, the connection is reset in the middle of the answer"
    TRUNCATED = "done, the answer ends before its promised length"


HARMLESS_TO_DATA = (Fault.DROPPED, Fault.BUSY_503, Fault.POOL_504, Fault.UNREACHABLE_522,
                    Fault.PAUSED_540, Fault.HTML_200, Fault.EMPTY_CODE_400)  # fmt: skip
AFTER_THE_FACT = (Fault.ANSWER_LOST, Fault.RESET_IN_BODY, Fault.TRUNCATED)

PASSING = (*HARMLESS_TO_DATA, *AFTER_THE_FACT)
"""Those a client gets over by asking again, without waiting long."""


class Faults:
    """Chooses the fault of each request; usable from any thread.

    First those queued by `next`, then the one of `always`, then chance. `only` narrows all of it
    to requests whose path contains the text.
    """

    def __init__(self) -> None:
        self.slow_s = 0.5
        self.only = ""
        self.seen: Counter[Fault] = Counter()
        self._lock = threading.Lock()
        self._queue: deque[Fault | None] = deque()
        self._always: Fault | None = None
        self._random: random.Random | None = None
        self._rate = 0.0
        self._kinds: Sequence[Fault] = ()
        self.epoch = 0

    def next(self, *faults: Fault | None) -> None:
        """One for each of the coming requests, in order; None lets one through."""
        with self._lock:
            self._queue.extend(faults)

    def always(self, fault: Fault) -> None:
        """For every request until `clear`."""
        with self._lock:
            self._always = fault

    def randomly(self, seed: int, rate: float, kinds: Sequence[Fault] = PASSING) -> None:
        """By chance, the same for the same seed and order of requests; until `clear`."""
        with self._lock:
            self._random, self._rate, self._kinds = random.Random(seed), rate, kinds

    def clear(self) -> None:
        """All well from now on; hanging requests are let go, unanswered."""
        with self._lock:
            self._queue.clear()
            self._always = self._random = None
            self.only = ""
            self.epoch += 1

    def draw(self, path: str) -> Fault | None:
        """The fault for a request just come in."""
        with self._lock:
            if self.only not in path:
                return None
            chosen: Fault | None = self._always
            if self._queue:
                chosen = self._queue.popleft()
            elif chosen is None and self._random is not None:
                # Both drawn every time, so that one changed outcome shifts no later one.
                strikes = self._random.random() < self._rate
                kind = self._random.choice(self._kinds)
                chosen = kind if strikes else None
            if chosen is not None:
                self.seen[chosen] += 1
            return chosen
