"""Snapshots and metrics in SQLite: how they are kept, found by name, rolled up and summed.

Everything here runs in a database thread. The statements are made from the table of readings.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from bot.core.observation import Sample
from bot.core.readings import READINGS
from bot.storage.sqlite_rows import (
    HOUR_MS,
    Row,
    clean,
    finite,
    from_ms,
    insert,
    json_text,
    labels_of,
    overwrite,
    to_ms,
)
from bot.storage.store import LatestMetric

_COLUMNS: tuple[tuple[str, str, int], ...] = (
    *((s.name, s.column, round(1 / s.quantum)) for s in READINGS if s.column is not None),
    ("ping_lavalink", "ping_lavalink", 100),
)
"""(metric name, column, how many quanta make one unit)."""

VALUE_OF = {
    name: f"{column} / {scale}.0" if scale != 1 else f"CAST({column} AS REAL)"
    for name, column, scale in _COLUMNS
}
COLUMN_OF = {name: column for name, column, _ in _COLUMNS}
SCALES = {column: scale for _, column, scale in _COLUMNS}
"""How many quanta make one unit, by column."""

_NOT_STORED = frozenset(s.name for s in READINGS if s.column is None and s.is_derived)
STATUS_CODES = {"online": 0, "degraded": 1, "offline": 2}

SAMPLE_COLUMNS = (*(column for _, column, _ in _COLUMNS), "status", "extra")
_INSERT_SAMPLE = insert("samples", ("sample_key", *SAMPLE_COLUMNS), "sample_key")
_SELECT_SAMPLE = f"SELECT {', '.join(SAMPLE_COLUMNS)} FROM samples WHERE sample_key = ?"
_NEWEST_SAMPLES = (
    f"SELECT sample_key >> 8, {', '.join(VALUE_OF.values())} FROM samples "
    "ORDER BY sample_key DESC LIMIT 60"
)

_LATEST_OTHERS = """
SELECT metric_name, metric_value, labels, max(sample_key) >> 8 FROM (
    SELECT s.sample_key AS sample_key, json_extract(e.value, '$[0]') AS metric_name,
        json_extract(e.value, '$[2]') AS metric_value, json_extract(e.value, '$[1]') AS labels
    FROM samples AS s, json_each(s.extra) AS e WHERE s.extra IS NOT NULL
        AND s.sample_key > (SELECT max(sample_key) FROM samples) - 86400000 * 256
    UNION ALL SELECT c.at_ms << 8, n.name, c.value, c.labels
    FROM metric_names AS n JOIN custom_metrics AS c ON c.metric = n.metric
        AND c.at_ms = (SELECT max(x.at_ms) FROM custom_metrics AS x WHERE x.metric = n.metric)
) GROUP BY metric_name
"""

_ROLL_UP_SAMPLES = (
    "SELECT sample_key & 255, "
    + ", ".join(
        f"count({c}), avg({v}), min({v}), max({v})"
        for c, v in zip(COLUMN_OF.values(), VALUE_OF.values(), strict=True)
    )
    + " FROM samples WHERE sample_key >= ? AND sample_key < ? GROUP BY sample_key & 255"
)
_ROLL_UP_OTHERS = """
SELECT bot, name, count(*), avg(value), min(value), max(value) FROM (
    SELECT s.sample_key & 255 AS bot, json_extract(e.value, '$[0]') AS name,
        json_extract(e.value, '$[2]') AS value
    FROM samples AS s, json_each(s.extra) AS e
    WHERE s.extra IS NOT NULL AND s.sample_key >= ? AND s.sample_key < ?
    UNION ALL SELECT c.bot, n.name, c.value FROM metric_names AS n
    JOIN custom_metrics AS c ON c.metric = n.metric AND c.at_ms >= ? AND c.at_ms < ?
) GROUP BY bot, name
"""
_HOURLY_COLUMNS = ("metric", "hour", "bot", "avg_value", "min_value", "max_value", "count")
# A roll-up over fewer rows was made after some of them had expired: it knows less.
_UPSERT_HOURLY = insert(
    "hourly",
    _HOURLY_COLUMNS,
    "metric, hour, bot",
    overwrite(_HOURLY_COLUMNS, *_HOURLY_COLUMNS[:3]) + " WHERE excluded.count >= count",
)


class Numbers:
    """Small numbers for bots and metric names, remembered.

    Forget everything after a transaction that failed: it may have taken numbers back.
    """

    def __init__(self) -> None:
        self._bots: dict[str, int] = {}
        self._metrics: dict[str, int] = {}

    def forget(self) -> None:
        self._bots.clear()
        self._metrics.clear()

    def known_bot(self, bot_id: str) -> int | None:
        return self._bots.get(bot_id)

    def bot(self, db: sqlite3.Connection, bot_id: str) -> int:
        """The bot's number, given now if need be. Call it within a transaction."""
        number = self._bots.get(bot_id)
        if number is None:
            text = clean(bot_id)
            db.execute(
                "INSERT INTO bots (bot_id, uuid_tail) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (text, uuid_tail(text)),
            )
            number = _one(db, "SELECT bot FROM bots WHERE bot_id = ?", text)
            self._bots[bot_id] = number
        return number

    def metric(self, db: sqlite3.Connection, name: str) -> int:
        number = self._metrics.get(name)
        if number is None:
            text = clean(name)
            db.execute("INSERT INTO metric_names (name) VALUES (?) ON CONFLICT DO NOTHING", (text,))
            number = _one(db, "SELECT metric FROM metric_names WHERE name = ?", text)
            self._metrics[name] = number
        return number


def uuid_tail(bot_id: str) -> str:
    """The end of every id that is derived from a bot's snapshots instead of being stored."""
    digest = hashlib.sha256(bot_id.encode()).hexdigest()
    return f"{'89ab'[int(digest[0], 16) & 3]}{digest[1:4]}-{digest[4:16]}"


def sample_id(at: datetime, bot_id: str) -> UUID:
    """The id `system_stats` shows for a snapshot of ours (a version 8 UUID: time, then bot)."""
    ms = to_ms(at) & 0xFFFFFFFFFFFF
    return UUID(f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-8000-{uuid_tail(bot_id)}")


def sample_row(sample: Sample) -> Row:
    """A snapshot as whole quanta; what has no column goes into `extra`, NaN nowhere."""
    values = sample.values
    row: list[object] = [quanta(values.get(name), scale) for name, _, scale in _COLUMNS]
    extra: list[tuple[str, Mapping[str, str], float]] = []
    if not values.keys() <= _USUAL:
        extra += [
            (name, {}, number)
            for name, value in values.items()
            if name not in _USUAL and (number := finite(value)) is not None
        ]
    extra += [
        (name, labels, number)
        for name, labels, value in sample.labelled
        if (number := finite(value)) is not None
    ]
    row.append(STATUS_CODES.get(sample.status, clean(sample.status)))
    row.append(json_text(extra) if extra else None)
    return tuple(row)


_USUAL = frozenset(COLUMN_OF) | _NOT_STORED


def insert_sample(db: sqlite3.Connection, bot: int, at_ms: int, row: Row) -> bool:
    """Whether the snapshot went in; False when its place is taken. One statement, one commit."""
    return db.execute(_INSERT_SAMPLE, (at_ms << 8 | bot, *row)).rowcount == 1


def place_sample(db: sqlite3.Connection, bot: int, at_ms: int, row: Row) -> None:
    """Insert a snapshot whose place may be taken: by itself, or because the clock stepped back.

    A different snapshot of the same millisecond stays; the new one takes the next free one.
    """
    while not insert_sample(db, bot, at_ms, row):
        if db.execute(_SELECT_SAMPLE, (at_ms << 8 | bot,)).fetchone() == row:
            return
        at_ms += 1


def save_metric(
    db: sqlite3.Connection,
    numbers: Numbers,
    bot_id: str,
    metric_id: UUID,
    name: str,
    value: float,
    labels: Mapping[str, str],
    at_ms: int,
) -> None:
    db.execute(
        "INSERT INTO custom_metrics (metric, at_ms, id, value, labels, bot) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            numbers.metric(db, name),
            at_ms,
            str(metric_id),
            value,
            json_text(labels),
            numbers.bot(db, bot_id),
        ),
    )


class LatestReader:
    """Finds the newest value of every metric without walking over thirty days of nothing.

    A reading nobody ever took (no Discord, no Kuma) is NULL in every row. Where that was once
    found out, only newer rows are looked at again.
    """

    def __init__(self) -> None:
        self._empty_up_to: dict[str, int] = {}

    def read(self, db: sqlite3.Connection) -> list[LatestMetric]:
        found: dict[str, LatestMetric] = {}
        missing = list(COLUMN_OF)
        for ms, *values in db.execute(_NEWEST_SAMPLES).fetchall():
            if not missing:
                break
            by_name = dict(zip(COLUMN_OF, values, strict=True))
            for name in [name for name in missing if by_name[name] is not None]:
                found[name] = LatestMetric(name, by_name[name], {}, from_ms(ms))
                missing.remove(name)
        newest = maybe_one(db, "SELECT max(sample_key) FROM samples")
        for name in missing if newest is not None else ():
            row = db.execute(
                f"SELECT sample_key >> 8, {VALUE_OF[name]} FROM samples "
                f"WHERE {COLUMN_OF[name]} IS NOT NULL AND sample_key > ? "
                "ORDER BY sample_key DESC LIMIT 1",
                (self._empty_up_to.get(name, -1),),
            ).fetchone()
            if row is None:
                self._empty_up_to[name] = newest or 0
            else:
                found[name] = LatestMetric(name, row[1], {}, from_ms(row[0]))
        for name, value, labels, ms in db.execute(_LATEST_OTHERS):
            known = found.get(name)
            if known is None or known.at < from_ms(ms):
                found[name] = LatestMetric(name, float(value), labels_of(labels), from_ms(ms))
        return sorted(found.values(), key=lambda metric: metric.metric_name)


def roll_up(db: sqlite3.Connection, hour: int) -> list[tuple[int, str, float, float, float, int]]:
    """(bot, metric name, average, least, most, count) of one full hour."""
    start, end = hour * HOUR_MS, (hour + 1) * HOUR_MS
    found: dict[tuple[int, str], tuple[float, float, float, int]] = {}

    def add(bot: int, name: str, count: int, mean: float, least: float, most: float) -> None:
        if not count:
            return
        if (known := found.get((bot, name))) is not None:
            mean = (mean * count + known[0] * known[3]) / (count + known[3])
            least, most, count = min(least, known[1]), max(most, known[2]), count + known[3]
        found[bot, name] = (mean, least, most, count)

    for bot, *columns in db.execute(_ROLL_UP_SAMPLES, (start << 8, end << 8)):
        for place, name in enumerate(COLUMN_OF):
            add(bot, name, *columns[place * 4 : place * 4 + 4])
    for bot, name, *row in db.execute(_ROLL_UP_OTHERS, (start << 8, end << 8, start, end)):
        add(bot, name, *row)
    return [(bot, name, *row) for (bot, name), row in sorted(found.items())]


def save_roll_up(
    db: sqlite3.Connection,
    numbers: Numbers,
    hour: int,
    rows: Sequence[tuple[int, str, float, float, float, int]],
) -> None:
    """Rows of an hour, replacing those of an earlier roll-up of it that knew no more."""
    db.executemany(
        _UPSERT_HOURLY,
        [(numbers.metric(db, name), hour, bot, *row) for bot, name, *row in rows],
    )


def due_hours(db: sqlite3.Connection, end: int, limit: int) -> list[int]:
    """Hours before `end` that have rows their roll-up does not know of, oldest first."""
    rows = db.execute(
        "SELECT hour FROM due_hours WHERE hour < ? ORDER BY hour LIMIT ?", (end, limit)
    )
    return [int(hour) for (hour,) in rows]


def take_due(db: sqlite3.Connection, hour: int) -> None:
    """A roll-up begins: a row that comes in from now on makes the hour due again."""
    db.execute("UPDATE due_hours SET is_taken = 1 WHERE hour = ? AND is_taken = 0", (hour,))


def note_rolled_up(db: sqlite3.Connection, hour: int) -> None:
    """No longer due, unless something came in since `take_due`."""
    db.execute("DELETE FROM due_hours WHERE hour = ? AND is_taken = 1", (hour,))


def quanta(value: object, scale: int) -> int | None:
    """A reading as it is kept; None for what is no number or too large for one."""
    number = finite(value)
    if number is None:
        return None
    quanta = round(number * scale)
    return quanta if -(2**63) <= quanta < 2**63 else None


def _one(db: sqlite3.Connection, query: str, *parameters: object) -> int:
    return int(db.execute(query, parameters).fetchone()[0])


def maybe_one(db: sqlite3.Connection, query: str, *parameters: object) -> int | None:
    row = db.execute(query, parameters).fetchone()
    return None if row is None or row[0] is None else int(row[0])
