"""Everybody may have what is kept about them, and have it deleted; nobody sees another's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.services.activity import Keeping
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Conversation, MemberData, Song, StoreError, StoreUnavailable
from cogs.privacy import export_files
from tests.cogs_world import NOW, House
from tests.peers.discord import DiscordPeer, InteractionResult, User
from tests.test_cogs import Stage, fields


@dataclass
class Scene:
    stage: Stage

    @property
    def house(self) -> House:
        return self.stage.house

    async def talk(self, user: User, prompt: str = "何時?", *, songs: int = 1) -> None:
        at = NOW - timedelta(minutes=5)
        assert await self.house.activity.report_conversation(
            user_id=user.id, user_name=user.name, prompt=prompt, response="3時", timestamp=at
        )
        for number in range(songs):
            assert await self.house.activity.report_song(
                guild_id=self.stage.guild.id,
                song_title=f"曲 {number}",
                requested_by=user.name,
                requested_by_id=user.id,
                timestamp=at,
            )

    async def export(self, user: User | None = None) -> dict[str, Any]:
        result = await self.stage.run("privacy export", user)
        assert result.ephemeral
        (content,) = result.files.values()
        read: dict[str, Any] = json.loads(content)
        return read

    async def count(self, user: User) -> int:
        data = await self.house.store.member_data(str(user.id))
        return len(data.conversations) + len(data.songs)


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("home")
        house = House(tmp_path / "monitoring.db", operators=[str(guild.id)])
        await house.store.open()
        try:
            await house.start_bot(peer)
            yield Scene(Stage(peer, house, guild))
        finally:
            await house.close()


# /privacy info


@pytest.mark.parametrize("mode", ["full", "metadata", "off"])
async def test_everybody_is_told_what_is_kept_and_for_how_long(scene: Scene, mode: Any) -> None:
    scene.house.activity.keeping = Keeping(mode, mode, 12, 34)
    for locale in ("ja", "en-US"):
        result = await scene.stage.run("privacy info", locale=locale)
        assert result.ephemeral
        shown = fields(result)
        assert len(shown) == 4
        for days in ("12", "34"):
            assert (days in result.text) == (mode != "off")
        assert "/privacy delete" in result.text


# /privacy export


async def test_an_export_holds_all_about_the_member_and_nothing_about_others(
    scene: Scene,
) -> None:
    stage = scene.stage
    await scene.talk(stage.member, songs=2)
    await scene.talk(stage.admin, "秘密")
    result = await stage.run("privacy export", locale="en-US")
    assert result.content == "Kept about you: 1 conversations and 2 songs you asked for."
    ((name, content),) = result.files.items()
    assert name == "comet-20260102-1.json"
    found = json.loads(content)
    assert found["member"] == str(stage.member.id)
    (conversation,) = found["conversations"]
    assert conversation["prompt"] == "何時?"
    assert conversation["at"] == "2026-01-02T02:59:05.000+00:00"
    assert [song["song_title"] for song in found["songs"]] == ["曲 0", "曲 1"]
    assert "秘密" not in content.decode()


async def test_who_has_nothing_gets_words_and_no_file(scene: Scene) -> None:
    result = await scene.stage.run("privacy export", locale="en-US")
    assert result.ephemeral
    assert result.content == "Nothing is kept about you."
    assert not result.files


async def test_a_large_export_comes_in_parts_each_whole_by_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Discord tells with each command how large a file it takes there.
    for module in ("payloads", "messages"):
        monkeypatch.setattr(f"tests.peers.discord.{module}.ATTACHMENT_LIMIT_BYTES", 60_000)
    for number in range(5):
        await scene.talk(scene.stage.member, f"{number}" + "長" * 9_000)
    result = await scene.stage.run("privacy export")
    await scene.stage.peer.wait_for(lambda: len(result.followups) == 2, 10)
    messages = [result.message, *result.followups]
    files = [json.loads(f) for m in messages if m is not None for f in m.files.values()]
    assert all(m is not None and m.ephemeral for m in messages)
    assert [(f["part"], f["parts"]) for f in files] == [(1, 3), (2, 3), (3, 3)]
    told = [c["prompt"][0] for f in files for c in f["conversations"]]
    assert told == list("01234")
    assert sum(len(f["songs"]) for f in files) == 5


def test_no_part_is_larger_than_allowed_and_no_row_is_lost() -> None:
    rows = [Conversation(uuid4(), "1", "A", "長" * n * 20, '\n"' * n, NOW) for n in range(300)]
    songs = [Song(uuid4(), "7", f"曲{n}", "A", "1", NOW) for n in range(500)]
    files = export_files("1", MemberData(rows, songs), NOW, 50_000)
    assert max(map(len, files)) <= 50_000
    read = [json.loads(file) for file in files]
    assert [c["id"] for f in read for c in f["conversations"]] == [
        str(row.conversation_id) for row in rows
    ]
    assert [s["id"] for f in read for s in f["songs"]] == [str(song.song_id) for song in songs]
    assert {f["parts"] for f in read} == {len(files)}


async def test_the_remote_copy_is_asked_too_and_its_silence_is_said(
    scene: Scene, tmp_path: Path
) -> None:
    remote = SqliteStore(tmp_path / "remote.db")
    await remote.open()
    user_id = str(scene.stage.member.id)
    await scene.talk(scene.stage.member)
    (both,) = (await scene.house.store.member_data(user_id)).conversations
    older = Conversation(uuid4(), user_id, "A", "昔", "", NOW - timedelta(days=80))
    for one in (both, older):
        await remote.save_conversation(one)
    scene.house.parts.remote = remote
    try:
        found = await scene.export()
        assert [c["prompt"] for c in found["conversations"]] == ["昔", "何時?"]
        assert len(found["songs"]) == 1
    finally:
        await remote.close()
    result = await scene.stage.run("privacy export", locale="en-US")
    assert "remote database did not answer" in result.content
    (content,) = result.files.values()
    assert len(json.loads(content)["conversations"]) == 1


async def test_exports_are_limited_per_person(scene: Scene) -> None:
    stage = scene.stage
    for _ in range(2):
        await stage.run("privacy export", locale="en-US")
    third = await stage.run("privacy export", locale="en-US")
    assert third.ephemeral
    assert "wait a little" in third.content
    other = await stage.run("privacy export", stage.admin, locale="en-US")
    assert other.content == "Nothing is kept about you."


async def test_a_store_that_cannot_be_read_is_said_in_words(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(scene.house.store, "member_data", refuse)
    for name in ("privacy export", "privacy delete"):
        result = await scene.stage.run(name)
        assert result.ephemeral
        assert "ロックしています" in result.content
        assert not result.buttons


# /privacy delete


async def ask(scene: Scene, user: User | None = None) -> InteractionResult:
    result = await scene.stage.run("privacy delete", user, locale="en-US")
    assert result.ephemeral
    return result


async def confirm(scene: Scene, asked: InteractionResult) -> InteractionResult:
    """Press the button and wait for what becomes of it."""
    stage, before = scene.stage, asked.content
    pressed = await stage.peer.press(asked, "Delete everything", stage.member, locale="en-US")
    await stage.peer.wait_for(lambda: asked.content != before or pressed.followups, 10)
    return pressed


async def test_deleting_takes_a_second_press_and_spares_the_others(scene: Scene) -> None:
    stage = scene.stage
    await scene.talk(stage.member, songs=2)
    await scene.talk(stage.admin)
    asked = await ask(scene)
    assert "1 conversations and 2 songs" in asked.content
    assert await scene.count(stage.member) == 3
    await stage.house.restart_bot(stage.peer)
    await confirm(scene, asked)
    assert "Deleted: 3 records" in asked.content
    assert "Backups" in asked.content
    assert not asked.buttons
    assert await scene.count(stage.member) == 0
    assert await scene.count(stage.admin) == 2
    assert (await ask(scene)).content == "Nothing is kept about you."


async def test_nothing_to_delete_needs_no_button(scene: Scene) -> None:
    result = await ask(scene)
    assert result.content == "Nothing is kept about you."
    assert not result.buttons


async def test_a_forged_press_deletes_nobody_elses_data(scene: Scene) -> None:
    stage = scene.stage
    await scene.talk(stage.member)
    asked = await ask(scene)
    pressed = await stage.peer.press(
        asked, "Delete everything", stage.admin, locale="en-US", force=True
    )
    assert pressed.ephemeral
    assert "Only the person" in pressed.content
    assert await scene.count(stage.member) == 2


async def test_a_deletion_that_must_wait_says_so_and_happens_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, recorder = scene.stage, scene.house.recorder
    await scene.talk(stage.member)
    asked = await ask(scene)

    async def refuse(*_: Any) -> Any:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(scene.house.store, "delete_member_data", refuse)
        await confirm(scene, asked)
    assert "as soon as it can be" in asked.content
    # Said while the deletion waits: it came before it, and goes with it.
    assert await scene.house.activity.report_conversation(
        user_id=stage.member.id, prompt="a", response="b", timestamp=NOW - timedelta(hours=1)
    )
    recorder._next_try_s = 0
    await recorder.drain()
    (left,) = (await scene.house.store.member_data(str(stage.member.id))).conversations
    assert left.prompt == "a", "reported after the wish"


async def test_a_deletion_the_store_refuses_is_not_called_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = scene.stage
    await scene.talk(stage.member)
    asked = await ask(scene)

    async def refuse(*_: Any) -> Any:
        raise StoreError("refused", retriable=False)

    monkeypatch.setattr(scene.house.store, "delete_member_data", refuse)
    pressed = await confirm(scene, asked)
    assert "That did not work" in pressed.text
    assert "Deleted" not in asked.content


async def test_what_is_deleted_is_overwritten_in_the_file(scene: Scene, tmp_path: Path) -> None:
    stage = scene.stage
    await scene.talk(stage.member, "a very recognisable sentence")
    asked = await ask(scene)
    await confirm(scene, asked)
    await scene.house.stop_bot()
    await scene.house.store.close()
    assert b"recognisable" not in (tmp_path / "monitoring.db").read_bytes()
    await scene.house.store.open()


async def test_the_copy_is_said_to_follow(scene: Scene) -> None:
    await scene.talk(scene.stage.member)
    scene.house.parts.remote = scene.house.store
    asked = await ask(scene)
    await confirm(scene, asked)
    assert "remote database is deleted next" in asked.content
    shown = await scene.stage.run("privacy info", locale="en-US")
    assert "copy in a remote database" in shown.text


async def test_the_cog_takes_its_button_along(scene: Scene) -> None:
    bot = scene.house.bot
    assert bot is not None
    for _ in range(2):
        patterns = {p.pattern for p in bot._connection._view_store._dynamic_items}
        assert any("privacy:delete" in pattern for pattern in patterns)
        await bot.unload_extension("cogs.privacy")
        patterns = {p.pattern for p in bot._connection._view_store._dynamic_items}
        assert not any("privacy:delete" in pattern for pattern in patterns)
        await bot.load_extension("cogs.privacy")
