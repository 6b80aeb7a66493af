"""Applies the numbered SQL beside the code, forward only, each file in one transaction.

The number of the last file applied stands in `PRAGMA user_version`, the whole story in the table
`schema_migrations`. A database whose number is higher than any file here was written by a newer
program and is left alone.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.storage.store import StoreForeign, StoreTooNew

MIGRATIONS_ROOT = Path(__file__).resolve().parents[2] / "migrations"

APPLICATION_ID = 0x434F4D54
"""`COMT`: tells our files from any other SQLite file."""

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    number: int
    name: str
    path: Path

    def statements(self) -> Iterator[str]:
        """The file's statements one by one; a trigger with its inner semicolons stays whole."""
        pending = ""
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            pending += line
            if ";" in line and sqlite3.complete_statement(pending):
                yield pending
                pending = ""


def available(dialect: str = "sqlite") -> list[Migration]:
    """Every migration of a dialect, by number; a gap or a double number is a fault of ours."""
    found = []
    for path in sorted((MIGRATIONS_ROOT / dialect).glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"migration with a strange name: {path.name}")
        found.append(Migration(int(match[1]), match[2], path))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations of {dialect} are not numbered 0001, 0002, …")
    return found


def latest_number(dialect: str = "sqlite") -> int:
    return len(available(dialect))


def schema_number(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def applied(db: sqlite3.Connection) -> list[tuple[int, str, str]]:
    """(number, name, time) of each migration this database has seen, oldest first."""
    if not _has_ledger(db):
        return []
    rows = db.execute("SELECT number, name, applied_at FROM schema_migrations ORDER BY number")
    return [(int(number), str(name), str(at)) for number, name, at in rows]


def pending(db: sqlite3.Connection) -> list[Migration]:
    """What `migrate` would still apply, in order. Raises StoreTooNew and StoreForeign."""
    ensure_ours(db)
    number = schema_number(db)
    return [migration for migration in available() if migration.number > number]


def ensure_ours(db: sqlite3.Connection) -> None:
    """Refuse a database of somebody else's, or of a newer program, before anything is written."""
    # In this order: another process may commit the first migration in between.
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    refuse_unless_ours(application, schema_number(db), is_empty=tables == 0)


def refuse_unless_ours(application: int, number: int, *, is_empty: bool) -> None:
    if is_empty and application == 0:
        return
    if application != APPLICATION_ID:
        raise StoreForeign(f"application_id {application:#010x}")
    known = latest_number()
    if number > known:
        raise StoreTooNew(number, known)


def migrate(db: sqlite3.Connection) -> list[Migration]:
    """Apply what is pending; returns it. `db` must be in autocommit mode.

    1. Take the write lock, so that two processes starting together do not both apply. This is
       also where a file that we may only read is found out, even with nothing pending.
    2. Look again at what is pending: the other one may have been first.
    3. Run the statements, note the number, commit. Any error undoes that file altogether.
    """
    done: list[Migration] = []
    while True:
        db.execute("BEGIN IMMEDIATE")
        try:
            todo = pending(db)
            if not todo:
                db.execute("ROLLBACK")
                return done
            migration = todo[0]
            for statement in migration.statements():
                db.execute(statement)
            db.execute(_LEDGER)
            db.execute(
                "INSERT INTO schema_migrations (number, name, applied_at) VALUES (?, ?, ?)",
                (migration.number, migration.name, _now_text()),
            )
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {migration.number}")
            db.execute("COMMIT")
            done.append(migration)
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _has_ledger(db: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"
    return db.execute(query).fetchone() is not None


def _now_text() -> str:
    return datetime.now(UTC).isoformat(" ", "milliseconds")[:23]
