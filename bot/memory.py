"""What remembers: the file, its copy in a remote store, backups, and who keeps house in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from bot.core.copying import Copying
from bot.i18n import Translator
from bot.redaction import Redactor, Secret
from bot.services.alerting import Alerting
from bot.services.backups import PERIOD_S as BACKUPS_PERIOD_S
from bot.services.backups import Backups
from bot.services.fleet import Fleet
from bot.services.janitor import Janitor, free_bytes, retention
from bot.services.log_keeper import LogKeeper
from bot.services.recorder import Fact, FactKind, Recorder
from bot.services.remote_janitor import PERIOD_S as REMOTE_JANITOR_PERIOD_S
from bot.services.remote_janitor import RemoteJanitor
from bot.services.store_file import StoreFile
from bot.services.ticker import Tasks
from bot.settings import Settings
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Store

if TYPE_CHECKING:
    from bot.storage.copier import Copier
    from bot.storage.pg_store import PgStore

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 1.0
COPY_PERIOD_S: Final = 10.0
COPY_LOOK_S: Final = 1.0
"""New rows are looked for this often. A beat of its own for each look would call a hanging
remote store a dead task, which it is not."""
COPY_AT_ONCE_S: Final = 8.0
LOG_PERIOD_S: Final = 2.0


@dataclass(slots=True)
class _Remote:
    store: PgStore
    copier: Copier


class Memory:
    """Built from settings, opened before anything else, closed after everything else.

    Without a remote store nothing of it is even imported.
    """

    def __init__(
        self,
        settings: Settings,
        translator: Translator,
        now: Callable[[], datetime],
        rescue: Callable[[Path], Awaitable[list[Fact]]],
    ) -> None:
        """`rescue`: see `StoreFile`."""
        self._settings = settings
        self._now = now
        self._rescue = rescue
        path = settings.sqlite_db_path
        self.store = SqliteStore(path, bot_id=settings.bot_id, busy_timeout_s=BUSY_TIMEOUT_S)
        self.file = StoreFile(self.store, translator, now, self._rescue_all)
        self.recorder = Recorder(self.store, recover=self.file.replace)
        self.logs = LogKeeper(self.recorder, uuid4)
        self._keep = _retention(settings)
        self.backups = _backups(settings, now)
        self._remote = _remote(settings, self.store, now)
        self._exit = contextlib.ExitStack()

    @property
    def remote(self) -> PgStore | None:
        return None if self._remote is None else self._remote.store

    def copying(self) -> Copying | None:
        """How the copy stands; None without a remote store."""
        return None if self._remote is None else self._remote.copier.status

    async def open(self) -> None:
        """1. the file, 2. its journal, 3. what an empty file has forgotten. Raises StoreError."""
        from bot.logs import attached

        self._exit.enter_context(attached(self.logs, Redactor(self._settings.secrets())))
        await self.file.open()
        if self._remote is not None:
            await self.store.start_journal()
            await self._remote.copier.fill()

    def start_beats(self, tasks: Tasks, alerting: Alerting) -> None:
        """Everything but the janitor, who also needs to know of monitors and alerts."""
        tasks.start("logs", LOG_PERIOD_S, self.logs.drain)
        if self.backups is not None:
            tasks.start("backups", BACKUPS_PERIOD_S, self.backups.tick)
        if self._remote is not None:
            self._remote.copier.tell_late(alerting.take_up)
            tasks.start("copier", COPY_PERIOD_S, partial(_copy, self._remote.copier))
            house = RemoteJanitor(self._remote.store, self._keep)
            tasks.start("remote_janitor", REMOTE_JANITOR_PERIOD_S, house.tick)

    def make_janitor(self, fleet: Fleet, alerting: Alerting, zone: tzinfo) -> Janitor:
        settings = self._settings
        return Janitor(
            self.store,
            self.recorder,
            fleet,
            alerting,
            self._keep,
            self._now,
            new_id=uuid4,
            zone=zone,
            sample_interval_s=settings.sample_interval_s,
            free_bytes=partial(free_bytes, settings.sqlite_db_path.absolute().parent),
        )

    async def put_away(self) -> None:
        """Write what waits in memory."""
        await self.logs.drain(is_last=True)
        await self.recorder.drain()

    async def close(self) -> None:
        self._exit.close()
        if self._remote is not None:
            await self._remote.store.close()
        await self.store.close()

    async def _rescue_all(self, aside: Path) -> list[Fact]:
        """For a fresh file in place of a damaged one: the copy elsewhere knows the rest."""
        facts = await self._rescue(aside)
        if self._remote is None:
            return facts
        await self.store.start_journal()

        async def ask(_: Store) -> None:
            await self.store.put_copy_state(fill="wanted")

        # Last: what the process itself still knows must not be taken for forgotten over there.
        return [*facts, Fact(FactKind.KEEP, "a wish for the history elsewhere", ask)]


def _retention(settings: Settings) -> Mapping[str, timedelta]:
    return retention(
        metrics_days=settings.metrics_retention_days,
        hourly_days=settings.hourly_retention_days,
        conversation_days=settings.conversation_retention_days,
        music_days=settings.music_retention_days,
        log_days=settings.bot_log_retention_days,
    )


def _backups(settings: Settings, now: Callable[[], datetime]) -> Backups | None:
    if settings.backup_dir is None:
        return None
    from bot.storage.backup_folder import BackupFolder

    recipient = settings.backup_age_recipient
    folder = BackupFolder(
        settings.sqlite_db_path,
        settings.backup_dir,
        settings.backup_keep,
        () if recipient is None else (recipient,),
    )
    return Backups(folder, settings.backup_interval_h, now)


def _remote(settings: Settings, local: SqliteStore, now: Callable[[], datetime]) -> _Remote | None:
    if settings.monitoring_db == "sqlite":
        return None
    from bot.storage.copier import Copier
    from bot.storage.remote import remote_store

    def revealed(secret: Secret | None) -> str | None:
        return None if secret is None else secret.reveal()

    store = remote_store(
        settings.monitoring_db,
        database_url=revealed(settings.database_url),
        supabase_url=settings.supabase_url,
        supabase_key=revealed(settings.supabase_key),
        bot_id=settings.bot_id,
        migrate=True,
    )
    if store is None:
        return None
    return _Remote(
        store, Copier(local, store, settings.bot_id, now, backend=settings.monitoring_db)
    )


async def _copy(copier: Copier) -> None:
    """One beat: carries what is new as soon as it is there, for most of a period."""
    until_s = time.monotonic() + COPY_AT_ONCE_S
    while True:
        await copier.tick()
        if time.monotonic() >= until_s:
            return
        await asyncio.sleep(COPY_LOOK_S)
