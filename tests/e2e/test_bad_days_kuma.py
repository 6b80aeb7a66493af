"""Kuma away, wrong, half or odd: services are unknown then, never down, and nobody is flooded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.core.observation import MonitorStatus
from tests.e2e.scene import Scene, make_scene
from tests.peers.bot_process import BotProcess
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma

DOWN, UP = MonitorStatus.DOWN, MonitorStatus.UP


async def test_kuma_away_is_one_card_and_services_are_unknown(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.set_status("service 0001", DOWN)
    await scene.wait_card("🔴", text="service 0001")
    await kuma.stop()
    await scene.bot.wait_rows(
        "SELECT count(*) FROM service_status_history WHERE status = 'unknown' HAVING count(*) = 6",
        timeout_s=60,
    )
    await scene.bot.wait_rows("SELECT 1 FROM alert_history WHERE rule_name = 'KumaUnreachable'")
    await scene.quiet(3)
    assert len(scene.cards()) == 2
    dashboard = await discord.command(scene.guild, scene.alerts, scene.admin, "status_dashboard")
    assert "❔" in dashboard.text
    await kuma.start()
    kuma.set_status("service 0001", UP)
    await scene.wait_card("✅", count=2, timeout_s=30)
    await scene.quiet(3)
    assert len(scene.cards()) == 2
    downs = scene.bot.query("SELECT count(*) FROM service_status_history WHERE status = 'down'")
    assert downs == [(1,)]


@pytest.mark.parametrize("fault", ["html", "500", "half", "nothing", "empty", "hang"])
async def test_an_answer_that_is_none_hides_no_monitor_and_says_why(
    scene: Scene, kuma: ReplayKuma, fault: str
) -> None:
    kuma.fail(fault)
    await scene.bot.wait_log("poll failed", 30)
    await scene.quiet(2)
    assert scene.bot.query("SELECT count(*) FROM service_status_history") == [(6,)]
    assert not scene.cards()
    kuma.fail(None)
    await scene.bot.wait_log("answers again", 30)
    assert scene.bot.query("SELECT count(*) FROM alert_history") == [(0,)]


async def test_a_wrong_key_is_told_in_plain_words_without_the_key(
    tmp_path: Path, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    wrong = "uk9_" + "z" * 30
    stage = make_scene(discord, tmp_path, UPTIME_KUMA_URL=kuma.base_url, UPTIME_KUMA_API_KEY=wrong)
    async with stage.bot as bot:
        await stage.ready()
        await stage.choose_channel()
        await bot.wait_log("unauthorized")
        (card,) = await stage.wait_card("❔", timeout_s=60)
        assert "API" in card.text
        answer = await discord.command(
            stage.guild, stage.alerts, stage.admin, "status_dashboard", locale="ja"
        )
        assert "API" in answer.text
        assert wrong not in "\n".join(bot.log) + answer.text + card.text


async def test_a_vanished_monitor_is_unknown_without_a_removal_notice(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.vanish("service 0003")
    await scene.bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'unknown'")
    await scene.quiet(3)
    assert not scene.cards()
    dashboard = await discord.command(scene.guild, scene.alerts, scene.admin, "status_dashboard")
    assert "❔" in dashboard.text
    kuma.appear("service 0003")
    await scene.bot.wait_rows(
        "SELECT count(*) FROM service_status_history WHERE status = 'up' HAVING count(*) = 7"
    )


async def test_maintenance_and_pending_are_no_outage(scene: Scene, kuma: ReplayKuma) -> None:
    kuma.set_status("service 0001", MonitorStatus.MAINTENANCE)
    kuma.set_status("service 0002", MonitorStatus.PENDING)
    await scene.bot.wait_rows(
        "SELECT count(*) FROM service_status_history WHERE status IN ('pending', 'maintenance')"
        " HAVING count(*) = 2"
    )
    await scene.quiet(2)
    assert not scene.cards()


@pytest.mark.parametrize("version", ["1.23.16", "2.0.0-dev.0", "2.5.3"])
async def test_recorded_dialects_are_understood(tmp_path: Path, version: str) -> None:
    recorded = Path(__file__).parent.parent / "recorded" / f"kuma-{version}" / "metrics.txt"
    async with ReplayKuma() as kuma:
        kuma.set_metrics(recorded.read_text("utf-8"))
        bot = BotProcess(
            tmp_path,
            {"UPTIME_KUMA_URL": kuma.base_url, "UPTIME_KUMA_API_KEY": kuma.api_key or ""},
        )
        async with bot:
            await bot.wait_rows("SELECT 1 FROM service_status_history")
            await asyncio.sleep(0.3)
            rows = dict(bot.query("SELECT service_name, status FROM service_status_history"))
            assert rows['Web "shop" \\ Übersicht'] == "down"
            assert rows["Slow starter"] == "pending"
            assert rows["TCP port"] == "up"
            assert rows["In maintenance"] == "maintenance"
