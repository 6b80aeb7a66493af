"""The beat of polling: the period while Kuma answers, every ten seconds while it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest_asyncio

from bot.core.alert import Observation
from bot.core.kuma_webhook import Beat
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)
from bot.services.fleet import Fleet
from bot.services.kuma_client import KumaPollError
from bot.services.kuma_poller import KumaPoller
from bot.services.recorder import Recorder
from bot.storage.sqlite import SqliteStore


class Kuma:
    """Answers or not, as told; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.problem: PollProblem | None = None
        self.status = MonitorStatus.UP
        self.on_asked: Callable[[], object] = lambda: None

    async def fetch(self) -> KumaReport:
        self.asked += 1
        self.on_asked()
        if self.problem is not None:
            raise KumaPollError(self.problem, "as told")
        one = MonitorReading(MonitorIdentity("kuma:1", "shop"), self.status, 12.0)
        return KumaReport("kuma", (one,), "2.5.3")


class Stage:
    def __init__(self, path: Path, period_s: float) -> None:
        self.kuma = Kuma()
        self.store = SqliteStore(path)
        self.fleet = Fleet(uuid4)
        self.seen: list[Observation] = []
        self.poller = KumaPoller(
            "kuma",
            period_s,
            self.kuma,
            self.fleet,
            Recorder(self.store),
            self._observe,
            lambda: datetime.now(UTC),
        )

    async def _observe(self, observation: Observation, max_gap_s: float) -> None:
        self.seen.append(observation)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path / "monitoring.db", 60)
    await made.store.open()
    yield made
    await made.store.close()


async def test_ticks_are_at_most_ten_seconds_apart_and_divide_the_period() -> None:
    for period_s, tick_s in ((1, 1), (10, 10), (15, 7.5), (60, 10), (3600, 10)):
        poller = KumaPoller(
            "kuma",
            period_s,
            Kuma(),
            Fleet(uuid4),
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            lambda: datetime.now(UTC),
        )
        assert poller.tick_s == tick_s


async def test_a_good_answer_is_not_asked_for_again_before_its_time(
    stage: Stage, monkeypatch: object
) -> None:
    base_s = time.monotonic()
    for elapsed_s in range(0, 130, 10):
        monkeypatch.setattr(time, "monotonic", lambda e=elapsed_s: base_s + e)  # type: ignore[attr-defined]
        await stage.poller.tick()
    assert stage.kuma.asked == 3


async def test_a_failed_poll_is_repeated_at_every_tick(stage: Stage, monkeypatch: object) -> None:
    base_s = time.monotonic()
    stage.kuma.problem = PollProblem.UNREACHABLE
    for elapsed_s in range(0, 60, 10):
        monkeypatch.setattr(time, "monotonic", lambda e=elapsed_s: base_s + e)  # type: ignore[attr-defined]
        await stage.poller.tick()
    assert stage.kuma.asked == 6
    assert stage.fleet.sources["kuma"].failures == 6


async def test_changes_and_response_times_are_stored(stage: Stage) -> None:
    for status in (MonitorStatus.UP, MonitorStatus.DOWN, MonitorStatus.DOWN):
        stage.kuma.status = status
        await stage.poller.poll()
        await asyncio.sleep(0.005)
    since = datetime(2000, 1, 1, tzinfo=UTC)
    history = await stage.store.service_history("kuma:1", since, 10)
    assert sorted(c.status.value for c in history) == ["down", "up"]
    stats = await stage.store.service_stats(since, datetime.now(UTC))
    assert stats.checks == 3
    assert stats.mean_response_time_ms == 12.0


async def test_the_rules_see_no_data_while_kuma_is_silent(stage: Stage) -> None:
    await stage.poller.poll()
    assert stage.seen[-1].values["monitor_down"] == {"kuma:1": 0.0}
    stage.kuma.problem = PollProblem.NOT_KUMA
    await stage.poller.poll()
    assert stage.seen[-1].values["monitor_down"] == {}


async def test_a_word_heard_during_a_poll_is_not_confirmed_by_it(stage: Stage) -> None:
    """What that poll read may be older than the word."""
    down = Beat("1", "shop", MonitorStatus.DOWN, speaks_of_ids=True)
    stage.kuma.status = MonitorStatus.DOWN
    stage.kuma.on_asked = lambda: stage.fleet.hear("kuma", down, datetime.now(UTC))
    await stage.poller.poll()
    stage.kuma.on_asked, stage.kuma.status = (lambda: None), MonitorStatus.UP
    await stage.poller.poll()
    assert stage.fleet.monitors["kuma:1"].status is MonitorStatus.DOWN


async def test_what_is_stored_of_a_disbelieved_poll_is_what_was_believed(stage: Stage) -> None:
    await stage.poller.poll()
    down = Beat("1", "shop", MonitorStatus.DOWN, speaks_of_ids=True)
    stage.fleet.hear("kuma", down, datetime.now(UTC))
    await asyncio.sleep(0.01)
    await stage.poller.poll()
    await asyncio.sleep(0.05)
    stats = await stage.store.service_stats(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC))
    assert stats.down_s > 0.03
