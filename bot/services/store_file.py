"""The SQLite file on bad days: locked when it is opened, or found damaged at any time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bot.i18n import Translator
from bot.services.recorder import Fact
from bot.storage.store import Store, StoreCorrupt, StoreUnavailable

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
RETRY_S = 2.0
SAID_S = 600.0


class FileStore(Store, Protocol):
    """A store in a file of its own."""

    async def set_aside(self, now: datetime) -> Path:
        """Close, and move the file out of the way under a name of its own."""


class StoreFile:
    """Opens the store and replaces its file when it is damaged; nothing is ever deleted."""

    def __init__(
        self,
        store: FileStore,
        translator: Translator,
        now: Callable[[], datetime],
        rescue: Callable[[Path], Awaitable[list[Fact]]],
    ) -> None:
        """`rescue` gets the damaged file and gives the facts that a fresh one must hold."""
        self._store = store
        self._t = translator.t
        self._now = now
        self._rescue = rescue
        self._set_aside: tuple[Path, float] | None = None

    async def open(self) -> None:
        """Wait a minute for a locked file; set a damaged one aside. Raises StoreError."""
        deadline_s = time.monotonic() + PATIENCE_S
        is_said = False
        while True:
            try:
                await self._store.open()
                return
            except StoreCorrupt:
                for fact in await self.replace():
                    await fact.write(self._store)
                return
            except StoreUnavailable as error:
                if error.reason != "locked" or time.monotonic() >= deadline_s:
                    raise
                if not is_said:
                    logger.warning("%s", self._t("app.store_locked"))
                    is_said = True
                await asyncio.sleep(RETRY_S)

    async def replace(self) -> list[Fact]:
        """Start a fresh file beside the damaged one; what must be written into it."""
        aside = await self._store.set_aside(self._now())
        self._set_aside = (aside, time.monotonic())
        logger.critical("%s", self._t("app.store_set_aside", path=aside))
        await self._store.open()
        return await self._rescue(aside)

    def recently_set_aside(self) -> str | None:
        """The name of the file set aside in the last ten minutes."""
        if self._set_aside is None:
            return None
        path, at_s = self._set_aside
        return path.name if time.monotonic() - at_s < SAID_S else None
