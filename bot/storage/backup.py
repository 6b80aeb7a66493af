"""A consistent copy of the database while the bot works on it, proven by opening it.

A backup is the whole SQLite file, compressed with gzip and perhaps encrypted with age, named
`comet-YYYYMMDDTHHMMSSZ.db.gz[.age]` after the moment it was begun. Any `gunzip` and any `age`
open it without this program.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, TypeAlias
from urllib.parse import quote

from bot.storage import migrations
from bot.storage.database import (
    FILE_MODE,
    connect,
    from_os_error,
    from_sqlite_error,
    inspect_file,
    move_aside,
    roll_back,
    size_of,
)
from bot.storage.kinds import KINDS
from bot.storage.scratch import scratch
from bot.storage.sealed import (
    Identity,
    Recipient,
    SealError,
    public_key,
    seal,
    throwaway_identity,
    unseal,
)
from bot.storage.sqlite_rows import from_ms
from bot.storage.store import StoreCorrupt, StoreError, StoreUnavailable

Report: TypeAlias = Callable[[str, float | None], None]
"""Told the step being done, and what part of it (0 to 1) where that is known.

Steps: copy, check, pack, prove, unpack, migrate. It may raise to stop the work.
"""

STAMP: Final = "%Y%m%dT%H%M%SZ"
_MAGIC: Final = b"SQLite format 3\0"
_BUSY_S: Final = 5.0
_RESERVE_BYTES: Final = 16 * 1024 * 1024
"""What a backup leaves free on the disk: the bot itself writes there too."""

_COUNTED: Final = {
    "system_stats": "samples",
    "metrics_hourly": "hourly",
    "service_polls": "polls",
}
"""PostgreSQL's names of tables that SQLite keeps under other ones, or shows as slow views."""


class BackupError(StoreError):
    """A backup or a restore was refused, and nothing was changed.

    reason: taken (there is a file of that name), suffix (the name does not say what is in it),
    in_use (another program has the database open), exists (there is a database already), same
    (a file cannot be restored onto itself), not_backup (neither a backup nor a database).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail, retriable=False)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds. `counts`: rows by kind, of the kinds its schema knows."""

    schema_number: int
    newest_sample_at: datetime | None
    counts: dict[str, int]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """`aside` is where the database that was there before is now; None when there was none."""

    contents: Contents
    aside: Path | None
    was_schema_number: int


def quiet(step: str, part: float | None) -> None:
    """For callers who do not want to know how far it is."""


def make(
    database: Path,
    to: Path,
    now: datetime,
    recipients: Sequence[Recipient] = (),
    report: Report = quiet,
) -> Path:
    """A new backup of `database`: in the folder `to`, or at `to` where that names a file; its path.

    1. copy the database as it stands at one moment, 2. check every page of the copy, 3. pack it,
    4. read the packed file back and compare, 5. only then give it its name. A writer goes on
    meanwhile. Raises StoreError (BackupError, SealError); then nothing is left behind.
    """
    inspect_file(database)
    folder, target = _place(to, now, is_sealed=bool(recipients))
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        _ensure_room(database, folder)
        with scratch(folder) as work:
            copy = work / "copy.db"
            copy_database(database, copy, report)
            packed = work / "packed"
            _pack(copy, packed, recipients, report)
            packed.chmod(stat.S_IMODE(database.stat().st_mode) & FILE_MODE)
            if target.exists():
                raise BackupError("taken", str(target))
            packed.rename(target)
        _sync_folder(folder)
        return target
    except OSError as error:
        raise from_os_error(error) from error


def verify(
    path: Path, identities: Sequence[Identity] = (), report: Report = quiet, *, work: Path
) -> Contents:
    """Open a backup (or a bare SQLite file) and look at every page; what it holds.

    A copy stands in the folder `work` meanwhile. Raises StoreError (BackupError, SealError).
    """
    try:
        with scratch(work) as place:
            return _open(path, place / "copy.db", identities, report)
    except OSError as error:
        raise from_os_error(error) from error


def restore(
    path: Path,
    database: Path,
    now: datetime,
    identities: Sequence[Identity] = (),
    report: Report = quiet,
    *,
    is_forced: bool = False,
) -> Restored:
    """Put a backup where the database is to be. What is there already is moved aside if forced.

    1. refuse what must not be overwritten, 2. open and check the backup, 3. bring its schema up
    to date, 4. look again whether somebody uses the old file, move it aside, put the new one in
    its place. Raises StoreError (BackupError, SealError); then the old file is where it was.
    """
    old = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")]
    try:
        if path.exists() and database.exists() and path.samefile(database):
            raise BackupError("same", str(path))
        is_there = any(one.exists() for one in old)
        if is_there and not is_forced:
            raise BackupError("exists", str(database))
        _refuse_if_used(database)
        database.parent.mkdir(parents=True, exist_ok=True)
        with scratch(database.parent) as place:
            fresh = place / "fresh.db"
            contents = _open(path, fresh, identities, report)
            report("migrate", None)
            number = _bring_up(fresh)
            fresh.chmod(FILE_MODE)
            _sync(fresh)
            _refuse_if_used(database)
            stamp = now.astimezone(UTC).strftime(STAMP)
            aside = None
            if is_there:
                aside = move_aside(database, f"{database.name}.before-restore-{stamp}")
            fresh.rename(database)
        _sync_folder(database.parent)
    except OSError as error:
        raise from_os_error(error) from error
    return Restored(replace(contents, schema_number=number), aside, contents.schema_number)


def _place(to: Path, now: datetime, *, is_sealed: bool) -> tuple[Path, Path]:
    """Folder and file to make. A name of the user's own must say what is in the file."""
    ending = ".db.gz.age" if is_sealed else ".db.gz"
    if not to.is_dir() and to.name.endswith((".gz", ".age", ".db", ".gpg")):
        if not to.name.endswith(ending):
            raise BackupError("suffix", ending)
        if to.exists():
            raise BackupError("taken", str(to))
        return to.parent, to
    name = f"comet-{now.astimezone(UTC).strftime(STAMP)}"
    target, attempt = to / f"{name}{ending}", 1
    while target.exists():
        attempt += 1
        target = to / f"{name}-{attempt}{ending}"
    return to, target


def _ensure_room(database: Path, folder: Path) -> None:
    """Better no backup than a disk so full that the bot cannot write any more."""
    free = shutil.disk_usage(folder).free
    needed = size_of(database) * 3 // 2 + _RESERVE_BYTES
    if free < needed:
        raise StoreUnavailable("full", f"{free} bytes are free, {needed} are needed")


def copy_database(database: Path, copy: Path, report: Report) -> None:
    """The database as it stands at one moment, with every page of the copy checked.

    In a single step: one in several begins anew with every write and may never end. Raises
    StoreError and OSError; then the caller removes `copy`.
    """
    report("copy", None)
    _create(copy)
    try:
        with (
            closing(connect(database, busy_timeout_s=_BUSY_S, is_writer=False)) as source,
            closing(_to_write(copy)) as target,
        ):
            # The backup itself would wait for ever on a file that another program has locked.
            source.execute("BEGIN")
            migrations.ensure_ours(source)
            source.backup(target, pages=-1)
            roll_back(source)
    except sqlite3.Error as error:
        raise from_sqlite_error(error, copy) from error
    report("check", None)
    with closing(_to_read(copy)) as db:
        _check(db, copy)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _to_write(path: Path) -> sqlite3.Connection:
    """For a copy that is thrown away when anything goes wrong: no journal, no waiting for it."""
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    return db


def _to_read(path: Path) -> sqlite3.Connection:
    """A file that nobody else has: no -wal, no -shm appears beside it."""
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raises StoreCorrupt, StoreForeign, StoreTooNew."""
    try:
        migrations.ensure_ours(db)
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise from_sqlite_error(error, path) from error
    if verdict != "ok":
        raise StoreCorrupt(str(verdict))
    if migrations.schema_number(db) == 0:
        raise BackupError("not_backup", "there is nothing in it")


def _pack(copy: Path, packed: Path, recipients: Sequence[Recipient], report: Report) -> None:
    """Pack, then read back and compare.

    What only others can decrypt is encrypted for one more key as well, which is forgotten at
    once: without it nobody here could say that the file can be opened at all.
    """
    _create(packed)
    proof = [throwaway_identity()] if recipients else []
    everybody = [*recipients, *map(public_key, proof)]
    size = copy.stat().st_size
    with copy.open("rb") as source, packed.open("r+b") as out:
        digest = seal(source, size, out, everybody, lambda part: report("pack", part))
        out.flush()
        os.fsync(out.fileno())
    size = packed.stat().st_size
    with packed.open("rb") as source:
        found = unseal(source, size, lambda piece: None, proof, lambda p: report("prove", p))
    if found != digest:
        raise SealError("damaged", "what was written is not what is read")


def _open(path: Path, copy: Path, identities: Sequence[Identity], report: Report) -> Contents:
    """The database in a backup, unpacked to `copy` and checked."""
    with path.open("rb") as source:
        head = source.read(len(_MAGIC))
        source.seek(0)
        if head == _MAGIC:
            inspect_file(path)
            copy_database(path, copy, report)
        else:
            _create(copy)
            with copy.open("r+b") as out:
                _unpack(source, path.stat().st_size, out, identities, report)
            inspect_file(copy)
    report("check", None)
    with closing(_to_read(copy)) as db:
        _check(db, copy)
        try:
            return _contents(db, copy.stat().st_size)
        except sqlite3.Error as error:
            raise from_sqlite_error(error, copy) from error


def _unpack(
    source: IO[bytes], size: int, out: IO[bytes], identities: Sequence[Identity], report: Report
) -> None:
    """Stops at the first bytes when it is not a database that comes out."""
    head = b""

    def take(piece: bytes) -> None:
        nonlocal head
        if len(head) < len(_MAGIC):
            head = (head + piece)[: len(_MAGIC)]
            if not _MAGIC.startswith(head):
                raise BackupError("not_backup", "no SQLite file in it")
        out.write(piece)

    try:
        unseal(source, size, take, identities, lambda part: report("unpack", part))
    except SealError as error:
        if error.reason == "not_sealed":
            raise BackupError("not_backup", "") from error
        raise


def _contents(db: sqlite3.Connection, size_bytes: int) -> Contents:
    (newest,) = db.execute("SELECT max(sample_key) >> 8 FROM samples").fetchone()
    known = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    counts = {}
    for kind in KINDS:
        table = _COUNTED.get(kind.table, kind.table)
        if table in known:
            (counts[kind.name],) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return Contents(
        migrations.schema_number(db),
        None if newest is None else from_ms(newest),
        counts,
        size_bytes,
    )


def _bring_up(path: Path) -> int:
    """Apply what is pending and fold the WAL into the file; the schema's number."""
    try:
        with closing(connect(path, busy_timeout_s=_BUSY_S, is_writer=True)) as db:
            migrations.migrate(db)
            return migrations.schema_number(db)
    except sqlite3.Error as error:
        raise from_sqlite_error(error, path) from error


def _refuse_if_used(database: Path) -> None:
    """Raises BackupError("in_use") when any other connection to the file is open.

    In WAL mode each connection holds a shared lock on the file for as long as it lives, idle or
    not, so that an exclusive one cannot be had.
    """
    if not database.exists():
        return
    uri = f"file:{quote(str(database))}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0.5)) as db:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")
            db.execute("ROLLBACK")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise BackupError("in_use", str(database)) from error
        # Damaged, or no database: nobody can be working on it.


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_sync_folder = _sync
"""A rename is on disk only when its folder is."""
