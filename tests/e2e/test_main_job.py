"""Observe, decide, remember, tell, show: the bot process, a real Kuma and the Discord peer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.e2e.scene import PERIOD_S, make_scene, title
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.real import RealKuma
from tests.peers.kuma.target import Target


async def test_a_service_goes_off_and_on_and_discord_hears_of_both(tmp_path: Path) -> None:
    async with RealKuma() as kuma, Target() as target, DiscordPeer() as discord:
        await kuma.add_http_monitor("ホームページ", target.url, interval_s=1, max_retries=0)
        scene = make_scene(
            discord,
            tmp_path,
            UPTIME_KUMA_URL=kuma.base_url,
            UPTIME_KUMA_API_KEY=kuma.api_key,
        )
        async with scene.bot as bot:
            await scene.ready()
            await scene.choose_channel()
            await bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'up'")

            target.off()
            await bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'down'")
            seen_s = time.monotonic()
            (card,) = await scene.wait_card("🔴", text="ホームページ")
            assert time.monotonic() - seen_s < 1.0
            assert not card.pings

            await asyncio.sleep(3)
            target.on()
            (card_after,) = await scene.wait_card("✅", text="ホームページ")
            assert card_after.id == card.id, "the card is edited, not posted anew"
            await discord.wait_for(scene.replies)
            (reply,) = scene.replies()
            assert reply.reply_to == card.id
            assert reply.content.startswith("✅")
            assert reply.flags & 4096, "a recovery makes no noise"
            assert "%" in card_after.text, "the uptime of the day"

            (row,) = bot.query(
                "SELECT rule_name, severity, message, resolved, "
                "(julianday(resolved_at) - julianday(timestamp)) * 86400 FROM alert_history"
            )
            assert row[0] == "service_down"
            assert row[1] == "critical"
            assert "ホームページ" in row[2]
            assert row[3] == 1
            assert 2 < row[4] < 30
            history = bot.query("SELECT status FROM service_status_history ORDER BY checked_at")
            assert [status for (status,) in history][:3] == ["up", "down", "up"]
            assert bot.query("SELECT count(*) FROM active_alerts") == [(0,)]
            assert len(scene.cards()) == 1
            assert len(scene.replies()) == 1
            code, took_s = await bot.stop()
            assert (code, took_s < 5) == (0, True)


async def test_the_card_arrives_within_a_poll_and_a_second(tmp_path: Path) -> None:
    """Measured from the moment Kuma itself says so on /metrics, with a longer period."""
    from bot.core.observation import MonitorStatus
    from tests.peers.kuma.replay import ReplayKuma

    period_s = 3
    async with ReplayKuma() as kuma, DiscordPeer() as discord:
        kuma.make_fleet(5)
        scene = make_scene(
            discord,
            tmp_path,
            UPTIME_KUMA_URL=kuma.base_url,
            UPTIME_KUMA_API_KEY=kuma.api_key or "",
            UPTIME_KUMA_CHECK_INTERVAL_S=str(period_s),
        )
        async with scene.bot as bot:
            await scene.ready()
            await scene.choose_channel()
            await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) = 5")
            for name, status, symbol in (
                ("service 0002", MonitorStatus.DOWN, "🔴"),
                ("service 0002", MonitorStatus.UP, "✅"),
                ("service 0004", MonitorStatus.DOWN, "🔴"),
            ):
                kuma.set_status(name, status)
                changed_s = time.monotonic()
                await scene.wait_card(symbol, text=name)
                assert time.monotonic() - changed_s < period_s + 1


async def test_commands_show_what_is_true(tmp_path: Path) -> None:
    async with RealKuma() as kuma, Target() as target, DiscordPeer() as discord:
        await kuma.add_http_monitor("shop", target.url, interval_s=1, max_retries=0)
        scene = make_scene(
            discord,
            tmp_path,
            UPTIME_KUMA_URL=kuma.base_url,
            UPTIME_KUMA_API_KEY=kuma.api_key,
        )
        async with scene.bot as bot:
            await scene.ready()
            await scene.choose_channel()
            await bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'up'")
            await asyncio.sleep(3 * PERIOD_S)

            async def ask(name: str, options: dict[str, object] | None = None) -> str:
                answer = await discord.command(
                    scene.guild, scene.alerts, scene.admin, name, options, locale="ja"
                )
                assert (answer.responded_after_s or 9) < 3
                return answer.text

            assert "shop" in await ask("status_dashboard")
            choices = await discord.autocomplete(
                scene.guild, scene.alerts, scene.admin, "service_details", "service_name", "sho"
            )
            assert ["shop" in choice["name"] for choice in choices] == [True]
            details = await ask("service_details", {"service_name": "shop"})
            assert "shop" in details
            assert "100" in details
            stats = await ask("monitoring_stats")
            assert "100" in stats
            assert "%" in await ask("performance")
            assert "shop" not in await ask("alerts active")
            target.off()
            await scene.wait_card("🔴", text="shop")
            assert "shop" in await ask("alerts active")
            assert "🔴" in await ask("status_dashboard")


async def test_a_public_status_page_alone_is_enough(tmp_path: Path) -> None:
    async with RealKuma() as kuma, Target() as target, DiscordPeer() as discord:
        number = await kuma.add_http_monitor("front", target.url, interval_s=1, max_retries=0)
        kuma.add_status_page("hfs", [number])
        scene = make_scene(
            discord,
            tmp_path,
            UPTIME_KUMA_URL=kuma.base_url,
            UPTIME_KUMA_STATUS_PAGE="hfs",
        )
        async with scene.bot as bot:
            await scene.ready()
            await scene.choose_channel()
            await bot.wait_rows("SELECT 1 FROM service_status_history WHERE status = 'up'")
            target.off()
            (card,) = await scene.wait_card("🔴", text="front", timeout_s=30)
            assert "front" in title(card) or "front" in card.text
