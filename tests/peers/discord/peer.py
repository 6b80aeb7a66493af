"""`DiscordPeer`: one Discord on loopback, for one bot.

    async with DiscordPeer() as peer:
        guild = peer.add_guild("home")
        channel = guild.add_channel("alerts")
        admin = guild.add_user("admin", permissions=["administrator"])
        ... start the bot with peer.env() ...
        await peer.wait_for(lambda: peer.stats.identifies, 10)
        result = await peer.command(guild, channel, admin, "alerts active")

The world (guilds, messages, commands, sessions) outlives `stop()` and `start()`, which keep
the port: Discord away for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from . import (
    payloads,
    permissions,
    rest_commands,
    rest_interactions,
    rest_messages,
    rest_places,
    rest_webhooks,
)
from .acting import Acting
from .commands import CommandStore
from .faults import Fault, FaultKind, Faults
from .gateway import GUILDS, Gateway
from .interactions import Interactions
from .messages import Messages
from .permissions import PermissionsLike
from .ratelimit import RateLimiter
from .rest import REQUEST_LIMIT_BYTES, RequestRecord, RestApi
from .world import Channel, Guild, Member, Role, StoredMessage, User, Webhook, World, snowflake

LOOK_AGAIN_S = 0.1
DEFAULT_TOKEN = "MTA0MjAwMDAwMDAwMDAwMDAwMA.Peer00.not-a-secret-but-shaped-like-a-token-0"


@dataclass
class Stats:
    """Counts since the peer was made. `resumed` are RESUMEs that succeeded."""

    connections: int = 0
    refused_connections: int = 0
    identifies: int = 0
    resumes: int = 0
    resumed: int = 0
    resume_url_used: int = 0
    heartbeats: int = 0
    rate_limited: int = 0
    invalid_requests: int = 0
    bad_requests: int = 0
    command_syncs: int = 0
    identify_payloads: list[dict[str, Any]] = field(default_factory=list)


class DiscordPeer(Acting):
    """See the module's text. `Acting` holds what people do; here is the world and its trouble."""

    def __init__(
        self,
        *,
        port: int = 0,
        token: str = DEFAULT_TOKEN,
        bot_name: str = "comet",
        application_id: int | None = None,
    ) -> None:
        self.token = token
        self.port = port
        self.recommended_shards = 1
        self.world = World(bot_name, application_id)
        self.stats = Stats()
        self.requests: list[RequestRecord] = []
        self.mistakes: list[BaseException] = []
        self.limits = RateLimiter()
        self.faults = Faults()
        self.message_store = Messages(self)
        self.commands = CommandStore(self.world)
        self.gateway = Gateway(self)
        self.interactions = Interactions(self)
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._api = RestApi(
            self,
            rest_places.ROUTES
            + rest_messages.ROUTES
            + rest_commands.ROUTES
            + rest_interactions.ROUTES
            + rest_webhooks.ROUTES,
        )

    # Life. `mistakes` are exceptions of the peer's own code; leaving the context raises them.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if self.mistakes and error is None:
            raise AssertionError("the peer itself failed") from self.mistakes[0]

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application(client_max_size=REQUEST_LIMIT_BYTES + 1024)
        app.router.add_get("/gateway", self.gateway.handle)
        app.router.add_get("/gateway/", self.gateway.handle)
        app.router.add_get("/gateway-resume", self.gateway.handle)
        app.router.add_route("*", "/api/{rest:.*}", self._api.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Vanish: connections are cut, the port is closed, the world stays."""
        if self._runner is None:
            return
        self.faults.release()
        await self.gateway.drop(None, resumable=True)
        await self._runner.cleanup()
        self._runner = None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway"

    @property
    def resume_gateway_url(self) -> str:
        """What READY names; another URL than the first, as Discord's is."""
        return f"ws://127.0.0.1:{self.port}/gateway-resume"

    def env(self) -> dict[str, str]:
        """The environment that points the bot here."""
        return {
            "DISCORD_TOKEN": self.token,
            "DISCORD_API_BASE_URL": self.api_url,
            "DISCORD_GATEWAY_URL": self.gateway_url,
        }

    # Watching

    @property
    def connections(self) -> int:
        """Gateway sessions connected at this moment."""
        return sum(1 for s in self.gateway.sessions.values() if s.connection is not None)

    def changed(self) -> None:
        """Wake everyone who waits. Called after every change of the world."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, predicate: Callable[[], Any], timeout_s: float) -> Any:
        """The predicate's first true value; TimeoutError otherwise."""
        deadline = time.monotonic() + timeout_s
        while True:
            changed = self._changed
            value = predicate()
            if value:
                return value
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            # Looks anew now and then too: a predicate may ask about the bot, not only the peer.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left_s, LOOK_AGAIN_S))

    async def wait_for(self, predicate: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Like `wait_until`, but the AssertionError of a time-out shows all channels."""
        try:
            return await self.wait_until(predicate, timeout_s)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s\n{self.dump()}") from None

    def messages(self, channel: Channel, *, deleted: bool = False) -> list[StoredMessage]:
        """A channel's messages, oldest first; ephemeral ones are not in any channel."""
        return [item for item in channel.messages if deleted or not item.deleted]

    def dump(self) -> str:
        """The world as text, for a failed test."""
        lines = [f"{self.connections} connected; {self.stats}"]
        for channel in self.world.channels.values():
            lines.append(f"#{channel.name}")
            for item in channel.messages:
                state = "deleted " if item.deleted else ""
                lines.append(f"  {state}{item.author.name}: {item.text!r} edits={len(item.edits)}")
        lines.append("last requests:")
        for record in self.requests[-20:]:
            why = f" {record.error}" if record.error else ""
            lines.append(f"  {record.method} {record.path} {record.status}{why}")
        return "\n".join(lines)

    # The world

    def add_guild(
        self,
        name: str,
        *,
        locale: str = "ja",
        member_count: int | None = None,
        bot_permissions: PermissionsLike = permissions.BOT_DEFAULT,
        everyone: PermissionsLike = permissions.EVERYONE_DEFAULT,
    ) -> Guild:
        """A server with the bot in it; a connected bot receives GUILD_CREATE."""
        guild = self.world.make_guild(
            name,
            locale=locale,
            member_count=member_count,
            bot_permissions=bot_permissions,
            everyone=everyone,
        )
        guild.peer = self
        self.gateway.guild_create(guild)
        return guild

    def remove_guild(self, guild: Guild, *, unavailable: bool = False) -> None:
        """The bot is thrown out, or with `unavailable` the guild suffers an outage."""
        data: dict[str, Any] = {"id": str(guild.id)}
        if unavailable:
            guild.unavailable = data["unavailable"] = True
        else:
            del self.world.guilds[guild.id]
            for channel in guild.channels.values():
                self.world.channels.pop(channel.id, None)
        self.gateway.dispatch("GUILD_DELETE", data, guild.id, GUILDS)
        self.changed()

    def restore_guild(self, guild: Guild) -> None:
        """End a guild's outage."""
        guild.unavailable = False
        self.gateway.guild_create(guild)

    def channel_added(self, channel: Channel) -> None:
        self.world.channels[channel.id] = channel
        self.gateway.channel_event("CHANNEL_CREATE", channel)
        self.changed()

    def role_added(self, guild: Guild, role: Role) -> None:
        data = {"guild_id": str(guild.id), "role": payloads.role(role)}
        self.gateway.dispatch("GUILD_ROLE_CREATE", data, guild.id, GUILDS)

    def member_added(self, guild: Guild, member: Member) -> None:
        self.world.users[member.user.id] = member.user

    def add_thread(self, thread: Channel) -> None:
        assert thread.guild is not None
        thread.guild.channels[thread.id] = thread
        self.world.channels[thread.id] = thread
        data = {**payloads.channel(thread), "newly_created": True}
        self.gateway.dispatch("THREAD_CREATE", data, thread.guild.id, GUILDS)
        self.changed()

    def delete_channel(self, channel: Channel) -> None:
        """Remove a channel with its threads; the bot receives CHANNEL_DELETE or THREAD_DELETE."""
        guild = channel.guild
        assert guild is not None
        for thread in [item for item in guild.channels.values() if item.parent is channel]:
            self._forget_channel(thread)
        self._forget_channel(channel)
        event = "THREAD_DELETE" if channel.is_thread else "CHANNEL_DELETE"
        self.gateway.channel_event(event, channel)
        self.changed()

    def _forget_channel(self, channel: Channel) -> None:
        assert channel.guild is not None
        channel.guild.channels.pop(channel.id, None)
        self.world.channels.pop(channel.id, None)
        for message in channel.messages:
            message.deleted = True

    def rename_channel(self, channel: Channel, name: str) -> None:
        channel.name = name
        self.gateway.channel_event("CHANNEL_UPDATE", channel)

    def set_bot_permissions(
        self, channel: Channel, *, allow: PermissionsLike = (), deny: PermissionsLike = ()
    ) -> None:
        """Overwrite the bot's permissions in one channel; without names, lift the overwrite."""
        found = (permissions.bits(allow), permissions.bits(deny))
        if any(found):
            channel.overwrites[self.world.bot.id] = found
        else:
            channel.overwrites.pop(self.world.bot.id, None)
        self.gateway.channel_event("CHANNEL_UPDATE", channel)
        self.changed()

    def create_webhook(self, channel: Channel, name: str = "hook") -> Webhook:
        """A channel webhook made by a person; its `url` points here."""
        hook = self.world.make_webhook(channel, name)
        hook.url = f"{self.api_url}/webhooks/{hook.id}/{hook.token}"
        return hook

    def say(self, channel: Channel, user: User, content: str) -> StoredMessage:
        """A person writes in a channel."""
        message = StoredMessage(snowflake(), channel, user, content=content)
        self.message_store.store(message)
        return message

    def delete_message(self, message: StoredMessage) -> None:
        """Somebody deletes a message."""
        self.message_store.delete(message)

    def forget_nonces(self) -> None:
        """As if the few minutes had passed in which Discord knows a nonce again."""
        self.message_store.forget_nonces()

    def limit_old_edits(self, allowed: int | None = 0, *, older_than_s: float = 3600.0) -> None:
        """Answer 30046 after so many edits to messages of that age; None lifts it."""
        self.message_store.limit_old_edits(allowed, older_than_s)

    # Trouble

    def fail(
        self,
        method: str,
        path_regex: str,
        *,
        status: int = 500,
        times: int | None = None,
        body: dict[str, Any] | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Fault:
        """Answer matching requests with an error; `times=None` until `clear()`."""
        more = {"status": status, "body": body, "headers": headers or {}}
        return self.faults.add(FaultKind.STATUS, method, path_regex, times, **more)

    def hang(self, method: str, path_regex: str, *, times: int | None = None) -> Fault:
        """Leave matching requests without an answer until the fault is cleared."""
        return self.faults.add(FaultKind.HANG, method, path_regex, times)

    def reset(self, method: str, path_regex: str, *, times: int | None = None) -> Fault:
        """Reset the connection of matching requests before anything is done."""
        return self.faults.add(FaultKind.RESET, method, path_regex, times)

    def lose_answer(self, method: str, path_regex: str, *, times: int | None = None) -> Fault:
        """Do what is asked, then reset the connection instead of answering."""
        return self.faults.add(FaultKind.LOST_ANSWER, method, path_regex, times)

    def slow(
        self, method: str, path_regex: str, delay_s: float, *, times: int | None = None
    ) -> Fault:
        """Take a while before doing what is asked."""
        return self.faults.add(FaultKind.SLOW, method, path_regex, times, delay_s=delay_s)

    def clear_faults(self) -> None:
        self.faults.clear()

    async def gateway_down(self, *, drop: bool = True) -> None:
        """Refuse new websockets with 503; `drop=False` leaves those that are open."""
        self.gateway.up = False
        if drop:
            await self.gateway.drop(None, resumable=True)

    async def gateway_up(self) -> None:
        self.gateway.up = True

    async def drop_gateway(self, code: int | None = None, *, resumable: bool = True) -> None:
        """Close all websockets with a code, or cut them; without `resumable` forget sessions."""
        await self.gateway.drop(code, resumable=resumable)

    async def invalidate_sessions(self, *, resumable: bool = False) -> None:
        """Send op 9."""
        await self.gateway.invalidate(resumable=resumable)

    async def ask_to_reconnect(self) -> None:
        """Send op 7."""
        await self.gateway.ask_to_reconnect()

    def requests_to(self, method: str, path_part: str) -> Iterable[RequestRecord]:
        """The log's lines of one kind of request."""
        return [r for r in self.requests if r.method == method and path_part in r.path]
