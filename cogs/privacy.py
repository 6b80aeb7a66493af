"""`/privacy …`: what is kept about people, and their right to have it and to have it deleted."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from datetime import datetime
from re import Match
from typing import TYPE_CHECKING, Any, Final, Self

import discord
from discord import app_commands
from discord.ext import commands

from bot.services.parts import Parts
from bot.services.recorder import Fact, FactKind
from bot.storage.store import Conversation, MemberData, Song, Store, StoreError
from cogs.answers import (
    NOBODY,
    Ask,
    from_store,
    mishaps_told,
    refuse,
    speech_of,
    store_problem,
)
from cogs.embeds import BLUE, Speech, add_field
from cogs.localisation import said

if TYPE_CHECKING:
    from bot.client import CometBot
    from bot.services.activity import Keeping

Button = discord.ui.Button[discord.ui.View]

FILE_BYTES: Final = 8 * 1024 * 1024
"""Per file; what Discord takes is never less."""

HEAD_BYTES: Final = 1_000
WINDOW_S: Final = 600.0
EXPORTS: Final = 2
DELETIONS: Final = 3
"""Each person, per ten minutes: one export may read a lot."""


def info_embed(keeping: Keeping, has_remote: bool, speech: Speech) -> discord.Embed:
    embed = discord.Embed(
        title=speech("privacy.title"), description=speech("privacy.about"), color=BLUE
    )
    rows = (
        ("conversations", keeping.conversation_mode, keeping.conversation_days),
        ("music", keeping.music_mode, keeping.music_days),
    )
    for topic, mode, days in rows:
        text = speech(f"privacy.{topic}.{mode}")
        if mode != "off":
            text += "\n" + speech("privacy.days", days=speech.number(days))
        add_field(embed, speech(f"privacy.{topic}.title"), text, inline=False)
    places = speech("privacy.places_remote" if has_remote else "privacy.places")
    add_field(embed, speech("privacy.where"), places, inline=False)
    add_field(embed, speech("privacy.rights"), speech("privacy.commands"), inline=False)
    return embed


def export_files(user_id: str, data: MemberData, at: datetime, limit: int) -> list[bytes]:
    """Everything as JSON documents of at most `limit` bytes, each whole by itself."""
    rows = [("conversations", _conversation(one)) for one in data.conversations]
    rows += [("songs", _song(one)) for one in data.songs]
    pages: list[dict[str, list[str]]] = []
    room = 0
    for topic, row in rows:
        text = json.dumps(row, ensure_ascii=False)
        size = len(text.encode()) + 2
        if size > room:
            pages.append({"conversations": [], "songs": []})
            room = limit - HEAD_BYTES
        pages[-1][topic].append(text)
        room -= size
    files = []
    for number, page in enumerate(pages, start=1):
        head = {
            "member": user_id,
            "exported_at": at.isoformat(timespec="seconds"),
            "part": number,
            "parts": len(pages),
        }
        lists = ",\n".join(f'"{topic}": [\n{_joined(texts)}]' for topic, texts in page.items())
        text = f"{json.dumps(head)[:-1]},\n{lists}\n}}\n"
        files.append(text.encode())
    return files


def _joined(texts: Sequence[str]) -> str:
    return ",\n".join(texts) + "\n" if texts else ""


def _conversation(one: Conversation) -> dict[str, str]:
    return {
        "id": str(one.conversation_id),
        "at": one.at.isoformat(timespec="milliseconds"),
        "user_name": one.user_name,
        "prompt": one.prompt,
        "response": one.response,
    }


def _song(one: Song) -> dict[str, str]:
    return {
        "id": str(one.song_id),
        "at": one.at.isoformat(timespec="milliseconds"),
        "guild_id": one.guild_id,
        "song_title": one.song_title,
        "requested_by": one.requested_by,
    }


async def gather(parts: Parts, user_id: str) -> tuple[MemberData | StoreError, bool]:
    """All that is kept about a member, and whether the remote store was silent.

    The remote one may remember more than this machine: it outlives a lost disk.
    """
    here = await from_store(parts.store.member_data(user_id))
    if isinstance(here, StoreError) or parts.remote is None:
        return here, False
    there = await from_store(parts.remote.member_data(user_id))
    if isinstance(there, StoreError):
        return here, True
    conversations = {one.conversation_id: one for one in there.conversations}
    conversations |= {one.conversation_id: one for one in here.conversations}
    songs = {one.song_id: one for one in there.songs} | {one.song_id: one for one in here.songs}
    both = MemberData(
        sorted(conversations.values(), key=lambda one: one.at),
        sorted(songs.values(), key=lambda one: one.at),
    )
    return both, False


async def delete(parts: Parts, user_id: str) -> int | None:
    """How many rows went here; None when it has to wait for the store.

    It goes through the recorder, behind everything reported before; the remote store follows.
    """
    up_to, gone = parts.now(), -1

    async def write(store: Store) -> None:
        nonlocal gone
        gone = await store.delete_member_data(user_id, up_to)

    is_done = await parts.recorder.put(Fact(FactKind.KEEP, "a member's deletion", write))
    if is_done and gone < 0:
        raise RuntimeError("the store refuses to delete a member's data")
    return gone if is_done else None


class DeleteButton(
    discord.ui.DynamicItem[Button], template=r"comet:privacy:delete:(?P<user>[0-9]{1,20})"
):
    """Deletes for good. It names the member, and nobody else's press counts."""

    def __init__(self, user_id: str, label: str = "") -> None:
        super().__init__(
            discord.ui.Button(
                label=label or None,
                emoji="🗑️",
                style=discord.ButtonStyle.danger,
                custom_id=f"comet:privacy:delete:{user_id}",
            )
        )
        self.user_id = user_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: discord.ui.Item[Any], match: Match[str]
    ) -> Self:
        return cls(match["user"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        async with mishaps_told(interaction):
            await self._delete(interaction)

    async def _delete(self, interaction: Ask) -> None:
        speech, parts = speech_of(interaction), interaction.client.parts
        if str(interaction.user.id) != self.user_id:
            await refuse(interaction, speech("privacy.not_yours"))
            return
        await interaction.response.defer()
        count = await delete(parts, self.user_id)
        if count is None:
            lines = [speech("privacy.delete_waits")]
        else:
            lines = [speech("privacy.deleted", n=speech.number(count))]
        if parts.remote is not None:
            lines.append(speech("privacy.remote_follows"))
        lines.append(speech("privacy.backups"))
        await interaction.edit_original_response(
            content="\n".join(lines), view=None, allowed_mentions=NOBODY
        )


def _person(interaction: discord.Interaction[Any]) -> int:
    return interaction.user.id


@app_commands.guild_only()
class Privacy(
    commands.GroupCog, group_name="privacy", group_description=said("command.privacy.description")
):
    """Answers are seen by nobody but the one who asks."""

    def __init__(self, bot: CometBot) -> None:
        self._bot = bot
        self._exporting = asyncio.Lock()
        super().__init__()

    async def cog_load(self) -> None:
        self._bot.add_dynamic_items(DeleteButton)

    async def cog_unload(self) -> None:
        self._bot.remove_dynamic_items(DeleteButton)

    @app_commands.command(name="info", description=said("command.privacy_info.description"))
    async def info(self, interaction: Ask) -> None:
        parts = interaction.client.parts
        embed = info_embed(
            interaction.client.comet.keeping, parts.remote is not None, speech_of(interaction)
        )
        await interaction.response.send_message(
            embed=embed, ephemeral=True, allowed_mentions=NOBODY
        )

    @app_commands.command(name="export", description=said("command.privacy_export.description"))
    @app_commands.checks.cooldown(EXPORTS, WINDOW_S, key=_person)
    async def export(self, interaction: Ask) -> None:
        speech, parts = speech_of(interaction), interaction.client.parts
        await interaction.response.defer(ephemeral=True, thinking=True)
        # One at a time: everything about one person is in memory meanwhile.
        async with self._exporting:
            user_id, now = str(interaction.user.id), parts.now()
            data, is_partial = await gather(parts, user_id)
            head = _found(data, is_partial, speech)
            if isinstance(data, StoreError) or not (data.conversations or data.songs):
                await interaction.edit_original_response(content=head, allowed_mentions=NOBODY)
                return
            limit = min(FILE_BYTES, interaction.filesize_limit)
            files = await asyncio.to_thread(export_files, user_id, data, now, limit)
            for number, content in enumerate(files, start=1):
                name = f"comet-{now:%Y%m%d}-{number}.json"
                file = discord.File(io.BytesIO(content), name)
                if number == 1:
                    await interaction.edit_original_response(
                        content=head, attachments=[file], allowed_mentions=NOBODY
                    )
                else:
                    await interaction.followup.send(
                        speech("privacy.part", part=number, parts=len(files)),
                        file=file,
                        ephemeral=True,
                        allowed_mentions=NOBODY,
                    )

    @app_commands.command(name="delete", description=said("command.privacy_delete.description"))
    @app_commands.checks.cooldown(DELETIONS, WINDOW_S, key=_person)
    async def delete(self, interaction: Ask) -> None:
        speech = speech_of(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        user_id = str(interaction.user.id)
        data, is_partial = await gather(interaction.client.parts, user_id)
        text = _found(data, is_partial, speech)
        view = discord.ui.View(timeout=None)
        if isinstance(data, StoreError) or not (data.conversations or data.songs or is_partial):
            await interaction.edit_original_response(content=text, allowed_mentions=NOBODY)
            return
        view.add_item(DeleteButton(user_id, speech("privacy.confirm")))
        # It answers by custom_id alone, also after a restart.
        view.stop()
        await interaction.edit_original_response(
            content=f"{text}\n{speech('privacy.sure')}", view=view, allowed_mentions=NOBODY
        )


def _found(data: MemberData | StoreError, is_partial: bool, speech: Speech) -> str:
    if isinstance(data, StoreError):
        return speech("privacy.unreadable", why=store_problem(data, speech))
    if data.conversations or data.songs:
        text = speech(
            "privacy.found",
            conversations=speech.number(len(data.conversations)),
            songs=speech.number(len(data.songs)),
        )
    else:
        text = speech("privacy.nothing")
    return f"{text}\n{speech('privacy.remote_silent')}" if is_partial else text


async def setup(bot: CometBot) -> None:
    await bot.add_cog(Privacy(bot))
