"""The journal: what the copier still has to carry to the remote store, noted as it is stored.

While copying is on, triggers of the writer's own connection append one row per stored fact, in
the very transaction that stores it. Without a remote store there are no triggers and no cost.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import uuid4

from bot.storage.kinds import BY_NAME, WireRow
from bot.storage.sqlite_file import SqliteFile
from bot.storage.sqlite_rows import EPOCH, clean, json_text, public_time
from bot.storage.sqlite_tables import TABLES, Home
from bot.storage.sqlite_travel import SHELVES, take

NOTE_BYTES: Final = 32
"""About what a row of the journal takes, its body apart."""
REFUSED_KEPT: Final = 1000
GIVEN_UP_FIRST: Final = (("samples", "polls"), ("metrics", "metrics_raw", "bot_logs"))
"""What may be given up when too much waits, the first before the second; nothing else may."""

_REFS: Final = {
    "samples": ("samples", "NEW.sample_key"),
    "polls": ("polls", "NEW.at_ms || ' ' || NEW.instance"),
    "service_hours": ("service_hourly", "NEW.hour || ' ' || NEW.instance"),
    "metrics_hourly": ("hourly", "NEW.metric || ' ' || NEW.hour || ' ' || NEW.bot"),
    "metrics": ("custom_metrics", "NEW.metric || ' ' || NEW.at_ms || ' ' || NEW.id"),
    "daily_summaries": ("daily_summaries", "NEW.date"),
    "flips": ("flips", "NEW.flip_id"),
    "changes": ("service_status_history", "NEW.id"),
    "metrics_raw": ("metrics_raw", "NEW.id"),
    "conversations": ("conversation_logs", "NEW.id"),
    "music": ("music_logs", "NEW.id"),
    "bot_logs": ("bot_logs", "NEW.id"),
}
"""Rows that are noted by key alone: (table, key). Rosters go along with what needs them."""
_REWRITTEN: Final = {
    "service_hours": "(NEW.checks, NEW.body) IS NOT (OLD.checks, OLD.body)",
    "metrics_hourly": "(NEW.count, NEW.avg_value, NEW.min_value, NEW.max_value) "
    "IS NOT (OLD.count, OLD.avg_value, OLD.min_value, OLD.max_value)",
    "daily_summaries": "NEW.summary_data IS NOT OLD.summary_data",
}
"""Those of them that may be written again, and what tells that they say something new."""
_REMOVED: Final = {
    "states_removed": ("alert_states", ("rule_name", "subject")),
    "guild_configs_removed": ("monitoring_config", ("guild_id",)),
}
_CHANGING: Final = {table.name: table for table in TABLES if table.is_changing}

_KEPT_IN: Final = sorted({table for table, _ in _REFS.values()} | {t.table for t in TABLES})

# The clock may stand still or step back; positions only rise.
_NEXT: Final = "max(coalesce((SELECT max(position) FROM journal), 0) + 1, comet_now())"
_NOTE: Final = f"INSERT INTO journal (position, kind, ref, body) SELECT {_NEXT}, "
_WAITING: Final = "position > coalesce((SELECT value FROM copy_state WHERE name = 'done'), 0)"
_PAGE: Final = f"""
SELECT position, kind, ref, body FROM journal WHERE {_WAITING} AND kind <> ''
ORDER BY position LIMIT ?
"""
_SIZE: Final = f"""
SELECT count(*), coalesce(sum(length(body)), 0), min(position) FROM journal
WHERE {_WAITING} AND kind <> ''
"""
# Wishes to be forgotten stay: a remote store that comes back from a backup must hear them again.
_STRIKE_OUT: Final = """
DELETE FROM journal WHERE position <= ? AND kind <> 'member_removed'
AND position < (SELECT max(position) FROM journal)
"""
_PUT: Final = """
INSERT INTO copy_state (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_COUNT: Final = """
INSERT INTO copy_state (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = value + excluded.value
"""


class Noted(NamedTuple):
    """One fact of the journal; `row` is None when what it speaks of is gone."""

    position: int
    kind: str
    row: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class JournalSize:
    """What waits: how many facts, about how many bytes, and the position of the oldest."""

    depth: int
    bytes: int
    oldest: int | None


def _triggers() -> Iterator[str]:
    def trigger(name: str, event: str, table: str, when: str, body: str) -> str:
        return (
            f"CREATE TEMP TRIGGER journal_{name} AFTER {event} ON main.{table} "
            f"WHEN comet_notes() AND {when} BEGIN {body}; END"
        )

    for kind, (table, ref) in _REFS.items():
        body = f"{_NOTE} '{kind}', {ref}, NULL"
        yield trigger(f"{kind}_new", "INSERT", table, "1", body)
        if kind in _REWRITTEN:
            yield trigger(f"{kind}_again", "UPDATE", table, _REWRITTEN[kind], body)
    for kind, shelf in _CHANGING.items():
        new = ", ".join(f"NEW.{column}" for column in shelf.columns)
        old = ", ".join(f"OLD.{column}" for column in shelf.columns)
        body = f"{_NOTE} '{kind}', NULL, comet_body({new})"
        yield trigger(f"{kind}_new", "INSERT", shelf.table, "1", body)
        yield trigger(f"{kind}_again", "UPDATE", shelf.table, f"({new}) IS NOT ({old})", body)
    for kind, (table, key) in _REMOVED.items():
        old = ", ".join(f"OLD.{column}" for column in key)
        yield trigger(kind, "DELETE", table, "1", f"{_NOTE} '{kind}', NULL, comet_body({old})")


def forget_member(db: sqlite3.Connection, user_id: str, up_to: str) -> None:
    """A member's rows were deleted in this transaction: the remote must do so too.

    What waited of them is struck out without being counted as lost. `up_to`: as `exact_time`.
    """
    if db.execute("SELECT 1 FROM temp.sqlite_master WHERE name = 'journal_samples_new'").fetchone():
        body = json_text([user_id, up_to])
        db.execute(f"{_NOTE} 'member_removed', NULL, ?", (body,))
    for kind, member in (("conversations", "user_id"), ("music", "requested_by_id")):
        table, _ = _REFS[kind]
        db.execute(
            "DELETE FROM journal WHERE kind IN ('conversations', 'music') AND kind = ? "
            f"AND ref NOT IN (SELECT id FROM {table}) "
            "AND position < (SELECT max(position) FROM journal)",
            (kind,),
        )
        db.execute(
            "DELETE FROM copy_refused WHERE kind = ? AND json_extract(body, ?) = ?",
            (kind, f"$.{member}", user_id),
        )


class JournalVerbs(SqliteFile):
    """For `SqliteStore`: what the copier needs of the local store."""

    def _home(self) -> Home:
        return Home(self._bot_id, self._numbers, self._roster)

    async def start_journal(self, now: Callable[[], datetime] | None = None) -> None:
        """Note from now on whatever is stored. Harmless when repeated.

        Call it before anything is written: what is written without, makes the copier walk
        through everything once more.
        """
        clock = now or (lambda: datetime.now(UTC))
        self._on_connect = lambda db: self._install(db, clock)
        await self._write_alone(self._on_connect)

    def _install(self, db: sqlite3.Connection, now: Callable[[], datetime]) -> None:
        db.create_function("comet_now", 0, lambda: micros(now()))
        db.create_function("comet_notes", 0, lambda: not self._is_importing)
        db.create_function("comet_body", -1, lambda *columns: json_text(columns))
        names = {name for (name,) in db.execute("SELECT name FROM temp.sqlite_master")}
        for statement in _triggers():
            if statement.split()[3] not in names:
                db.execute(statement)
        query = "INSERT INTO copy_state (name, value) VALUES ('stream', ?) ON CONFLICT DO NOTHING"
        db.execute(query, (str(uuid4()),))
        if not any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _KEPT_IN):
            # Whatever comes will be noted, and nothing was before.
            _put(db, {"walk": "done", "walked": 1})

    async def take_rows(
        self, groups: Sequence[tuple[str, Sequence[WireRow]]], **state: object
    ) -> int:
        """Rows that came from the remote store: taken in without being noted for it.

        All of it or nothing, together with what `state` says of how far that has come.
        """
        home = self._home()

        def job(db: sqlite3.Connection) -> int:
            self._is_importing = True
            try:
                taken = sum(take(db, home, kind, rows) for kind, rows in groups)
            finally:
                self._is_importing = False
            _put(db, state)
            return taken

        taken = await self._write(job)
        self._forget_latest()
        return taken

    async def journal_page(self, limit: int) -> list[Noted]:
        """The oldest facts that wait, in order."""
        home = self._home()
        return await self._read(lambda db: _page(db, home, limit))

    async def rows_of(self, kind: str, refs: Sequence[str]) -> list[dict[str, object]]:
        home = self._home()
        found = await self._read(lambda db: SHELVES[kind].find(db, home, refs))
        return list(found.values())

    async def journal_done(
        self, position: int, *, copied: int = 0, given_up: int = 0, is_told: bool = False
    ) -> None:
        """Everything up to a position is done with; `is_told`: the remote says it has it."""

        def job(db: sqlite3.Connection) -> None:
            _strike_out(db, position)
            if is_told:
                _put(db, {"told": position})
            _add(db, copied=copied, given_up=given_up)

        await self._write(job)

    async def journal_arrived(self, position: int) -> bool:
        """Strike out, as copied, all up to a position that the remote has; False, and nothing
        done, when it is none of ours."""

        def job(db: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM journal WHERE position = ? AND kind <> ''"
            if db.execute(query, (position,)).fetchone() is None:
                return False
            query = (
                f"SELECT count(*) FROM journal WHERE {_WAITING} AND kind <> '' AND position <= ?"
            )
            (copied,) = db.execute(query, (position,)).fetchone()
            _strike_out(db, position)
            _put(db, {"told": position})
            _add(db, copied=copied)
            return True

        return await self._write(job)

    async def journal_size(self) -> JournalSize:
        return await self._read(measure)

    async def journal_give_up(self, limit: int) -> int:
        """Strike out at most `limit` of the oldest facts that may be given up; how many went."""

        def job(db: sqlite3.Connection) -> int:
            for kinds in GIVEN_UP_FIRST:
                marks = ", ".join("?" * len(kinds))
                gone = db.execute(
                    f"DELETE FROM journal WHERE position IN (SELECT position FROM journal "
                    f"WHERE {_WAITING} AND kind IN ({marks}) ORDER BY position LIMIT ?) "
                    "AND position < (SELECT max(position) FROM journal)",
                    (*kinds, limit),
                ).rowcount
                if gone:
                    _add(db, given_up=gone)
                    return gone
            return 0

        return await self._write(job)

    async def raise_clock(self, position: int) -> int:
        """Positions to come are higher than this one; the position of the mark left there."""

        def job(db: sqlite3.Connection) -> int:
            query = "SELECT coalesce(max(position), 0) FROM journal"
            (newest,) = db.execute(query).fetchone()
            mark = max(int(newest), position)
            if mark > newest:
                db.execute("INSERT INTO journal (position, kind) VALUES (?, '')", (mark,))
            return mark

        return await self._write(job)

    async def wishes(self) -> list[dict[str, object]]:
        """Members to be forgotten that were noted once, oldest first."""
        home = self._home()
        query = "SELECT body FROM journal WHERE kind = 'member_removed' ORDER BY position"
        rows = await self._read(lambda db: db.execute(query).fetchall())
        return [_removal(home, "member_removed", body) for (body,) in rows]

    async def forget_wishes(self, before: datetime) -> None:
        """Those so old that no backup can bring back what they were about."""
        statement = (
            "DELETE FROM journal WHERE kind = 'member_removed' AND position < ? "
            "AND position < (SELECT max(position) FROM journal)"
        )
        await self._write(lambda db: db.execute(statement, (micros(before),)).rowcount)

    async def refuse(self, position: int | None, kind: str, row: WireRow, reason: str) -> None:
        """Set aside what the remote can never take, so that it is in nobody's way."""
        values = (position, kind, json_text(row), clean(reason), public_time(datetime.now(UTC)))

        def job(db: sqlite3.Connection) -> None:
            statement = (
                "INSERT INTO copy_refused (position, kind, body, reason, at) VALUES (?, ?, ?, ?, ?)"
            )
            db.execute(statement, values)
            statement = (
                "DELETE FROM copy_refused "
                "WHERE number <= (SELECT max(number) FROM copy_refused) - ?"
            )
            db.execute(statement, (REFUSED_KEPT,))
            _add(db, refused=1)
            if position is not None:
                _strike_out(db, position)

        await self._write(job)

    async def copy_state(self) -> dict[str, object]:
        query = "SELECT name, value FROM copy_state"
        return await self._read(lambda db: dict(db.execute(query).fetchall()))

    async def put_copy_state(self, **values: object) -> None:
        """None takes a value away."""
        await self._write(lambda db: _put(db, values))

    async def is_empty(self) -> bool:
        """Whether nothing was ever seen or told here. A damaged file leaves its settings behind,
        which are no life yet."""
        query = (
            "SELECT NOT EXISTS (SELECT 1 FROM samples) "
            "AND NOT EXISTS (SELECT 1 FROM alert_history) "
            "AND NOT EXISTS (SELECT 1 FROM custom_metrics)"
        )
        return await self._read(lambda db: bool(db.execute(query).fetchone()[0]))


def micros(at: datetime) -> int:
    """Whole microseconds since 1970: a position, if no other is higher."""
    return (at - EPOCH) // timedelta(microseconds=1)


def measure(db: sqlite3.Connection) -> JournalSize:
    """What waits in a file that has the journal's tables (migration 6)."""
    depth, length, oldest = db.execute(_SIZE).fetchone()
    return JournalSize(depth, length + depth * NOTE_BYTES, oldest)


def time_of(position: int) -> datetime:
    return EPOCH + timedelta(microseconds=position)


def _strike_out(db: sqlite3.Connection, position: int) -> None:
    db.execute(_STRIKE_OUT, (position,))
    _put(db, {"done": position})


def _put(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if value is None:
            db.execute("DELETE FROM copy_state WHERE name = ?", (name,))
        else:
            db.execute(_PUT, (name, value))


def _add(db: sqlite3.Connection, **counts: int) -> None:
    db.executemany(_COUNT, [pair for pair in counts.items() if pair[1]])


def _page(db: sqlite3.Connection, home: Home, limit: int) -> list[Noted]:
    entries = db.execute(_PAGE, (limit,)).fetchall()
    refs: dict[str, list[object]] = {}
    for _, kind, ref, body in entries:
        if body is None:
            refs.setdefault(kind, []).append(ref)
    found = {kind: SHELVES[kind].find(db, home, wanted) for kind, wanted in refs.items()}
    page = []
    for position, kind, ref, body in entries:
        if body is None:
            row = found[kind].get(ref)
        elif kind in _CHANGING:
            row = _CHANGING[kind].to_wire(home, json.loads(body))
        else:
            row = _removal(home, kind, body)
        if row is not None and (body is not None or BY_NAME[kind].is_changing):
            row["revision"] = position
        page.append(Noted(position, kind, row))
    return page


def _removal(home: Home, kind: str, body: str) -> dict[str, object]:
    columns = ("user_id", "at") if kind == "member_removed" else _REMOVED[kind][1]
    return {"bot_id": home.bot_id, **dict(zip(columns, json.loads(body), strict=True))}
