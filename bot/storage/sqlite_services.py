"""Monitors, their changes and their polls in SQLite. Everything here runs in a database thread."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from bot.core.observation import MonitorIdentity, MonitorStatus
from bot.storage.poll_codec import (
    DOWN,
    NO_ANSWER,
    STATUS_CODES,
    UNKNOWN,
    UP,
    pack,
    tenths,
    unpack,
)
from bot.storage.sqlite_rows import (
    clean,
    finite,
    from_ms,
    insert,
    json_text,
    labels_of,
    maybe_clean,
    public_time,
    to_ms,
    to_time,
)
from bot.storage.store import KnownMonitor, Poll, StatusChange

_CHANGE_COLUMNS = (
    "id",
    "service_id",
    "service_name",
    "status",
    "response_time",
    "error_message",
    "checked_at",
    "created_at",
)
_INSERT_CHANGE = insert("service_status_history", _CHANGE_COLUMNS, "id")
_IDENTITY_COLUMNS = ("name", "type", "url", "hostname", "port", "tags")
# An older change arriving late adds its row to the history but does not turn back the monitor.
_UPSERT_MONITOR = f"""
INSERT INTO monitors (key, {", ".join(_IDENTITY_COLUMNS)}, status, changed_at, last_seen_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    {", ".join(f"{c} = excluded.{c}" for c in _IDENTITY_COLUMNS)},
    status = excluded.status, changed_at = excluded.changed_at
WHERE excluded.changed_at >= changed_at
"""
_MARK_SEEN = """
UPDATE monitors SET last_seen_at = max(last_seen_at, ?), forgotten = 0 WHERE key = ?
"""
_INSERT_POLL = insert(
    "polls",
    (
        "instance",
        "at_ms",
        "valid_ms",
        "roster",
        "up",
        "down",
        "other",
        "unknown",
        "answered",
        "times_sum",
        "statuses",
        "times",
    ),
    "instance, at_ms",
)
_SAME_POLL = (
    "SELECT 1 FROM polls WHERE instance = ? AND at_ms = ? AND valid_ms = ? AND roster = ? "
    "AND statuses = ? AND times = ?"
)


@dataclass(slots=True)
class _Newest:
    """The newest poll of an instance: whom it saw, and whether that is its whole roster."""

    at_ms: int
    roster: int
    seen: frozenset[int]
    is_complete: bool

    @classmethod
    def of(cls, at_ms: int, roster: int, numbers: Sequence[int], statuses: bytes) -> _Newest:
        seen = frozenset(n for n, s in zip(numbers, statuses, strict=True) if s != UNKNOWN)
        return cls(at_ms, roster, seen, len(seen) == len(numbers))


class Roster:
    """Monitor numbers, rosters and newest polls, remembered.

    Forget everything after a transaction that failed, and after rosters were deleted.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._forgotten: set[str] | None = None
        self._rosters: dict[tuple[str, bytes], int] = {}
        self._newest: dict[str, _Newest] = {}

    def forget(self) -> None:
        self._numbers.clear()
        self._forgotten = None
        self._rosters.clear()
        self._newest.clear()

    def number(self, db: sqlite3.Connection, key: str, status: MonitorStatus, at: str) -> int:
        """A monitor's number, given now if nobody introduced it before."""
        number = self._numbers.get(key)
        if number is None:
            text = clean(key)
            db.execute(
                "INSERT INTO monitors (key, name, status, changed_at, last_seen_at) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (text, text, status.value, at, at),
            )
            row = db.execute("SELECT number FROM monitors WHERE key = ?", (text,)).fetchone()
            number = self._numbers[key] = int(row[0])
        return number

    def forgotten(self, db: sqlite3.Connection) -> set[str]:
        if self._forgotten is None:
            rows = db.execute("SELECT key FROM monitors WHERE forgotten = 1")
            self._forgotten = {str(key) for (key,) in rows}
        return self._forgotten

    def roster(self, db: sqlite3.Connection, instance: str, numbers: Sequence[int]) -> int:
        column = pack(numbers)
        roster = self._rosters.get((instance, column))
        if roster is None:
            db.execute(
                "INSERT INTO rosters (instance, numbers) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (instance, column),
            )
            row = db.execute(
                "SELECT roster FROM rosters WHERE instance = ? AND numbers = ?", (instance, column)
            ).fetchone()
            if len(self._rosters) > 64:
                self._rosters.clear()
            roster = self._rosters[instance, column] = int(row[0])
        return roster

    def newest(self, db: sqlite3.Connection, instance: str) -> _Newest | None:
        newest = self._newest.get(instance)
        if newest is None:
            row = db.execute(
                "SELECT p.at_ms, r.roster, r.numbers, p.statuses FROM polls AS p "
                "JOIN rosters AS r ON r.roster = p.roster "
                "WHERE p.instance = ? ORDER BY p.at_ms DESC LIMIT 1",
                (instance,),
            ).fetchone()
            if row is not None:
                newest = _Newest.of(row[0], row[1], unpack(row[2]), row[3])
                self._newest[instance] = newest
        return newest

    def set_newest(self, instance: str, newest: _Newest) -> None:
        self._newest[instance] = newest


def save_changes(
    db: sqlite3.Connection, roster: Roster, changes: Iterable[StatusChange], now: str
) -> None:
    """Rows of history, and the monitors brought up to date by those that are new."""
    for change in changes:
        identity = change.identity
        key, at = clean(identity.key), public_time(change.at)
        row = (
            str(change.change_id),
            key,
            clean(identity.name),
            change.status.value,
            finite(change.response_time_ms),
            maybe_clean(change.error_message),
            at,
            now,
        )
        if db.execute(_INSERT_CHANGE, row).rowcount != 1:
            continue
        columns = (
            clean(identity.name),
            maybe_clean(identity.monitor_type),
            maybe_clean(identity.url),
            maybe_clean(identity.hostname),
            maybe_clean(identity.port),
            json_text(identity.tags),
        )
        db.execute(_UPSERT_MONITOR, (key, *columns, change.status.value, at, at))
        # Unknown means that nobody saw it.
        if change.status is not MonitorStatus.UNKNOWN:
            db.execute(_MARK_SEEN, (at, key))
            roster.forgotten(db).discard(key)


def save_poll(db: sqlite3.Connection, roster: Roster, poll: Poll, now: str) -> None:
    """One poll with its changes.

    1. The changes, which also introduce monitors never seen before.
    2. The poll itself, in the order of its monitors' numbers. The same poll again is the same
       row; another poll of the same millisecond moves to the next.
    3. Monitors that this poll no longer sees keep the time of the poll before.
    """
    save_changes(db, roster, poll.changes, now)
    at_ms, at = to_ms(poll.at), public_time(poll.at)
    instance = clean(poll.instance)
    by_number = {
        roster.number(db, check.service_id, check.status, at): check for check in poll.checks
    }
    numbers = sorted(by_number)
    checks = [by_number[number] for number in numbers]
    statuses = bytes([STATUS_CODES[check.status] for check in checks])
    times = array("i", [tenths(check.response_time_ms) for check in checks])
    number = roster.roster(db, instance, numbers)
    newest = roster.newest(db, instance)
    valid_ms = round(poll.valid_s * 1000)
    up, down, unknown = statuses.count(UP), statuses.count(DOWN), statuses.count(UNKNOWN)
    silent = times.count(NO_ANSWER)
    column = pack(times)
    row = (
        valid_ms,
        number,
        up,
        down,
        len(statuses) - up - down - unknown,
        unknown,
        len(times) - silent,
        sum(times) - silent * NO_ANSWER,
        statuses,
        column,
    )
    while db.execute(_INSERT_POLL, (instance, at_ms, *row)).rowcount != 1:
        same = (instance, at_ms, valid_ms, number, statuses, column)
        if db.execute(_SAME_POLL, same).fetchone() is not None:
            return
        at_ms += 1
    if newest is None or at_ms > newest.at_ms:
        if newest is not None and newest.roster == number and newest.is_complete and not unknown:
            newest.at_ms = at_ms
        else:
            look = _Newest.of(at_ms, number, numbers, statuses)
            if newest is not None:
                last = public_time(from_ms(newest.at_ms))
                db.executemany(
                    "UPDATE monitors SET last_seen_at = max(last_seen_at, ?) WHERE number = ?",
                    [(last, gone) for gone in newest.seen - look.seen],
                )
            roster.set_newest(instance, look)
    if forgotten := roster.forgotten(db):
        for check in checks:
            key = clean(check.service_id)
            if key in forgotten and check.status is not MonitorStatus.UNKNOWN:
                db.execute(_MARK_SEEN, (at, key))
                forgotten.discard(key)


def forget_monitor(db: sqlite3.Connection, roster: Roster, key: str) -> None:
    db.execute("UPDATE monitors SET forgotten = 1 WHERE key = ?", (clean(key),))
    roster.forgotten(db).add(clean(key))


def newest_looks(db: sqlite3.Connection) -> dict[int, int]:
    """When (ms) the newest poll of its instance saw a monitor, by the monitor's number."""
    seen: dict[int, int] = {}
    newest = db.execute(
        "SELECT p.at_ms, r.numbers, p.statuses FROM polls AS p "
        "JOIN rosters AS r ON r.roster = p.roster "
        "WHERE p.at_ms = (SELECT max(x.at_ms) FROM polls AS x WHERE x.instance = p.instance)"
    )
    for at_ms, numbers, statuses in newest:
        for number, status in zip(unpack(numbers), statuses, strict=True):
            if status != UNKNOWN:
                seen[number] = at_ms
    return seen


def monitors(db: sqlite3.Connection) -> list[KnownMonitor]:
    """By key. Needs an unchanging view of the database."""
    seen = newest_looks(db)
    rows = db.execute(
        f"SELECT number, key, {', '.join(_IDENTITY_COLUMNS)}, status, changed_at, last_seen_at "
        "FROM monitors WHERE forgotten = 0 ORDER BY key"
    )
    found = []
    for number, key, *identity, status, changed_at, last_seen_at in rows:
        last_seen = to_time(last_seen_at)
        if number in seen:
            last_seen = max(last_seen, from_ms(seen[number]))
        found.append(
            KnownMonitor(
                _identity(key, identity), MonitorStatus(status), to_time(changed_at), last_seen
            )
        )
    return found


def history(db: sqlite3.Connection, key: str, since: str, limit: int) -> list[StatusChange]:
    """Newest first. Rows written by others in words we do not know are left out."""
    row = db.execute(
        f"SELECT {', '.join(_IDENTITY_COLUMNS)} FROM monitors WHERE key = ?", (clean(key),)
    ).fetchone()
    rows = db.execute(
        "SELECT id, service_name, status, checked_at, response_time, error_message "
        "FROM service_status_history WHERE service_id = ? AND checked_at >= ? "
        "ORDER BY checked_at DESC, rowid DESC LIMIT ?",
        (clean(key), since, limit),
    )
    found = []
    for change_id, name, status, at, response_time, error in rows:
        identity = _identity(key, (name, *row[1:]) if row else (name, *[None] * 5))
        try:
            found.append(
                StatusChange(
                    UUID(change_id),
                    identity,
                    MonitorStatus(status),
                    to_time(at),
                    finite(response_time),
                    error,
                )
            )
        except ValueError:
            continue
    return found


def _identity(key: str, columns: Sequence[str | None]) -> MonitorIdentity:
    name, monitor_type, url, hostname, port, tags = columns
    return MonitorIdentity(key, str(name), monitor_type, url, hostname, port, labels_of(tags))
