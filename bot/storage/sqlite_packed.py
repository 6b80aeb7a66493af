"""Rosters, polls and hours of services of SQLite as wire rows and back; and daily summaries.

Here monitors have small numbers, and columns stand in the order of those. On the way they stand
in the order of the monitors' keys, so that they mean the same in every store. Everything here
runs in a database thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from bot.core.observation import MonitorStatus
from bot.storage.kinds import RowPage, WireRow
from bot.storage.poll_codec import (
    DOWN,
    NO_ANSWER,
    UNKNOWN,
    UP,
    pack,
    pack_columns,
    unpack,
    unpack_columns,
)
from bot.storage.sqlite_rows import (
    EPOCH,
    HOUR_MS,
    clean,
    exact_time,
    from_ms,
    json_map,
    json_text,
    public_time,
    to_ms,
)
from bot.storage.sqlite_tables import Ask, Home, kept_time, refused, wire_json
from bot.storage.sqlite_uptime import Pause

_HOUR_COLUMNS: Final = ("checks", "up_ms", "down_ms", "other_ms", "answered", "mean_tenths")
_POLLS: Final = "SELECT instance, at_ms, valid_ms, roster, statuses, times FROM polls"
_INSERT_POLL: Final = """
INSERT INTO polls (instance, at_ms, valid_ms, roster, up, down, other, unknown, answered,
    times_sum, statuses, times)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance, at_ms) DO NOTHING
"""
_HOURS: Final = "SELECT instance, hour, roster, body FROM service_hourly"
_UPSERT_HOUR: Final = """
INSERT INTO service_hourly (instance, hour, roster, checks, up_ms, down_ms, other_ms, answered,
    times_sum, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance, hour) DO UPDATE SET
    roster = excluded.roster, checks = excluded.checks, up_ms = excluded.up_ms,
    down_ms = excluded.down_ms, other_ms = excluded.other_ms, answered = excluded.answered,
    times_sum = excluded.times_sum, body = excluded.body
WHERE excluded.checks >= service_hourly.checks
    AND (service_hourly.roster, service_hourly.body) IS NOT (excluded.roster, excluded.body)
"""


def roster_id(instance: str, keys: Sequence[str]) -> str:
    """What a roster is called in every store; `keys` in their order."""
    return str(uuid5(NAMESPACE_URL, "\n".join((instance, *keys))))


@dataclass(frozen=True, slots=True)
class _Roster:
    """`keys` ascending by code point; `to_wire` puts a column of ours into their order."""

    number: int
    name: str
    instance: str
    keys: tuple[str, ...]
    to_wire: Callable[[Sequence[int]], Sequence[int]]
    to_kept: Callable[[Sequence[int]], Sequence[int]]

    @classmethod
    def of(
        cls, number: int, instance: str, numbers: Sequence[int], keys: dict[int, str]
    ) -> _Roster:
        named = [keys.get(one, "") for one in numbers]
        places = sorted(range(len(named)), key=named.__getitem__)
        ordered = tuple(named[place] for place in places)
        back = sorted(range(len(places)), key=places.__getitem__)
        name = roster_id(instance, ordered)
        return cls(number, name, instance, ordered, _picker(places), _picker(back))


def _picker(places: list[int]) -> Callable[[Sequence[int]], Sequence[int]]:
    if len(places) < 2:
        return lambda column: tuple(column[place] for place in places)
    pick: Callable[[Sequence[int]], Sequence[int]] = itemgetter(*places)
    return pick


class _Rosters:
    """The rosters of the file as one transaction sees them, read as they are needed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._keys: dict[int, str] = dict(db.execute("SELECT number, key FROM monitors"))
        self._by_number: dict[int, _Roster] = {}
        self._by_name: dict[str, _Roster] | None = None

    def all(self) -> Iterable[_Roster]:
        pause = Pause()
        rows = self._db.execute("SELECT roster, instance, numbers FROM rosters").fetchall()
        for number, instance, numbers in rows:
            pause()
            yield _Roster.of(number, instance, unpack(numbers), self._keys)

    def numbered(self, number: int) -> _Roster:
        if number not in self._by_number:
            query = "SELECT instance, numbers FROM rosters WHERE roster = ?"
            instance, numbers = self._db.execute(query, (number,)).fetchone()
            self._by_number[number] = _Roster.of(number, instance, unpack(numbers), self._keys)
        return self._by_number[number]

    def named(self, name: object) -> _Roster:
        if self._by_name is None:
            self._by_name = {roster.name: roster for roster in self.all()}
        found = self._by_name.get(str(name))
        if found is None:
            raise refused(f"no roster {name}")
        return found


class Rosters:
    """`rosters`: whom a poll spoke of."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        if ask.bot_id not in (None, home.bot_id):
            return RowPage([], None)
        after = "" if ask.after is None else str(ask.after[0])
        rosters = sorted((r for r in _Rosters(db).all() if r.name > after), key=lambda r: r.name)
        rows = [_roster(home, roster) for roster in rosters[: ask.limit]]
        return RowPage(rows, [rows[-1]["roster_id"]] if len(rosters) > ask.limit else None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        known = {roster.name for roster in _Rosters(db).all()}
        fresh = [row for row in rows if str(row.get("roster_id")) not in known]
        for row in fresh:
            _own(home, row)
            keys = row.get("keys")
            if not isinstance(keys, list):
                raise refused("a roster without keys")
            # Nobody else has introduced such a monitor: it is not known but by its key.
            numbers = [
                home.roster.number(db, str(key), MonitorStatus.UNKNOWN, public_time(EPOCH))
                for key in keys
            ]
            home.roster.roster(db, clean(str(row.get("instance"))), sorted(set(numbers)))
        return len(fresh)

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        return _count(db, home, bot_id, "rosters")

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        """By their wire names."""
        wanted = set(refs)
        found = (roster for roster in _Rosters(db).all() if roster.name in wanted)
        return {roster.name: _roster(home, roster) for roster in found}


class Polls:
    """`service_polls`: one look at all monitors of an instance."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        if ask.bot_id not in (None, home.bot_id):
            return RowPage([], None)
        instance, at_ms = ask.after or ("", -(2**62))
        since = -(2**62) if ask.since is None else to_ms(ask.since)
        rows = db.execute(
            f"{_POLLS} WHERE (instance, at_ms) > (?, ?) AND at_ms >= ? "
            "ORDER BY instance, at_ms LIMIT ?",
            (instance, at_ms, since, ask.limit),
        ).fetchall()
        found = _each(db, rows, lambda rosters, row: _poll(home, rosters, row))
        return RowPage(found, list(rows[-1][:2]) if len(rows) == ask.limit else None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        home.roster.forget()
        rosters = _Rosters(db)
        return sum(
            db.execute(_INSERT_POLL, _kept_poll(home, rosters, row)).rowcount for row in rows
        )

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        return _count(db, home, bot_id, "polls")

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        rows = _looked_up(db, f"{_POLLS} WHERE at_ms = ? AND instance = ?", refs)
        found = _each(db, list(rows.values()), lambda rosters, row: _poll(home, rosters, row))
        return dict(zip(rows, found, strict=True))


class ServiceHours:
    """`service_hourly`: one hour of one instance."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        if ask.bot_id not in (None, home.bot_id):
            return RowPage([], None)
        instance, hour = ask.after or ("", -(2**62))
        since = -(2**62) if ask.since is None else -(-to_ms(ask.since) // HOUR_MS)
        rows = db.execute(
            f"{_HOURS} WHERE (instance, hour) > (?, ?) AND hour >= ? "
            "ORDER BY instance, hour LIMIT ?",
            (instance, hour, since, ask.limit),
        ).fetchall()
        found = _each(db, rows, lambda rosters, row: _hour(home, rosters, row))
        return RowPage(found, list(rows[-1][:2]) if len(rows) == ask.limit else None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        rosters = _Rosters(db)
        pause = Pause()
        taken = 0
        for row in rows:
            taken += db.execute(_UPSERT_HOUR, _kept_hour(home, rosters, row)).rowcount
            pause()
        return taken

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        return _count(db, home, bot_id, "service_hourly")

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        rows = _looked_up(db, f"{_HOURS} WHERE hour = ? AND instance = ?", refs)
        found = _each(db, list(rows.values()), lambda rosters, row: _hour(home, rosters, row))
        return dict(zip(rows, found, strict=True))


class Summaries:
    """`daily_summaries`: one object a day, in which each bot has its own part."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        after = "" if ask.after is None else str(ask.after[0])
        rows = db.execute(
            "SELECT date, summary_data FROM daily_summaries WHERE date > ? ORDER BY date LIMIT ?",
            (after, ask.limit),
        ).fetchall()
        found = [_summary(home, row) for row in rows]
        return RowPage(found, [rows[-1][0]] if len(rows) == ask.limit else None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        taken = 0
        for row in rows:
            summary = row.get("summary_data")
            if not isinstance(summary, dict):
                raise refused("a summary that is no object")
            taken += merge_summary(db, str(row.get("date"))[:10], summary)
        return taken

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        return int(db.execute("SELECT count(*) FROM daily_summaries").fetchone()[0])

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        query = "SELECT date, summary_data FROM daily_summaries WHERE date = ?"
        rows = (db.execute(query, (ref,)).fetchone() for ref in refs)
        return {row[0]: _summary(home, row) for row in rows if row is not None}


def merge_summary(db: sqlite3.Connection, day: str, parts: dict[str, object]) -> bool:
    """Put parts of a day in place of those of the same name; whether anything changed."""
    query = "SELECT summary_data FROM daily_summaries WHERE date = ?"
    row = db.execute(query, (day,)).fetchone()
    known = {} if row is None else json_map(row[0])
    merged = json_text({**known, **parts})
    if row is not None and merged == json_text(known):
        return False
    db.execute(
        "INSERT INTO daily_summaries (date, summary_data) VALUES (?, ?) ON CONFLICT (date) "
        "DO UPDATE SET summary_data = excluded.summary_data, "
        "updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')",
        (day, merged),
    )
    return True


def _summary(home: Home, row: Sequence[object]) -> dict[str, object]:
    return {"bot_id": home.bot_id, "date": row[0], "summary_data": wire_json(row[1])}


def _roster(home: Home, roster: _Roster) -> dict[str, object]:
    return {
        "bot_id": home.bot_id,
        "roster_id": roster.name,
        "instance": roster.instance,
        "keys": list(roster.keys),
    }


_Packed = Sequence[object]


def _each(
    db: sqlite3.Connection,
    rows: Sequence[_Packed],
    convert: Callable[[_Rosters, _Packed], dict[str, object]],
) -> list[dict[str, object]]:
    """Rows unpacked one by one, with room for other threads in between."""
    pause = Pause()
    rosters = _Rosters(db)
    found = []
    for row in rows:
        found.append(convert(rosters, row))
        pause()
    return found


def _looked_up(db: sqlite3.Connection, query: str, refs: Sequence[object]) -> dict[object, _Packed]:
    found = {}
    for ref in refs:
        number, instance = str(ref).split(" ", 1)
        row = db.execute(query, (int(number), instance)).fetchone()
        if row is not None:
            found[ref] = row
    return found


def _poll(home: Home, rosters: _Rosters, row: _Packed) -> dict[str, object]:
    instance, at_ms, valid_ms, number, statuses, times = row
    assert isinstance(at_ms, int) and isinstance(valid_ms, int) and isinstance(number, int)
    assert isinstance(statuses, bytes) and isinstance(times, bytes)
    roster = rosters.numbered(number)
    return {
        "bot_id": home.bot_id,
        "instance": instance,
        "at": exact_time(from_ms(at_ms)),
        "valid_s": valid_ms / 1000,
        "roster_id": roster.name,
        "statuses": list(roster.to_wire(statuses)),
        "times": list(roster.to_wire(unpack(times))),
    }


def _kept_poll(home: Home, rosters: _Rosters, row: WireRow) -> tuple[object, ...]:
    _own(home, row)
    roster = rosters.named(row.get("roster_id"))
    statuses = bytes(roster.to_kept(_column(row, "statuses", len(roster.keys))))
    times = roster.to_kept(_column(row, "times", len(roster.keys)))
    up, down, unknown = statuses.count(UP), statuses.count(DOWN), statuses.count(UNKNOWN)
    answers = [one for one in times if one != NO_ANSWER]
    return (
        clean(str(row.get("instance"))),
        to_ms(kept_time(row.get("at"))),
        round(float(str(row.get("valid_s"))) * 1000),
        roster.number,
        up,
        down,
        len(statuses) - up - down - unknown,
        unknown,
        len(answers),
        sum(answers),
        statuses,
        pack(times),
    )


def _hour(home: Home, rosters: _Rosters, row: _Packed) -> dict[str, object]:
    instance, hour, number, body = row
    assert isinstance(hour, int) and isinstance(number, int) and isinstance(body, bytes)
    roster = rosters.numbered(number)
    columns = unpack_columns(body, len(_HOUR_COLUMNS))
    found: dict[str, object] = {
        "bot_id": home.bot_id,
        "instance": instance,
        "hour": exact_time(from_ms(hour * HOUR_MS)),
        "roster_id": roster.name,
    }
    for name, column in zip(_HOUR_COLUMNS, columns, strict=True):
        found[name] = list(roster.to_wire(column))
    return found


def _kept_hour(home: Home, rosters: _Rosters, row: WireRow) -> tuple[object, ...]:
    _own(home, row)
    roster = rosters.named(row.get("roster_id"))
    columns = [roster.to_kept(_column(row, name, len(roster.keys))) for name in _HOUR_COLUMNS]
    times_sum = sum(n * mean for n, mean in zip(columns[4], columns[5], strict=True))
    return (
        clean(str(row.get("instance"))),
        to_ms(kept_time(row.get("hour"))) // HOUR_MS,
        roster.number,
        *(sum(column) for column in columns[:5]),
        times_sum,
        pack_columns(columns),
    )


def _column(row: WireRow, name: str, length: int) -> list[int]:
    column = row.get(name)
    if not isinstance(column, list) or len(column) != length:
        raise refused(f"{name} do not fit their roster")
    return [int(one) for one in column]


def _own(home: Home, row: WireRow) -> None:
    if row.get("bot_id", home.bot_id) != home.bot_id:
        raise refused(f"services of another bot: this file is {home.bot_id}'s")


def _count(db: sqlite3.Connection, home: Home, bot_id: str | None, table: str) -> int:
    if bot_id not in (None, home.bot_id):
        return 0
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
