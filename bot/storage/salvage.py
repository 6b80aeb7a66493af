"""What can still be read of a damaged SQLite file: at least where to tell people about it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from bot.core.incident import GuildConfig
from bot.storage.sqlite_rows import to_guild_config

_CONFIGS = """
    SELECT guild_id, alert_channel_id, created_at, updated_at, locale FROM monitoring_config
"""


async def salvage_configs(path: Path) -> list[GuildConfig]:
    """The guilds' channels as far as the damaged file gives them; an empty list otherwise."""
    return await asyncio.to_thread(_read, path)


def _read(path: Path) -> list[GuildConfig]:
    # With its WAL first: the newest choice may stand only there. `immutable` ignores the WAL,
    # and reads where a damaged WAL would be refused.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        found: list[GuildConfig] = []
        with (
            contextlib.suppress(sqlite3.Error, ValueError, TypeError, OSError),
            contextlib.closing(sqlite3.connect(f"file:{path}?{mode}", uri=True)) as db,
        ):
            found.extend(to_guild_config(row) for row in db.execute(_CONFIGS))
        if found:
            return found
    return []
