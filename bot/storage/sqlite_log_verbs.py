"""The part of the SQLite store that other cogs' reports, log lines and members' rights need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from bot.storage import sqlite_logs
from bot.storage.log_rows import conversation_row, line_row, raw_row, song_row
from bot.storage.sqlite_file import SqliteFile
from bot.storage.sqlite_rows import clean, exact_time, public_time
from bot.storage.store import Conversation, LogLine, MemberData, Song


class LogVerbs(SqliteFile):
    """For `SqliteStore`; see `store.Store` for the promises."""

    async def save_raw(
        self, raw_id: UUID, metric_type: str, data: Mapping[str, object], at: datetime
    ) -> None:
        row = raw_row(raw_id, metric_type, data, at, self._bot_id)
        await self._write(lambda db: sqlite_logs.save_raw(db, row))

    async def save_conversation(self, conversation: Conversation) -> None:
        row = conversation_row(conversation, self._bot_id)
        await self._write(lambda db: sqlite_logs.save_conversation(db, row))

    async def save_song(self, song: Song) -> None:
        row = song_row(song, self._bot_id)
        await self._write(lambda db: sqlite_logs.save_song(db, row))

    async def save_log_lines(self, lines: Sequence[LogLine]) -> None:
        rows = [line_row(line, self._bot_id) for line in lines]
        await self._write(lambda db: sqlite_logs.save_log_lines(db, rows))

    async def popular_songs(
        self, since_at: datetime, limit: int, guild_id: str | None = None
    ) -> list[tuple[str, int]]:
        since = public_time(since_at)
        return await self._read(lambda db: sqlite_logs.popular_songs(db, since, limit, guild_id))

    async def most_active(self, since_at: datetime, limit: int) -> list[tuple[str, str, int]]:
        since = public_time(since_at)
        return await self._read(lambda db: sqlite_logs.most_active(db, since, limit))

    async def member_data(self, user_id: str) -> MemberData:
        return await self._read(lambda db: sqlite_logs.member_data(db, user_id))

    async def delete_member_data(self, user_id: str, up_to: datetime) -> int:
        """Rows kept here; the copier takes the wish to the remote store, whatever was here."""
        member, until = clean(user_id), exact_time(up_to)
        if not member:
            # Rows that name nobody are nobody's.
            return 0
        return await self._write(lambda db: sqlite_logs.delete_member_data(db, member, until))
