"""Makes a backup whenever the newest one is too old, and can say how that goes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from bot.storage.store import StoreError

logger = logging.getLogger(__name__)

PERIOD_S: Final = 300.0
"""How often to look whether one is due."""

RETRY: Final = timedelta(minutes=15)
"""After one that went wrong."""


class Folder(Protocol):
    """Where the backups are. Both methods block, and are called in a thread."""

    def newest_at(self, now: datetime) -> datetime | None:
        """When the newest backup was begun."""

    def make(self, now: datetime, is_stopped: Callable[[], bool]) -> tuple[str, int]:
        """Make one and delete what is too many; (name, bytes). Raises StoreError."""


class Backups:
    """The schedule. It lives in the names of the files, so that a restart changes nothing.

    `last_ok_at`: when the newest backup was begun, also of an earlier process; None when there
    is none. `last_error`: what went wrong the last time; None when it went well. `count`, `failed`:
    made and failed since the start. `next_at`: when one is due, None before the first look.
    """

    def __init__(self, folder: Folder, every_h: float, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._every = timedelta(hours=every_h)
        self._now = now
        self._not_before: datetime | None = None
        self.last_ok_at: datetime | None = None
        self.last_error: str | None = None
        self.last_size_bytes: int | None = None
        self.count = 0
        self.failed = 0
        self.next_at: datetime | None = None

    async def tick(self) -> None:
        """Make a backup if one is due. What goes wrong is logged once and raises nothing."""
        now = self._now()
        try:
            self.last_ok_at = await asyncio.to_thread(self._folder.newest_at, now)
            self.next_at = now if self.last_ok_at is None else self.last_ok_at + self._every
            if self._not_before is not None and now >= self._not_before - RETRY:
                # A clock set back must not make us wait for the time it showed before.
                self.next_at = max(self.next_at, self._not_before)
            if now >= self.next_at:
                await self._make(now)
        except (StoreError, OSError) as error:
            self._note_failure(error, now)

    async def _make(self, now: datetime) -> None:
        stop = threading.Event()
        try:
            name, size = await asyncio.to_thread(self._folder.make, now, stop.is_set)
        except asyncio.CancelledError:
            # The thread cannot be ended from outside; it looks at this between two pieces.
            stop.set()
            raise
        if self.last_error is not None:
            logger.info("backups work again")
        logger.info("backup %s made, %d bytes", name, size)
        self.last_ok_at, self.last_error, self.last_size_bytes = now, None, size
        self._not_before = None
        self.next_at = now + self._every
        self.count += 1

    def _note_failure(self, error: Exception, now: datetime) -> None:
        self.failed += 1
        said = str(error)
        if said != self.last_error:
            logger.error("no backup could be made: %s", said)
        self.last_error = said
        self._not_before = self.next_at = now + RETRY
