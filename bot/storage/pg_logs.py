"""Settings of guilds, what other cogs report, and log lines in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bot.core.incident import GuildConfig
from bot.storage.log_rows import conversation_row, line_row, song_row, to_conversation, to_song
from bot.storage.pg_call import Calls
from bot.storage.pg_rows import values, write
from bot.storage.sqlite_rows import clean, exact_time, maybe_clean, public_time, to_guild_config
from bot.storage.store import Conversation, LogLine, MemberData, Song

_CONFIG_COLUMNS = ("guild_id", "alert_channel_id", "created_at", "updated_at", "locale")


class LogVerbs(Calls):
    """What `store.Store` promises about guilds, conversations, songs and log lines."""

    async def guild_configs(self) -> list[GuildConfig]:
        rows = await self.call("guild_configs")
        return [to_guild_config(row) for row in values(_CONFIG_COLUMNS, rows)]

    async def save_guild_config(self, config: GuildConfig) -> None:
        row: dict[str, object] = {
            "guild_id": config.guild_id,
            "alert_channel_id": config.alert_channel_id,
            "locale": maybe_clean(config.locale),
            "created_at": exact_time(config.created_at),
            "updated_at": exact_time(config.updated_at),
        }
        await write(self, guild_configs=[row])

    async def remove_guild_config(self, guild_id: str) -> None:
        await write(self, guild_configs_removed=[{"guild_id": clean(guild_id)}])

    async def save_conversation(self, conversation: Conversation) -> None:
        await write(self, conversations=[conversation_row(conversation, self.bot_id)])

    async def save_song(self, song: Song) -> None:
        await write(self, music=[song_row(song, self.bot_id)])

    async def save_log_lines(self, lines: Sequence[LogLine]) -> None:
        await write(self, bot_logs=[line_row(line, self.bot_id) for line in lines])

    async def popular_songs(
        self, since_at: datetime, limit: int, guild_id: str | None = None
    ) -> list[tuple[str, int]]:
        rows = await self.call(
            "popular_songs",
            since=public_time(since_at),
            limit=limit,
            guild_id=maybe_clean(guild_id),
        )
        return [(title, count) for title, count in rows]

    async def most_active(self, since_at: datetime, limit: int) -> list[tuple[str, str, int]]:
        rows = await self.call("most_active", since=public_time(since_at), limit=limit)
        return [(user_id, user_name, count) for user_id, user_name, count in rows]

    async def member_data(self, user_id: str) -> MemberData:
        found = await self.call("member_data", user_id=clean(user_id))
        return MemberData(
            conversations=[to_conversation(row) for row in found["conversations"]],
            songs=[to_song(row) for row in found["songs"]],
        )

    async def delete_member_data(self, user_id: str, up_to: datetime) -> int:
        """How many rows of this bot went."""
        gone = await self.call("delete_member_data", user_id=clean(user_id), at=exact_time(up_to))
        return int(gone)
