"""What other cogs report, and log lines, in SQLite. Everything here runs in a database thread.

Rows come as wire rows (see `log_rows`), so that what is kept here and what travels is the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from bot.storage.kinds import WireRow
from bot.storage.log_rows import to_conversation, to_song
from bot.storage.sqlite_journal import forget_member
from bot.storage.sqlite_rows import Row, clean, insert, json_text
from bot.storage.store import MemberData

_RAW = ("id", "metric_type", "data", "timestamp")
_CONVERSATION = ("id", "user_id", "user_name", "prompt", "response", "timestamp")
_SONG = ("id", "guild_id", "song_title", "requested_by", "requested_by_id", "timestamp")
_LINE = ("id", "level", "logger", "message", "context", "timestamp")

_INSERT_RAW = insert("metrics_raw", _RAW, "id")
_INSERT_CONVERSATION = insert("conversation_logs", _CONVERSATION, "id")
_INSERT_SONG = insert("music_logs", _SONG, "id")
_INSERT_LINE = insert("bot_logs", _LINE, "id")

_POPULAR = """
SELECT song_title, count(*) FROM music_logs WHERE timestamp >= ? {only}
GROUP BY song_title ORDER BY count(*) DESC, song_title LIMIT ?
"""
# Beside a single max(), a plain column is that of the row with the maximum (SQLite's
# documentation of SELECT, "Bare columns in an aggregate query").
_ACTIVE = """
SELECT user_id, user_name, count(*), max(timestamp) FROM conversation_logs WHERE timestamp >= ?
GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT ?
"""
_SELECT_CONVERSATIONS = (
    f"SELECT {', '.join(_CONVERSATION)} FROM conversation_logs "
    "WHERE user_id = ? ORDER BY timestamp, rowid"
)
_SELECT_SONGS = (
    f"SELECT {', '.join(_SONG)} FROM music_logs WHERE requested_by_id = ? ORDER BY timestamp, rowid"
)
_DELETIONS = (
    "DELETE FROM conversation_logs WHERE user_id = ? AND timestamp <= ?",
    "DELETE FROM music_logs WHERE requested_by_id = ? AND timestamp <= ?",
)
_SECURE_DELETE = {0: "OFF", 2: "FAST"}


def save_raw(db: sqlite3.Connection, row: WireRow) -> None:
    db.execute(_INSERT_RAW, _values(row, _RAW))


def save_conversation(db: sqlite3.Connection, row: WireRow) -> None:
    db.execute(_INSERT_CONVERSATION, _values(row, _CONVERSATION))


def save_song(db: sqlite3.Connection, row: WireRow) -> None:
    db.execute(_INSERT_SONG, _values(row, _SONG))


def save_log_lines(db: sqlite3.Connection, rows: Iterable[WireRow]) -> None:
    db.executemany(_INSERT_LINE, (_values(row, _LINE) for row in rows))


def popular_songs(
    db: sqlite3.Connection, since: str, limit: int, guild_id: str | None
) -> list[tuple[str, int]]:
    """A song without a title is none."""
    only = "AND song_title <> ''" + ("" if guild_id is None else " AND guild_id = ?")
    parameters = (since, limit) if guild_id is None else (since, clean(guild_id), limit)
    return [(str(t), int(n)) for t, n in db.execute(_POPULAR.format(only=only), parameters)]


def most_active(db: sqlite3.Connection, since: str, limit: int) -> list[tuple[str, str, int]]:
    rows = db.execute(_ACTIVE, (since, limit))
    return [(str(user_id), str(name), int(count)) for user_id, name, count, _ in rows]


def member_data(db: sqlite3.Connection, user_id: str) -> MemberData:
    """Needs an unchanging view of the database: two queries that belong together."""
    user_id = clean(user_id)
    conversations = db.execute(_SELECT_CONVERSATIONS, (user_id,))
    songs = db.execute(_SELECT_SONGS, (user_id,))
    return MemberData(
        conversations=[
            to_conversation(dict(zip(_CONVERSATION, r, strict=True))) for r in conversations
        ],
        songs=[to_song(dict(zip(_SONG, r, strict=True))) for r in songs],
    )


def delete_member_data(db: sqlite3.Connection, user_id: str, up_to: str) -> int:
    """How many rows went; the wish is noted for the remote store in the same transaction.

    Their text is overwritten too, not only taken off the list. `user_id` is clean, and somebody.
    """
    (before,) = db.execute("PRAGMA secure_delete").fetchone()
    db.execute("PRAGMA secure_delete = ON")
    try:
        gone = sum(db.execute(one, (user_id, up_to)).rowcount for one in _DELETIONS)
        forget_member(db, user_id, up_to)
        return gone
    finally:
        db.execute(f"PRAGMA secure_delete = {_SECURE_DELETE.get(before, 'ON')}")


def _values(row: WireRow, columns: tuple[str, ...]) -> Row:
    """Public tables keep milliseconds and JSON as text."""
    return tuple(_value(column, row[column]) for column in columns)


def _value(column: str, value: object) -> object:
    if column == "timestamp":
        return str(value)[:23]
    return json_text(value) if column in ("data", "context") else value
