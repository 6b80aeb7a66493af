"""One stage for the process tests: a bot process, a Discord, a Kuma, and shorthand to act."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.peers.bot_process import BotProcess
from tests.peers.discord import Channel, DiscordPeer, Guild, StoredMessage, User

PERIOD_S = 1
"""The poll period of these tests; DESIGN's promise is one period plus a second."""


@dataclass
class Scene:
    """A guild with an alert channel and an administrator."""

    discord: DiscordPeer
    bot: BotProcess
    guild: Guild
    alerts: Channel
    admin: User

    async def ready(self) -> None:
        """The bot is connected and its commands are known."""
        await self.discord.wait_for(
            lambda: self.discord.connections and self.discord.stats.command_syncs, 30
        )

    async def choose_channel(self, channel: Channel | None = None) -> None:
        answer = await self.discord.command(
            self.guild,
            channel or self.alerts,
            self.admin,
            "monitoring_setup",
            {"channel": channel or self.alerts},
        )
        assert "✅" in answer.text, answer.text

    def cards(self, channel: Channel | None = None) -> list[StoredMessage]:
        """Messages that are neither replies nor answers to commands."""
        return [
            message
            for message in self.discord.messages(channel or self.alerts)
            if message.reply_to is None and message.interaction is None
        ]

    def replies(self, channel: Channel | None = None) -> list[StoredMessage]:
        return [m for m in self.discord.messages(channel or self.alerts) if m.reply_to is not None]

    async def wait_card(
        self, symbol: str, *, count: int = 1, timeout_s: float = 20.0, text: str = ""
    ) -> list[StoredMessage]:
        """Cards whose headline begins with `symbol` and that speak of `text`; exactly `count`."""

        def found() -> list[StoredMessage] | None:
            hits = [
                card
                for card in self.cards()
                if title(card).startswith(symbol) and text in card.text
            ]
            return hits if len(hits) >= count else None

        hits = await self.discord.wait_for(found, timeout_s)
        assert len(hits) == count, [title(card) for card in self.cards()]
        return list(hits)

    async def quiet(self, seconds: float) -> None:
        """Give wrong messages the time to appear."""
        await asyncio.sleep(seconds)


def title(message: StoredMessage) -> str:
    return str(message.embeds[0].get("title", "")) if message.embeds else message.content


def make_scene(discord: DiscordPeer, home: Path, **env: str) -> Scene:
    """A guild, its alert channel and an admin; the bot process is made, not started."""
    guild = discord.add_guild("HFS", locale="ja")
    alerts = guild.add_channel("alerts")
    admin = guild.add_user("admin", permissions=("administrator",))
    bot = BotProcess(home, {**discord.env(), "UPTIME_KUMA_CHECK_INTERVAL_S": str(PERIOD_S), **env})
    return Scene(discord, bot, guild, alerts, admin)
