"""Charts and statistics of one metric in SQLite. Everything here runs in a database thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, groupby, repeat
from operator import add, itemgetter

from bot.storage.sqlite_metrics import COLUMN_OF, VALUE_OF, maybe_one
from bot.storage.sqlite_rows import HOUR_MS, clean, from_ms
from bot.storage.store import MetricPoint, MetricStats

_ONE_BY_ONE_MS = 2 * HOUR_MS
"""Up to this span rows are averaged here, one by one: quicker than a GROUP BY and its sorter."""
_HOURLY_SLOT_MS = HOUR_MS // 2
"""From this width of a slot on, an hour's average is as good as its rows."""


def series(
    db: sqlite3.Connection, name: str, start_ms: int, end_ms: int, points: int
) -> list[MetricPoint]:
    span = end_ms - start_ms
    if points < 1 or span < 1:
        return []
    if span <= _ONE_BY_ONE_MS:
        query, parameters = _points_query(db, name, start_ms, end_ms)
        order = " ORDER BY at_ms" if " UNION ALL " in query else ""
        rows = db.execute(
            f"SELECT (at_ms - ?) * ? / ?, value FROM ({query}{order})",
            (start_ms, points, span, *parameters),
        ).fetchall()
        return _points(_averages(rows), start_ms, span, points)
    sums: dict[int, tuple[float, int]] = {}
    gaps = [(start_ms, end_ms)]
    if span / points >= _HOURLY_SLOT_MS:
        sums, gaps = _rolled_up(db, name, start_ms, end_ms, points)
    for gap_start, gap_end in gaps:
        query, parameters = _points_query(db, name, gap_start, gap_end)
        slots = db.execute(
            f"SELECT (at_ms - ?) * ? / ? AS slot, sum(value), count(*) FROM ({query}) "
            "GROUP BY slot",
            (start_ms, points, span, *parameters),
        )
        for slot, total, count in slots:
            _add(sums, slot, total, count)
    averages = {slot: total / count for slot, (total, count) in sorted(sums.items())}
    return _points(averages, start_ms, span, points)


def _rolled_up(
    db: sqlite3.Connection, name: str, start_ms: int, end_ms: int, points: int
) -> tuple[dict[int, tuple[float, int]], list[tuple[int, int]]]:
    """(sum, count) by slot of the hours rolled up, and the spans for which there are none."""
    first, last = -(-start_ms // HOUR_MS), end_ms // HOUR_MS
    source = (
        "FROM hourly WHERE metric = (SELECT metric FROM metric_names WHERE name = ?) "
        "AND hour >= ? AND hour < ?"
    )
    parameters = (clean(name), first, last)
    rows = db.execute(
        f"SELECT (hour * {HOUR_MS} - ?) * ? / ? AS slot, sum(avg_value * count), sum(count) "
        f"{source} GROUP BY slot",
        (start_ms, points, end_ms - start_ms, *parameters),
    )
    sums = {slot: (total, count) for slot, total, count in rows}
    # With one bot there is one row an hour, and a full number of rows leaves no hour out.
    is_alone = maybe_one(db, "SELECT count(*) FROM bots") == 1
    if is_alone and maybe_one(db, f"SELECT count(*) {source}", *parameters) == last - first:
        edges = [(start_ms, first * HOUR_MS), (last * HOUR_MS, end_ms)]
        return sums, [(start, end) for start, end in edges if start < end]
    hours = db.execute(f"SELECT DISTINCT hour {source} ORDER BY hour", parameters)
    return sums, _uncovered([hour for (hour,) in hours], start_ms, end_ms)


def _averages(rows: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Average by slot of (slot, value) in order; as a rule there is one value in each."""
    found = dict(rows)
    if len(found) == len(rows):
        return found
    return {
        slot: sum(values := [value for _, value in group]) / len(values)
        for slot, group in groupby(rows, key=itemgetter(0))
    }


def _points(averages: dict[int, float], start_ms: int, span: int, points: int) -> list[MetricPoint]:
    """Points at the starts of their slots."""
    times: Iterable[datetime]
    if span % points == 0:
        # Adding one step after another is ten times quicker than any other way to a time.
        step = timedelta(milliseconds=span // points)
        starts = list(accumulate(repeat(step, points), add, initial=from_ms(start_ms)))
        times = [starts[slot] for slot in averages]
    else:
        times = [from_ms(start_ms + slot * span // points) for slot in averages]
    return list(map(MetricPoint._make, zip(times, averages.values(), strict=True)))


def _add(sums: dict[int, tuple[float, int]], slot: int, total: float, count: int) -> None:
    known_total, known_count = sums.get(slot, (0.0, 0))
    sums[slot] = (known_total + total, known_count + count)


def _uncovered(hours: Sequence[int], start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """What is left of a span once the given full hours (ascending) are taken out of it."""
    gaps = []
    reached = start_ms
    for hour in hours:
        if hour * HOUR_MS > reached:
            gaps.append((reached, hour * HOUR_MS))
        reached = (hour + 1) * HOUR_MS
    if reached < end_ms:
        gaps.append((reached, end_ms))
    return gaps


def stats(db: sqlite3.Connection, name: str, start_ms: int, end_ms: int) -> MetricStats:
    """Average, extremes and interpolated percentiles of [start, end]."""
    query, parameters = _points_query(db, name, start_ms, end_ms + 1)
    count, mean, least, most = db.execute(
        f"SELECT count(*), avg(value), min(value), max(value) FROM ({query})", parameters
    ).fetchone()
    if not count:
        return MetricStats(None, None, None, None, None, None, 0)
    shares = [(count - 1) * share for share in (0.50, 0.95, 0.99)]
    places = sorted({place for share in shares for place in (int(share), int(share) + 1)})
    marks = ", ".join("?" * len(places))
    values = dict(
        db.execute(
            "SELECT place, value FROM (SELECT value, row_number() OVER (ORDER BY value) - 1 "
            f"AS place FROM ({query})) WHERE place IN ({marks})",
            (*parameters, *places),
        )
    )
    p50, p95, p99 = (
        values[int(share)]
        + (values.get(int(share) + 1, 0.0) - values[int(share)]) * (share - int(share))
        if share % 1
        else values[int(share)]
        for share in shares
    )
    return MetricStats(mean, least, most, p50, p95, p99, count)


def _points_query(
    db: sqlite3.Connection, name: str, start_ms: int, end_ms: int
) -> tuple[str, tuple[object, ...]]:
    """(at_ms, value) of one metric; of the snapshots, only the column in question is read.

    Oldest first as long as it is a single walk along one key, that is without a UNION.
    """
    parts: list[str] = []
    parameters: list[object] = []
    keys = (start_ms << 8, end_ms << 8)
    column = COLUMN_OF.get(name)
    if column is not None:
        parts.append(
            f"SELECT sample_key >> 8 AS at_ms, {VALUE_OF[name]} AS value FROM samples "
            f"WHERE sample_key >= ? AND sample_key < ? AND {column} IS NOT NULL"
        )
        parameters += keys
    else:
        parts.append(
            "SELECT sample_key >> 8 AS at_ms, json_extract(e.value, '$[2]') AS value "
            "FROM samples, json_each(extra) AS e WHERE sample_key >= ? AND sample_key < ? "
            "AND extra IS NOT NULL AND json_extract(e.value, '$[0]') = ?"
        )
        parameters += (*keys, clean(name))
    metric = _reported(db, name, start_ms, end_ms)
    if metric is not None:
        parts.append(
            "SELECT at_ms, value FROM custom_metrics WHERE metric = ? AND at_ms >= ? AND at_ms < ?"
        )
        parameters += (metric, start_ms, end_ms)
    return " UNION ALL ".join(parts), tuple(parameters)


def _reported(db: sqlite3.Connection, name: str, start_ms: int, end_ms: int) -> int | None:
    """The metric's number, if anybody reported it by name in that time."""
    return maybe_one(
        db,
        "SELECT metric FROM custom_metrics WHERE metric = "
        "(SELECT metric FROM metric_names WHERE name = ?) AND at_ms >= ? AND at_ms < ? LIMIT 1",
        clean(name),
        start_ms,
        end_ms,
    )
