"""The database locked, full, read-only, corrupt, too new; the process killed while writing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
from pathlib import Path

import psutil
import pytest

from bot.core.observation import MonitorStatus
from tests.e2e.scene import Scene
from tests.peers.bot_process import BotProcess
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma

SAMPLES = "SELECT count(*) FROM system_stats HAVING count(*) >= ?"


async def made(tmp_path: Path) -> BotProcess:
    """A bot that has run once; its database exists."""
    bot = BotProcess(tmp_path)
    async with bot:
        await bot.wait_rows(SAMPLES, 2)
        assert (await bot.stop())[0] == 0
    return bot


async def test_a_file_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    bot = await made(tmp_path)
    with contextlib.closing(sqlite3.connect(bot.db_path)) as db:
        db.execute("PRAGMA user_version = 9999")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = bot.db_path.read_bytes()
    await bot.start()
    assert await bot.wait_exit() == 1
    assert any("newer version" in line for line in bot.log)
    assert bot.db_path.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "truncated", "hole"])
async def test_a_corrupt_file_is_set_aside_and_told(
    tmp_path: Path, discord: DiscordPeer, kuma: ReplayKuma, damage: str
) -> None:
    from tests.e2e.scene import make_scene

    scene = make_scene(
        discord,
        tmp_path,
        UPTIME_KUMA_URL=kuma.base_url,
        UPTIME_KUMA_API_KEY=kuma.api_key or "",
    )
    async with scene.bot as bot:
        await scene.ready()
        await scene.choose_channel()
        await bot.wait_rows(SAMPLES, 3)
        await bot.stop()
        content = bytearray(bot.db_path.read_bytes())
        if damage == "garbage":
            content[:100] = b"x" * 100
        elif damage == "truncated":
            del content[len(content) // 2 :]
        else:
            content[4096 : len(content) - 8192] = b"\0" * (len(content) - 8192 - 4096)
        bot.db_path.write_bytes(content)
        seen = len(bot.log)
        await bot.start()
        await bot.wait_log("set aside", since=seen)
        await bot.wait_rows(SAMPLES, 2)
        aside = [p for p in bot.db_path.parent.iterdir() if ".corrupt-" in p.name]
        assert any(p.read_bytes() == bytes(content) for p in aside), "the damaged file is kept"
        if damage == "hole":
            return
        await bot.wait_rows("SELECT 1 FROM alert_history WHERE severity = 'critical'")


async def test_a_locked_file_delays_writing_and_loses_nothing(scene: Scene) -> None:
    bot = scene.bot
    await bot.wait_rows(SAMPLES, 2)
    (before,) = bot.query("SELECT count(*) FROM system_stats")[0]
    with contextlib.closing(sqlite3.connect(bot.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await bot.wait_log("refuses to write", 20)
        await scene.quiet(4)
        other.execute("ROLLBACK")
    await bot.wait_log("store works again", 30)
    await scene.quiet(1)
    gaps = bot.query(
        "SELECT max(gap), count(*) FROM (SELECT (julianday(timestamp) - julianday(lag(timestamp)"
        " OVER (ORDER BY timestamp))) * 86400 AS gap FROM system_stats)"
    )[0]
    assert gaps[1] > before + 4
    assert gaps[0] < 3, "samples taken while the file was locked are there"


async def test_a_file_locked_from_the_start_is_waited_for_and_a_signal_still_ends_it(
    tmp_path: Path,
) -> None:
    bot = await made(tmp_path)
    seen = len(bot.log)
    with contextlib.closing(sqlite3.connect(bot.db_path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await bot.start()
        await bot.wait_log("holds the database locked", since=seen)
        code, took_s = await bot.stop()
        assert (code, took_s < 5) == (0, True)
        await bot.start()
        await asyncio.sleep(1)
        other.execute("ROLLBACK")
    (count,) = bot.query("SELECT count(*) FROM system_stats")[0]
    await bot.wait_rows(SAMPLES, count + 1)
    assert (await bot.stop())[0] == 0


async def test_a_disk_that_takes_nothing_is_told_and_alerts_go_on(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    """A file size limit on the running process: every write beyond it fails, for real."""
    bot = scene.bot
    await bot.wait_rows(SAMPLES, 2)
    assert bot.process is not None
    process = psutil.Process(bot.process.pid)
    process.rlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    await bot.wait_log("refuses to write", 20)
    kuma.set_status("service 0001", MonitorStatus.DOWN)
    await scene.wait_card("🔴", text="service 0001", timeout_s=20)
    await scene.wait_card("🚨", timeout_s=30)
    process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await bot.wait_log("store works again", 30)
    kuma.set_status("service 0001", MonitorStatus.UP)
    await scene.wait_card("✅", text="service 0001", timeout_s=20)
    rows = await bot.wait_rows("SELECT resolved FROM alert_history WHERE rule_name='service_down'")
    assert rows == [(1,)]
    assert len([c for c in scene.cards() if "service 0001" in c.text]) == 1


async def test_a_path_that_cannot_be_written_ends_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    bot = BotProcess(tmp_path)
    await bot.start()
    assert await bot.wait_exit() == 1
    assert any("SQLITE_DB_PATH" in line for line in bot.log)


async def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    bot = BotProcess(tmp_path)
    bot.db_path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(bot.db_path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
        db.commit()
    before = bot.db_path.read_bytes()
    await bot.start()
    assert await bot.wait_exit() == 1
    assert any("not a database of C.O.M.E.T." in line for line in bot.log)
    assert bot.db_path.read_bytes() == before


async def test_killed_again_and_again_every_committed_sample_stays(tmp_path: Path) -> None:
    bot = BotProcess(tmp_path)
    async with bot:
        for round_number in range(1, 5):
            await bot.wait_rows(SAMPLES, 2 * round_number)
            (count,) = bot.query("SELECT count(*) FROM system_stats")[0]
            await bot.restart()
            assert bot.query("SELECT count(*) FROM system_stats")[0][0] >= count
        assert bot.query("PRAGMA integrity_check") == [("ok",)]
