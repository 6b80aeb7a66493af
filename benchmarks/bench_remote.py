"""How long one snapshot takes to be saved: through our stores, and through a bare client each.

The journal that feeds the remote copy is weighed on SQLite alone: the same store with and without.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.bare_clients import Insert, by_aiohttp, by_asyncpg, by_supabase
from benchmarks.material import figure, quantile, snapshot
from benchmarks.project import Project
from bot.core.observation import Sample
from bot.storage.pg_metrics import sample_wire
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.supabase import SupabaseStore

Way = Callable[[Sample], Awaitable[object]]

ROUNDS = 300
WARM_UP = 30
PAUSE_S = 0.004
START = datetime(2026, 1, 1, tzinfo=UTC)


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home, Project() as project:
        return asyncio.run(_run(Path(home), project))


async def _run(home: Path, project: Project) -> list[dict[str, object]]:
    async with AsyncExitStack() as stack:
        took = await _timed(await _remote_ways(project, stack))
        took |= await _timed(await _local_ways(home, stack))
    return [
        figure(
            f"save on {title}, p{share:.0%}".rstrip("%"),
            quantile(took[ours], share),
            "ms",
            quantile(took[theirs], share),
        )
        for title, ours, theirs in (
            ("PostgreSQL / bare asyncpg", "postgres", "asyncpg"),
            ("Supabase / bare supabase", "supabase", "bare supabase"),
            ("Supabase / bare aiohttp", "supabase", "aiohttp"),
            ("SQLite with journal / without", "journal", "no journal"),
        )
        for share in (0.5, 0.99)
    ]


async def _timed(ways: dict[str, Way]) -> dict[str, list[float]]:
    """Milliseconds of each way, the same snapshots in turns, as a paced writer sees them."""
    rng = random.Random(1)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + ROUNDS):
        sample = snapshot(START + timedelta(seconds=10 * number), rng)
        order = list(ways)
        rng.shuffle(order)
        for name in order:
            await asyncio.sleep(PAUSE_S)
            # Each under a bot of its own: all of them write to one table.
            mine = replace(sample, bot_id=name)
            began_s = time.perf_counter()
            await ways[name](mine)
            if number >= WARM_UP:
                took[name].append((time.perf_counter() - began_s) * 1000)
    return took


async def _remote_ways(project: Project, stack: AsyncExitStack) -> dict[str, Way]:
    stores = (PostgresStore(project.dsn), SupabaseStore(project.url, project.secret_key))
    for store in stores:
        await store.open()
        stack.push_async_callback(store.close)

    def one(insert: Insert) -> Way:
        return lambda sample: insert([sample_wire(sample)])

    return {
        "postgres": stores[0].save_sample,
        "supabase": stores[1].save_sample,
        "asyncpg": one(await stack.enter_async_context(by_asyncpg(project))),
        "bare supabase": one(await stack.enter_async_context(by_supabase(project))),
        "aiohttp": one(await stack.enter_async_context(by_aiohttp(project))),
    }


async def _local_ways(home: Path, stack: AsyncExitStack) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for name in ("journal", "no journal"):
        store = SqliteStore(home / f"{name}.db")
        await store.open()
        stack.push_async_callback(store.close)
        if name == "journal":
            await store.start_journal()
        ways[name] = store.save_sample
    return ways
