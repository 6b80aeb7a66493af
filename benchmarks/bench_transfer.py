"""A million rows of all kinds from SQLite to PostgreSQL and to Supabase, every one verified.

The command itself runs, in a process of its own, so that its memory can be watched from outside.
The baseline of the pace is the library alone that inserts snapshots, 500 at a time, and verifies
nothing. COMET_BENCH_ROWS sets how many rows there are.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import asyncpg
import psutil

from benchmarks.bare_clients import by_asyncpg, by_supabase
from benchmarks.material import figure
from benchmarks.project import ROOT, Project
from bot.storage.kinds import BY_NAME, KINDS
from bot.storage.sqlite import SqliteStore
from tests.transfer_rows import FEW, MANY, Rows

Figures = list[dict[str, object]]

ROWS = int(os.environ.get("COMET_BENCH_ROWS", "1000000"))
BATCH = 500
BARE_ROUNDS = 5
BARE_ROWS = 5000
LOOK_S = 0.1


def run() -> Figures:
    counts = _counts()
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
        source = Path(home) / "monitoring.db"
        asyncio.run(_fill(source, counts))
        return [
            *_one(source, counts, "postgresql", "PostgreSQL"),
            *_one(source, counts, "supabase", "Supabase"),
        ]


def _counts() -> dict[str, int]:
    """By kind; those that grow with time make up what is wanted."""
    fixed = {kind: count for kind, count in MANY.items() if count == FEW[kind]}
    growing = {kind: count for kind, count in MANY.items() if kind not in fixed}
    wanted = max(0, ROWS - sum(fixed.values()))
    share = wanted / sum(growing.values())
    counts = fixed | {kind: int(count * share) for kind, count in growing.items()}
    counts["samples"] += ROWS - sum(counts.values())
    return counts


async def _fill(source: Path, counts: Mapping[str, int]) -> None:
    store = SqliteStore(source)
    await store.open()
    for kind in KINDS:
        rows = Rows().many(kind.name, counts[kind.name])
        while page := list(islice(rows, 5000)):
            await store.import_rows(kind.name, page)
    assert {kind.name: await store.count_rows(kind.name) for kind in KINDS} == counts
    await store.close()


def _one(source: Path, counts: Mapping[str, int], backend: str, name: str) -> Figures:
    with Project() as project:
        bare = asyncio.run(_bare_rate(project, backend))
        moved_s, checked_s, memory_mb = _transfer(source, project, backend)
        asyncio.run(_check(project, counts))
    early = statistics.median(memory_mb[len(memory_mb) // 20 : len(memory_mb) // 10])
    title = f"{ROWS:,} rows, SQLite → {name}"
    return [
        figure(f"{title}: moved", ROWS / moved_s, "rows/s", bare),
        figure(f"{title}: compared", ROWS / checked_s, "rows/s"),
        figure(f"{title}: start to end", moved_s + checked_s, "s"),
        figure(f"{title}: memory at most / early on", max(memory_mb), "MB RSS", early, "<= 1.25 x"),
    ]


async def _bare_rate(project: Project, backend: str) -> float:
    """Under another bot; taken away again afterwards."""
    rates = []
    async with (by_asyncpg if backend == "postgresql" else by_supabase)(project) as insert:
        for number in range(BARE_ROUNDS):
            bot_id = f"bare {number}"
            wires = [{"bot_id": bot_id, **row} for row in Rows(bot_id).many("samples", BARE_ROWS)]
            began_s = time.perf_counter()
            for first in range(0, BARE_ROWS, BATCH):
                await insert(wires[first : first + BATCH])
            rates.append(BARE_ROWS / (time.perf_counter() - began_s))
    connection = await asyncpg.connect(project.dsn)
    await connection.execute("truncate public.system_stats")
    await connection.close()
    return statistics.median(rates)


def _transfer(source: Path, project: Project, backend: str) -> tuple[float, float, list[float]]:
    """Seconds of moving and of comparing, and the memory of the process at equal distances."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "transfer", "--from", "sqlite", "--to", backend],
        cwd=source.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "SQLITE_DB_PATH": str(source),
            "DATABASE_URL": project.dsn,
            "SUPABASE_URL": project.url,
            "SUPABASE_KEY": project.secret_key,
            "COMET_LOCALE": "en",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    memory_mb: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        seen = psutil.Process(process.pid)
        while not ended.wait(LOOK_S):
            memory_mb.append(seen.memory_info().rss / 2**20)

    watching = threading.Thread(target=watch)
    watching.start()
    # It says: from where to where, that all is moved, that all is compared, and what came of it.
    said: list[tuple[float, str]] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append((time.perf_counter(), line))
    finally:
        ended.set()
        watching.join()
        process.wait()
    assert process.returncode == 0, "".join(line for _, line in said)
    (head_s, _), (moved_s, _), (checked_s, _), *_ = said
    return moved_s - head_s, checked_s - moved_s, memory_mb


async def _check(project: Project, counts: Mapping[str, int]) -> None:
    """The command's own word is not enough: as many rows as there were."""
    connection = await asyncpg.connect(project.dsn)
    found = {
        kind: await connection.fetchval(f"select count(*) from public.{BY_NAME[kind].table}")
        for kind in counts
    }
    await connection.close()
    assert found == dict(counts), found
