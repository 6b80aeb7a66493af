"""The Discord bot: no privileged intents, small caches, commands and channels, true readings."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import aiohttp
import discord
import yarl
from discord.ext import commands

from bot.core.readings import DiscordLook
from cogs.command_tree import Commands, CommandSync
from cogs.gateway import Backoff, ShardingRequired, Shards, TokenRefused

if TYPE_CHECKING:
    from discord.gateway import DiscordWebSocket

    from bot.services.activity import Activity
    from bot.services.parts import Parts

__all__ = ["CometBot", "TokenRefused", "make_bot", "run_bot"]

logger = logging.getLogger(__name__)

EXTENSIONS: Final = (
    "cogs.uptimekuma",
    "cogs.performance",
    "cogs.alerts",
    "cogs.activity",
    "cogs.privacy",
)

LOGIN_TIMEOUT_S: Final = 60.0
SHARD_QUESTION_S: Final = 5.0
GUILDS_SETTLE_S: Final = 0.5
"""READY counts as complete once no guild arrived for so long; discord.py's own is 2 s."""

AWAY_LIMIT_S: Final = 60.0
SLOW_PING_MS: Final = 1000.0
SLOW_LIMIT_S: Final = 300.0


class CometBot(commands.AutoShardedBot):
    """Watches nothing itself: it asks `parts`, and tells the sampler how Discord is doing."""

    def __init__(
        self, parts: Parts, *, gateway: yarl.URL | None = None, sync_guild_ids: Sequence[int] = ()
    ) -> None:
        # We never speak; a warning that speech would not work only worries people.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        super().__init__(
            # Nobody's messages are read: the prefix exists because discord.py wants one.
            command_prefix=commands.when_mentioned,
            help_command=None,
            tree_cls=Commands,
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            chunk_guilds_at_startup=False,
            member_cache_flags=discord.MemberCacheFlags.none(),
            max_messages=None,
            guild_ready_timeout=GUILDS_SETTLE_S,
        )
        self.parts = parts
        self.is_logged_in = False
        self._shards = Shards(self, gateway)
        self._sync = CommandSync(self, sync_guild_ids)
        self._chores: set[asyncio.Task[None]] = set()
        self._slow_since_s: float | None = None
        self._is_let_go = False

    @property
    def comet(self) -> Activity:
        """What other cogs may call: `await bot.comet.report_conversation(…)` and its like."""
        activity = self.parts.activity
        assert activity is not None
        return activity

    # -- starting and stopping ----------------------------------------------------------

    async def setup_hook(self) -> None:
        """Called at each login: a cog that cannot be loaded must not keep the others away."""
        for name in EXTENSIONS:
            if name in self.extensions:
                continue
            try:
                await self.load_extension(name)
            except commands.ExtensionError:
                logger.exception("%s cannot be loaded; its commands are missing", name)

    async def login(self, token: str) -> None:
        """Once, without patience. Raises TokenRefused; anything else may pass by itself."""
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT_S):
                await super().login(token)
        except discord.LoginFailure as error:
            await self._drop_session()
            raise TokenRefused from error
        except discord.HTTPException as error:
            await self._drop_session()
            if error.status == 401:
                raise TokenRefused from error
            raise
        except BaseException:
            await self._drop_session()
            raise
        self.is_logged_in = True
        self._start_chore(self._sync.run(), "command-sync")

    async def connect(self, *, reconnect: bool = True) -> None:
        """Until closed. Raises TokenRefused."""
        count = await self._ask_shard_count()
        while not self.is_closed():
            self.shard_count = self._connection.shard_count = count
            self._connection.shard_ids = range(count)
            try:
                await self._shards.run(count)
            except ShardingRequired:
                count = max(2 * count, await self._ask_shard_count())
                logger.warning("Discord asks for more shards; trying %d", count)
            else:
                return

    async def close(self) -> None:
        """Within a second or so, whatever Discord does."""
        if self._is_let_go:
            return
        self._is_let_go = True
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._shards.close()
        if self.is_logged_in:
            self.is_logged_in = False
            await super().close()
        else:
            await self._drop_session()

    def is_closed(self) -> bool:
        return self._is_let_go or super().is_closed()

    async def _drop_session(self) -> None:
        """What a failed login opened; discord.py would leave it open and make another."""
        await self.http.close()
        self.http.clear()
        self.http.connector = discord.utils.MISSING

    async def _ask_shard_count(self) -> int:
        """What Discord recommends; 1 when it does not say, as a proxy may not."""
        try:
            async with asyncio.timeout(SHARD_QUESTION_S):
                count, _, _ = await self.http.get_bot_gateway()
        except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError):
            return 1
        except (KeyError, TypeError):
            return 1
        return max(1, count)

    def _start_chore(self, work: object, name: str) -> None:
        assert asyncio.iscoroutine(work)
        chore: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    # -- the gateway is ours, see cogs/gateway.py ---------------------------------------

    def _get_websocket(
        self, guild_id: int | None = None, *, shard_id: int | None = None
    ) -> DiscordWebSocket:
        if shard_id is None:
            shard_id = ((guild_id or 0) >> 22) % (self.shard_count or 1)
        return self._shards.sockets[shard_id]

    @property
    def latencies(self) -> list[tuple[int, float]]:
        return sorted(self._shards.pings_s().items())

    @property
    def latency(self) -> float:
        """The worst shard's, in seconds; NaN while none is connected."""
        return max((ping_s for _, ping_s in self.latencies), default=math.nan)

    # -- what is seen -------------------------------------------------------------------

    def look(self) -> DiscordLook:
        """How Discord is doing; what cannot be known while it is away is None."""
        now_s = time.monotonic()
        away_s = self._shards.away_s(now_s)
        pings = tuple(
            (shard_id, ping_s * 1000)
            for shard_id, ping_s in self.latencies
            if math.isfinite(ping_s)
        )
        ping_ms = max((ping for _, ping in pings), default=None)
        if ping_ms is None or ping_ms <= SLOW_PING_MS:
            self._slow_since_s = None
        elif self._slow_since_s is None:
            self._slow_since_s = now_s
        slow_s = 0.0 if self._slow_since_s is None else now_s - self._slow_since_s
        is_known = self._shards.are_all_known
        guilds = self.guilds if is_known else []
        users = sum(guild.member_count or 0 for guild in guilds)
        channels = sum(len(guild.channels) for guild in guilds)
        return DiscordLook(
            gateway_ping_ms=ping_ms,
            away_s=away_s,
            degradation=max(away_s / AWAY_LIMIT_S, slow_s / SLOW_LIMIT_S),
            reconnects=float(self._shards.reconnects),
            guilds=float(len(guilds)) if is_known else None,
            users=float(users) if is_known else None,
            channels=float(channels) if is_known else None,
            shard_ping_ms=pings,
        )

    # -- events -------------------------------------------------------------------------

    async def on_shard_connect(self, shard_id: int) -> None:
        self._shards.note_connected(shard_id, is_fresh=True)
        await self._catch_up()

    async def on_shard_resumed(self, shard_id: int) -> None:
        self._shards.note_connected(shard_id, is_fresh=False)
        await self._catch_up()

    async def on_guild_join(self, guild: discord.Guild) -> None:
        await self._note_guilds()

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        """Its choices are kept: whoever invites the bot again finds them as they were."""
        await self._note_guilds()

    async def on_guild_available(self, guild: discord.Guild) -> None:
        await self._note_guilds()

    async def on_message(self, message: discord.Message, /) -> None:
        """No text commands: nobody's messages are looked at."""

    async def on_app_command_completion(
        self, interaction: discord.Interaction[CometBot], command: object
    ) -> None:
        tree = self.tree
        assert isinstance(tree, Commands)
        tree.note(interaction, ok=True)

    async def _catch_up(self) -> None:
        """Discord is there (again): who is with us, and what waits for them."""
        await self._note_guilds()
        self.parts.delivery.wake(at_once=True)

    async def _note_guilds(self) -> None:
        if not self._shards.are_all_known:
            return
        joined = frozenset(str(guild.id) for guild in self.guilds)
        if joined != self.parts.audience.joined_guild_ids:
            self.parts.audience.joined_guild_ids = joined
            self._sync.hurry()
            await self.parts.alerting.tell_newcomers()


def make_bot(
    parts: Parts,
    *,
    api_base_url: str | None = None,
    gateway_url: str | None = None,
    sync_guild_ids: Sequence[int] = (),
) -> CometBot:
    """The bot, not yet connected. The addresses are those of a proxy, or of a test."""
    if api_base_url is not None:
        discord.http.Route.BASE = api_base_url.rstrip("/")
    gateway = None if gateway_url is None else yarl.URL(gateway_url)
    return CometBot(parts, gateway=gateway, sync_guild_ids=sync_guild_ids)


async def run_bot(bot: CometBot, token: str) -> None:
    """Log in and stay connected until the bot is closed. Raises TokenRefused, nothing else.

    While Discord cannot be reached everything else goes on.
    """
    backoff = Backoff()
    is_said = False
    while not bot.is_closed():
        try:
            if not bot.is_logged_in:
                await bot.login(token)
                is_said = False
            await bot.connect()
        except TokenRefused:
            raise
        except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
            if not is_said and not bot.is_closed():
                is_said = True
                logger.warning(
                    "Discord cannot be reached (%s: %s); trying on", type(error).__name__, error
                )
        except Exception:
            logger.exception("the connection to Discord stumbled; it is made anew")
        if not bot.is_closed():
            await asyncio.sleep(backoff.next_s())
