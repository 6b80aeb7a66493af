"""What a day comes to in SQLite, and where its summary lies.

Everything here runs in a database thread.
"""

from __future__ import annotations

import sqlite3

from bot.core.summary import DayCounts, ServiceDay, Trouble
from bot.storage.poll_codec import unpack, unpack_columns
from bot.storage.sqlite_rows import HOUR_MS, clean, from_ms, json_map, json_text, public_time
from bot.storage.sqlite_uptime import Pause

_INCIDENTS = """
SELECT severity, count(*),
    max(julianday(min(coalesce(resolved_at, :end), :end)) - julianday(max(timestamp, :start)))
FROM alert_history
WHERE timestamp < :end AND (resolved = 0 OR coalesce(resolved_at, timestamp) >= :start)
GROUP BY severity
"""
# The counters begin at 0 with each process; an hour before the day gives the value to start from.
_COMMANDS = """
SELECT coalesce(sum(CASE WHEN count >= count_before THEN count - count_before ELSE count END), 0),
    coalesce(sum(CASE WHEN errors >= errors_before THEN errors - errors_before ELSE errors END), 0)
FROM (
    SELECT sample_key, command_count AS count, command_errors AS errors,
        lag(command_count) OVER bots AS count_before, lag(command_errors) OVER bots AS errors_before
    FROM samples WHERE sample_key >= :before << 8 AND sample_key < :end_ms << 8
        AND command_count IS NOT NULL AND command_errors IS NOT NULL
    WINDOW bots AS (PARTITION BY sample_key & 255 ORDER BY sample_key)
) WHERE sample_key >= :start_ms << 8 AND count_before IS NOT NULL
"""
_COUNTS = """
SELECT
    (SELECT count(*) FROM samples
        WHERE sample_key >= :start_ms << 8 AND sample_key < :end_ms << 8),
    (SELECT count(*) FROM conversation_logs WHERE timestamp >= :start AND timestamp < :end),
    (SELECT count(*) FROM music_logs WHERE timestamp >= :start AND timestamp < :end)
"""


def count_day(db: sqlite3.Connection, start_ms: int, end_ms: int) -> DayCounts:
    """Services come out of their hourly roll-ups, which must be there already."""
    window = {
        "start_ms": start_ms,
        "end_ms": end_ms,
        "before": start_ms - HOUR_MS,
        "start": public_time(from_ms(start_ms)),
        "end": public_time(from_ms(end_ms)),
    }
    samples, conversations, songs = db.execute(_COUNTS, window).fetchone()
    commands, errors = db.execute(_COMMANDS, window).fetchone()
    incidents = {
        str(severity): Trouble(count, max(0.0, longest * 86400.0))
        for severity, count, longest in db.execute(_INCIDENTS, window)
    }
    services = _services(db, start_ms, end_ms)
    return DayCounts(
        samples=samples,
        incidents=incidents,
        up_s=sum(one.up_s for one in services),
        down_s=sum(one.down_s for one in services),
        services=tuple(one for one in services if one.down_s > 0),
        commands=commands,
        command_errors=errors,
        conversations=conversations,
        songs=songs,
    )


def _services(db: sqlite3.Connection, start_ms: int, end_ms: int) -> list[ServiceDay]:
    """Every monitor's day; an hour that lies partly outside counts by its share."""
    up: dict[int, float] = {}
    down: dict[int, float] = {}
    pause = Pause()
    for (instance,) in db.execute("SELECT DISTINCT instance FROM rosters").fetchall():
        for hour, packed, body in db.execute(
            "SELECT h.hour, r.numbers, h.body FROM service_hourly AS h "
            "JOIN rosters AS r ON r.roster = h.roster "
            "WHERE h.instance = ? AND h.hour >= ? AND h.hour < ?",
            (instance, start_ms // HOUR_MS, -(-end_ms // HOUR_MS)),
        ):
            inside_ms = min(end_ms, (hour + 1) * HOUR_MS) - max(start_ms, hour * HOUR_MS)
            _, up_ms, down_ms, *_ = unpack_columns(body, 6)
            for number, was_up, was_down in zip(unpack(packed), up_ms, down_ms, strict=True):
                up[number] = up.get(number, 0.0) + was_up * inside_ms / HOUR_MS
                down[number] = down.get(number, 0.0) + was_down * inside_ms / HOUR_MS
            pause()
    names = {
        number: (str(key), str(name))
        for number, key, name in db.execute("SELECT number, key, name FROM monitors")
        if number in up
    }
    return [
        ServiceDay(
            *names.get(number, (str(number), str(number))), was_up / 1000, down[number] / 1000
        )
        for number, was_up in up.items()
    ]


def read(db: sqlite3.Connection, day: str, bot_id: str) -> dict[str, object] | None:
    """What is stored of a bot's day; None when there is nothing."""
    row = db.execute("SELECT summary_data FROM daily_summaries WHERE date = ?", (day,)).fetchone()
    found = None if row is None else json_map(row[0]).get(clean(bot_id))
    return found if isinstance(found, dict) else None


def save(
    db: sqlite3.Connection, day: str, bot_id: str, summary: dict[str, object], now: str
) -> None:
    """Put a bot's summary beside those of the others; nothing is written when it is there."""
    row = db.execute("SELECT summary_data FROM daily_summaries WHERE date = ?", (day,)).fetchone()
    known = {} if row is None else json_map(row[0])
    merged = {**known, clean(bot_id): summary}
    if row is not None and merged == known:
        return
    db.execute(
        "INSERT INTO daily_summaries (date, summary_data, created_at, updated_at) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (date) DO UPDATE SET "
        "summary_data = excluded.summary_data, updated_at = excluded.updated_at",
        (day, json_text(merged), now, now),
    )
