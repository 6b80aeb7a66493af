"""What a dashboard sees through PostgREST: the sample queries, and the README's table of who sees
what, row by row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from bot.core.incident import GuildConfig, Incident
from bot.core.observation import MonitorIdentity, MonitorStatus, Sample
from bot.core.rule import Severity
from bot.storage.postgres import PostgresStore
from bot.storage.store import (
    CheckRow,
    Conversation,
    Decision,
    LogLine,
    Poll,
    Song,
    StatusChange,
)
from tests.conftest import ROOT
from tests.peers.postgres.supabase import Supabase

NOW = datetime.now(UTC).replace(microsecond=0)
PLAYED = ("夜に駆ける", "アイドル", "夜に駆ける", "夜に駆ける", "アイドル", "Lemon")


@pytest_asyncio.fixture
async def project(supabase: Supabase) -> AsyncIterator[Supabase]:
    """A project with something in every table that people may ever see."""
    store = PostgresStore(supabase.dsn)
    await store.open()
    try:
        for minute in range(90):
            at = NOW - timedelta(minutes=minute)
            values = {"cpu_usage": float(minute), "memory_usage": 40.0, "guild_count": 3.0}
            await store.save_sample(Sample(at, "primary", values))
        await store.save_metric(uuid4(), "recipes", 12.0, {"kitchen": "north"}, NOW)
        await store.save_raw(uuid4(), "business", {"users": 3}, NOW)
        await store.save_hourly(NOW.replace(minute=0, second=0) - timedelta(hours=1))
        await store.save_daily_summary(NOW.date(), {"samples": 1})
        for place, title in enumerate(PLAYED):
            at = NOW - timedelta(seconds=place)
            await store.save_song(Song(uuid4(), "900719925474099312", title, "ゆい", "42", at))
        talk = Conversation(uuid4(), "900719925474099399", "ゆい", "秘密?", "はい", NOW)
        await store.save_conversation(talk)
        line = LogLine(uuid4(), "WARNING", "bot", "something", {}, NOW)
        await store.save_log_lines([line])
        await store.save_guild_config(GuildConfig("10", "20", NOW, NOW))
        monitor = MonitorIdentity("kuma:1", "ホームページ", url="http://intern.example.jp")
        up = StatusChange(uuid4(), monitor, MonitorStatus.UP, NOW)
        check = CheckRow("kuma:1", MonitorStatus.UP, 12.0)
        hour_ago = NOW.replace(minute=0, second=0) - timedelta(minutes=30)
        await store.save_poll(Poll(hour_ago, "kuma", 120.0, [check], [up]))
        await store.save_hourly(NOW.replace(minute=0, second=0) - timedelta(hours=1))
        incident = Incident(
            incident_id=uuid4(),
            rule_name="HighCPU",
            subject="",
            severity=Severity.WARNING,
            category="system",
            scope="operator",
            metric="cpu_usage",
            level=80.0,
            fired_at=NOW - timedelta(minutes=5),
            message="CPU 91 %",
        )
        await store.record_decision(Decision(incidents=[incident]))
    finally:
        await store.close()
    yield supabase


async def ask(
    project: Supabase, path: str, key: str, user: str | None = None
) -> tuple[int, list[dict[str, object]]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{project.url}/rest/v1/{path}", headers=project.headers(key, user)) as answer,
    ):
        rows = await answer.json()
        return answer.status, rows if isinstance(rows, list) else []


async def test_the_queries_of_a_dashboard_give_right_answers(project: Supabase) -> None:
    key = project.secret_key
    status, rows = await ask(project, "system_stats?select=*&order=timestamp.desc&limit=10", key)
    assert status == 200
    assert [row["cpu_usage"] for row in rows] == [float(minute) for minute in range(10)]
    hour_ago = (NOW - timedelta(minutes=59, seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status, rows = await ask(
        project,
        "system_stats?select=timestamp,cpu_usage,ram_usage,server_count"
        f"&timestamp=gte.{hour_ago}&order=timestamp.asc",
        key,
    )
    assert status == 200 and len(rows) == 60
    assert {row["server_count"] for row in rows} == {3} and rows[-1]["cpu_usage"] == 0
    status, rows = await ask(
        project, "conversation_logs?select=*&order=timestamp.desc&limit=50", key
    )
    assert [row["user_id"] for row in rows] == ["900719925474099399"], "not rounded by browsers"
    status, rows = await ask(
        project,
        "music_logs?select=*&guild_id=eq.900719925474099312&order=timestamp.desc&limit=20",
        key,
    )
    assert [row["song_title"] for row in rows] == list(PLAYED)
    status, rows = await ask(
        project, "popular_songs?select=song_title,count&order=count.desc&limit=10", key
    )
    assert rows == [
        {"song_title": "夜に駆ける", "count": 3},
        {"song_title": "アイドル", "count": 2},
        {"song_title": "Lemon", "count": 1},
    ]
    status, rows = await ask(project, "active_alerts?select=rule_name,severity,age_seconds", key)
    assert [row["rule_name"] for row in rows] == ["HighCPU"]
    assert 300 <= float(str(rows[0]["age_seconds"])) < 7200
    status, rows = await ask(project, "latest_metrics?metric_name=eq.recipes", key)
    assert [(row["metric_value"], row["labels"]) for row in rows] == [(12, {"kitchen": "north"})]


def columns_of_readme() -> list[list[str]]:
    """The tables that the README's columns are about, left to right."""
    text = (ROOT / "README.md").read_text("utf-8")
    (head,) = re.findall(r"^\| 役割 \|(.*)\|$", text, re.M)
    return [re.findall(r"`(\w+)`", cell) for cell in head.split("|")]


def cells_of_readme() -> dict[str, list[str]]:
    text = (ROOT / "README.md").read_text("utf-8")
    rows = text[text.index("| 役割 |") :].splitlines()[2:7]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {cell[0]: cell[1:] for cell in cells}


EXPECTED = {"読み書き": (200, True), "読める": (200, True), "0 行": (200, False)}


@pytest.mark.parametrize("row", cells_of_readme())
async def test_everybody_sees_exactly_what_the_readme_says(project: Supabase, row: str) -> None:
    keys = {
        "secret": (project.secret_key, None),
        "admin": (project.anon_key, project.user_key({"app_metadata": {"comet_role": "admin"}})),
        "viewer": (project.anon_key, project.user_key({"app_metadata": {"comet_role": "viewer"}})),
        "印なし": (project.anon_key, project.user_key({})),
        "anon": (project.publishable_key, None),
    }
    key, user = next(found for word, found in keys.items() if word in row)
    for tables, cell in zip(columns_of_readme(), cells_of_readme()[row], strict=True):
        assert tables
        for table in tables:
            status, rows = await ask(project, f"{table}?select=*&limit=5", key, user)
            wanted = next((v for word, v in EXPECTED.items() if cell.startswith(word)), None)
            if wanted is None:
                assert cell == "拒否" and status in (401, 403), (row, table, status)
            elif table in ("outbox", "cards", "alert_states", "flips", "metrics_last_24h"):
                assert status == 200, (row, table, status)
            else:
                assert (status, bool(rows)) == wanted, (row, table, status, rows)


async def test_an_operator_opens_one_table_and_shuts_it_again(project: Supabase) -> None:
    project.execute("select public.comet_open('system_stats')")
    status, rows = await ask(project, "system_stats?limit=3", project.publishable_key)
    assert (status, len(rows)) == (200, 3)
    status, rows = await ask(project, "alert_history", project.publishable_key)
    assert (status, rows) == (200, [])
    with pytest.raises(Exception, match="conversation_logs"):
        project.execute("select public.comet_open('conversation_logs')")
    project.execute("select public.comet_close('system_stats')")
    assert (await ask(project, "system_stats", project.publishable_key))[1] == []


@pytest.mark.parametrize("table", ["system_stats", "alert_history", "system_metrics"])
async def test_nobody_writes_with_a_public_key(project: Supabase, table: str) -> None:
    user = project.user_key({"app_metadata": {"comet_role": "admin"}})
    for key, login in ((project.publishable_key, None), (project.anon_key, user)):
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{project.url}/rest/v1/{table}",
                headers=project.headers(key, login),
                json={"rule_name": "x", "message": "x"} if table == "alert_history" else {},
            ) as answer,
        ):
            assert answer.status in (401, 403), await answer.text()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{project.url}/rest/v1/rpc/comet_remote_state",
                headers=project.headers(key, login),
                json={"p": {"bot": "primary"}},
            ) as answer,
        ):
            assert answer.status in (401, 403, 404), await answer.text()
