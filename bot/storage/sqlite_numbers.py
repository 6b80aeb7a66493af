"""Snapshots and metrics of SQLite as wire rows and back. These tables know several bots.

Everything here runs in a database thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from bot.storage.kinds import Cursor, RowPage, WireRow
from bot.storage.sqlite_metrics import (
    SAMPLE_COLUMNS,
    SCALES,
    STATUS_CODES,
    insert_sample,
    quanta,
)
from bot.storage.sqlite_rows import (
    HOUR_MS,
    clean,
    exact_time,
    finite,
    from_ms,
    json_text,
    to_ms,
)
from bot.storage.sqlite_tables import Ask, Home, kept_time, refused, wire_json
from bot.storage.sqlite_uptime import Pause

_BOTS: Final = "SELECT bot, bot_id, uuid_tail FROM bots"
_SAMPLES: Final = f"SELECT sample_key, id, {', '.join(SAMPLE_COLUMNS)} FROM samples"
_NAME_SAMPLE: Final = "UPDATE samples SET id = ? WHERE sample_key = ?"
_STATUSES: Final[dict[object, object]] = {code: text for text, code in STATUS_CODES.items()}
_LEAST: Final = -(2**54)
"""Milliseconds before all that a key can hold."""
_SAME_MS: Final = 255
"""How many bots may have a snapshot of the same millisecond."""

_INSERT_METRIC: Final = """
INSERT INTO custom_metrics (metric, at_ms, id, value, labels, bot) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_METRICS: Final = """
SELECT c.id, n.name, c.at_ms, c.value, c.labels, b.bot_id, c.metric
FROM custom_metrics AS c JOIN metric_names AS n ON n.metric = c.metric
JOIN bots AS b ON b.bot = c.bot
"""
_HOURS: Final = """
SELECT n.name, h.hour, b.bot_id, h.avg_value, h.min_value, h.max_value, h.count, h.metric, h.bot
FROM hourly AS h JOIN metric_names AS n ON n.metric = h.metric JOIN bots AS b ON b.bot = h.bot
"""
# The fuller hour stands; of two equally full ones the later.
_UPSERT_HOUR: Final = """
INSERT INTO hourly (metric, hour, bot, avg_value, min_value, max_value, count)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (metric, hour, bot) DO UPDATE SET
    avg_value = excluded.avg_value, min_value = excluded.min_value,
    max_value = excluded.max_value, count = excluded.count
WHERE excluded.count >= hourly.count
    AND (hourly.avg_value, hourly.min_value, hourly.max_value, hourly.count)
    IS NOT (excluded.avg_value, excluded.min_value, excluded.max_value, excluded.count)
"""


class Samples:
    """`system_stats`: whole quanta under one key here, numbers and an id of their own there."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        """By time, then by bot: those of one millisecond are put in order here."""
        bots = _bots(db)
        first, after_bot = _LEAST, ""
        if ask.after is not None:
            first, after_bot = to_ms(kept_time(ask.after[0])), str(ask.after[1])
        after_ms = first
        if ask.since is not None:
            first = max(first, to_ms(ask.since))
        wanted = [number for number, (name, _) in bots.items() if ask.bot_id in (None, name)]
        if not wanted:
            return RowPage([], None)
        # The row of the cursor comes again, and the last millisecond must be whole.
        slack = 1 if len(bots) == 1 else 2 * _SAME_MS
        only = f" AND sample_key & 255 = {wanted[0]}" if len(wanted) < len(bots) else ""
        rows = db.execute(
            f"{_SAMPLES} WHERE sample_key >= ?{only} ORDER BY sample_key LIMIT ?",
            (first << 8, ask.limit + 1 + slack),
        ).fetchall()
        keyed = [((row[0] >> 8, bots[row[0] & 255][0]), row) for row in rows]
        keyed = [one for one in keyed if one[0] > (after_ms, after_bot)]
        keyed.sort(key=lambda one: one[0])
        found = _converted(bots, [row for _, row in keyed[: ask.limit]])
        if len(keyed) <= ask.limit:
            return RowPage(found, None)
        ms, bot_id = keyed[ask.limit - 1][0]
        return RowPage(found, [exact_time(from_ms(ms)), bot_id])

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        tails: dict[int, str] = {}
        return sum(self._take(db, home, tails, row) for row in rows)

    def _take(
        self, db: sqlite3.Connection, home: Home, tails: dict[int, str], row: WireRow
    ) -> bool:
        """Put it in its millisecond or, where another one stands, in the next free one."""
        bot = home.numbers.bot(db, str(row.get("bot_id", home.bot_id)))
        if bot not in tails:
            query = "SELECT uuid_tail FROM bots WHERE bot = ?"
            tails[bot] = str(db.execute(query, (bot,)).fetchone()[0])
        at_ms = to_ms(kept_time(row.get("timestamp")))
        values = [quanta(row.get(name), scale) for name, scale in SCALES.items()]
        status = clean(str(row.get("status") or "online"))
        columns = (*values, STATUS_CODES.get(status, status), _kept_readings(row.get("extra")))
        while True:
            usual = _sample_id(at_ms, tails[bot])
            name = str(row.get("id") or usual)
            if insert_sample(db, bot, at_ms, columns):
                if name != usual:
                    db.execute(
                        "UPDATE samples SET id = ? WHERE sample_key = ?", (name, at_ms << 8 | bot)
                    )
                return True
            query = "SELECT coalesce(id, ?) FROM samples WHERE sample_key = ?"
            if db.execute(query, (usual, at_ms << 8 | bot)).fetchone()[0] == name:
                return False
            at_ms += 1

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        only, bots = _only("sample_key & 255", bot_id)
        return _count(db, f"SELECT count(*) FROM samples WHERE 1{only}", *bots)

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        bots = _bots(db)
        rows = db.execute(f"{_SAMPLES} WHERE sample_key IN ({_marks(refs)})", refs).fetchall()
        return dict(zip((row[0] for row in rows), _converted(bots, rows), strict=True))


class Metrics:
    """`custom_metrics`: what was reported by name."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        """Name by name, because the rows of one metric lie side by side."""
        since = -(2**62) if ask.since is None else to_ms(ask.since)
        name, start = _start(ask.after)
        found: list[dict[str, object]] = []
        for metric, of_metric in _names(db, name):
            behind = start if of_metric == name else (since, "")
            only, bots = _only("c.bot", ask.bot_id)
            rows = db.execute(
                f"{_METRICS} WHERE c.metric = ? AND c.at_ms >= ? AND (c.at_ms, c.id) > (?, ?)"
                f"{only} ORDER BY c.at_ms, c.id LIMIT ?",
                (metric, since, *behind, *bots, ask.limit - len(found)),
            ).fetchall()
            found += map(_metric, rows)
            if len(found) == ask.limit:
                return RowPage(found, [of_metric, rows[-1][2], rows[-1][0]])
        return RowPage(found, None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        return sum(db.execute(_INSERT_METRIC, self._kept(db, home, row)).rowcount for row in rows)

    def _kept(self, db: sqlite3.Connection, home: Home, row: WireRow) -> tuple[object, ...]:
        value = finite(row.get("metric_value"))
        if value is None:
            raise refused("a metric without a number")
        return (
            home.numbers.metric(db, str(row.get("metric_name"))),
            to_ms(kept_time(row.get("timestamp"))),
            str(row.get("id")),
            value,
            json_text(row.get("labels") or {}),
            home.numbers.bot(db, str(row.get("bot_id", home.bot_id))),
        )

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        only, bots = _only("c.bot", bot_id)
        return _count(db, f"SELECT count(*) FROM custom_metrics AS c WHERE 1{only}", *bots)

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        found = {}
        for ref in refs:
            metric, at_ms, metric_id = str(ref).split(" ", 2)
            query = f"{_METRICS} WHERE c.metric = ? AND c.at_ms = ? AND c.id = ?"
            for row in db.execute(query, (int(metric), int(at_ms), metric_id)):
                found[ref] = _metric(row)
        return found


class Hours:
    """`metrics_hourly`: one hour of one metric."""

    def page(self, db: sqlite3.Connection, home: Home, ask: Ask) -> RowPage:
        since = -(2**62) if ask.since is None else -(-to_ms(ask.since) // HOUR_MS)
        name, start = _start(ask.after)
        found: list[dict[str, object]] = []
        for metric, of_metric in _names(db, name):
            behind = start if of_metric == name else (since, "")
            only, bots = _only("h.bot", ask.bot_id)
            rows = db.execute(
                f"{_HOURS} WHERE h.metric = ? AND h.hour >= ? AND h.hour >= ? "
                f"AND (h.hour, b.bot_id) > (?, ?){only} ORDER BY h.hour, b.bot_id LIMIT ?",
                (metric, since, behind[0], *behind, *bots, ask.limit - len(found)),
            ).fetchall()
            found += map(_hour, rows)
            if len(found) == ask.limit:
                return RowPage(found, [of_metric, *rows[-1][1:3]])
        return RowPage(found, None)

    def take(self, db: sqlite3.Connection, home: Home, rows: Sequence[WireRow]) -> int:
        return sum(db.execute(_UPSERT_HOUR, self._kept(db, home, row)).rowcount for row in rows)

    def _kept(self, db: sqlite3.Connection, home: Home, row: WireRow) -> tuple[object, ...]:
        columns = ("avg_value", "min_value", "max_value", "count")
        return (
            home.numbers.metric(db, str(row.get("metric_name"))),
            to_ms(kept_time(row.get("hour"))) // HOUR_MS,
            home.numbers.bot(db, str(row.get("bot_id", home.bot_id))),
            *(row.get(column) for column in columns),
        )

    def count(self, db: sqlite3.Connection, home: Home, bot_id: str | None) -> int:
        only, bots = _only("h.bot", bot_id)
        return _count(db, f"SELECT count(*) FROM hourly AS h WHERE 1{only}", *bots)

    def find(
        self, db: sqlite3.Connection, home: Home, refs: Sequence[object]
    ) -> dict[object, dict[str, object]]:
        found = {}
        for ref in refs:
            query = f"{_HOURS} WHERE h.metric = ? AND h.hour = ? AND h.bot = ?"
            for row in db.execute(query, tuple(map(int, str(ref).split()))):
                found[ref] = _hour(row)
        return found


def _kept_readings(extra: object) -> str | None:
    """[name, labels, number] each; what is none would spoil every look at its time."""
    kept = [
        [str(name), labels, number]
        for name, labels, value in (
            reading
            for reading in (extra if isinstance(extra, list) else ())
            if isinstance(reading, list) and len(reading) == 3 and isinstance(reading[0], str)
        )
        if (number := finite(value)) is not None
    ]
    return json_text(kept) if kept else None


def _converted(
    bots: dict[int, tuple[str, str]], rows: Sequence[Sequence[object]]
) -> list[dict[str, object]]:
    """Rows as they travel, with room for other threads in between."""
    pause = Pause()
    found = []
    for row in rows:
        found.append(_sample(bots, row))
        pause()
    return found


def _sample(bots: dict[int, tuple[str, str]], row: Sequence[object]) -> dict[str, object]:
    key, own_id, *values, status, extra = row
    assert isinstance(key, int)
    at_ms, (bot_id, tail) = key >> 8, bots[key & 255]
    found: dict[str, object] = {
        "bot_id": bot_id,
        "id": own_id or _sample_id(at_ms, tail),
        "timestamp": exact_time(from_ms(at_ms)),
        "status": _STATUSES.get(status, status),
    }
    for name, scale, value in zip(SCALES, SCALES.values(), values, strict=True):
        found[name] = value / scale if isinstance(value, int) and scale != 1 else value
    found["extra"] = wire_json(extra)
    return found


def _sample_id(at_ms: int, tail: str) -> str:
    ms = at_ms & 0xFFFFFFFFFFFF
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-8000-{tail}"


def _metric(row: Sequence[object]) -> dict[str, object]:
    metric_id, name, at_ms, value, labels, bot_id, _ = row
    assert isinstance(at_ms, int)
    return {
        "bot_id": bot_id,
        "id": metric_id,
        "metric_name": name,
        "timestamp": exact_time(from_ms(at_ms)),
        "metric_value": value,
        "labels": wire_json(labels),
    }


def _hour(row: Sequence[object]) -> dict[str, object]:
    name, hour, bot_id, mean, least, most, count, *_ = row
    assert isinstance(hour, int)
    return {
        "bot_id": bot_id,
        "metric_name": name,
        "hour": exact_time(from_ms(hour * HOUR_MS)),
        "avg_value": mean,
        "min_value": least,
        "max_value": most,
        "count": count,
    }


def _bots(db: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    return {number: (bot_id, tail) for number, bot_id, tail in db.execute(_BOTS)}


def _names(db: sqlite3.Connection, first: str) -> Iterable[tuple[int, str]]:
    """(number, name) of every metric from a name on, in order."""
    query = "SELECT metric, name FROM metric_names WHERE name >= ? ORDER BY name"
    return db.execute(query, (first,)).fetchall()


def _start(after: Cursor | None) -> tuple[str, tuple[object, object]]:
    if after is None:
        return "", (-(2**62), "")
    return str(after[0]), (after[1], after[2])


def _only(column: str, bot_id: str | None) -> tuple[str, tuple[str, ...]]:
    if bot_id is None:
        return "", ()
    return f" AND {column} = (SELECT bot FROM bots WHERE bot_id = ?)", (bot_id,)


def _marks(refs: Sequence[object]) -> str:
    return ", ".join("?" * len(refs))


def _count(db: sqlite3.Connection, query: str, *parameters: object) -> int:
    return int(db.execute(query, parameters).fetchone()[0])
