"""The whole process beside a bare idle discord.py bot: memory, start, CPU, and how fast it tells.

Both talk to the same Discord peer on loopback; Kuma is replayed. Figures are medians of
`ROUNDS`; the CPU of both is taken over the same length of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from bot.core.observation import MonitorStatus
from tests.peers.bot_process import ROOT, BotProcess
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma

ROUNDS = 5
SETTLE_S = 12.0
CPU_WINDOW_S = 60.0


def run() -> list[dict[str, Any]]:
    return asyncio.run(_run())


async def _run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    bare_mb, bare_cpu_ms = await _bare_figures()
    for monitors, budget in ((100, 1.25), (1000, 1.4)):
        mb, cpu_ms = await _own_figures(monitors)
        rows.append(_row(f"memory, {monitors} monitors", mb, "MB RSS", bare_mb, budget))
        if monitors == 1000:
            rows.append(
                {
                    "name": "CPU above the bare bot per 10 s, 1,000 monitors",
                    "value": cpu_ms - bare_cpu_ms,
                    "unit": "ms",
                    "baseline": bare_cpu_ms,
                    "ratio": None,
                    "budget": "<= 8 ms",
                }
            )
    own_s, bare_s = await _starts()
    rows.append(_row("start to first stored snapshot", own_s, "s", bare_s, 1.4))
    tell_s, period_s = await _telling()
    rows.append(
        {
            "name": f"change in Kuma to accepted card, poll every {period_s} s (worst of {ROUNDS})",
            "value": tell_s,
            "unit": "s",
            "baseline": period_s,
            "ratio": tell_s / period_s,
            "budget": f"<= {period_s + 1} s",
        }
    )
    return rows


def _row(name: str, value: float, unit: str, baseline: float, budget: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "ratio": value / baseline,
        "budget": f"<= {budget} x",
    }


@contextlib.asynccontextmanager
async def _bare_bot(discord: DiscordPeer) -> AsyncIterator[psutil.Process]:
    env = {**os.environ, **discord.env(), "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare_bot", env=env, cwd=ROOT
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


async def _measure(process: psutil.Process) -> tuple[float, float]:
    """RSS in MB after settling, and CPU milliseconds per ten seconds."""
    await asyncio.sleep(SETTLE_S)
    before_ns = _cpu_ns(process.pid)
    await asyncio.sleep(CPU_WINDOW_S)
    spent_ms = (_cpu_ns(process.pid) - before_ns) / 1e6
    return process.memory_info().rss / 2**20, spent_ms * 10 / CPU_WINDOW_S


def _cpu_ns(pid: int) -> int:
    """Nanoseconds on a processor, of all threads; cpu_times counts in hundredths of a second."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


async def _bare_figures() -> tuple[float, float]:
    async with DiscordPeer() as discord:
        discord.add_guild("HFS")
        async with _bare_bot(discord) as process:
            await discord.wait_for(lambda: discord.connections, 20)
            return await _measure(process)


async def _own_figures(monitors: int) -> tuple[float, float]:
    async with _stage(monitors, {"SAMPLE_INTERVAL_S": "10"}) as (discord, _, bot):
        await discord.wait_for(lambda: discord.connections, 20)
        assert bot.process is not None
        return await _measure(psutil.Process(bot.process.pid))


@contextlib.asynccontextmanager
async def _stage(
    monitors: int, env: dict[str, str]
) -> AsyncIterator[tuple[DiscordPeer, ReplayKuma, BotProcess]]:
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
        async with DiscordPeer() as discord, ReplayKuma() as kuma:
            kuma.make_fleet(monitors)
            discord.add_guild("HFS")
            settings = {
                **discord.env(),
                "UPTIME_KUMA_URL": kuma.base_url,
                "UPTIME_KUMA_API_KEY": kuma.api_key or "",
                **env,
            }
            async with BotProcess(Path(home), settings) as bot:
                yield discord, kuma, bot


async def _starts() -> tuple[float, float]:
    """Seconds from the spawn to the first snapshot on disk; of the bare bot to READY."""
    own, bare = [], []
    for _ in range(ROUNDS):
        async with DiscordPeer() as discord:
            discord.add_guild("HFS")
            began_s = time.perf_counter()
            async with _bare_bot(discord):
                await _until(lambda: bool(discord.connections))
                bare.append(time.perf_counter() - began_s)
            with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
                began_s = time.perf_counter()
                async with BotProcess(Path(home), discord.env()) as bot:
                    await _until(lambda b=bot: _has_snapshot(b))  # type: ignore[misc]
                    own.append(time.perf_counter() - began_s)
    return statistics.median(own), statistics.median(bare)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (another process is watched)
        await asyncio.sleep(0.005)


def _has_snapshot(bot: BotProcess) -> bool:
    with contextlib.suppress(sqlite3.Error):
        return bool(bot.query("SELECT 1 FROM samples LIMIT 1"))
    return False


async def _telling() -> tuple[float, int]:
    """The longest time from Kuma saying so to Discord holding the card."""
    period_s = 2
    env = {"UPTIME_KUMA_CHECK_INTERVAL_S": str(period_s)}
    async with _stage(100, env) as (discord, kuma, bot):
        guild = next(iter(discord.world.guilds.values()))
        channel = guild.add_channel("alerts")
        admin = guild.add_user("admin", permissions=("administrator",))
        await discord.wait_for(lambda: discord.stats.command_syncs, 30)
        options = {"channel": channel}
        await discord.command(guild, channel, admin, "monitoring_setup", options)
        await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) >= 100")
        took = []
        for number in range(1, ROUNDS + 1):
            await asyncio.sleep(0.37 * number)
            kuma.set_status(number, MonitorStatus.DOWN)
            name, began_s = kuma.monitors[number].name, time.perf_counter()
            await discord.wait_for(
                lambda n=name: any(n in m.text for m in discord.messages(channel)), 20
            )
            took.append(time.perf_counter() - began_s)
        return max(took), period_s
