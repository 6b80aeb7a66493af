"""What other cogs report and what the log says, as wire rows (see `kinds`) and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from bot.core.kept_text import MESSAGE_LIMIT, NAME_LIMIT, TEXT_LIMIT, TITLE_LIMIT, kept
from bot.storage.kinds import WireRow
from bot.storage.sqlite_rows import EPOCH, clean, exact_time, to_time
from bot.storage.store import Conversation, LogLine, Song


def raw_row(
    raw_id: UUID, metric_type: str, data: Mapping[str, object], at: datetime, bot_id: str
) -> dict[str, object]:
    return {
        "bot_id": bot_id,
        "id": str(raw_id),
        "timestamp": exact_time(at),
        "metric_type": _text(metric_type, NAME_LIMIT),
        "data": data,
    }


def conversation_row(conversation: Conversation, bot_id: str) -> dict[str, object]:
    return {
        "bot_id": bot_id,
        "id": str(conversation.conversation_id),
        "user_id": _text(conversation.user_id, NAME_LIMIT),
        "user_name": _text(conversation.user_name, NAME_LIMIT),
        "prompt": _text(conversation.prompt, TEXT_LIMIT),
        "response": _text(conversation.response, TEXT_LIMIT),
        "timestamp": exact_time(conversation.at),
    }


def to_conversation(row: WireRow) -> Conversation:
    return Conversation(
        conversation_id=_id(row["id"]),
        user_id=str(row["user_id"]),
        user_name=str(row["user_name"]),
        prompt=str(row["prompt"]),
        response=str(row["response"]),
        at=_time(row["timestamp"]),
    )


def song_row(song: Song, bot_id: str) -> dict[str, object]:
    return {
        "bot_id": bot_id,
        "id": str(song.song_id),
        "guild_id": _text(song.guild_id, NAME_LIMIT),
        "song_title": _text(song.song_title, TITLE_LIMIT),
        "requested_by": _text(song.requested_by, NAME_LIMIT),
        "requested_by_id": _text(song.requested_by_id, NAME_LIMIT),
        "timestamp": exact_time(song.at),
    }


def to_song(row: WireRow) -> Song:
    return Song(
        song_id=_id(row["id"]),
        guild_id=str(row["guild_id"]),
        song_title=str(row["song_title"]),
        requested_by=str(row["requested_by"]),
        requested_by_id=str(row["requested_by_id"]),
        at=_time(row["timestamp"]),
    )


def line_row(line: LogLine, bot_id: str) -> dict[str, object]:
    return {
        "bot_id": bot_id,
        "id": str(line.line_id),
        "level": _text(line.level, NAME_LIMIT),
        "logger": _text(line.logger, NAME_LIMIT),
        "message": _text(line.message, MESSAGE_LIMIT),
        "context": line.context,
        "timestamp": exact_time(line.at),
    }


def _text(text: str, limit: int) -> str:
    # Cut first: cleaning a megabyte of which little stays would be work for nothing.
    return clean(kept(text, limit))


# Anybody with SQL may have written a row; it belongs to its member all the same.


def _id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        return uuid5(NAMESPACE_URL, str(value))


def _time(value: object) -> datetime:
    try:
        return to_time(value)
    except (ValueError, OverflowError):
        return EPOCH
