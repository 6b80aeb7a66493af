"""The steady beat: missed ticks are skipped and counted, errors survived, hangs cut off."""

from __future__ import annotations

import asyncio
import time

from bot.services import ticker
from bot.services.ticker import Tasks


async def test_it_beats_at_once_and_then_every_period() -> None:
    times: list[float] = []

    async def note() -> None:
        times.append(time.monotonic())

    tasks = Tasks()
    began_s = time.monotonic()
    tasks.start("beat", 0.1, note)
    await asyncio.sleep(0.56)
    await tasks.stop()
    assert times[0] - began_s < 0.05
    assert 5 <= len(times) <= 6
    assert tasks.health["beat"].missed == 0


async def test_a_stall_skips_ticks_and_counts_them_without_a_burst() -> None:
    times: list[float] = []

    async def note() -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(0.55)  # noqa: ASYNC251  (the stall is what is tested)

    tasks = Tasks()
    tasks.start("beat", 0.1, note)
    await asyncio.sleep(0.75)
    await tasks.stop()
    health = tasks.health["beat"]
    assert health.missed == 5
    assert len(times) <= 3
    assert times[1] - times[0] > 0.5


async def test_an_unexpected_error_ends_nothing_and_is_logged_once(caplog: object) -> None:
    runs = 0

    async def sometimes() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise KeyError("surprise")

    tasks = Tasks()
    tasks.start("moody", 0.05, sometimes)
    await asyncio.sleep(0.28)
    health = tasks.health["moody"]
    await tasks.stop()
    assert health.errors == 3
    assert runs >= 5
    assert health.last_error is None
    assert health.last_success_s is not None
    errors = [r for r in caplog.records if r.levelname == "ERROR"]  # type: ignore[attr-defined]
    assert len(errors) == 1


async def test_a_hanging_action_is_cut_off_and_counted(monkeypatch: object) -> None:
    monkeypatch.setattr(ticker, "MIN_ACTION_TIMEOUT_S", 0.1)  # type: ignore[attr-defined]
    runs = 0

    async def hang() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(60)

    tasks = Tasks()
    tasks.start("hang", 0.01, hang)
    await asyncio.sleep(0.35)
    await tasks.stop()
    assert runs >= 2
    assert tasks.health["hang"].errors >= 1


async def test_lateness_is_the_age_of_the_last_success_in_periods() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("always")

    tasks.start("dead", 10.0, fail)
    await asyncio.sleep(0.01)
    health = tasks.health["dead"]
    await tasks.stop()
    assert health.lateness(health.started_s + 30) == 3
    health.last_success_s = health.started_s + 25
    assert health.lateness(health.started_s + 30) == 0.5
