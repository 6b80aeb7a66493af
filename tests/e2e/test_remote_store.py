"""The bot process with a remote store: everything gets there once, and nobody waits for it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.core.observation import MonitorStatus
from tests.e2e.scene import Scene, make_scene
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma

QUICK_RULES = """
[rules.DatabaseConnectionLost]
when = "remote_away > 3"
clear = 1
"""


def settings_for(remote: str, supabase: Any) -> dict[str, str]:
    if remote == "supabase":
        return {"SUPABASE_URL": supabase.url, "SUPABASE_KEY": supabase.secret_key}
    return {"MONITORING_DB": "postgresql", "DATABASE_URL": supabase.dsn}


@pytest_asyncio.fixture(params=["supabase", "postgresql"])
async def stage(
    request: pytest.FixtureRequest,
    supabase: Any,
    discord: DiscordPeer,
    kuma: ReplayKuma,
    tmp_path: Path,
) -> AsyncIterator[Scene]:
    """A running bot with its channel chosen, copying to a real remote store."""
    (tmp_path / "rules.toml").write_text(QUICK_RULES)
    scene = make_scene(
        discord,
        tmp_path,
        UPTIME_KUMA_URL=kuma.base_url,
        UPTIME_KUMA_API_KEY=kuma.api_key or "",
        **settings_for(request.param, supabase),
    )
    async with scene.bot as bot:
        await scene.ready()
        await scene.choose_channel()
        await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) = 6")
        yield scene


async def wait_remote(supabase: Any, sql: str, wanted: Any, timeout_s: float = 30.0) -> None:
    """Until the one value of a query is what it should be."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = await asyncio.to_thread(supabase.fetch, sql)
        if found and found[0][0] == wanted:
            return
        assert time.monotonic() < deadline_s, f"{sql}: {found}, not {wanted}"
        await asyncio.sleep(0.2)


async def compare(scene: Scene, supabase: Any) -> None:
    """What the file holds now, row by row with what arrives; and nothing besides."""
    bot = scene.bot
    ours = bot.query("SELECT id, timestamp, cpu_usage, uptime FROM system_stats ORDER BY timestamp")
    until = datetime.fromisoformat(ours[-1][1]).replace(tzinfo=UTC)
    counting = f"SELECT count(*)::int FROM system_stats WHERE timestamp <= '{until.isoformat()}'"
    await wait_remote(supabase, counting, len(ours))
    theirs = await asyncio.to_thread(
        supabase.fetch,
        "SELECT id::text, timestamp, cpu_usage, uptime FROM system_stats "
        f"WHERE timestamp <= '{until.isoformat()}' ORDER BY timestamp",
    )
    assert [(r[0], r[2], r[3]) for r in theirs] == [(r[0], r[2], r[3]) for r in ours]
    assert [r[1] for r in theirs] == [
        datetime.fromisoformat(r[1]).replace(tzinfo=UTC) for r in ours
    ]
    told = "SELECT {id}, rule_name, resolved, version FROM alert_history ORDER BY 1"
    arrived = await asyncio.to_thread(supabase.fetch, told.format(id="id::text"))
    assert [tuple(row) for row in arrived] == bot.query(told.format(id="id"))


async def test_everything_arrives_once_through_an_outage_and_kills(
    stage: Scene, supabase: Any, kuma: ReplayKuma
) -> None:
    bot = stage.bot
    await wait_remote(
        supabase, "SELECT count(*)::int FROM service_status_history WHERE status = 'up'", 6
    )
    await asyncio.to_thread(supabase.server.stop)
    kuma.set_status("service 0001", MonitorStatus.DOWN)
    await stage.wait_card("🔴")
    await stage.wait_card("🚨", timeout_s=30)
    await bot.restart()
    await stage.ready()
    kuma.set_status("service 0001", MonitorStatus.UP)
    await stage.wait_card("✅", timeout_s=30)
    await asyncio.to_thread(supabase.server.start)
    await stage.wait_card("✅", count=2, timeout_s=90)
    await bot.restart()
    await stage.ready()
    await wait_remote(
        supabase, "SELECT count(*)::int FROM alert_history WHERE resolved", 2, timeout_s=60
    )
    await compare(stage, supabase)
    assert len(stage.cards()) == 2
    assert (await bot.stop())[0] == 0


async def test_an_empty_disk_takes_up_its_life_from_the_remote(
    stage: Scene, supabase: Any, kuma: ReplayKuma
) -> None:
    bot = stage.bot
    kuma.set_status("service 0002", MonitorStatus.DOWN)
    (card,) = await stage.wait_card("🔴")
    await wait_remote(supabase, "SELECT count(*)::int FROM cards WHERE message_id IS NOT NULL", 1)
    await wait_remote(supabase, "SELECT count(*)::int FROM outbox WHERE status = 'delivered'", 1)
    await bot.kill()
    shutil.rmtree(bot.db_path.parent)
    await bot.start()
    await bot.wait_rows("SELECT 1 FROM monitoring_config", timeout_s=30)
    await stage.ready()
    await stage.quiet(3)
    assert len(stage.cards()) == 1, "the same incident, not a new card"
    kuma.set_status("service 0002", MonitorStatus.UP)
    (after,) = await stage.wait_card("✅")
    assert after.id == card.id
    await wait_remote(supabase, "SELECT count(*)::int FROM alert_history WHERE resolved", 1)
    assert bot.query("SELECT count(*) FROM alert_history") == [(1,)]


async def test_a_key_that_is_refused_is_named_and_nothing_is_lost(
    supabase: Any, discord: DiscordPeer, kuma: ReplayKuma, tmp_path: Path
) -> None:
    (tmp_path / "rules.toml").write_text(QUICK_RULES)
    scene = make_scene(
        discord,
        tmp_path,
        UPTIME_KUMA_URL=kuma.base_url,
        UPTIME_KUMA_API_KEY=kuma.api_key or "",
        SUPABASE_URL=supabase.url,
        SUPABASE_KEY="sb_secret_not-the-one-that-is-known",
    )
    async with scene.bot as bot:
        await scene.ready()
        await scene.choose_channel()
        (card,) = await scene.wait_card("🚨", timeout_s=40)
        assert "SUPABASE_KEY" in card.text
        assert not any("not-the-one-that-is-known" in line for line in bot.log)
        await bot.stop()
        bot.env["SUPABASE_KEY"] = supabase.secret_key
        await bot.start()
        await wait_remote(
            supabase, "SELECT count(*)::int FROM alert_history WHERE resolved", 1, timeout_s=60
        )
        (first,) = bot.query("SELECT min(timestamp) FROM system_stats")[0]
        oldest = await asyncio.to_thread(supabase.fetch, "SELECT min(timestamp) FROM system_stats")
        assert oldest[0][0] == datetime.fromisoformat(first).replace(tzinfo=UTC)


async def test_a_damaged_file_gets_its_history_back(
    stage: Scene, supabase: Any, kuma: ReplayKuma
) -> None:
    bot = stage.bot
    kuma.set_status("service 0002", MonitorStatus.DOWN)
    (card,) = await stage.wait_card("🔴")
    await wait_remote(supabase, "SELECT count(*)::int FROM cards WHERE message_id IS NOT NULL", 1)
    (first,) = bot.query("SELECT min(timestamp) FROM system_stats")[0]
    await wait_remote(supabase, "SELECT count(*) >= 5 FROM system_stats", True)
    await bot.stop()
    content = bytearray(bot.db_path.read_bytes())
    content[:100] = b"x" * 100
    bot.db_path.write_bytes(content)
    await bot.start()
    await stage.ready()
    oldest = "SELECT 1 FROM system_stats WHERE timestamp <= ?"
    await bot.wait_rows(oldest, first, timeout_s=60)
    kuma.set_status("service 0002", MonitorStatus.UP)
    (after,) = await stage.wait_card("✅", text="0002", timeout_s=30)
    assert after.id == card.id, "what was open goes on, on the card it had"


async def test_a_memory_that_comes_late_is_put_in_force(
    supabase: Any, discord: DiscordPeer, kuma: ReplayKuma, tmp_path: Path
) -> None:
    scene = make_scene(
        discord,
        tmp_path,
        UPTIME_KUMA_URL=kuma.base_url,
        UPTIME_KUMA_API_KEY=kuma.api_key or "",
        **settings_for("supabase", supabase),
    )
    async with scene.bot as bot:
        await scene.ready()
        await scene.choose_channel()
        kuma.set_status("service 0002", MonitorStatus.DOWN)
        (old,) = await scene.wait_card("🔴", text="0002")
        delivered = "SELECT count(*)::int FROM cards WHERE message_id IS NOT NULL"
        await wait_remote(supabase, delivered, 1)
        await bot.kill()
        shutil.rmtree(bot.db_path.parent)
        kuma.set_status("service 0002", MonitorStatus.UP)
        await asyncio.to_thread(supabase.postgrest.kill)
        await bot.start()
        await bot.wait_log("starting with an empty memory", timeout_s=40)
        kuma.set_status("service 0003", MonitorStatus.DOWN)
        await bot.wait_log("Service down: service 0003")
        assert not any("0003" in card.text for card in scene.cards()), "nobody knows the channel"
        await asyncio.to_thread(supabase.postgrest.start)
        await scene.wait_card("🔴", text="0003", timeout_s=60)
        await discord.wait_for(lambda: not old.embeds[0]["title"].startswith("🔴"), 10)
        ended = "SELECT resolved FROM alert_history WHERE message LIKE '%0002%'"
        await wait_remote(supabase, ended, True)
        kuma.set_status("service 0004", MonitorStatus.DOWN)
        await scene.wait_card("🔴", text="0004")
        assert [old.id] == [card.id for card in scene.cards() if "0002" in card.text]
