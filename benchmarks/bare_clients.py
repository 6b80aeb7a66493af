"""The baselines of a remote store: the same snapshots, inserted by the libraries alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import supabase

from benchmarks.project import Project
from bot.storage.kinds import SAMPLE_READINGS

Insert = Callable[[Sequence[Mapping[str, object]]], Awaitable[None]]
"""Takes snapshots as they travel (see `bot.storage.kinds`)."""

COLUMNS = ("id", "bot_id", "timestamp", "status", *SAMPLE_READINGS)


def _rows(wires: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    return [{name: wire.get(name) for name in COLUMNS} for wire in wires]


@asynccontextmanager
async def by_asyncpg(project: Project) -> AsyncIterator[Insert]:
    connection = await asyncpg.connect(project.dsn)
    marks = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 1))
    statement = f"insert into public.system_stats ({', '.join(COLUMNS)}) values ({marks})"

    async def insert(wires: Sequence[Mapping[str, object]]) -> None:
        rows = _rows(wires)
        for row in rows:
            row["timestamp"] = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC)
        if len(rows) == 1:
            await connection.execute(statement, *rows[0].values())
        else:
            await connection.executemany(statement, [tuple(row.values()) for row in rows])

    yield insert
    await connection.close()


@asynccontextmanager
async def by_supabase(project: Project) -> AsyncIterator[Insert]:
    client = await supabase.acreate_client(project.url, project.secret_key)

    async def insert(wires: Sequence[Mapping[str, object]]) -> None:
        table: Any = client.table("system_stats")
        await table.insert(_rows(wires), returning="minimal").execute()

    yield insert


@asynccontextmanager
async def by_aiohttp(project: Project) -> AsyncIterator[Insert]:
    headers = {
        "apikey": project.secret_key,
        "Authorization": f"Bearer {project.secret_key}",
        "Prefer": "return=minimal",
    }
    url = f"{project.url}/rest/v1/system_stats"
    async with aiohttp.ClientSession(headers=headers) as session:

        async def insert(wires: Sequence[Mapping[str, object]]) -> None:
            async with session.post(url, json=_rows(wires)) as answer:
                assert answer.status == 201, await answer.text()

        yield insert
