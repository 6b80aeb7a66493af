"""Discord away, closed, slow, refusing; the process killed at every step of a delivery."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from bot.core.observation import MonitorStatus
from tests.e2e.scene import Scene, title
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma

DOWN, UP = MonitorStatus.DOWN, MonitorStatus.UP
POST = r"/channels/\d+/messages$"
PATCH = r"/channels/\d+/messages/\d+$"
OPEN_INCIDENT = "SELECT 1 FROM alert_history WHERE rule_name = 'service_down' AND NOT resolved"
ENDED_INCIDENT = "SELECT 1 FROM alert_history WHERE rule_name = 'service_down' AND resolved"


async def test_killed_while_the_card_is_being_sent_it_is_told_once(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    hanging = discord.hang("POST", POST)
    kuma.set_status("service 0001", DOWN)
    await discord.wait_for(lambda: hanging.hits, 20)
    await scene.bot.kill()
    hanging.clear()
    assert not scene.cards()
    await scene.bot.start()
    await scene.wait_card("🔴", text="service 0001", timeout_s=30)
    await scene.quiet(3)
    assert len(scene.cards()) == 1


async def test_killed_after_discord_accepted_but_before_the_receipt_it_is_told_once(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    """The nonce is forgotten too, as after some minutes: the channel must be looked at."""
    discord.lose_answer("POST", POST)
    kuma.set_status("service 0001", DOWN)
    await discord.wait_for(scene.cards, 20)
    await scene.bot.kill()
    discord.clear_faults()
    discord.forget_nonces()
    await scene.bot.start()
    await scene.ready()
    await scene.bot.wait_rows("SELECT 1 FROM outbox WHERE status = 'delivered'")
    kuma.set_status("service 0001", UP)
    await scene.wait_card("✅", text="service 0001", timeout_s=30)
    await discord.wait_for(scene.replies)
    await scene.quiet(2)
    assert len(scene.cards()) == 1
    assert len(scene.replies()) == 1


async def test_killed_while_the_recovery_is_told_the_reply_comes_once(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.set_status("service 0002", DOWN)
    (card,) = await scene.wait_card("🔴", text="service 0002")
    discord.lose_answer("POST", POST)
    kuma.set_status("service 0002", UP)
    await discord.wait_for(scene.replies, 20)
    await scene.bot.kill()
    discord.clear_faults()
    discord.forget_nonces()
    await scene.bot.start()
    await scene.bot.wait_rows(
        "SELECT count(*) FROM outbox WHERE status <> 'delivered' HAVING count(*) = 0", timeout_s=30
    )
    await scene.quiet(2)
    assert title(card).startswith("✅")
    assert len(scene.replies()) == 1
    assert len(scene.cards()) == 1


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.15, 0.4])
async def test_killed_at_any_moment_nothing_is_lost_or_repeated(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma, delay_s: float
) -> None:
    kuma.set_status("service 0003", DOWN)
    await scene.bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'down'")
    await asyncio.sleep(delay_s)
    await scene.bot.restart()
    await scene.wait_card("🔴", text="service 0003", timeout_s=30)
    kuma.set_status("service 0003", UP)
    await scene.bot.wait_rows(ENDED_INCIDENT, timeout_s=30)
    await asyncio.sleep(delay_s)
    await scene.bot.restart()
    await scene.wait_card("✅", text="service 0003", timeout_s=30)
    await discord.wait_for(scene.replies, 30)
    await scene.quiet(2)
    assert len(scene.cards()) == 1
    assert len(scene.replies()) == 1
    assert len(scene.bot.query("SELECT 1 FROM alert_history")) == 1


async def test_down_and_up_while_the_bot_is_dead_stays_unsaid_but_open_alerts_end(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.set_status("service 0004", DOWN)
    await scene.wait_card("🔴", text="service 0004")
    await scene.bot.kill()
    kuma.set_status("service 0004", UP)
    await scene.bot.start()
    await scene.wait_card("✅", text="service 0004", timeout_s=30)
    await discord.wait_for(scene.replies)
    assert len(scene.cards()) == 1


async def test_discord_away_loses_nothing_and_repeats_nothing(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.set_status("service 0001", DOWN)
    await scene.wait_card("🔴", text="service 0001")
    await discord.stop()
    kuma.set_status("service 0001", UP)
    kuma.set_status("service 0002", DOWN)
    await scene.bot.wait_rows(f"{OPEN_INCIDENT} AND message LIKE '%service 0002%'")
    kuma.set_status("service 0005", DOWN)
    await asyncio.sleep(4)
    kuma.set_status("service 0005", UP)
    await asyncio.sleep(4)
    await discord.start()
    await scene.wait_card("✅", text="service 0001", timeout_s=60)
    await scene.wait_card("🔴", text="service 0002", timeout_s=30)
    await scene.wait_card("✅", text="service 0005", timeout_s=30)
    await discord.wait_for(scene.replies, 30)
    await scene.quiet(3)
    assert len(scene.cards()) == 3
    assert len(scene.replies()) == 1


async def test_many_at_once_fold_into_one_card_within_the_limits(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    names = [f"とても長いサービス名 {n:03d} " + "監" * 180 for n in range(1, 501)]
    kuma.make_fleet(500, name_factory=lambda n: names[n - 1])
    await scene.bot.wait_rows(
        "SELECT count(*) FROM service_status_history WHERE status = 'up' HAVING count(*) >= 500"
    )
    for number in range(1, 501):
        kuma.set_status(number, DOWN)
    (card,) = await scene.wait_card("🔴", text="500", timeout_s=30)
    await scene.bot.wait_rows(f"{OPEN_INCIDENT} GROUP BY rule_name HAVING count(*) = 500")
    for number in range(1, 501):
        kuma.set_status(number, UP)
    await discord.wait_for(lambda: title(card).startswith("✅"), 30)
    await scene.quiet(3)
    assert len(scene.cards()) == 1
    assert len(scene.replies()) == 1
    assert discord.stats.rate_limited == 0
    assert discord.stats.bad_requests == 0


async def test_a_deleted_channel_keeps_alerts_for_the_next_one(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    discord.delete_channel(scene.alerts)
    kuma.set_status("service 0001", DOWN)
    await scene.bot.wait_rows(OPEN_INCIDENT)
    await scene.bot.wait_log("channel_gone")
    other = scene.guild.add_channel("other")
    await scene.choose_channel(other)
    await discord.wait_for(lambda: scene.cards(other), 20)
    (card,) = scene.cards(other)
    assert title(card).startswith("🔴")
    kuma.set_status("service 0001", UP)
    await discord.wait_for(lambda: title(card).startswith("✅"), 20)
    assert len(scene.cards(other)) == 1


async def test_a_channel_closed_to_the_bot_is_said_and_opened_again_delivers(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    discord.set_bot_permissions(scene.alerts, deny=["send_messages"])
    kuma.set_status("service 0001", DOWN)
    await scene.bot.wait_log("forbidden")
    elsewhere = scene.guild.add_channel("elsewhere")
    stats = await discord.command(
        scene.guild, elsewhere, scene.admin, "monitoring_stats", locale="ja"
    )
    assert f"<#{scene.alerts.id}>" in stats.text or "権限" in stats.text
    refused = await discord.command(
        scene.guild, elsewhere, scene.admin, "monitoring_setup", {"channel": scene.alerts}
    )
    assert refused.ephemeral
    discord.set_bot_permissions(scene.alerts)
    await scene.choose_channel()
    await scene.wait_card("🔴", text="service 0001", timeout_s=30)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_errors_of_discord_delay_a_card_but_never_lose_or_double_it(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma, status: int
) -> None:
    body = {"message": "slow down", "retry_after": 0.5, "global": False}
    fault = (
        discord.fail("POST", POST, status=429, times=3, body=body)
        if status == 429
        else discord.fail("POST", POST, status=status, times=3)
    )
    kuma.set_status("service 0001", DOWN)
    await scene.wait_card("🔴", text="service 0001", timeout_s=60)
    await scene.quiet(2)
    assert fault.hits == 3
    assert len(scene.cards()) == 1


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_dropped_gateway_comes_back_and_commands_work(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma, resumable: bool
) -> None:
    await discord.drop_gateway(4000, resumable=resumable)
    kuma.set_status("service 0001", DOWN)
    await scene.wait_card("🔴", text="service 0001", timeout_s=30)
    await discord.wait_for(lambda: discord.connections, 30)
    await asyncio.sleep(1)
    answer = await discord.command(scene.guild, scene.alerts, scene.admin, "status_dashboard")
    assert "service 0001" in answer.text


async def test_sigterm_during_delivery_ends_in_time_and_the_rest_is_sent_later(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    hanging = discord.hang("POST", POST)
    kuma.set_status("service 0001", DOWN)
    await discord.wait_for(lambda: hanging.hits, 20)
    code, took_s = await scene.bot.stop()
    assert code == 0
    assert took_s < 5
    hanging.clear()
    await scene.bot.start()
    await scene.wait_card("🔴", text="service 0001", timeout_s=30)
    await scene.quiet(2)
    assert len(scene.cards()) == 1


async def test_sigterm_ends_in_time_although_nothing_answers(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    """Discord hangs, Kuma hangs, the database is locked: all at once, still under five seconds."""
    hanging = discord.hang("POST", POST)
    kuma.set_status("service 0001", DOWN)
    await discord.wait_for(lambda: hanging.hits, 20)
    kuma.fail("hang")
    with contextlib.closing(sqlite3.connect(scene.bot.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await scene.bot.wait_log("refuses to write")
        code, took_s = await scene.bot.stop()
    assert (code, took_s < 5) == (0, True)


async def test_a_card_deleted_by_hand_does_not_swallow_the_recovery(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    kuma.set_status("service 0001", DOWN)
    (card,) = await scene.wait_card("🔴", text="service 0001")
    discord.delete_message(card)
    kuma.set_status("service 0001", UP)
    await scene.wait_card("✅", text="service 0001", timeout_s=30)


async def test_names_can_neither_ping_nor_break_a_card(
    scene: Scene, discord: DiscordPeer, kuma: ReplayKuma
) -> None:
    odd = ["@everyone 🚀", 'say "hi", {ok}\nnext`line`', "[x](https://evil.example) <@1>"]
    kuma.make_fleet(3, name_factory=lambda n: odd[n - 1])
    kuma.set_status(1, DOWN)
    kuma.set_status(2, DOWN)
    await scene.wait_card("🔴", count=2, timeout_s=30)
    dashboard = await discord.command(scene.guild, scene.alerts, scene.admin, "status_dashboard")
    assert "everyone" in dashboard.text
    assert not any(message.pings for message in discord.messages(scene.alerts))
    assert discord.stats.bad_requests == 0
