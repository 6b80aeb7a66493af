"""What is kept about members, asked of the running bot as members do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from bot.storage.sqlite import SqliteStore
from bot.storage.store import Conversation, Song
from tests.e2e.scene import Scene


async def test_a_member_reads_and_deletes_what_is_kept(scene: Scene) -> None:
    """The rows come from another process, as another cog's would from another file."""
    member = scene.guild.add_user("ゆい")
    store = SqliteStore(scene.bot.db_path)
    await store.open()
    now = datetime.now(UTC)
    for user in (str(member.id), "42"):
        await store.save_conversation(Conversation(uuid4(), user, "ゆい", "質問", "答え", now))
        await store.save_song(Song(uuid4(), str(scene.guild.id), "夜に駆ける", "ゆい", user, now))
    await store.close()
    discord = scene.discord
    songs = await discord.command(scene.guild, scene.alerts, member, "activity songs", {})
    assert "夜に駆ける" in songs.text and "2" in songs.text
    about = await discord.command(scene.guild, scene.alerts, member, "privacy info", {})
    assert about.ephemeral and "90" in about.text
    export = await discord.command(scene.guild, scene.alerts, member, "privacy export", {})
    assert export.ephemeral
    asked = await discord.command(scene.guild, scene.alerts, member, "privacy delete", {})
    assert asked.ephemeral
    assert "夜に駆ける" in next(iter(export.files.values())).decode()
    (button,) = asked.buttons
    await discord.press(asked, button["custom_id"], member)
    deadline = asyncio.get_running_loop().time() + 10
    kept = "SELECT user_id FROM conversation_logs UNION ALL SELECT requested_by_id FROM music_logs"
    while scene.bot.query(kept) != [("42",), ("42",)]:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)
