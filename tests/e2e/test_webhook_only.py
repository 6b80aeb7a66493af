"""Without a token: no bot, but alerts reach the webhook and the terminal."""

from __future__ import annotations

from pathlib import Path

from bot.core.observation import MonitorStatus
from tests.peers.bot_process import BotProcess
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import ReplayKuma


async def test_alerts_go_to_the_webhook_and_are_printed(tmp_path: Path) -> None:
    async with ReplayKuma() as kuma, DiscordPeer() as discord:
        kuma.make_fleet(3)
        guild = discord.add_guild("HFS")
        channel = guild.add_channel("fallback")
        hook = discord.create_webhook(channel)
        bot = BotProcess(
            tmp_path,
            {
                "UPTIME_KUMA_URL": kuma.base_url,
                "UPTIME_KUMA_API_KEY": kuma.api_key or "",
                "UPTIME_KUMA_CHECK_INTERVAL_S": "1",
                "DISCORD_FALLBACK_WEBHOOK_URL": hook.url,
            },
        )
        async with bot:
            await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) = 3")
            kuma.set_status("service 0001", MonitorStatus.DOWN)
            await discord.wait_for(lambda: discord.messages(channel))
            (card,) = discord.messages(channel)
            assert card.embeds[0]["title"].startswith("🔴")
            await bot.wait_log("service 0001")
            kuma.set_status("service 0001", MonitorStatus.UP)
            await discord.wait_for(lambda: card.embeds[0]["title"].startswith("✅"))
            assert not any(hook.token in line for line in bot.log)


async def test_without_webhook_alerts_are_printed_and_kept(tmp_path: Path) -> None:
    async with ReplayKuma() as kuma:
        kuma.make_fleet(2)
        bot = BotProcess(
            tmp_path,
            {
                "UPTIME_KUMA_URL": kuma.base_url,
                "UPTIME_KUMA_API_KEY": kuma.api_key or "",
                "UPTIME_KUMA_CHECK_INTERVAL_S": "1",
            },
        )
        async with bot:
            await bot.wait_rows("SELECT count(*) FROM service_status_history HAVING count(*) = 2")
            kuma.set_status("service 0002", MonitorStatus.DOWN)
            await bot.wait_log("service 0002")
            await bot.wait_rows("SELECT 1 FROM active_alerts WHERE rule_name = 'service_down'")
