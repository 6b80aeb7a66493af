"""One look at machine and bot: what could not be read is None, never zero."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.core.alert import Observation
from bot.core.readings import READINGS, DiscordLook, HostLook, Looks, take
from bot.services.audience import Audience
from bot.services.command_stats import CommandStats, percentile
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.host_probe import HostProbe
from bot.services.loop_lag import LoopLag
from bot.services.recorder import Recorder
from bot.services.sampler import Sampler, SampleSources
from bot.services.ticker import Tasks
from bot.storage.sqlite import SqliteStore
from tests.test_delivery import Plain

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Discord:
    """A Discord side that says what the test wants."""

    def __init__(self) -> None:
        self.answer = DiscordLook()

    def look(self) -> DiscordLook:
        return self.answer


class Stage:
    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        recorder = Recorder(self.store)
        delivery = Delivery(
            recorder, Audience((), has_only_webhook=False), Plain(), lambda: T0, uuid4
        )
        self.sources = SampleSources(
            HostProbe(path.parent),
            LoopLag(),
            CommandStats(),
            Fleet(uuid4),
            recorder,
            delivery,
            Tasks(),
        )
        self.seen: list[Observation] = []
        self.sampler = Sampler("primary", 10, self.sources, self._observe, lambda: T0)

    async def _observe(self, observation: Observation, max_gap_s: float) -> None:
        self.seen.append(observation)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path / "monitoring.db")
    await made.store.open()
    yield made
    await made.store.close()


async def test_a_real_machine_is_read_and_stored(stage: Stage) -> None:
    stage.sources.host.prime()
    sum(n * n for n in range(2_000_000))
    await stage.sampler.tick()
    sample = stage.sampler.latest
    assert sample is not None
    values = sample.values
    for name in ("cpu_usage", "memory_usage", "disk_usage"):
        value = values[name]
        assert value is not None
        assert 0 <= value <= 100
    assert values["process_cpu"]
    assert values["memory_rss"]
    assert 10 < values["memory_rss"] < 1000
    assert values["threads"]
    assert values["open_files"]
    latest = {m.metric_name: m.metric_value for m in await stage.store.latest_metrics()}
    assert latest["memory_rss"] == pytest.approx(values["memory_rss"], abs=0.01)
    (observation,) = stage.seen
    assert observation.values["cpu_usage"] == {"": values["cpu_usage"]}


async def test_what_was_not_read_is_none_and_not_stored(stage: Stage) -> None:
    await stage.sampler.tick()
    sample = stage.sampler.latest
    assert sample is not None
    for name in ("cpu_usage", "ping_gateway", "guild_count", "command_error_rate", "kuma_age"):
        assert sample.values[name] is None, name
    names = {m.metric_name for m in await stage.store.latest_metrics()}
    assert "ping_gateway" not in names
    assert "command_count" in names, "no command yet is a count of zero"


async def test_nan_and_infinite_latency_become_none(stage: Stage) -> None:
    discord = Discord()
    stage.sources.discord = discord
    for wild in (math.nan, math.inf):
        discord.answer = DiscordLook(gateway_ping_ms=wild, away_s=0.0)
        await stage.sampler.tick()
        assert stage.sampler.latest is not None
        assert stage.sampler.latest.values["ping_gateway"] is None


async def test_the_status_says_offline_and_degraded(stage: Stage) -> None:
    discord = Discord()
    stage.sources.discord = discord
    expected = {
        "online": DiscordLook(gateway_ping_ms=40, away_s=0.0, degradation=0.0),
        "degraded": DiscordLook(gateway_ping_ms=4000, away_s=0.0, degradation=1.2),
        "offline": DiscordLook(away_s=12.0, degradation=0.2),
    }
    for status, look in expected.items():
        discord.answer = look
        sample, _ = stage.sampler.take()
        assert sample.status == status


async def test_every_shard_has_its_own_reading(stage: Stage) -> None:
    discord = Discord()
    stage.sources.discord = discord
    discord.answer = DiscordLook(
        gateway_ping_ms=90, away_s=0.0, shard_ping_ms=((0, 40.0), (1, 90.0))
    )
    await stage.sampler.tick()
    pings = {
        tuple(m.labels.items()): m.metric_value
        for m in await stage.store.latest_metrics()
        if m.metric_name == "ping_gateway"
    }
    assert 90.0 in pings.values()
    assert stage.sampler.latest is not None
    assert ("ping_gateway", {"shard": "0"}, 40.0) in stage.sampler.latest.labelled


def test_a_reading_is_one_row() -> None:
    names = [spec.name for spec in READINGS]
    assert len(names) == len(set(names))
    columns = [spec.column for spec in READINGS if spec.column]
    assert len(columns) == len(set(columns))
    assert take(Looks(host=HostLook(cpu_percent=12.5)))["cpu_usage"] == 12.5


def test_command_latencies_are_interpolated_percentiles_of_five_minutes() -> None:
    now_s = [0.0]
    stats = CommandStats(lambda: now_s[0])
    assert stats.look().error_percent is None, "no command is not zero errors"
    for latency in range(1, 101):
        stats.note("ping", float(latency), ok=latency % 10 != 0)
    look = stats.look()
    assert (look.count, look.errors, look.error_percent) == (100, 10, 10)
    assert look.p50_ms == pytest.approx(50.5)
    assert look.p95_ms == pytest.approx(95.05)
    now_s[0] = 301
    old = stats.look()
    assert (old.count, old.p95_ms, old.error_percent) == (100, None, None)
    assert percentile([7.0], 0.99) == 7.0
