"""Has the remote store keep house every few minutes, where nobody else does it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from bot.storage.store import StoreError

logger = logging.getLogger(__name__)

PERIOD_S = 60.0
BETWEEN_S = (240.0, 360.0)
"""Several bots may share a database: they should not all ask at the same moment."""


class RemoteHouse(Protocol):
    """The remote store, which knows by itself whether pg_cron or another bot is at it."""

    async def set_retention(self, keep: Mapping[str, timedelta]) -> None:
        """How long this bot wants rows kept, by kind."""

    async def housekeeping(self) -> bool:
        """One bounded round; whether there is more to do."""


class RemoteJanitor:
    """`tick` on a beat. A remote store that is away is the copier's to tell, not ours."""

    def __init__(
        self,
        remote: RemoteHouse,
        keep: Mapping[str, timedelta],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keep`: see `janitor.retention`."""
        self._remote = remote
        self._keep = keep
        self._monotonic = monotonic
        self._next_s = monotonic() + random.uniform(0, BETWEEN_S[0])
        self._is_told = False
        self._problem: str | None = None

    async def tick(self) -> None:
        """1. our wishes, once; 2. a round. What goes wrong is tried again some minutes later."""
        if self._monotonic() < self._next_s:
            return
        self._next_s = self._monotonic() + random.uniform(*BETWEEN_S)
        try:
            if not self._is_told:
                await self._remote.set_retention(self._keep)
                self._is_told = True
            if await self._remote.housekeeping():
                self._next_s = self._monotonic()
        except StoreError as error:
            if not error.retriable and error.reason != self._problem:
                logger.warning("the remote store does not keep house: %s", error)
            self._problem = error.reason
        else:
            self._problem = None
