"""One SQLite connection in a thread of its own, and what its errors mean to us."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiosqlite

from bot.storage.migrations import refuse_unless_ours
from bot.storage.store import StoreCorrupt, StoreError, StoreUnavailable

T = TypeVar("T")

FILE_MODE = 0o640
"""Conversations are in there: nobody but the owner writes, nobody but the group reads."""

_MAGIC = b"SQLite format 3\0"
_QUICK_CHECK_BYTES = 8 * 1024 * 1024
"""Up to this size a check of every page costs a start less than a tenth of a second."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_CANTOPEN: "cantopen",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_NOMEM: "io",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_INTERRUPT: "locked",
}


class DatabaseThread(aiosqlite.Connection):
    """A connection whose every job is one hop into its thread, so that jobs never interleave."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        # A program that dies without closing its store must not hang in this thread forever.
        self._thread.daemon = True

    async def start(self) -> None:
        """Begin the thread and connect in it. Nothing is left behind if that fails."""
        try:
            await self
        except BaseException:
            # aiosqlite has told the thread to stop but does not wait; the event loop must not
            # be closed under it.
            while self._thread.is_alive():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            raise

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """The job's result. It runs to its end even if the caller is cancelled meanwhile."""
        try:
            db = self._conn
        except ValueError as error:
            raise StoreUnavailable("closed") from error
        result: T = await self._execute(partial(job, db))  # type: ignore[no-untyped-call]
        return result


def connect(path: Path, *, busy_timeout_s: float, is_writer: bool) -> sqlite3.Connection:
    """A connection as we want it. In autocommit mode: transactions begin where we say so."""
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=busy_timeout_s,
        check_same_thread=False,
    )
    try:
        if is_writer:
            if db.execute("PRAGMA page_count").fetchone()[0] == 0:
                # Must come before WAL. On any other file it would be a write without need.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _switch_to_wal(db, busy_timeout_s)
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA journal_size_limit = 16777216")
        else:
            db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def _switch_to_wal(db: sqlite3.Connection, timeout_s: float) -> None:
    """SQLite does not wait by itself here when another process opens the same new file."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def prepare_file(path: Path) -> None:
    """Make directory and file, with the mode they ought to have.

    SQLite gives -wal and -shm the mode of the file itself. A mode stricter than ours is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE)
        except FileExistsError:
            mode = path.stat().st_mode & 0o777
            if mode & ~FILE_MODE:
                path.chmod(mode & FILE_MODE)
            return
        try:
            os.fchmod(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)
    except PermissionError as error:
        if not path.exists():
            raise StoreUnavailable("cantopen", str(error)) from error
    except OSError as error:
        raise from_os_error(error) from error


def inspect_file(path: Path) -> None:
    """Refuse, from its first bytes alone, a file that is not ours, is too new or no database.

    Nothing is opened by SQLite here: even a clean close could change a file that has a WAL.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
        has_wal = _size(path.with_name(path.name + "-wal")) > 0
    except OSError as error:
        raise from_os_error(error) from error
    if not header:
        return
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise StoreCorrupt("not a SQLite file")
    # An application_id of 0 may still be ours with its first migration in the WAL.
    application = int.from_bytes(header[68:72], "big")
    if application or not has_wal:
        number = int.from_bytes(header[60:64], "big")
        # Schema cookie 0: no table was ever made, so the file is empty whoever made it.
        is_empty = int.from_bytes(header[40:44], "big") == 0
        refuse_unless_ours(application, number, is_empty=is_empty)


def check_pages(db: sqlite3.Connection) -> None:
    """Look through a small file page by page; a large one is believed until it errs."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (page_size,) = db.execute("PRAGMA page_size").fetchone()
    if pages * page_size > _QUICK_CHECK_BYTES:
        return
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorrupt(str(verdict))


def transact(job: Callable[[sqlite3.Connection], T], db: sqlite3.Connection) -> T:
    """Run a job as one transaction: all of it is on disk afterwards, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = job(db)
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise
    return result


def snapshot(job: Callable[[sqlite3.Connection], T], db: sqlite3.Connection) -> T:
    """Run a reading job over one unchanging state of the database."""
    db.execute("BEGIN")
    try:
        return job(db)
    finally:
        roll_back(db)


def roll_back(db: sqlite3.Connection) -> None:
    """Leave no transaction behind, or every later job would fail."""
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite rolls back by itself after the gravest errors; asking again is an error.
            if db.in_transaction:
                raise


def from_sqlite_error(error: sqlite3.Error, path: Path) -> StoreError:
    """What a SQLite error means for the caller: wait, call for help, or give up."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    detail = f"{name}: {error}"
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(detail)
    reason = _REASONS.get(primary) if primary is not None else None
    if reason == "io" and _is_disk_full(path):
        reason = "full"
    if reason is not None:
        return StoreUnavailable(reason, detail)
    return StoreError("refused", detail, retriable=False)


def from_os_error(error: OSError) -> StoreError:
    return StoreUnavailable("full" if error.errno in _FULL else "cantopen", str(error))


_FULL = (28, 122)
"""ENOSPC, EDQUOT."""


def _is_disk_full(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def move_aside(path: Path, name: str) -> Path:
    """Rename a database with its -wal and -shm; a number is added when the name is taken."""
    target = path.with_name(name)
    attempt = 1
    while target.exists():
        attempt += 1
        target = path.with_name(f"{name}-{attempt}")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(target.with_name(target.name + suffix))
    return target


def size_of(path: Path) -> int:
    """Bytes of a database and its WAL."""
    return _size(path) + _size(path.with_name(path.name + "-wal"))
