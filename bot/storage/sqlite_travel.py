"""The verbs of the SQLite store by which rows travel to and from other stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bot.storage.kinds import BY_NAME, Cursor, RowPage, WireRow
from bot.storage.sqlite_file import SqliteFile
from bot.storage.sqlite_numbers import Hours, Metrics, Samples
from bot.storage.sqlite_packed import Polls, Rosters, ServiceHours, Summaries
from bot.storage.sqlite_tables import TABLES, Ask, Home, Shelf, refused

SHELVES: Final[dict[str, Shelf]] = {
    **{table.name: table for table in TABLES},
    "samples": Samples(),
    "metrics": Metrics(),
    "metrics_hourly": Hours(),
    "rosters": Rosters(),
    "polls": Polls(),
    "service_hours": ServiceHours(),
    "daily_summaries": Summaries(),
}
assert SHELVES.keys() == BY_NAME.keys()


class TravelVerbs(SqliteFile):
    """For `SqliteStore`; see `store.Store` for the promises.

    What alerts, services and settings are about is one bot's in a file. Which of two rows of the
    same key stands is told by the rows themselves: an incident's version, an outbox item that is
    done, a monitor's change, a setting's and a state's time.
    """

    def _home(self) -> Home:
        return Home(self._bot_id, self._numbers, self._roster)

    async def export_rows(
        self,
        kind: str,
        after: Cursor | None,
        limit: int,
        *,
        since_at: datetime | None = None,
        bot_id: str | None = None,
    ) -> RowPage:
        shelf, home = shelf_of(kind), self._home()
        ask = Ask(after, max(1, limit), since_at, bot_id)
        return await self._read(lambda db: shelf.page(db, home, ask))

    async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
        home = self._home()
        taken = await self._write(lambda db: take(db, home, kind, rows))
        self._forget_latest()
        return taken

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int:
        shelf, home = shelf_of(kind), self._home()
        return await self._read(lambda db: shelf.count(db, home, bot_id))


def take(db: sqlite3.Connection, home: Home, kind: str, rows: Sequence[WireRow]) -> int:
    """Rows of one kind into the file, within the caller's transaction."""
    try:
        return shelf_of(kind).take(db, home, rows)
    except (ValueError, TypeError, KeyError) as error:
        # What a row says is never repeated: it may be somebody's words.
        raise refused(f"a row of {kind} that is none: {type(error).__name__}") from error


def shelf_of(kind: str) -> Shelf:
    shelf = SHELVES.get(kind)
    if shelf is None:
        raise refused(f"unknown kind: {kind}")
    return shelf
