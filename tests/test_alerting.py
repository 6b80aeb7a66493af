"""Deciding: what flips is stored with its state and its outbox rows in one step."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.core.alert import Ending, FlipKind, Observation, Phase
from bot.core.incident import GuildConfig, Incident
from bot.core.rule import Comparison, Rule, Scope, Severity
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.delivery import Delivery
from bot.services.recorder import Recorder
from bot.storage.sqlite import SqliteStore
from tests.test_delivery import Plain

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
CPU = Rule("HighCPU", "cpu_usage", Comparison.GT, 80, 75, Severity.WARNING, hold_s=30)
DOWN = Rule(
    "service_down",
    "monitor_down",
    Comparison.GE,
    1,
    0.25,
    Severity.CRITICAL,
    scope=Scope.SERVICE,
    cooldown_s=0,
)


def describe(incident: Incident) -> str:
    return f"{incident.rule_name} {incident.detail.get('name', '')} {incident.status}"


class Process:
    """One life of the program on one file; time is moved by hand."""

    def __init__(self, path: Path) -> None:
        self.now = T0
        self.store = SqliteStore(path)
        self.recorder = Recorder(self.store)
        self.audience = Audience(["1"], has_only_webhook=False)
        self.delivery = Delivery(self.recorder, self.audience, Plain(), lambda: self.now, uuid4)
        self.alerting = Alerting(
            self.recorder, self.audience, self.delivery, describe, lambda: self.now, uuid4
        )

    async def begin(self, *rules: Rule) -> None:
        await self.store.open()
        for guild_id, channel_id in (("1", "10"), ("2", "20")):
            self.audience.configs[guild_id] = GuildConfig(guild_id, channel_id, T0, T0)
        await self.alerting.load(await self.store.load_alerting(), rules or (CPU, DOWN))

    async def cpu(self, value: float | None, after_s: float = 10) -> None:
        self.now += timedelta(seconds=after_s)
        await self.alerting.observe(Observation(self.now, {"cpu_usage": {"": value}}))

    async def monitors(self, after_s: float = 10, **values: float) -> None:
        self.now += timedelta(seconds=after_s)
        details = {
            key: {"name": key, "status": "down" if v >= 1 else "up"} for key, v in values.items()
        }
        await self.alerting.observe(Observation(self.now, {"monitor_down": values}, details))


@pytest_asyncio.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path / "monitoring.db")
    await made.begin()
    yield made
    await made.store.close()


async def test_a_flip_is_on_disk_with_its_state_and_its_outbox_row(process: Process) -> None:
    for _ in range(5):
        await process.cpu(90)
    stored = await process.store.load_alerting()
    assert [(s.rule_name, s.phase) for s in stored.states] == [("HighCPU", Phase.FIRING)]
    assert [(i.guild_id, i.kind) for i in stored.outbox] == [("1", FlipKind.FIRED)]
    (incident,) = await process.store.open_incidents()
    assert incident.value == 90
    assert incident.message == "HighCPU  "


async def test_the_readings_at_the_moment_are_stored_with_the_incident(
    process: Process, tmp_path: Path
) -> None:
    for _ in range(5):
        await process.cpu(91.5)
    await process.monitors(shop=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "monitoring.db")) as db:
        rows = db.execute("SELECT rule_name, metrics_snapshot FROM alert_history").fetchall()
    kept = {rule: json.loads(snapshot) for rule, snapshot in rows}
    assert kept["HighCPU"]["cpu_usage"] == 91.5
    assert kept["service_down"]["cpu_usage"] == 91.5


async def test_host_alerts_stay_with_operators_services_go_to_everybody(process: Process) -> None:
    await process.monitors(shop=1)
    for _ in range(5):
        await process.cpu(99)
    by_rule: dict[str, set[str | None]] = {}
    for item in process.delivery.queued.values():
        rule = process.delivery.incidents[item.incident_id].rule_name
        by_rule.setdefault(rule, set()).add(item.guild_id)
    assert by_rule == {"service_down": {"1", "2"}, "HighCPU": {"1"}}


async def test_after_a_kill_nothing_fires_twice_and_the_end_is_told(
    process: Process, tmp_path: Path
) -> None:
    await process.monitors(shop=1)
    await process.store.close()
    again = Process(tmp_path / "monitoring.db")
    again.now = T0 + timedelta(minutes=5)
    await again.begin()
    try:
        await again.monitors(shop=1)
        assert len(await again.store.open_incidents()) == 1
        await again.monitors(shop=0)
        assert await again.store.open_incidents() == []
        (incident,) = await again.store.incidents(T0, 10)
        assert incident.ending is Ending.CLEARED
        kinds = sorted(i.kind.value for i in again.delivery.queued.values())
        assert kinds == ["fired", "fired", "resolved", "resolved"]
    finally:
        await again.store.close()


async def test_a_changed_rule_starts_afresh_and_is_not_called_a_recovery(process: Process) -> None:
    for _ in range(5):
        await process.cpu(90)
    changed = Rule("HighCPU", "cpu_usage", Comparison.GT, 85, 80, Severity.WARNING, hold_s=30)
    await process.alerting.set_rules((changed, DOWN))
    (incident,) = await process.store.incidents(T0, 10)
    assert incident.ending is Ending.RULE_CHANGED
    assert process.alerting.states == {}
    for _ in range(5):
        await process.cpu(90)
    assert len(await process.store.open_incidents()) == 1


async def test_a_guild_set_up_late_hears_of_what_is_open(process: Process) -> None:
    await process.monitors(shop=1)
    process.audience.configs["3"] = GuildConfig("3", "30", T0, T0)
    await process.alerting.tell_newcomers()
    await process.alerting.tell_newcomers()
    places = [i.guild_id for i in process.delivery.queued.values()]
    assert sorted(map(str, places)) == ["1", "2", "3"]


async def test_clocks_alone_are_not_written_at_every_look(process: Process) -> None:
    writes = 0
    record = process.store.record_decision

    async def counting(decision: object) -> None:
        nonlocal writes
        writes += 1
        await record(decision)  # type: ignore[arg-type]

    process.store.record_decision = counting  # type: ignore[method-assign, assignment]
    await process.monitors(shop=1)
    for _ in range(20):
        await process.monitors(shop=1)
    assert writes == 1


@pytest.mark.parametrize("gap_s", [5, 7200, -3600])
async def test_pending_clocks_do_not_count_what_nobody_saw(
    process: Process, tmp_path: Path, gap_s: float
) -> None:
    """A restart, a suspended machine, a clock set back: no alert out of thin air."""
    await process.cpu(90)
    await process.cpu(90)
    await process.store.close()
    again = Process(tmp_path / "monitoring.db")
    again.now = process.now
    await again.begin()
    try:
        await again.cpu(90, after_s=gap_s)
        assert await again.store.open_incidents() == []
        for _ in range(3):
            await again.cpu(90)
        assert len(await again.store.open_incidents()) == 1
    finally:
        await again.store.close()


async def test_a_look_at_one_monitor_leaves_all_others_alone(process: Process) -> None:
    """Else every webhook would be silence about the rest."""
    await process.monitors(shop=1, blog=0)
    for _ in range(100):
        process.now += timedelta(seconds=10)
        look = Observation(process.now, {"monitor_down": {"blog": 0.0}})
        await process.alerting.observe(look, subjects={"blog"})
    (state,) = process.alerting.states.values()
    assert (state.subject, state.status, state.unknown_s) == ("shop", "down", 0)
