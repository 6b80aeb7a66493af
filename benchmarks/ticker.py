"""A ticker, and how late it is: what the event loop's users feel of whoever holds it up.

`python -m benchmarks.ticker` ticks on a loop of its own until its standard input ends. Run beside
a measurement it shows what the machine does to any process at that time, whatever that does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICK_S = 0.005


async def late_ms(work: Awaitable[object]) -> list[float]:
    """How late each tick came, in milliseconds, while some work was done."""
    late: list[float] = []
    task = asyncio.ensure_future(work)
    while not task.done():
        due_s = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append(max(0.0, (time.perf_counter() - due_s) * 1000))
    await task
    return late


async def beside(work: Awaitable[object]) -> tuple[list[float], list[float]]:
    """`late_ms` of some work, and of an idle process at the same time."""
    idle = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.ticker",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    assert idle.stdin is not None
    assert idle.stdout is not None
    await idle.stdout.readline()
    own = await late_ms(work)
    idle.stdin.close()
    others: list[float] = json.loads(await idle.stdout.readline())
    await idle.wait()
    return own, others


async def main() -> None:
    end = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, end.set)
    print("ticking", flush=True)
    print(json.dumps(await late_ms(end.wait())), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
