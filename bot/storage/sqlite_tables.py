"""Plain tables of SQLite as wire rows and back: whatever is one row here and one row there.

Everything here runs in a database thread. Times are kept as they were: to the millisecond in
public tables (to the microsecond if somebody else was more exact), to the microsecond where
alerting must find them again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from bot.storage.kinds import BY_NAME, Cursor, RowPage, WireRow
from bot.storage.sqlite_metrics import Numbers
from bot.storage.sqlite_rows import clean, exact_time, json_text, public_time, to_time
from bot.storage.sqlite_services import Roster
from bot.storage.store import StoreError


@dataclass(frozen=True, slots=True)
class Home:
    """Whose file it is. The numbers remembered belong to the writer's thread alone."""

    bot_id: str
    numbers: Numbers
    roster: Roster


@dataclass(frozen=True, slots=True)
class Ask:
    """One page: what comes behind `after`, at most `limit` rows, none older than `since`."""

    after: Cursor | None
    limit: int
    since: datetime | None
    bot_id: str | None


class Shelf(Protocol):
    """Where one kind is kept in the file."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage: ...

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int: ...

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int: ...

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        """Rows by what the journal calls them; what is gone is left out."""


def refused(detail: str) -> StoreError:
    return StoreError("refused", detail, retriable=False)


def wire_time(text: object) -> object:
    """UTC text to the microsecond; what is no time stays as it is, for the other side to judge."""
    if not isinstance(text, str):
        return text
    if len(text) == 23 and text[10] == " ":
        return text + "000"
    try:
        return exact_time(to_time(text))
    except ValueError:
        return text


def kept_time(value: object) -> datetime:
    try:
        return to_time(value)
    except ValueError as error:
        raise refused(f"no time: {str(value)[:40]!r}") from error


def public_text(value: object) -> object:
    """Milliseconds as all public tables have them, unless there is more to keep."""
    if value is None:
        return None
    at = kept_time(value)
    return exact_time(at) if at.microsecond % 1000 else public_time(at)


def exact_text(value: object) -> object:
    return None if value is None else exact_time(kept_time(value))


def wire_json(text: object) -> object:
    if text is None:
        return None
    try:
        return json.loads(str(text))
    except ValueError:
        return str(text)


def kept_json(value: object) -> object:
    return None if value is None else json_text(value)


def wire_bool(value: object) -> object:
    return None if value is None else bool(value)


def kept_plain(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class _Codec:
    to_wire: Callable[[object], object]
    to_kept: Callable[[object], object]


_PUBLIC: Final = _Codec(wire_time, public_text)
_EXACT: Final = _Codec(wire_time, exact_text)
_JSON: Final = _Codec(wire_json, kept_json)
_BOOL: Final = _Codec(wire_bool, lambda value: None if value is None else int(bool(value)))
_PLAIN: Final = _Codec(lambda value: value, kept_plain)


def _to_cursor(value: object) -> object:
    """Somebody wrote bytes where a text should be; a cursor must go through JSON."""
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _from_cursor(value: object) -> object:
    return bytes.fromhex(str(value["bytes"])) if isinstance(value, dict) else value


class Table:
    """One kind in one table of the same column names, all of it this bot's.

    `rule` says, for a kind that changes, when an arriving row (`excluded`) may replace the one
    that is there; without a rule the one that is there stays.
    """

    def __init__(
        self, name: str, codecs: Mapping[str, _Codec], *, key: str, rule: str | None = None
    ) -> None:
        kind = BY_NAME[name]
        self.name = name
        self.table = kind.table
        self.columns = tuple(column for column in kind.columns if column != "bot_id")
        self.is_changing = kind.is_changing
        self._key = key.split(", ")
        self._codecs = tuple(codecs.get(column, _PLAIN) for column in self.columns)
        self._order = tuple(column for column in kind.order if column != "bot_id")
        self._at = kind.at
        self._exact_since = kind.at is not None and codecs.get(kind.at) is _EXACT
        marks = ", ".join("?" * len(self.columns))
        self._select = f"SELECT {', '.join(self.columns)}"
        self._insert = (
            f"INSERT INTO {self.table} ({', '.join(self.columns)}) VALUES ({marks}) "
            f"ON CONFLICT ({key}) DO {self._update(rule)}"
        )

    def _update(self, rule: str | None) -> str:
        if rule is None:
            return "NOTHING"
        changing = [column for column in self.columns if column not in self._key]
        values = ", ".join(f"{c} = excluded.{c}" for c in changing)
        now = ", ".join(f"{self.table}.{c}" for c in changing)
        then = ", ".join(f"excluded.{c}" for c in changing)
        return f"UPDATE SET {values} WHERE ({rule}) AND ({now}) IS NOT ({then})"

    def to_wire(self, home: Home, row: Iterable[object]) -> dict[str, object]:
        """A row of `columns` as it travels."""
        found: dict[str, object] = {"bot_id": home.bot_id}
        for column, codec, value in zip(self.columns, self._codecs, row, strict=True):
            found[column] = codec.to_wire(value)
        return found

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        if ask.bot_id not in (None, home.bot_id):
            return RowPage([], None)
        order = ", ".join(self._order)
        conditions = ["1"]
        parameters: list[object] = []
        if ask.after is not None:
            conditions.append(f"({order}) > ({', '.join('?' * len(self._order))})")
            parameters += map(_from_cursor, ask.after)
        if ask.since is not None and self._at is not None:
            conditions.append(f"{self._at} >= ?")
            parameters.append((exact_time if self._exact_since else public_time)(ask.since))
        rows = db.execute(
            f"{self._select}, {order} FROM {self.table} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {order} LIMIT ?",
            (*parameters, ask.limit),
        ).fetchall()
        width = len(self.columns)
        found = [self.to_wire(home, row[:width]) for row in rows]
        last = list(map(_to_cursor, rows[-1][width:])) if len(rows) == ask.limit else None
        return RowPage(found, last)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        if self.table == "monitors":
            home.roster.forget()
        return sum(db.execute(self._insert, self._kept(home, row)).rowcount for row in rows)

    def _kept(self, home: Home, row: WireRow) -> tuple[object, ...]:
        if row.get("bot_id", home.bot_id) != home.bot_id:
            raise refused(f"{self.name} of another bot: this file is {home.bot_id}'s")
        pairs = zip(self.columns, self._codecs, strict=True)
        return tuple(codec.to_kept(row.get(column)) for column, codec in pairs)

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        if bot_id not in (None, home.bot_id):
            return 0
        return int(db.execute(f"SELECT count(*) FROM {self.table}").fetchone()[0])

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        (key,) = self._key
        marks = ", ".join("?" * len(refs))
        rows = db.execute(f"{self._select}, {key} FROM {self.table} WHERE {key} IN ({marks})", refs)
        return {row[-1]: self.to_wire(home, row[:-1]) for row in rows}


def _codecs(
    *, public: str = "", exact: str = "", is_json: str = "", is_bool: str = ""
) -> dict[str, _Codec]:
    found = {}
    for names, codec in ((public, _PUBLIC), (exact, _EXACT), (is_json, _JSON), (is_bool, _BOOL)):
        found.update(dict.fromkeys(names.split(), codec))
    return found


TABLES: Final = (
    Table(
        "guild_configs",
        _codecs(exact="created_at updated_at"),
        key="guild_id",
        rule="excluded.updated_at >= monitoring_config.updated_at",
    ),
    Table(
        "monitors",
        _codecs(public="changed_at last_seen_at", is_json="tags", is_bool="forgotten"),
        key="key",
        rule="excluded.changed_at >= monitors.changed_at",
    ),
    Table(
        "incidents",
        _codecs(
            public="timestamp resolved_at",
            is_json="metrics_snapshot detail",
            is_bool="resolved silent",
        ),
        key="id",
        rule="excluded.version >= alert_history.version",
    ),
    Table(
        "states",
        _codecs(
            exact="since_at evaluated_at data_at clear_since_at hold_since_at",
            is_json="detail terms",
        ),
        key="rule_name, subject",
        rule="excluded.evaluated_at >= alert_states.evaluated_at",
    ),
    Table(
        "flips",
        _codecs(exact="at fired_at", is_json="detail", is_bool="silent"),
        key="flip_id",
    ),
    Table(
        "cards",
        _codecs(
            exact="opened_at attempted_at folded_at closed_at",
            is_json="incident_ids",
            is_bool="is_storm",
        ),
        key="card_id",
        rule="excluded.closed_at IS NOT NULL OR cards.closed_at IS NULL",
    ),
    Table(
        "outbox",
        _codecs(exact="created_at attempted_at delivered_at"),
        key="outbox_id",
        rule="outbox.status = 'queued' OR excluded.status <> 'queued'",
    ),
    Table("changes", _codecs(public="checked_at"), key="id"),
    Table("metrics_raw", _codecs(public="timestamp", is_json="data"), key="id"),
    Table("conversations", _codecs(public="timestamp"), key="id"),
    Table("music", _codecs(public="timestamp"), key="id"),
    Table("bot_logs", _codecs(public="timestamp", is_json="context"), key="id"),
)
