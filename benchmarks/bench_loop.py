"""How long the event loop stalls because of us: 2,000 monitors polled every second, sampling,
storing, judging, delivering to a webhook nobody answers, retention.

The baseline is a ticker alone on an idle loop in the same run. Kuma is replayed from a process
of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot.app import App
from bot.settings import load_settings
from tests.peers.bot_process import ROOT

TICK_S = 0.005
IDLE_S = 10.0
BUSY_S = 30.0
MONITORS = 2000
PORT = 39_471


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home, _at(Path(home)):
        idle, busy = asyncio.run(_both())
    rows = []
    for name, pick, budget_ms in (("p99", _p99, 3.0), ("max", max, 10.0)):
        value, baseline = pick(busy), pick(idle)
        rows.append(
            {
                "name": f"loop stall {name} above idle, {MONITORS} monitors polled every second",
                "value": value - baseline,
                "unit": "ms",
                "baseline": baseline,
                "ratio": value / baseline,
                "budget": f"<= {budget_ms} ms",
            }
        )
    return rows


@contextlib.contextmanager
def _at(home: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(home)
    try:
        yield
    finally:
        os.chdir(before)


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def _both() -> tuple[list[float], list[float]]:
    idle = await _late_ms(IDLE_S)
    kuma = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.peers.kuma",
        "--port",
        str(PORT),
        "--monitors",
        str(MONITORS),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert kuma.stdout is not None
        key = await _key(kuma.stdout)
        settings = load_settings(
            {
                "UPTIME_KUMA_URL": f"http://127.0.0.1:{PORT}",
                "UPTIME_KUMA_API_KEY": key,
                "UPTIME_KUMA_CHECK_INTERVAL_S": "1",
                "SAMPLE_INTERVAL_S": "1",
                "WEB_PORT": "0",
            }
        )
        app = App(settings)
        await app.start()
        await asyncio.sleep(5)
        busy = await _late_ms(BUSY_S)
        await app.stop()
    finally:
        kuma.kill()
        await kuma.wait()
    return idle, busy


async def _key(output: asyncio.StreamReader) -> str:
    """The API key stands in the one line it prints."""
    line = (await output.readline()).decode()
    for word in line.split():
        if word.startswith("key="):
            return word.removeprefix("key=")
    raise RuntimeError(f"the replayed Kuma did not say its key: {line!r}")


async def _late_ms(seconds: float) -> list[float]:
    late: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        due_s = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append(max(0.0, (time.perf_counter() - due_s) * 1000))
    return late
