"""What may go when it is old. Every statement deletes at most a given number of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bot.storage.sqlite_rows import HOUR_MS, exact_time, public_time, to_ms

_RESOLVED = """
DELETE FROM alert_history WHERE rowid IN (
    SELECT rowid FROM alert_history AS a WHERE timestamp < :text AND resolved <> 0
    AND coalesce(resolved_at, timestamp) < :text
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE status = 'queued' AND incident_id = a.id)
    ORDER BY timestamp LIMIT :limit)
"""
_FLIPS = """
DELETE FROM flips WHERE rowid IN (
    SELECT rowid FROM flips AS f WHERE at < :exact
    AND NOT EXISTS (SELECT 1 FROM alert_history WHERE id = f.incident_id AND resolved = 0)
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE status = 'queued' AND incident_id = f.incident_id)
    ORDER BY at LIMIT :limit)
"""
_OUTBOX = """
DELETE FROM outbox WHERE position IN (
    SELECT position FROM outbox WHERE created_at < :exact AND status <> 'queued'
    ORDER BY created_at LIMIT :limit)
"""
_CARDS = """
DELETE FROM cards WHERE rowid IN (
    SELECT rowid FROM cards AS c WHERE closed_at < :exact
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE status = 'queued' AND card_id = c.card_id)
    ORDER BY closed_at LIMIT :limit)
"""
_SAMPLES = """
DELETE FROM samples WHERE sample_key IN (
    SELECT sample_key FROM samples WHERE sample_key < :ms * 256 ORDER BY sample_key LIMIT :limit)
"""
# Without its newest poll an instance would no longer know when its monitors were last seen.
_POLLS = """
DELETE FROM polls WHERE rowid IN (
    SELECT rowid FROM polls AS p WHERE at_ms < :ms
    AND at_ms < (SELECT max(at_ms) FROM polls WHERE instance = p.instance) LIMIT :limit)
"""
_SERVICE_HOURS = """
DELETE FROM service_hourly WHERE rowid IN (
    SELECT rowid FROM service_hourly WHERE hour < :hour LIMIT :limit)
"""
_ROSTERS = """
DELETE FROM rosters WHERE roster IN (
    SELECT roster FROM rosters EXCEPT SELECT roster FROM polls
    EXCEPT SELECT roster FROM service_hourly LIMIT :limit)
"""


def _by_time(table: str, column: str) -> str:
    return (
        f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} "
        f"WHERE {column} < :text ORDER BY {column} LIMIT :limit)"
    )


# One metric at a time: its rows lie side by side, and no index on time alone is needed.
_CUSTOM = """
DELETE FROM custom_metrics WHERE (metric, at_ms, id) IN (
    SELECT metric, at_ms, id FROM custom_metrics WHERE metric = :metric AND at_ms < :ms
    ORDER BY at_ms LIMIT :limit) AND metric = :metric
"""
_HOURLY = """
DELETE FROM hourly WHERE metric = :metric AND hour < :hour AND (metric, hour, bot) IN (
    SELECT metric, hour, bot FROM hourly WHERE metric = :metric AND hour < :hour LIMIT :limit)
"""

_STATEMENTS: dict[str, tuple[str, ...]] = {
    "samples": (_SAMPLES,),
    "metrics": (_CUSTOM,),
    "metrics_raw": (_by_time("metrics_raw", "timestamp"),),
    "metrics_hourly": (_HOURLY, _SERVICE_HOURS),
    "alerts": (_RESOLVED, _FLIPS, _OUTBOX, _CARDS),
    "services": (_by_time("service_status_history", "checked_at"),),
    "polls": (_POLLS,),
    "conversations": (_by_time("conversation_logs", "timestamp"),),
    "music": (_by_time("music_logs", "timestamp"),),
    "bot_logs": (_by_time("bot_logs", "timestamp"),),
}

KINDS = frozenset(_STATEMENTS)


@dataclass(frozen=True, slots=True)
class Deletion:
    """One statement to be repeated, with the number of rows to go, until it finds no more."""

    statement: str
    parameters: dict[str, object]

    def job(self, limit: int) -> Callable[[sqlite3.Connection], int]:
        return lambda db: db.execute(self.statement, {**self.parameters, "limit": limit}).rowcount


def deletions(kind: str, cutoff: datetime, metrics: list[int]) -> list[Deletion]:
    """What to run for one kind. `metrics`: every known metric number, for tables kept by metric."""
    ms = to_ms(cutoff)
    parameters: dict[str, object] = {
        "ms": ms,
        "hour": ms // HOUR_MS,
        "text": public_time(cutoff),
        "exact": exact_time(cutoff),
    }
    found = []
    for statement in _STATEMENTS[kind]:
        if ":metric" in statement:
            found += [Deletion(statement, {**parameters, "metric": m}) for m in metrics]
        else:
            found.append(Deletion(statement, parameters))
    return found


def delete_unused_rosters(db: sqlite3.Connection) -> int:
    return db.execute(_ROSTERS, {"limit": 200}).rowcount


def give_back_space(db: sqlite3.Connection) -> None:
    """Shrink the file a little when more than a quarter of it lies empty.

    Empty pages are used again; only after a shorter retention is there much to give back.
    """
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if free > 1000 and free * 4 > pages:
        # `execute` would free a single page.
        db.executescript("PRAGMA incremental_vacuum(200)")


def free_pages(db: sqlite3.Connection) -> bool:
    """Give some empty pages back; False when none are left, or none will go."""
    (before,) = db.execute("PRAGMA freelist_count").fetchone()
    if before == 0:
        return False
    db.executescript("PRAGMA incremental_vacuum(200)")
    (after,) = db.execute("PRAGMA freelist_count").fetchone()
    return bool(after < before)


def empty_log(db: sqlite3.Connection) -> None:
    """Fold the WAL into the file and cut it; left for later when a reader is in the way."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
