"""Keeps every shard connected: resumes what can be resumed, never gives up, never floods.

discord.py's own loop waits up to 17 minutes after a long outage, logs a traceback per attempt
and resumes at the address READY names, past a configured proxy. This one waits 30 seconds at
most, says once that Discord is away and once that it is back, and stays on its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

if TYPE_CHECKING:
    from bot.client import CometBot

logger = logging.getLogger(__name__)

BACKOFF_MIN_S: Final = 1.0
BACKOFF_MAX_S: Final = 10.0
OPEN_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 0.4
SETTLED_S: Final = 60.0
"""A connection that lasted this long lets the next attempt begin without a wait."""

IDENTIFY_SPACING_S: Final = 5.0
ZOMBIE_INTERVALS: Final = 2.0
"""Heartbeat intervals (41 s at Discord) without an answer after which a connection is dead."""

ZOMBIE_LOOK_S: Final = 10.0

AUTHENTICATION_FAILED: Final = 4004
SHARDING_REQUIRED: Final = 4011
# Trying again at once cannot help: invalid shard, sharding, version, intents.
_SELDOM: Final = frozenset({4010, 4011, 4012, 4013, 4014})
SELDOM_S: Final = 300.0

_born: ContextVar[list[DiscordWebSocket]] = ContextVar("_born")


class TokenRefused(Exception):
    """Discord does not take the token, and will not take it later either."""


class ShardingRequired(Exception):
    """Discord wants more shards than were opened."""


class _Socket(DiscordWebSocket):
    """Known from birth, so that one which fails while it opens can be closed all the same."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(socket, loop=loop)
        _born.get().append(self)


@dataclass(frozen=True, slots=True)
class _Session:
    """What a RESUME needs."""

    session_id: str
    sequence: int | None
    gateway: yarl.URL


class Backoff:
    """Growing waits with some chance in them, so that many bots do not come back as one."""

    def __init__(self, least_s: float = BACKOFF_MIN_S, most_s: float = BACKOFF_MAX_S) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._next_s = least_s

    def next_s(self) -> float:
        wait_s = self._next_s
        self._next_s = min(self._most_s, self._next_s * 2)
        return wait_s * random.uniform(0.75, 1.0)

    def reset(self) -> None:
        self._next_s = self._least_s


class Shards:
    """All shards of one bot and how each is doing. `now_s` is time.monotonic()."""

    def __init__(self, bot: CometBot, gateway: yarl.URL | None) -> None:
        self._bot = bot
        self._pinned = gateway
        self._identify = asyncio.Lock()
        self._identified_s: float | None = None
        self._stale: dict[int, dict[int, discord.Guild]] = {}
        self._known: set[int] = set()
        self._stopping = asyncio.Event()
        self._is_said = False
        self._count = 1
        self.sockets: dict[int, DiscordWebSocket] = {}
        self.away_since_s: dict[int, float] = {0: time.monotonic()}
        self.reconnects = 0

    def away_s(self, now_s: float) -> float:
        """Seconds since the worst shard was last connected; counted from the start at first."""
        return max((now_s - since_s for since_s in self.away_since_s.values()), default=0.0)

    def pings_s(self) -> dict[int, float]:
        """Seconds until the last heartbeat was answered, or since one has been waiting."""
        return {
            shard_id: _ping_s(socket)
            for shard_id, socket in self.sockets.items()
            if shard_id not in self.away_since_s
        }

    @property
    def are_all_known(self) -> bool:
        """Whether every shard has told its guilds at least once."""
        return len(self._known) >= self._count

    async def run(self, count: int) -> None:
        """Until closed. Raises TokenRefused or ShardingRequired."""
        self._count = count
        for shard_id in range(count):
            self.away_since_s.setdefault(shard_id, time.monotonic())
        keeping = [
            asyncio.create_task(self._keep(shard_id), name=f"shard-{shard_id}")
            for shard_id in range(count)
        ]
        tasks = [*keeping, asyncio.create_task(self._bury_zombies(), name="shard-watch")]
        try:
            await asyncio.gather(*keeping)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        self._stopping.set()
        sockets = list(self.sockets.values())
        await asyncio.gather(*(_close(socket, 1000) for socket in sockets))

    def note_connected(self, shard_id: int, *, is_fresh: bool) -> None:
        """READY or RESUMED arrived. After a READY, guilds it did not name are ours no longer."""
        since_s = self.away_since_s.pop(shard_id, None)
        if shard_id in self._known:
            self.reconnects += 1
            if since_s is not None:
                logger.info(
                    "Discord is back after %.0f s (shard %d)", time.monotonic() - since_s, shard_id
                )
        self._known.add(shard_id)
        before = self._stale.pop(shard_id, {})
        if is_fresh:
            for guild_id, guild in before.items():
                if self._bot.get_guild(guild_id) is guild:
                    self._bot._connection._remove_guild(guild)

    def _note_away(self, shard_id: int, why: str) -> None:
        if self._stopping.is_set():
            return
        if shard_id not in self.away_since_s:
            self.away_since_s[shard_id] = time.monotonic()
            logger.warning("Discord's gateway is away (shard %d: %s); trying on", shard_id, why)
        elif shard_id not in self._known and not self._is_said:
            self._is_said = True
            logger.warning("Discord's gateway cannot be reached (%s); trying on", why)

    async def _keep(self, shard_id: int) -> None:
        """One shard, for as long as the bot lives."""
        backoff = Backoff()
        session: _Session | None = None
        while not self._stopping.is_set():
            began_s = time.monotonic()
            socket: DiscordWebSocket | None = None
            wait_s: float | None = None
            try:
                socket = await self._open(shard_id, session)
                self.sockets[shard_id] = socket
                while True:
                    await socket.poll_event()
            except ReconnectWebSocket as error:
                why = "closed"
                session = (_session_of(socket) or session) if error.resume else None
            except discord.ConnectionClosed as error:
                why = f"closed with {error.code}"
                if self._stopping.is_set():
                    return
                if error.code == AUTHENTICATION_FAILED:
                    raise TokenRefused from error
                if error.code == SHARDING_REQUIRED:
                    raise ShardingRequired from error
                session = _session_of(socket) or session
                if error.code in _SELDOM:
                    logger.error("Discord refuses the gateway connection: %s", error)
                    session, wait_s = None, SELDOM_S
            except (OSError, TimeoutError, aiohttp.ClientError, discord.DiscordException) as error:
                why = type(error).__name__
                session = _session_of(socket) or session
            except Exception:
                logger.exception("shard %d stumbled; it connects anew", shard_id)
                why, session = "a fault of ours", None
            finally:
                if socket is not None:
                    await _close(socket)
            self._note_away(shard_id, why)
            if time.monotonic() - began_s >= SETTLED_S:
                backoff.reset()
            # A connection that was up is resumed at once; attempts in a row take their time.
            is_first = socket is not None and shard_id in self._known and wait_s is None
            if is_first and time.monotonic() - began_s >= BACKOFF_MIN_S:
                continue
            await self._rest(backoff.next_s() if wait_s is None else wait_s)

    async def _rest(self, seconds: float) -> None:
        """Wait, unless the bot is closed meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _open(self, shard_id: int, session: _Session | None) -> DiscordWebSocket:
        """A socket that has said hello and asked for its session, old or new."""
        born: list[DiscordWebSocket] = []
        _born.set(born)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if session is None:
                    await stack.enter_async_context(self._identify)
                    await self._await_turn()
                    self._stale[shard_id] = {
                        guild.id: guild for guild in self._bot.guilds if guild.shard_id == shard_id
                    }
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    if session is None:
                        # initial=True: the spacing is ours, above.
                        socket = await _Socket.from_client(
                            self._bot, initial=True, gateway=self._pinned, shard_id=shard_id
                        )
                        self._identified_s = time.monotonic()
                        return socket
                    return await _Socket.from_client(
                        self._bot,
                        gateway=self._pinned or session.gateway,
                        shard_id=shard_id,
                        session=session.session_id,
                        sequence=session.sequence,
                        resume=True,
                    )
        except BaseException:
            for half_open in born:
                await _close(half_open)
            raise

    async def _await_turn(self) -> None:
        """Discord takes one IDENTIFY in five seconds."""
        if self._identified_s is not None:
            left_s = self._identified_s + IDENTIFY_SPACING_S - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)

    async def _bury_zombies(self) -> None:
        """A connection whose heartbeats are not answered is dead, whatever else still arrives."""
        while not self._stopping.is_set():
            await asyncio.sleep(ZOMBIE_LOOK_S)
            for shard_id, socket in list(self.sockets.items()):
                beat = socket._keep_alive
                limit_s = ZOMBIE_INTERVALS * ((beat and beat.interval) or float("inf"))
                if beat is not None and time.perf_counter() - beat._last_ack > limit_s:
                    logger.warning("heartbeats of shard %d are not answered", shard_id)
                    await _close(socket)


def _session_of(socket: DiscordWebSocket | None) -> _Session | None:
    """None where there is nothing to resume: READY never came, or Discord took it back."""
    if socket is None or not socket.session_id:
        return None
    return _Session(socket.session_id, socket.sequence, socket.gateway)


def _ping_s(socket: DiscordWebSocket) -> float:
    """`latency` stays as it was while an answer is missing, so it would look well for ever."""
    beat = socket._keep_alive
    if beat is None:
        return float("inf")
    if beat._last_ack >= beat._last_send:
        return beat.latency
    now_s = time.perf_counter()
    waiting_s = now_s - beat._last_send
    overdue_s = now_s - beat._last_ack - (beat.interval or float("inf"))
    return max(beat.latency, waiting_s, overdue_s)


async def _close(socket: DiscordWebSocket, code: int = 4000) -> None:
    """Close without waiting long for a good-bye; 4000 keeps the session alive for a RESUME."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(code)
