"""Stages shared by the process tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.e2e.scene import Scene, make_scene
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma


@pytest_asyncio.fixture
async def discord() -> AsyncIterator[DiscordPeer]:
    async with DiscordPeer() as peer:
        yield peer


@pytest_asyncio.fixture
async def kuma() -> AsyncIterator[ReplayKuma]:
    async with ReplayKuma() as peer:
        peer.make_fleet(6)
        yield peer


@pytest_asyncio.fixture
async def scene(discord: DiscordPeer, kuma: ReplayKuma, tmp_path: Path) -> AsyncIterator[Scene]:
    """A running bot that watches six services and has its alert channel."""
    stage = make_scene(
        discord,
        tmp_path,
        UPTIME_KUMA_URL=kuma.base_url,
        UPTIME_KUMA_API_KEY=kuma.api_key or "",
    )
    async with stage.bot as bot:
        await stage.ready()
        await stage.choose_channel()
        await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) = 6")
        yield stage
