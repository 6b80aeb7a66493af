"""A SQLite file with two connections in two threads: opened, closed, and used job by job.

What is written never waits behind a long read. After an error the next job works again as soon
as its cause is gone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from bot.storage import migrations, sqlite_metrics, sqlite_services
from bot.storage.database import (
    DatabaseThread,
    check_pages,
    connect,
    from_os_error,
    from_sqlite_error,
    inspect_file,
    move_aside,
    prepare_file,
    size_of,
    snapshot,
    transact,
)
from bot.storage.store import StoreError, StoreUnavailable

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

_REOPEN_AFTER = frozenset(("readonly", "cantopen", "io"))
"""What a connection may never recover from by itself, although its file has."""

_NOTE_GAP = "DELETE FROM copy_state WHERE name = 'walk'"


class SqliteFile:
    """The half of SqliteStore that knows connections; its verbs are mixed in beside it."""

    def __init__(self, path: Path, *, bot_id: str = "primary", busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._bot_id = bot_id
        self._busy_timeout_s = busy_timeout_s
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._opening = asyncio.Lock()
        self._is_stale = False
        self._numbers = sqlite_metrics.Numbers()
        self._roster = sqlite_services.Roster()
        self._latest = sqlite_metrics.LatestReader()
        self._on_connect: Job[None] | None = None
        self._is_importing = False
        self._is_gap_noted = False

    # Opening and closing

    async def open(self) -> None:
        """Make or open the file and bring its schema up to date. Harmless when repeated.

        Raises StoreTooNew and StoreForeign without having changed the file, StoreCorrupt when
        it is damaged (see `set_aside`), StoreUnavailable when it cannot be had now.
        """
        async with self._opening:
            if self._writer is None:
                await self._connect()

    async def _connect(self) -> None:
        self._forget()
        self._forget_latest()
        writer = DatabaseThread(self._make_writer)
        try:
            await writer.start()
            await self._guarded(writer, self._prepare)
            reader = DatabaseThread(
                partial(connect, self.path, busy_timeout_s=self._busy_timeout_s, is_writer=False)
            )
            await reader.start()
        except BaseException as error:
            await _close_quietly(writer)
            if isinstance(error, sqlite3.Error):
                raise from_sqlite_error(error, self.path) from error
            if isinstance(error, OSError):
                raise from_os_error(error) from error
            raise
        self._writer, self._reader = writer, reader
        self._is_stale = False

    def _make_writer(self) -> sqlite3.Connection:
        prepare_file(self.path)
        inspect_file(self.path)
        return connect(self.path, busy_timeout_s=self._busy_timeout_s, is_writer=True)

    def _prepare(self, db: sqlite3.Connection) -> None:
        migrations.ensure_ours(db)
        check_pages(db)
        migrations.migrate(db)
        self._is_gap_noted = False
        if self._on_connect is not None:
            self._on_connect(db)

    async def close(self) -> None:
        """Harmless when repeated, and when the store never opened."""
        async with self._opening:
            self._is_stale = False
            await self._disconnect()

    async def _disconnect(self) -> None:
        # The reader first: the last connection to close folds the WAL into the file.
        for connection in (self._reader, self._writer):
            if connection is not None:
                await _close_quietly(connection)
        self._reader = self._writer = None

    async def set_aside(self, now: datetime) -> Path:
        """Move a damaged file (with -wal and -shm) out of the way; nothing is ever deleted.

        The store is closed afterwards; `open` starts a new file.
        """
        await self.close()
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            return move_aside(self.path, f"{self.path.name}.corrupt-{stamp}")
        except OSError as error:
            raise from_os_error(error) from error

    async def schema_version(self) -> int:
        return await self._read(migrations.schema_number)

    async def size_bytes(self) -> int:
        """Bytes on disk, the WAL included."""
        return await self._read(lambda db: size_of(self.path))

    # Jobs

    async def _write(self, job: Job[T]) -> T:
        """One transaction in the writer's thread."""
        return await self._write_alone(partial(transact, job))

    async def _write_alone(self, job: Job[T]) -> T:
        """A job that is a transaction by itself: a single statement, or one that begins its own."""
        if self._is_stale:
            await self._reopen()
        if self._writer is None:
            raise StoreUnavailable("closed")
        return await self._guarded(self._writer, partial(self._remembering, job))

    async def _read(self, job: Job[T]) -> T:
        """A job on one unchanging state of the database, in the reader's thread."""
        if self._is_stale:
            await self._reopen()
        if self._reader is None:
            raise StoreUnavailable("closed")
        return await self._guarded(self._reader, partial(snapshot, job))

    def _remembering(self, job: Job[T], db: sqlite3.Connection) -> T:
        if self._on_connect is None and not self._is_gap_noted:
            # Something is about to be written that no journal will know of.
            db.execute(_NOTE_GAP)
            self._is_gap_noted = True
        try:
            return job(db)
        except BaseException:
            # Numbers given in a transaction that failed were taken back.
            self._forget()
            raise

    def _forget(self) -> None:
        self._numbers.forget()
        self._roster.forget()

    def _forget_latest(self) -> None:
        """Old rows came in: what was looked for in vain may be among them."""
        self._latest = sqlite_metrics.LatestReader()

    async def _guarded(self, thread: DatabaseThread, job: Job[T]) -> T:
        try:
            return await thread.run(job)
        except sqlite3.Error as error:
            mapped = from_sqlite_error(error, self.path)
            if mapped.reason in _REOPEN_AFTER:
                self._is_stale = True
            raise mapped from error
        except (OverflowError, UnicodeError) as error:
            raise StoreError("refused", str(error), retriable=False) from error

    async def _reopen(self) -> None:
        """Fresh connections, because the old ones may remember a trouble that is over."""
        async with self._opening:
            if self._is_stale:
                await self._disconnect()
                await self._connect()


async def _close_quietly(thread: DatabaseThread) -> None:
    """Close a connection that may be broken; what was acknowledged is on disk already."""
    try:
        await thread.close()
    except sqlite3.Error:
        return
